"""Sums, means and maxima over axes of a tensor; methods.py makes them its methods."""

from __future__ import annotations

import math

import numpy as np

from ..backend import empty
from ..errors import ShapeError
from .arithmetic import divide, operands
from .function import Function, Tensor
from .methods import OPERATORS, Axes
from .shapes import axes_of

Array = np.ndarray


class Sum(Function):
    """The sum over some axes, None for all."""

    name = "sum"

    def __init__(self, axes: tuple[int, ...] | None, keepdims: bool) -> None:
        self.axes = axes
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        """Return the sum."""
        y = x.sum(axis=self.axes, keepdims=True)
        self.shape, self.kept = x.shape, y.shape
        return y if self.keepdims else _without(y, self.axes)

    def backward(self, gy: Array) -> tuple[Array]:
        """gy at every element that it sums."""
        gx = empty(self.shape, gy.dtype, like=gy)
        gx[...] = gy.reshape(self.kept)
        return (gx,)


class Max(Function):
    """The largest element over some axes, None for all."""

    name = "max"

    def __init__(self, axes: tuple[int, ...] | None, keepdims: bool) -> None:
        self.axes = axes
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        """Return the maximum."""
        y = x.max(axis=self.axes, keepdims=True)
        self.save(x, y)
        return y if self.keepdims else _without(y, self.axes)

    def backward(self, gy: Array) -> tuple[Array]:
        """gy for the largest element; equal ones share it in equal parts."""
        x, y = self.saved()
        largest = (x == y).astype(x.dtype)
        count = largest.sum(axis=self.axes, keepdims=True)
        return (gy.reshape(y.shape) * largest / count,)


def total(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the sum over an axis, over several, or of all elements.

    Args:
        x: float32 or float64.
        axis: which, counted from the end if negative; None for all.
        keepdims: keep them with length 1.

    Raises:
        ShapeError: x has no such axis.
    """
    axes = axes_of("sum", axis, x.ndim)
    return Sum(axes, keepdims)(*operands("sum", x))


def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the mean; arguments and errors as of the sum."""
    axes = axes_of("mean", axis, x.ndim)
    return divide(total(x, axes, keepdims), math.prod(_lengths(x.shape, axes)))


def maximum(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the largest element; arguments and errors as of the sum.

    Equal elements share the gradient in equal parts.
    """
    axes = axes_of("max", axis, x.ndim)
    if 0 in _lengths(x.shape, axes):
        raise ShapeError(f"max: no elements along axis {axis} of shape {x.shape}")
    return Max(axes, keepdims)(*operands("max", x))


def _lengths(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the lengths of the axes that a sum goes over."""
    return shape if axes is None else tuple(shape[axis] for axis in axes)


def _without(y: Array, axes: tuple[int, ...] | None) -> Array:
    """Return y without the axes of length 1 that a sum left."""
    left = () if axes is None else tuple(n for i, n in enumerate(y.shape) if i not in axes)
    return y.reshape(left)


OPERATORS.update(
    sum=total,
    mean=mean,
    max=maximum,
)
