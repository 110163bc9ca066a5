"""Rectified linear unit, y = max(x, 0). For backward y is kept: gx = gy where y > 0, else 0."""

import numpy as np

Array = np.ndarray


def relu_forward(x: Array) -> Array:
    """Return max(x, 0), of the shape of x. NaN stays NaN."""
    return np.maximum(x, 0)


def relu_backward(gy: Array, y: Array) -> Array:
    """Return gy where y > 0, else 0."""
    return gy * (y > 0)
