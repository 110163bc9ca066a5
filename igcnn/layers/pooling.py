"""Pooling on the tape (formula and arrays: kernels/pooling.py)."""

from __future__ import annotations

import numpy as np

from ..autograd import Function, Tensor
from ..kernels.geometry import as_text, window
from ..kernels.pooling import (
    Size,
    average_pool_backward,
    average_pool_forward,
    global_average_pool_backward,
    global_average_pool_forward,
    max_pool_backward,
    max_pool_forward,
)
from .layer import Layer

Array = np.ndarray


class MaxPoolFunction(Function):
    """The largest value of each window: keeps which one it was."""

    name = "max_pool"

    def __init__(self, kernel_size: Size, stride: Size, padding: Size | str) -> None:
        self.window = window("pooling", kernel_size, stride, padding)

    def forward(self, x: Array) -> Array:
        """Return (N, C, OH, OW)."""
        self.x_shape = x.shape
        y, argmax = max_pool_forward(x, *self.window)
        self.save(argmax)
        return y

    def backward(self, gy: Array) -> tuple[Array]:
        """Return gx."""
        (argmax,) = self.saved()
        return (max_pool_backward(gy, argmax, self.x_shape, *self.window),)


class AveragePoolFunction(Function):
    """The mean of each window: keeps nothing."""

    name = "average_pool"

    def __init__(
        self, kernel_size: Size, stride: Size, padding: Size | str, count_include_pad: bool
    ) -> None:
        self.window = *window("pooling", kernel_size, stride, padding), bool(count_include_pad)

    def forward(self, x: Array) -> Array:
        """Return (N, C, OH, OW)."""
        self.x_shape = x.shape
        return average_pool_forward(x, *self.window)

    def backward(self, gy: Array) -> tuple[Array]:
        """Return gx."""
        return (average_pool_backward(gy, self.x_shape, *self.window),)


class GlobalAveragePoolFunction(Function):
    """The mean of each channel of each image: keeps nothing."""

    name = "global_average_pool"

    def forward(self, x: Array) -> Array:
        """Return (N, C)."""
        self.x_shape = x.shape
        return global_average_pool_forward(x)

    def backward(self, gy: Array) -> tuple[Array]:
        """Return gx."""
        return (global_average_pool_backward(gy, self.x_shape),)


def max_pool2d(
    x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size | str = 0
) -> Tensor:
    """Return the largest value of each window of x.

    Args:
        x: images, (N, C, H, W), float32 or float64.
        kernel_size: sides of the window, one integer or two (vertical, horizontal).
        stride: step in pixels, likewise; kernel_size by default.
        padding: pixels around the image that never win, likewise, fewer than kernel_size; or
            "same", with stride 1 and an odd kernel_size.

    Returns:
        (N, C, OH, OW) with OH = ⌊(H + 2·padding − kernel_size)/stride⌋ + 1. Where several pixels
        are equal, the first in row order receives the gradient; of NaNs the first.

    Raises:
        ShapeError: the window does not fit, or one of the numbers is invalid.
        DtypeError: x has another element type.
    """
    stride = kernel_size if stride is None else stride
    return MaxPoolFunction(kernel_size, stride, padding)(x)


def avg_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size | str = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """Return the mean of each window of x.

    Args:
        x: images, (N, C, H, W), float32 or float64.
        kernel_size: sides of the window; see max_pool2d.
        stride: step in pixels; see max_pool2d.
        padding: zeros around the image; see max_pool2d.
        count_include_pad: the divisor is KH·KW always; else it is how many pixels of the image
            the window holds.

    Returns:
        (N, C, OH, OW), as in max_pool2d.

    Raises:
        ShapeError: the window does not fit, or one of the numbers is invalid.
        DtypeError: x has another element type.
    """
    stride = kernel_size if stride is None else stride
    return AveragePoolFunction(kernel_size, stride, padding, count_include_pad)(x)


def global_avg_pool2d(x: Tensor) -> Tensor:
    """Return the mean over the pixels of x, (N, C).

    Args:
        x: images, (N, C, H, W), float32 or float64.

    Raises:
        ShapeError: x is not (N, C, H, W) with pixels.
        DtypeError: x has another element type.
    """
    return GlobalAveragePoolFunction()(x)


class MaxPool(Layer):
    """The largest value of each window; arguments and errors as in max_pool2d.

    Args:
        kernel_size: sides of the window, one integer or two (vertical, horizontal).
        stride: step in pixels, likewise.
        padding: pixels around the image that never win, likewise.

    Raises:
        ShapeError: one of them is invalid.
    """

    def __init__(self, kernel_size: Size, stride: Size, padding: Size | str) -> None:
        super().__init__()
        self.window = window("pooling", kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, OH, OW)."""
        return max_pool2d(x, *self.window)

    def extra_repr(self) -> str:
        """Geometry."""
        kernel, stride, padding = map(as_text, self.window)
        return f"{kernel}, stride={stride}, padding={padding}"


class GlobalAveragePool(Layer):
    """The mean of each channel of each image: (N, C, H, W) → (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C)."""
        return global_avg_pool2d(x)
