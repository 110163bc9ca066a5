"""What Python and NumPy ask of a tensor: arithmetic, indices, comparison, conversion, its picture.

The base of Tensor. Operations are looked up in OPERATORS, where arithmetic.py, reductions.py and
shapes.py, which import Tensor, put them. A comparison returns an array of truth values: it has no
gradient.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from ..backend import device_of, to_host
from ..errors import AutogradError, ShapeError

Array = np.ndarray
Axes = int | tuple[int, ...] | None

OPERATORS: dict[str, Callable[..., Any]] = {}  # by their names, which are those of NumPy
WIDTH = 90  # columns of the repr of a tensor
SHOWN = 40  # numbers that it shows at most without leaving some out
COMPARISONS = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}


class Methods:
    """The methods of a tensor; the modules that fill OPERATORS say shapes, types and errors."""

    __slots__ = ()

    data: Array
    name: str | None
    record: Any
    requires_grad: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the data."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        """Element type of the data."""
        return self.data.dtype

    @property
    def device(self) -> str:
        """Device of the data: "cpu", "emu" or "cuda:i"."""
        return device_of(self.data)

    def numpy(self) -> Array:
        """Return the array in host memory; itself if it is there."""
        return to_host(self.data)

    def item(self) -> Any:
        """Return the only element as a number.

        Raises:
            ShapeError: there is not just one.
        """
        if self.size != 1:
            raise ShapeError(f"a tensor of shape {self.shape} is not a single number")
        return self.data.item()

    def __add__(self, other: Any) -> Self:
        return OPERATORS["add"](self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Self:
        return OPERATORS["subtract"](self, other)

    def __rsub__(self, other: Any) -> Self:
        return OPERATORS["subtract"](other, self)

    def __mul__(self, other: Any) -> Self:
        return OPERATORS["multiply"](self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Self:
        return OPERATORS["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return OPERATORS["divide"](other, self)

    def __pow__(self, other: Any) -> Self:
        return OPERATORS["power"](self, other)

    def __rpow__(self, other: Any) -> Self:
        return OPERATORS["power"](other, self)

    def __matmul__(self, other: Any) -> Self:
        return OPERATORS["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return OPERATORS["matmul"](other, self)

    def __neg__(self) -> Self:
        return OPERATORS["negative"](self)

    def __getitem__(self, index: Any) -> Self:
        return OPERATORS["getitem"](self, index)

    def exp(self) -> Self:
        """Return eˣ, element by element."""
        return OPERATORS["exp"](self)

    def log(self) -> Self:
        """Return the logarithm to the base e, element by element."""
        return OPERATORS["log"](self)

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Self:
        """Return the sum over one axis, several, or all."""
        return OPERATORS["sum"](self, axis, keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Self:
        """Return the mean over one axis, several, or all."""
        return OPERATORS["mean"](self, axis, keepdims)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Self:
        """Return the largest element over one axis, several, or all."""
        return OPERATORS["max"](self, axis, keepdims)

    def reshape(self, *shape: Any) -> Self:
        """Return the same elements in row order with another shape: numbers, or one tuple."""
        return OPERATORS["reshape"](self, _unpacked(shape))

    def transpose(self, *axes: Any) -> Self:
        """Return the axes in another order: numbers, or one tuple; reversed if none are given."""
        reverse = not axes or (len(axes) == 1 and axes[0] is None)
        order = tuple(range(self.ndim))[::-1] if reverse else _unpacked(axes)
        return OPERATORS["transpose"](self, order)

    @property
    def T(self) -> Self:
        """The tensor with its axes reversed."""
        return self.transpose()

    def astype(self, dtype: Any) -> Self:
        """Return the same numbers as another element type."""
        return OPERATORS["astype"](self, dtype)

    def __eq__(self, other: Any) -> Any:
        return _compare(np.equal, self, other)

    def __ne__(self, other: Any) -> Any:
        return _compare(np.not_equal, self, other)

    def __lt__(self, other: Any) -> Any:
        return _compare(np.less, self, other)

    def __le__(self, other: Any) -> Any:
        return _compare(np.less_equal, self, other)

    def __gt__(self, other: Any) -> Any:
        return _compare(np.greater, self, other)

    def __ge__(self, other: Any) -> Any:
        return _compare(np.greater_equal, self, other)

    __hash__ = object.__hash__

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Self]:
        if not self.ndim:
            raise ShapeError("a tensor without axes has nothing to iterate over")
        return (self[i] for i in range(len(self)))

    def __contains__(self, item: Any) -> bool:
        return bool((self == item).any())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        facts = [f"shape={self.shape}", f"dtype={self.dtype}"]
        if self.name:
            facts.insert(0, self.name)
        if self.device != "cpu":
            facts.append(f"device={self.device}")
        if self.record:
            facts.append(f"by {self.record.function.name}")
        elif self.requires_grad:
            facts.append("requires_grad")
        head, values = ", ".join(facts), values_text(self.numpy())
        gap = " " if len(head) + len(values) < WIDTH and "\n" not in values else "\n"
        return f"Tensor({head},{gap}{values})"

    def __getstate__(self) -> Any:  # what copy, deepcopy and pickle ask for
        if self.record is not None:
            raise AutogradError(
                f"the result of {self.record.function.name} cannot be copied or pickled together "
                "with its graph; use x.detach()"
            )
        return super().__getstate__()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Take those of NumPy's functions that are operators here: np.exp(x), array · x."""
        if method == "__call__" and not options:
            if ufunc.__name__ in OPERATORS:
                return OPERATORS[ufunc.__name__](*inputs)
            if ufunc.__name__ in COMPARISONS:
                return _compare(ufunc, *inputs)
        return self.__array_function__(ufunc, (), (), {})

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        raise AutogradError(
            f"np.{function.__name__} does not support tensors; pass x.numpy(), or use the "
            "operators of tensors"
        )


def values_text(array: Array) -> str:
    """Return the values of an array in a few lines, the middle of long axes left out."""
    ends = next((n for axes, n in ((1, 6), (2, 3)) if array.ndim <= axes), 1)
    text = np.array2string(
        array, WIDTH, separator=", ", threshold=SHOWN, edgeitems=ends, precision=4
    )
    if array.ndim <= 2:
        return text
    return "\n".join(textwrap.wrap(" ".join(text.split()), WIDTH, break_on_hyphens=False))


def _unpacked(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the numbers of f(2, 3) and of f((2, 3)) alike."""
    packed = len(numbers) == 1 and isinstance(numbers[0], tuple | list)
    return tuple(numbers[0] if packed else numbers)


def _compare(ufunc: np.ufunc, a: Any, b: Any) -> Any:
    a, b = (x.data if isinstance(x, Methods) else x for x in (a, b))
    if a is None or b is None or isinstance(a, str) or isinstance(b, str):
        return NotImplemented
    try:
        return ufunc(a, b)
    except ValueError:
        shapes = f"{np.shape(a)} and {np.shape(b)}"
        raise ShapeError(f"{ufunc.__name__}: shapes {shapes} do not broadcast") from None
