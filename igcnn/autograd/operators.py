"""The arithmetic of tensors: + − · / ** @, exp and log, sums, shapes and indices.

Operands of one operation have one element type, float32 or float64; numbers and lists of numbers
take it from the other operand (values.py). Shapes broadcast as NumPy's do, and backward sums over
what was broadcast. methods.py makes them methods of Tensor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..backend import add_at, empty
from ..errors import DtypeError, ShapeError
from ..kernels.checks import check_dtypes
from .function import Function, Tensor
from .methods import OPERATORS, Axes
from .values import as_operand

Array = np.ndarray


class Add(Function):
    """y = a + b."""

    name = "add"

    def forward(self, a: Array, b: Array) -> Array:
        """Return the sum."""
        self.shapes = a.shape, b.shape
        return a + b

    def backward(self, gy: Array) -> tuple[Array, Array]:
        """gy for both, summed over broadcast axes."""
        return unbroadcast(gy, self.shapes[0]), unbroadcast(gy, self.shapes[1])


class Multiply(Function):
    """y = a · b, element by element."""

    name = "multiply"

    def forward(self, a: Array, b: Array) -> Array:
        """Return the product."""
        self.save(a, b)
        return a * b

    def backward(self, gy: Array) -> tuple[Array, Array]:
        """gy·b and gy·a."""
        a, b = self.saved()
        return unbroadcast(gy * b, a.shape), unbroadcast(gy * a, b.shape)


class Divide(Function):
    """y = a / b, element by element."""

    name = "divide"

    def forward(self, a: Array, b: Array) -> Array:
        """Return the quotient."""
        self.save(a, b)
        return a / b

    def backward(self, gy: Array) -> tuple[Array, Array]:
        """gy/b and −gy·a/b²."""
        a, b = self.saved()
        return unbroadcast(gy / b, a.shape), unbroadcast(-gy * a / (b * b), b.shape)


class Power(Function):
    """y = aᵇ, element by element."""

    name = "power"

    def forward(self, a: Array, b: Array) -> Array:
        """Return the power."""
        y = a**b
        self.save(a, b, y)
        return y

    def backward(self, gy: Array) -> tuple[Array | None, Array | None]:
        """gy·b·aᵇ⁻¹ and gy·aᵇ·log a; 0 where b = 0, and where a = 0 ≤ b, respectively."""
        a, b, y = self.saved()
        ga = gb = None
        if self.needs_gradient[0]:
            ga = unbroadcast(gy * b * a ** (b - 1 + (b == 0)), a.shape)
        if self.needs_gradient[1]:
            gb = unbroadcast(gy * y * np.log(a + ((a == 0) & (b >= 0))), b.shape)
        return ga, gb


class Exp(Function):
    """y = eˣ."""

    name = "exp"

    def forward(self, x: Array) -> Array:
        """Return the exponential."""
        y = np.exp(x)
        self.save(y)
        return y

    def backward(self, gy: Array) -> tuple[Array]:
        """gy·y."""
        (y,) = self.saved()
        return (gy * y,)


class Log(Function):
    """y = log x, to the base e."""

    name = "log"

    def forward(self, x: Array) -> Array:
        """Return the logarithm."""
        self.save(x)
        return np.log(x)

    def backward(self, gy: Array) -> tuple[Array]:
        """gy/x."""
        (x,) = self.saved()
        return (gy / x,)


class MatMul(Function):
    """y = a @ b, the product of matrices; stacks of them and vectors as in NumPy."""

    name = "matmul"

    def forward(self, a: Array, b: Array) -> Array:
        """Return the matrix product."""
        try:
            y = _rows(a) @ _columns(b)  # (…, I, K)
        except ValueError:
            raise ShapeError(
                f"matmul: the matrices must be (I, J) and (J, K), not {a.shape} and {b.shape}"
            ) from None
        self.save(a, b)
        self.product_shape = y.shape
        inner = y.shape[-2:][a.ndim == 1 : 1 if b.ndim == 1 else 2]  # without a vector's axis
        return y.reshape(y.shape[:-2] + inner)

    def backward(self, gy: Array) -> tuple[Array, Array]:
        """gy·bᵀ and aᵀ·gy."""
        a, b = self.saved()
        rows, columns, gy = _rows(a), _columns(b), gy.reshape(self.product_shape)
        ga = unbroadcast(gy @ columns.swapaxes(-1, -2), rows.shape)
        gb = unbroadcast(rows.swapaxes(-1, -2) @ gy, columns.shape)
        return ga.reshape(a.shape), gb.reshape(b.shape)


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


def add(a: Any, b: Any) -> Tensor:
    """Return a + b."""
    return Add()(*_operands("add", a, b))


def subtract(a: Any, b: Any) -> Tensor:
    """Return a − b."""
    a, b = _operands("subtract", a, b)
    return Add()(a, multiply(b, -1))


def multiply(a: Any, b: Any) -> Tensor:
    """Return a · b, element by element."""
    return Multiply()(*_operands("multiply", a, b))


def divide(a: Any, b: Any) -> Tensor:
    """Return a / b, element by element."""
    return Divide()(*_operands("divide", a, b))


def power(a: Any, b: Any) -> Tensor:
    """Return aᵇ, element by element; the gradient is 0 where b = 0, for b where a = 0 too."""
    return Power()(*_operands("power", a, b))


def negative(x: Tensor) -> Tensor:
    """Return −x."""
    return multiply(x, -1)


def matmul(a: Any, b: Any) -> Tensor:
    """Return the matrix product a · b of (…, I, J) and (…, J, K), or of vectors (J,)."""
    return MatMul()(*_operands("matmul", a, b))


def exp(x: Any) -> Tensor:
    """Return eˣ, element by element.

    Args:
        x: float32 or float64, of any shape; arrays and numbers become tensors.

    Raises:
        DtypeError: x has another element type.
    """
    return Exp()(*_operands("exp", x))


def log(x: Any) -> Tensor:
    """Return the logarithm of x to the base e, element by element; −∞ at 0, NaN below.

    Args:
        x: float32 or float64, of any shape; arrays and numbers become tensors.

    Raises:
        DtypeError: x has another element type.
    """
    return Log()(*_operands("log", x))


def total(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the sum over an axis, over several, or of all elements.

    Args:
        x: float32 or float64.
        axis: which, counted from the end if negative; None for all.
        keepdims: keep them with length 1.

    Raises:
        ShapeError: x has no such axis.
    """
    axes = _axes("sum", axis, x.ndim)
    return Sum(axes, keepdims)(*_operands("sum", x))


def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the mean; arguments and errors as of the sum."""
    axes = _axes("mean", axis, x.ndim)
    return divide(total(x, axes, keepdims), math.prod(_taken(x.shape, axes)))


def maximum(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the largest element; arguments and errors as of the sum.

    Equal elements share the gradient in equal parts.
    """
    axes = _axes("max", axis, x.ndim)
    if 0 in _taken(x.shape, axes):
        raise ShapeError(f"max: no elements along axis {axis} of shape {x.shape}")
    return Max(axes, keepdims)(*_operands("max", x))


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the elements of x in row order with another shape, of which one number may be −1."""
    return Reshape(shape)(x)


def transpose(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return x with its axes in another order: axis k is axis `axes[k]` of x."""
    order = _axes("transpose", axes, x.ndim)
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


def unbroadcast(gy: Array, shape: tuple[int, ...]) -> Array:
    """Sum gy over the axes that broadcasting `shape` had stretched or added."""
    if gy.shape == shape:
        return gy
    added = gy.ndim - len(shape)
    stretched = tuple(
        added + axis
        for axis, size in enumerate(shape)
        if size == 1 and gy.shape[added + axis] != 1
    )
    return gy.sum(axis=(*range(added), *stretched), keepdims=True).reshape(shape)


def _operands(name: str, *values: Any) -> tuple[Tensor, ...]:
    """Return all as tensors of one floating type whose shapes broadcast."""
    if not all([isinstance(value, Tensor) for value in values]):
        like = next((value.data for value in values if isinstance(value, Tensor)), None)
        values = tuple(v if isinstance(v, Tensor) else Tensor(as_operand(v, like)) for v in values)
    check_dtypes(name, *[x.data for x in values])
    if name != "matmul" and len({x.data.shape for x in values} - {()}) > 1:
        try:
            np.broadcast_shapes(*[x.shape for x in values])
        except ValueError:
            shapes = " and ".join(str(x.shape) for x in values)
            raise ShapeError(f"{name}: shapes {shapes} do not broadcast") from None
    return values


def _rows(a: Array) -> Array:
    return a[None, :] if a.ndim == 1 else a


def _columns(b: Array) -> Array:
    return b[:, None] if b.ndim == 1 else b


def _axes(name: str, axis: Axes, ndim: int) -> tuple[int, ...] | None:
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


def _taken(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the lengths of the axes that a sum goes over."""
    return shape if axes is None else tuple(shape[axis] for axis in axes)


def _without(y: Array, axes: tuple[int, ...] | None) -> Array:
    """Return y without the axes of length 1 that a sum left."""
    left = () if axes is None else tuple(n for i, n in enumerate(y.shape) if i not in axes)
    return y.reshape(left)


def _index_copy(item: Any) -> Any:
    """Return a part of an index that nobody else can change before backward."""
    if isinstance(item, Tensor):
        return item.data.copy()
    if isinstance(item, list):
        array = np.array(item)
        return array if array.size else array.astype(int)  # an empty list is read as floats
    return np.array(item) if isinstance(item, np.ndarray) else item


OPERATORS.update(
    add=add,
    subtract=subtract,
    multiply=multiply,
    divide=divide,
    power=power,
    negative=negative,
    matmul=matmul,
    exp=exp,
    log=log,
    sum=total,
    mean=mean,
    max=maximum,
    reshape=reshape,
    transpose=transpose,
    getitem=getitem,
    astype=astype,
)
