"""The arithmetic of tensors: + − · / @, sum and reshape, with broadcasting undone in backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DtypeError, ShapeError
from .function import Function
from .tensor import Tensor

Array = np.ndarray


class Add(Function):
    """y = a + b, broadcasting."""

    name = "add"

    def forward(self, a: Array, b: Array) -> Array:
        """Return the sum."""
        self.shapes = a.shape, b.shape
        return a + b

    def backward(self, gy: Array) -> tuple[Array, Array]:
        """gy for both, summed over broadcast axes."""
        return unbroadcast(gy, self.shapes[0]), unbroadcast(gy, self.shapes[1])


class Multiply(Function):
    """y = a · b, element by element, broadcasting."""

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
    """y = a / b, element by element, broadcasting."""

    name = "divide"

    def forward(self, a: Array, b: Array) -> Array:
        """Return the quotient."""
        self.save(a, b)
        return a / b

    def backward(self, gy: Array) -> tuple[Array, Array]:
        """gy/b and −gy·a/b²."""
        a, b = self.saved()
        return unbroadcast(gy / b, a.shape), unbroadcast(-gy * a / (b * b), b.shape)


class MatMul(Function):
    """y = a @ b for two matrices."""

    name = "matmul"

    def forward(self, a: Array, b: Array) -> Array:
        """Return the matrix product."""
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
            raise ShapeError(
                f"matmul: the matrices must be (I, J) and (J, K), not {a.shape} and {b.shape}"
            )
        self.save(a, b)
        return a @ b

    def backward(self, gy: Array) -> tuple[Array, Array]:
        """gy·bᵀ and aᵀ·gy."""
        a, b = self.saved()
        return gy @ b.T, a.T @ gy


class Sum(Function):
    """The sum of all elements."""

    name = "sum"

    def forward(self, x: Array) -> Array:
        """Return a 0-d array."""
        self.shape = x.shape
        return x.sum(keepdims=True).reshape(())

    def backward(self, gy: Array) -> tuple[Array]:
        """gy at every element."""
        return (np.broadcast_to(gy, self.shape),)


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
        except ValueError:
            raise ShapeError(
                f"reshape: {x.size} elements of shape {x.shape} do not fit {self.new_shape}"
            ) from None

    def backward(self, gy: Array) -> tuple[Array]:
        """gy with the old shape."""
        return (gy.reshape(self.shape),)


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


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product a · b of (I, J) and (J, K)."""
    return MatMul()(*_operands("matmul", a, b))


def total(x: Tensor) -> Tensor:
    """Return the sum of all elements, a 0-d tensor."""
    return Sum()(x)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the elements of x in row order with another shape."""
    return Reshape(shape)(x)


def unbroadcast(gy: Array, shape: tuple[int, ...]) -> Array:
    """Sum gy over the axes that broadcasting `shape` had stretched or added."""
    if gy.shape == shape:
        return gy
    added = gy.ndim - len(shape)
    stretched = tuple(
        added + axis for axis, size in enumerate(shape) if size == 1 and gy.shape[added + axis] > 1
    )
    return gy.sum(axis=(*range(added), *stretched), keepdims=True).reshape(shape)


def _operands(name: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Return both as tensors of one element type; a plain number takes that of the other."""
    if not isinstance(a, Tensor):
        a = Tensor(np.asarray(a, b.dtype))
    if not isinstance(b, Tensor):
        b = Tensor(np.asarray(b, a.dtype))
    if a.dtype != b.dtype:
        raise DtypeError(f"{name}: {a.dtype} and {b.dtype} do not mix; convert with astype")
    try:
        np.broadcast_shapes(a.shape, b.shape) if name != "matmul" else None
    except ValueError:
        raise ShapeError(f"{name}: shapes {a.shape} and {b.shape} do not broadcast") from None
    return a, b
