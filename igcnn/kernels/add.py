"""Sum of two arrays of one shape: a residual unit's x + f(x).

    y = a + b
    ga = gb = gy

Nothing is kept for backward.
"""

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from ..errors import ShapeError
from .checks import check_arrays
from .launch import launch_each

Array = np.ndarray


def add_forward(a: Array, b: Array) -> Array:
    """Return a + b.

    Raises:
        ShapeError: the shapes differ; nothing is broadcast here.
        DtypeError: the arrays are not all float32 or all float64.
    """
    if a.shape != b.shape:
        raise ShapeError(f"add: shapes {a.shape} and {b.shape} differ; they must be equal")
    check_arrays("add", a, b)
    if not is_on_cpu(a):
        y = empty(a.shape, a.dtype, a)
        launch_add_forward(contiguous(a), contiguous(b), y)
        return y
    return a + b


def launch_add_forward(a: Array, b: Array, y: Array) -> None:
    """Write add_forward(a, b) into y, on their device."""
    launch_each("add", "add_forward", a.size, a=a, b=b, y=y, n=a.size)
