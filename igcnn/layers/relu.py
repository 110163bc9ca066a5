"""ReLU on the tape (formula and arrays: kernels/relu.py)."""

import numpy as np

from ..autograd import Function, Tensor
from ..kernels.relu import relu_backward, relu_forward
from .layer import Layer

Array = np.ndarray


class ReLUFunction(Function):
    """y = max(x, 0): keeps y."""

    name = "relu"

    def forward(self, x: Array) -> Array:
        """Return max(x, 0)."""
        y = relu_forward(x)
        self.save(y)
        return y

    def backward(self, gy: Array) -> tuple[Array]:
        """Return gy where y > 0."""
        (y,) = self.saved()
        return (relu_backward(gy, y),)


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0), of the shape of x; at 0 the gradient is 0.

    Args:
        x: of any shape, float32 or float64.

    Raises:
        DtypeError: x has another element type.
    """
    return ReLUFunction()(x)


class ReLU(Layer):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return max(x, 0), of the shape of x."""
        return relu(x)
