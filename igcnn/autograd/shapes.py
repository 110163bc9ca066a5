"""The same numbers of a tensor in another shape, order or element type, and some of them.

methods.py makes them methods of Tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..backend import add_at, empty
from ..errors import DtypeError, ShapeError
from .function import Function, Tensor
from .methods import OPERATORS, Axes

Array = np.ndarray


class Reshape(Function):
    """The same elements in row order with another shape."""

    name = "reshape"

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.new_shape = shape

    def forward(self, x: Array) -> Array:
        """Return x with the new shape."""
        self.shape = x.shape
        try:
            return x.reshape(self.new_shape)
        except (ValueError, TypeError):
            raise ShapeError(
                f"reshape: {x.size} elements of shape {x.shape} do not fit {self.new_shape}"
            ) from None

    def backward(self, gy: Array) -> tuple[Array]:
        """gy with the old shape."""
        return (gy.reshape(self.shape),)


class Transpose(Function):
    """The same elements with the axes in another order."""

    name = "transpose"

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, x: Array) -> Array:
        """Return a view of x; its axis k is axis `axes[k]` of x."""
        return x.transpose(self.axes)

    def backward(self, gy: Array) -> tuple[Array]:
        """gy with the axes in the old order."""
        order = sorted(range(gy.ndim), key=lambda axis: self.axes[axis])
        return (gy.transpose(order),)


class GetItem(Function):
    """y = x[index], with any index that NumPy takes."""

    name = "getitem"

    def __init__(self, index: tuple[Any, ...]) -> None:
        self.index = index

    def forward(self, x: Array) -> Array:
        """Return the chosen elements."""
        self.shape = x.shape
        return x[self.index]

    def backward(self, gy: Array) -> tuple[Array]:
        """gy where an element was chosen, added up where it was chosen more than once."""
        gx = empty(self.shape, gy.dtype, like=gy)
        gx[...] = 0
        add_at(gx, self.index, gy)
        return (gx,)


class Cast(Function):
    """The same numbers as another element type."""

    name = "astype"

    def __init__(self, dtype: np.dtype) -> None:
        self.new_dtype = dtype

    def forward(self, x: Array) -> Array:
        """Return x as the other type."""
        self.dtype = x.dtype
        return x.astype(self.new_dtype)

    def backward(self, gy: Array) -> tuple[Array]:
        """gy as the old type."""
        return (gy.astype(self.dtype),)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the elements of x in row order with another shape, of which one number may be −1."""
    return Reshape(shape)(x)


def transpose(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return x with its axes in another order: axis k is axis `axes[k]` of x."""
    order = axes_of("transpose", axes, x.ndim)
    if order is None or len(order) != x.ndim:
        raise ShapeError(f"transpose: {axes} are not the {x.ndim} axes of x")
    return Transpose(order)(x)


def getitem(x: Tensor, index: Any) -> Tensor:
    """Return x[index]: numbers, slices, ..., None, arrays of integers or truth values."""
    items = index if isinstance(index, tuple) else (index,)
    items = tuple(_index_copy(item) for item in items)
    # with an ellipsis NumPy returns an array, not a number, where one element is chosen
    return GetItem(items if any(item is ... for item in items) else (*items, ...))(x)


def astype(x: Tensor, dtype: Any) -> Tensor:
    """Return the same numbers as another element type.

    Gradients come back as the old one; integers and truth values have none.

    Raises:
        DtypeError: no tensor has such elements.
    """
    try:
        return Cast(np.dtype(dtype))(x)
    except TypeError as error:
        raise DtypeError(f"astype: {error}") from None


def axes_of(name: str, axis: Axes, ndim: int) -> tuple[int, ...] | None:
    """Return axes counted from 0, or None for all."""
    if axis is None:
        return None
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    try:
        if bool in map(type, axes):  # Python would count True as 1
            raise TypeError
        return normalize_axis_tuple(axes, ndim)
    except (ValueError, TypeError):
        raise ShapeError(f"{name}: axis {axis!r} of {ndim} axes: give one or several") from None


def _index_copy(item: Any) -> Any:
    """Return a part of an index that nobody else can change before backward."""
    if isinstance(item, Tensor):
        return item.data.copy()
    if isinstance(item, list):
        array = np.array(item)
        return array if array.size else array.astype(int)  # an empty list is read as floats
    return np.array(item) if isinstance(item, np.ndarray) else item


OPERATORS.update(
    reshape=reshape,
    transpose=transpose,
    getitem=getitem,
    astype=astype,
)
