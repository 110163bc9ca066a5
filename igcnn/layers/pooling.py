"""Pooling on the tape (formula and arrays: kernels/pooling.py)."""

from __future__ import annotations

import numpy as np

from ..autograd import Function, Tensor
from ..kernels.pooling import (
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

    def __init__(self, kernel_size: int, stride: int, padding: int) -> None:
        self.geometry = kernel_size, stride, padding

    def forward(self, x: Array) -> Array:
        """Return (N, C, OH, OW)."""
        self.x_shape = x.shape
        y, argmax = max_pool_forward(x, *self.geometry)
        self.save(argmax)
        return y

    def backward(self, gy: Array) -> tuple[Array]:
        """Return gx."""
        (argmax,) = self.saved()
        return (max_pool_backward(gy, argmax, self.x_shape, *self.geometry),)


class AveragePoolFunction(Function):
    """The mean of each window: keeps nothing."""

    name = "average_pool"

    def __init__(self, kernel_size: int, stride: int, padding: int) -> None:
        self.geometry = kernel_size, stride, padding

    def forward(self, x: Array) -> Array:
        """Return (N, C, OH, OW)."""
        self.x_shape = x.shape
        return average_pool_forward(x, *self.geometry)

    def backward(self, gy: Array) -> tuple[Array]:
        """Return gx."""
        return (average_pool_backward(gy, self.x_shape, *self.geometry),)


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


def max_pool2d(x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0) -> Tensor:
    """Return the largest value of each window of x, (N, C, H, W).

    Args:
        x: images.
        kernel_size: side of the window.
        stride: step in pixels, kernel_size by default.
        padding: pixels around the image that never win, at most kernel_size/2.

    Returns:
        (N, C, OH, OW) with OH = ⌊(H + 2·padding − kernel_size)/stride⌋ + 1. Where several pixels
        are equal, the first in row order receives the gradient.

    Raises:
        ShapeError: the window does not fit.
    """
    return MaxPoolFunction(kernel_size, stride or kernel_size, padding)(x)


def avg_pool2d(x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0) -> Tensor:
    """Return the mean of each window of x; arguments, shape and errors as in max_pool2d.

    Padding counts as zeros: the divisor is always kernel_size².
    """
    return AveragePoolFunction(kernel_size, stride or kernel_size, padding)(x)


def global_avg_pool2d(x: Tensor) -> Tensor:
    """Return the mean over the pixels of x, (N, C, H, W), as (N, C).

    Raises:
        ShapeError: x is not (N, C, H, W).
    """
    return GlobalAveragePoolFunction()(x)


class MaxPool(Layer):
    """The largest value of each window.

    Args:
        kernel_size: side of the window.
        stride: step in pixels.
        padding: pixels around the image that never win.
    """

    def __init__(self, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, OH, OW)."""
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Geometry."""
        return f"{self.kernel_size}, stride={self.stride}, padding={self.padding}"


class GlobalAveragePool(Layer):
    """The mean of each channel of each image: (N, C, H, W) → (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C)."""
        return global_avg_pool2d(x)
