"""Mean cross-entropy of the softmax of logits z against labels t.

    loss = −1/N · Σ_n Σ_k q[n, k] · log softmax(z)[n, k]
    gz = (softmax(z) − q) / N

Without label smoothing q = onehot(t), and the loss of an image is log Σ_k exp z[n, k] − z[n, t_n].
Label smoothing by ε gives every class a share of the target (C. Szegedy et al., Rethinking the
Inception Architecture for Computer Vision, CVPR 2016, section 7, with u(k) = 1/K):

    q = (1 − ε) · onehot(t) + ε/K
    loss_n = log Σ_k exp z[n, k] − z[n, t_n] + ε·(z[n, t_n] − z̄_n)

z̄_n is the mean of the K logits. The largest logit of each row is subtracted first, so nothing
overflows. For backward the softmax is kept.
"""

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from ..errors import DtypeError, ShapeError
from . import compiled
from .arguments import Arguments
from .checks import check_arrays
from .lanes import LEAST_LANES, Fields, Lanes
from .launch import THREADS, launch, launch_each, launch_warps

Array = np.ndarray


def softmax_cross_entropy_forward(
    logits: Array, labels: Array, smoothing: float = 0.0
) -> tuple[Array, Array]:
    """Return (mean loss, a 0-d array; probabilities, (N, K)).

    Args:
        logits: (N, K).
        labels: integers from 0 to K − 1, (N,).
        smoothing: ε of label smoothing, from 0 to below 1.

    Raises:
        ShapeError: the shapes do not fit, N is 0, or a label is out of range.
        DtypeError: labels are no integers, or logits neither float32 nor float64.
    """
    check_arrays("cross_entropy", logits)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ShapeError(
            f"cross_entropy: logits must be (N, K) and labels, one class each, (N,) with N ≥ 1, "
            f"not {logits.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"cross_entropy: labels must be integers, not {labels.dtype}")
    N, K = logits.shape
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0:
        raise ShapeError(
            f"cross_entropy: labels must be from 0 to {K - 1}, not {smallest}; there is no "
            "ignored label: leave those images out"
        )
    if largest >= K:
        raise ShapeError(
            f"cross_entropy: labels run from {smallest} to {largest}, but logits have "
            f"{K} classes; build the network with num_classes = {largest + 1}"
        )
    if not is_on_cpu(logits):
        probabilities = empty((N, K), logits.dtype, logits)
        losses = empty((N,), logits.dtype, logits)
        loss = empty((), logits.dtype, logits)
        launch_softmax_cross_entropy_forward(
            contiguous(logits), labels.astype(np.int32), probabilities, losses, loss, smoothing
        )
        return loss, probabilities
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    own = shifted[np.arange(N), labels]
    losses = np.log(sums[:, 0]) - own
    if smoothing:
        losses += smoothing * (own - shifted.mean(axis=1))
    return losses.mean(keepdims=True).reshape(()), exponentials / sums


def softmax_cross_entropy_backward(
    gloss: Array, probabilities: Array, labels: Array, smoothing: float = 0.0
) -> Array:
    """Return the gradient of the logits, (N, K); arguments as for forward."""
    N, K = probabilities.shape
    if not is_on_cpu(probabilities):
        glogits = empty(probabilities.shape, probabilities.dtype, probabilities)
        launch_softmax_cross_entropy_backward(
            gloss, probabilities, labels.astype(np.int32), glogits, smoothing
        )
        return glogits
    glogits = probabilities.copy()
    glogits[np.arange(N), labels] -= 1 - smoothing
    glogits -= smoothing / K
    glogits *= gloss / N
    return glogits


def launch_softmax_cross_entropy_forward(
    logits: Array,
    labels: Array,
    probabilities: Array,
    losses: Array,
    loss: Array,
    smoothing: float,
) -> None:
    """Write probabilities, (N, K), the loss of each image, (N,), and their mean, on the device.

    labels are int32 and not checked.
    """
    stem = "softmax_cross_entropy"
    N, K = logits.shape
    arguments: Arguments = {"logits": logits, "labels": labels, "probabilities": probabilities}
    arguments |= {"losses": losses, "N": N, "K": K, "smoothing": smoothing}
    launch_warps(stem, "softmax_forward", N, **arguments)
    launch(stem, "mean_loss", 1, THREADS, losses=losses, loss=loss, N=N)


def launch_softmax_cross_entropy_backward(
    gloss: Array, probabilities: Array, labels: Array, glogits: Array, smoothing: float
) -> None:
    """Write softmax_cross_entropy_backward into glogits, on the device."""
    N, K = probabilities.shape
    arguments: Arguments = {"gloss": gloss, "probabilities": probabilities, "labels": labels}
    arguments |= {"glogits": glogits, "N": N, "K": K, "smoothing": smoothing}
    stem = "softmax_cross_entropy"
    launch_each(stem, f"{stem}_backward", N * K, **arguments)


def launch_record_result(losses: Array, right: Array, results: Array, state: Array) -> None:
    """Write mean loss and right answers of a batch into the next row of results, (slots, 2).

    state: uint32, as in augment.py; its position and its count of updates go on.
    """
    fields: Fields = {"losses": losses, "right": right, "results": results}
    fields |= {"state": state, "N": len(losses), "slots": len(results)}
    kernel = "softmax_cross_entropy", "record_result"
    if is_on_cpu(losses):
        compiled.launch(*kernel, 1, lanes=LEAST_LANES, dtype=str(losses.dtype), **fields)
    else:
        launch(*kernel, 1, THREADS, **fields)


def compiled_softmax_cross_entropy(
    lanes: Lanes,
    z: Array,
    labels: Array,
    gz: Array,
    losses: Array,
    right: Array,
    smoothing: float = 0.0,
) -> None:
    """Write the loss of each image, whether it is classified correctly, and gz = ∂mean/∂z."""
    fields: Fields = {"z": z, "labels": labels, "gz": gz, "losses": losses, "right": right}
    fields |= {"K": z.shape[1], "N": lanes.batch_size, "batch": lanes.batch()}
    fields |= {"smoothing": smoothing}
    module = "softmax_cross_entropy"
    lanes.launch(module, module, lanes.blocks, **fields)
