"""ReLU6 (Howard et al., 2017, MobileNets; used by IGCV3 and MobileNetV2).

    y = min(max(x, 0), 6)
    gx = gy · [0 < y < 6]

For backward y is kept; the bracket is 1 where it holds, else 0.
"""

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from .checks import check_arrays
from .launch import launch_each

Array = np.ndarray


def relu6_forward(x: Array) -> Array:
    """Return min(max(x, 0), 6), of the shape of x. NaN stays NaN.

    Raises:
        DtypeError: x is neither float32 nor float64.
    """
    check_arrays("relu6", x)
    if not is_on_cpu(x):
        y = empty(x.shape, x.dtype, x)
        launch_relu6_forward(contiguous(x), y)
        return y
    return np.clip(x, 0, 6)


def relu6_backward(gy: Array, y: Array) -> Array:
    """Return gy where 0 < y < 6, else 0."""
    if not is_on_cpu(gy):
        gx = empty(y.shape, y.dtype, y)
        launch_relu6_backward(contiguous(gy), contiguous(y), gx)
        return gx
    return gy * ((y > 0) & (y < 6))


def launch_relu6_forward(x: Array, y: Array) -> None:
    """Write relu6_forward(x) into y, on their device."""
    launch_each("relu6", "relu6_forward", x.size, x=x, y=y, n=x.size)


def launch_relu6_backward(gy: Array, y: Array, gx: Array) -> None:
    """Write relu6_backward(gy, y) into gx, on their device."""
    launch_each("relu6", "relu6_backward", y.size, gy=gy, y=y, gx=gx, n=y.size)
