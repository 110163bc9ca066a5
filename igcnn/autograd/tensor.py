"""Tensor: an array, its gradient, and the record of the operation that made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import device_of, is_array, to_device, to_host
from ..errors import AutogradError, DtypeError, ShapeError

if TYPE_CHECKING:
    from .tape import Record

Array = np.ndarray


class Tensor:
    """An array on the tape.

    Args:
        data: an array of any device, kept as it is, not copied; numbers and lists become float32.
        requires_grad: whether backward computes a gradient for it.
        name: what errors and listings call it.

    Attributes:
        data: the array.
        grad: ∂loss/∂data, an array of the same shape, or None before backward. Gradients of
            several backward passes add up; `zero_grad` forgets them. Only tensors that no
            operation made (leaves) receive one.
        record: the operation that made it, None for a leaf.

    Raises:
        DtypeError: `requires_grad` for data that are not float32 or float64.
    """

    __slots__ = ("__weakref__", "data", "grad", "name", "record", "requires_grad")

    def __init__(self, data: Any, requires_grad: bool = False, name: str | None = None) -> None:
        if not is_array(data):
            scalar = isinstance(data, np.generic)
            data = np.asarray(data) if scalar else np.asarray(data, np.float32)
        self.data: Array = data
        if requires_grad and self.data.dtype not in (np.float32, np.float64):
            raise DtypeError(
                f"a gradient needs float32 or float64 data, not {self.data.dtype}; "
                "convert with astype"
            )
        self.requires_grad = requires_grad
        self.name = name
        self.grad: Array | None = None
        self.record: Record | None = None

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

    def item(self) -> float:
        """Return the only element as a number."""
        return self.data.item()

    @property
    def device(self) -> str:
        """Device of the data: "cpu", "emu" or "cuda:i"."""
        return device_of(self.data)

    def numpy(self) -> Array:
        """Return the array in host memory; itself if it is there."""
        return to_host(self.data)

    def detach(self) -> Tensor:
        """Return a tensor of the same array that the tape knows nothing of."""
        return Tensor(self.data, name=self.name)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def backward(self, gradient: Any = None) -> None:
        """Add ∂(Σ gradient·self)/∂leaf to `grad` of every leaf that this tensor depends on.

        The records that lead here are freed on the way, so this works once.

        Args:
            gradient: array of the shape of this tensor; 1 for a tensor of one element.

        Raises:
            AutogradError: nothing here requires a gradient, the gradient of a tensor of several
                elements is missing, the graph was freed by an earlier backward, or an array
                saved for backward was changed in place.
            ShapeError: `gradient` has another shape.
        """
        from .tape import Tape

        Tape.of(self).backward(gradient)

    def initial_gradient(self, gradient: Any) -> Array:
        """Return the array that backward starts from, checked."""
        if not self.requires_grad:
            raise AutogradError(
                "backward: this tensor requires no gradient; make an input of it with "
                "requires_grad=True, outside no_grad()"
            )
        if gradient is None:
            if self.size != 1:
                raise AutogradError(
                    f"backward: a tensor of shape {self.shape} is not one number; give "
                    "backward(gradient) an array of that shape"
                )
            return np.ones_like(self.data)
        array = gradient.data if isinstance(gradient, Tensor) else gradient
        if self.device == "cpu" or not is_array(array) or device_of(array) != self.device:
            array = to_device(np.asarray(array, self.dtype), self.device)
        if array.shape != self.shape:
            raise ShapeError(
                f"backward: gradient has shape {array.shape}, but the tensor {self.shape}; "
                "they must be equal"
            )
        return array

    def __repr__(self) -> str:
        made_by = f", by {self.record.function.name}" if self.record else ""
        grad = ", requires_grad" if self.requires_grad and not self.record else ""
        name = f"{self.name}: " if self.name else ""
        return f"Tensor({name}{self.data!r}{made_by}{grad})"

    def __len__(self) -> int:
        return len(self.data)

    def __add__(self, other: Any) -> Tensor:
        from . import operators

        return operators.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Tensor:
        from . import operators

        return operators.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        from . import operators

        return operators.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        from . import operators

        return operators.multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Tensor:
        from . import operators

        return operators.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        from . import operators

        return operators.divide(other, self)

    def __neg__(self) -> Tensor:
        return self * -1

    def __matmul__(self, other: Tensor) -> Tensor:
        from . import operators

        return operators.matmul(self, other)

    def sum(self) -> Tensor:
        """Return the sum of all elements, a 0-d tensor."""
        from . import operators

        return operators.total(self)

    def mean(self) -> Tensor:
        """Return the mean of all elements, a 0-d tensor."""
        return self.sum() / self.size

    def reshape(self, *shape: int) -> Tensor:
        """Return the same elements in row order with another shape."""
        from . import operators

        return operators.reshape(self, shape)
