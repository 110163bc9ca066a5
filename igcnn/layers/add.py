"""The sum of a residual unit on the tape (arrays: kernels/add.py)."""

import numpy as np

from ..autograd import Function, Tensor
from ..kernels.add import add_forward

Array = np.ndarray


class AddFunction(Function):
    """y = a + b for equal shapes: keeps nothing."""

    name = "add"

    def forward(self, a: Array, b: Array) -> Array:
        """Return the sum."""
        return add_forward(a, b)

    def backward(self, gy: Array) -> tuple[Array, Array]:
        """Return gy twice."""
        return gy, gy


def add(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b, of their common shape.

    Raises:
        ShapeError: the shapes differ; the operator a + b broadcasts, this does not.
        DtypeError: the element types differ.
    """
    return AddFunction()(a, b)
