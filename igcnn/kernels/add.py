"""Sum of two arrays of one shape: a residual unit's x + f(x). Both gradients are gy itself."""

import numpy as np

from ..errors import ShapeError
from .checks import check_dtypes

Array = np.ndarray


def add_forward(a: Array, b: Array) -> Array:
    """Return a + b.

    Raises:
        ShapeError: the shapes differ; nothing is broadcast here.
        DtypeError: the element types differ.
    """
    if a.shape != b.shape:
        raise ShapeError(f"add: shapes {a.shape} and {b.shape} differ; they must be equal")
    check_dtypes("add", a, b)
    return a + b
