"""Rectified linear unit.

    y = max(x, 0)
    gx = gy · [y > 0]

For backward y is kept; [y > 0] is 1 where it holds, else 0.
"""

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from .checks import check_arrays
from .launch import launch_each

Array = np.ndarray


def relu_forward(x: Array) -> Array:
    """Return max(x, 0), of the shape of x. NaN stays NaN.

    Raises:
        DtypeError: x is neither float32 nor float64.
    """
    check_arrays("relu", x)
    if not is_on_cpu(x):
        y = empty(x.shape, x.dtype, x)
        launch_relu_forward(contiguous(x), y)
        return y
    return np.maximum(x, 0)


def relu_backward(gy: Array, y: Array) -> Array:
    """Return gy where y > 0, else 0."""
    if not is_on_cpu(gy):
        gx = empty(y.shape, y.dtype, y)
        launch_relu_backward(contiguous(gy), contiguous(y), gx)
        return gx
    return gy * (y > 0)


def launch_relu_forward(x: Array, y: Array) -> None:
    """Write relu_forward(x) into y, on their device."""
    launch_each("relu", "relu_forward", x.size, x=x, y=y, n=x.size)


def launch_relu_backward(gy: Array, y: Array, gx: Array) -> None:
    """Write relu_backward(gy, y) into gx, on their device."""
    launch_each("relu", "relu_backward", y.size, gy=gy, y=y, gx=gx, n=y.size)
