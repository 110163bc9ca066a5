"""Function: one differentiable operation, forward and backward on arrays.

To define one, write forward and backward on arrays and call an instance on tensors:

    class Square(Function):
        name = "square"

        def forward(self, x):
            self.save(x)
            return x * x

        def backward(self, gy):
            (x,) = self.saved()
            return (2 * x * gy,)

    y = Square()(x)
"""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from typing import Any

import numpy as np

from ..errors import AutogradError
from .hooks import active_hooks
from .tape import Record
from .tensor import Tensor

Array = np.ndarray

EXACT_ELEMENTS = 1024
SAMPLED_ELEMENTS = 256

_state = threading.local()


def is_grad_enabled() -> bool:
    """Return whether operations are recorded on the tape in this thread."""
    return getattr(_state, "enabled", True)


class no_grad(ContextDecorator):
    """Context (or decorator) in which nothing is recorded and nothing kept for backward."""

    def __enter__(self) -> None:
        self._before = is_grad_enabled()
        _state.enabled = False

    def __exit__(self, *exception: object) -> None:
        _state.enabled = self._before


class Function:
    """One application of a differentiable operation.

    Attributes:
        name: what listings and errors call the operation.
        needs_gradient: for each input, whether backward has to compute its gradient; set
            before forward. backward may return None for the others.
    """

    name = "function"
    needs_gradient: tuple[bool, ...] = ()
    _saved: tuple[Array, ...] = ()
    _fingerprints: tuple[bytes, ...] = ()

    def forward(self, *arrays: Any) -> Array:
        """Return the output array for the input arrays."""
        raise NotImplementedError

    def backward(self, gy: Array) -> tuple[Array | None, ...]:
        """Return the gradient of each input, given gy, the gradient of the output."""
        raise NotImplementedError

    def save(self, *arrays: Array) -> None:
        """Keep arrays for backward; does nothing where no gradient is wanted."""
        if any(self.needs_gradient):
            self._saved = arrays
            self._fingerprints = tuple(_fingerprint(array) for array in arrays)

    def saved(self) -> tuple[Array, ...]:
        """Return the saved arrays.

        Raises:
            AutogradError: one of them was changed in place since. Arrays of up to 1,024
                elements are compared whole, larger ones at 256 evenly spaced elements, those
                in a GPU's memory not at all.
        """
        for array, fingerprint in zip(self._saved, self._fingerprints, strict=True):
            if _fingerprint(array) != fingerprint:
                raise AutogradError(
                    f"backward of {self.name}: an array of shape {array.shape} that it saved was "
                    "changed in place after forward; change a copy, or after backward"
                )
        return self._saved

    def saved_bytes(self) -> int:
        """Return the size of the arrays kept for backward, in bytes."""
        return sum(array.nbytes for array in self._saved)

    def free(self) -> None:
        """Forget the saved arrays."""
        self._saved = ()
        self._fingerprints = ()

    def __call__(self, *inputs: Any) -> Tensor:
        """Apply the operation to tensors (or arrays and numbers) and record it."""
        tensors = tuple(x if isinstance(x, Tensor) else Tensor(x) for x in inputs)
        enabled = is_grad_enabled()
        self.needs_gradient = tuple(enabled and x.requires_grad for x in tensors)
        hooks = active_hooks()
        for hook in hooks:
            hook.before_forward(self, tensors)
        output = Tensor(self.forward(*(x.data for x in tensors)))
        if any(self.needs_gradient):
            output.requires_grad = True
            output.record = Record(self, tensors, output)
        for hook in reversed(hooks):
            hook.after_forward(self, tensors, output)
        return output


def _fingerprint(array: Array) -> bytes:
    if not isinstance(array, np.ndarray):  # to look would be to wait for the GPU
        return b""
    flat = array.ravel(order="K")
    if flat.size > EXACT_ELEMENTS:
        flat = flat[:: flat.size // SAMPLED_ELEMENTS]
    return flat.tobytes()
