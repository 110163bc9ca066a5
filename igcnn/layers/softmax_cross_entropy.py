"""Softmax cross-entropy on the tape (formula and arrays: kernels/softmax_cross_entropy.py)."""

import numpy as np

from ..autograd import Function, Tensor
from ..backend import device_of, is_array, to_device
from ..errors import ConfigError, ShapeError
from ..kernels.softmax_cross_entropy import (
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)

Array = np.ndarray


class SoftmaxCrossEntropyFunction(Function):
    """The mean cross-entropy of a batch: keeps the probabilities and a copy of the labels."""

    name = "softmax_cross_entropy"

    def __init__(self, labels: Array, smoothing: float = 0.0) -> None:
        self.labels = labels
        self.smoothing = smoothing

    def forward(self, logits: Array) -> Array:
        """Return the mean loss, a 0-d array."""
        loss, probabilities = softmax_cross_entropy_forward(logits, self.labels, self.smoothing)
        self.save(probabilities, self.labels.copy())
        return loss

    def backward(self, gy: Array) -> tuple[Array]:
        """Return the gradient of the logits."""
        probabilities, labels = self.saved()
        return (softmax_cross_entropy_backward(gy, probabilities, labels, self.smoothing),)


def cross_entropy(logits: Tensor, labels: Array | Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean over the batch of −log softmax(logits)[label], a 0-d tensor.

    Args:
        logits: (N, K), float32 or float64.
        labels: integers of any width from 0 to K − 1, (N,); no label is ignored.
        label_smoothing: share of the target that all K classes have alike, from 0 to below 1.

    Raises:
        ConfigError: label_smoothing is out of range.
        ShapeError: the shapes do not fit, N is 0, or a label is out of range.
        DtypeError: the labels are no integers, or the logits have another element type.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(
            f"cross_entropy: label_smoothing must be from 0 to below 1, not {label_smoothing}"
        )
    array = labels.data if isinstance(labels, Tensor) else labels
    if not is_array(array) or device_of(array) != logits.device:
        try:
            array = to_device(np.asarray(array), logits.device)
        except ValueError:
            raise ShapeError(
                "cross_entropy: labels must be (N,), not rows of several lengths"
            ) from None
    return SoftmaxCrossEntropyFunction(array, label_smoothing)(logits)
