"""ReLU6 on the tape (formula and arrays: kernels/relu6.py)."""

import numpy as np

from ..autograd import Function, Tensor
from ..kernels.relu6 import relu6_backward, relu6_forward
from .layer import Layer

Array = np.ndarray


class ReLU6Function(Function):
    """y = min(max(x, 0), 6): keeps y."""

    name = "relu6"

    def forward(self, x: Array) -> Array:
        """Return min(max(x, 0), 6)."""
        y = relu6_forward(x)
        self.save(y)
        return y

    def backward(self, gy: Array) -> tuple[Array]:
        """Return gy where 0 < y < 6."""
        (y,) = self.saved()
        return (relu6_backward(gy, y),)


def relu6(x: Tensor) -> Tensor:
    """Return min(max(x, 0), 6), of the shape of x; at 0 and 6 the gradient is 0.

    Args:
        x: of any shape, float32 or float64.

    Raises:
        DtypeError: x has another element type.
    """
    return ReLU6Function()(x)


class ReLU6(Layer):
    """min(max(x, 0), 6)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return min(max(x, 0), 6), of the shape of x."""
        return relu6(x)
