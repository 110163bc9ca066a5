"""Channel permutation on the tape (formula and arrays: kernels/permutation.py)."""

import numpy as np

from ..autograd import Function, Tensor
from ..kernels.permutation import permutation_backward, permutation_forward

Array = np.ndarray


class PermutationFunction(Function):
    """y = Reorder(branches) of x: keeps nothing."""

    name = "permutation"

    def __init__(self, branches: int) -> None:
        self.branches = branches

    def forward(self, x: Array) -> Array:
        """Return the permuted channels."""
        return permutation_forward(x, self.branches)

    def backward(self, gy: Array) -> tuple[Array]:
        """Return the channels put back."""
        return (permutation_backward(gy, self.branches),)


def permute_channels(x: Tensor, branches: int) -> Tensor:
    """Return Reorder(branches) of x: y[n, c] = x[n, (c mod b)·C/b + c div b].

    Args:
        x: (N, C, H, W), float32 or float64.
        branches: b, a divisor of C. Reorder(1) and Reorder(C) change nothing, and Reorder(C/b)
            is the inverse.

    Raises:
        ShapeError: x has not four axes, or b is not an integer that divides C.
        DtypeError: x has another element type.
    """
    return PermutationFunction(branches)(x)
