"""Mean cross-entropy of the softmax of logits z against labels t.

    loss = 1/N · Σ_n ( log Σ_k exp z[n, k] − z[n, t_n] )      gz = (softmax(z) − onehot(t)) / N

The largest logit of each row is subtracted first, so nothing overflows. For backward the
softmax is kept.
"""

import numpy as np

from ..errors import DtypeError, ShapeError

Array = np.ndarray


def softmax_cross_entropy_forward(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return (mean loss, a 0-d array; probabilities, (N, K)).

    Args:
        logits: (N, K).
        labels: integers from 0 to K − 1, (N,).

    Raises:
        ShapeError: the shapes do not fit, N is 0, or a label is out of range.
        DtypeError: labels are no integers.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ShapeError(
            f"cross_entropy: logits must be (N, K) and labels (N,) with N ≥ 1, not {logits.shape} "
            f"and {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"cross_entropy: labels must be integers, not {labels.dtype}")
    N, K = logits.shape
    if labels.min() < 0 or labels.max() >= K:
        raise ShapeError(
            f"cross_entropy: labels run from {labels.min()} to {labels.max()}, but logits have "
            f"{K} classes; build the network with num_classes = {labels.max() + 1}"
        )
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    losses = np.log(sums[:, 0]) - shifted[np.arange(N), labels]
    return losses.mean(keepdims=True).reshape(()), exponentials / sums


def softmax_cross_entropy_backward(gloss: Array, probabilities: Array, labels: Array) -> Array:
    """Return the gradient of the logits, (N, K)."""
    N = len(labels)
    glogits = probabilities.copy()
    glogits[np.arange(N), labels] -= 1
    glogits *= gloss / N
    return glogits
