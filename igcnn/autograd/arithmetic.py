"""The arithmetic of tensors: + − · / ** @, exp and log.

Operands of one operation have one element type, float32 or float64; numbers and lists of numbers
take it from the other operand (values.py). Shapes broadcast as NumPy's do, and backward sums over
what was broadcast. methods.py makes them methods of Tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError
from ..kernels.checks import check_dtypes
from .function import Function, Tensor
from .methods import OPERATORS
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


def add(a: Any, b: Any) -> Tensor:
    """Return a + b."""
    return Add()(*operands("add", a, b))


def subtract(a: Any, b: Any) -> Tensor:
    """Return a − b."""
    a, b = operands("subtract", a, b)
    return Add()(a, multiply(b, -1))


def multiply(a: Any, b: Any) -> Tensor:
    """Return a · b, element by element."""
    return Multiply()(*operands("multiply", a, b))


def divide(a: Any, b: Any) -> Tensor:
    """Return a / b, element by element."""
    return Divide()(*operands("divide", a, b))


def power(a: Any, b: Any) -> Tensor:
    """Return aᵇ, element by element; the gradient is 0 where b = 0, for b where a = 0 too."""
    return Power()(*operands("power", a, b))


def negative(x: Tensor) -> Tensor:
    """Return −x."""
    return multiply(x, -1)


def matmul(a: Any, b: Any) -> Tensor:
    """Return the matrix product a · b of (…, I, J) and (…, J, K), or of vectors (J,)."""
    return MatMul()(*operands("matmul", a, b))


def exp(x: Any) -> Tensor:
    """Return eˣ, element by element.

    Args:
        x: float32 or float64, of any shape; arrays and numbers become tensors.

    Raises:
        DtypeError: x has another element type.
    """
    return Exp()(*operands("exp", x))


def log(x: Any) -> Tensor:
    """Return the logarithm of x to the base e, element by element; −∞ at 0, NaN below.

    Args:
        x: float32 or float64, of any shape; arrays and numbers become tensors.

    Raises:
        DtypeError: x has another element type.
    """
    return Log()(*operands("log", x))


def operands(name: str, *values: Any) -> tuple[Tensor, ...]:
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


def _rows(a: Array) -> Array:
    return a[None, :] if a.ndim == 1 else a


def _columns(b: Array) -> Array:
    return b[:, None] if b.ndim == 1 else b


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
)
