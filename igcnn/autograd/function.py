"""The engine: tensors, functions of tensors, the record of what was applied, and backward.

    x = Tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    y.backward()
    x.grad  # [2, 4]

Every operation whose result requires a gradient leaves a record: the function, the tensors that
went in, the tensor that came out. A tensor refers to its record and a record to its inputs, so a
graph that nobody holds any more is freed at once. Backward reads the records off the graph, sorts
them by the order of their execution, and walks from the end.

Nothing here knows an operation: those of a tensor are in arithmetic.py, reductions.py and
shapes.py, all others in igcnn.layers.
"""

from __future__ import annotations

import copy
import itertools
import threading
import weakref
from typing import Any

import numpy as np

from ..errors import AutogradError
from ..kernels.checks import check_devices
from . import values
from .methods import Methods

Array = np.ndarray

_state = threading.local()  # of each thread: its hooks, and how many no_grad blocks it is in
_counter = itertools.count()
_adding = threading.Lock()  # threads may share a leaf


def is_grad_enabled() -> bool:
    """Return whether operations are recorded in this thread."""
    return not getattr(_state, "no_grad_blocks", 0)


class Tensor(Methods):
    """An array that remembers what made it.

    Args:
        data: an array of any device, kept as it is, not copied; numbers and lists become float32
            (values.py has the rule for element types).
        requires_grad: whether backward computes a gradient for it.
        name: what errors and listings call it.

    Attributes:
        data: the array.
        grad: ∂loss/∂data, an array of the same shape and type, or None before backward. Gradients
            of several backward passes add up; `zero_grad` forgets them. Only tensors that no
            operation made (leaves) receive one.
        record: the operation that made it, None for a leaf.

    Raises:
        DtypeError: the data are not real numbers, or with `requires_grad` not floating.
        ShapeError: a list whose rows have different lengths.
    """

    __slots__ = ("__weakref__", "_requires_grad", "data", "grad", "name", "record")

    def __init__(self, data: Any, requires_grad: bool = False, name: str | None = None) -> None:
        self.data: Array = values.as_array(data)
        self.grad: Array | None = None
        self.record: Record | None = None
        self.name = name
        self._requires_grad = False
        if requires_grad:
            self.requires_grad = True

    @property
    def requires_grad(self) -> bool:
        """Whether backward computes a gradient; set to False, it cuts a tensor off its record."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value:
            values.check_differentiable(self.data)
        else:
            self.record = None
        self._requires_grad = bool(value)

    def detach(self) -> Tensor:
        """Return a tensor of the same array without a record."""
        return Tensor(self.data, name=self.name)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def backward(self, gradient: Any = None, keep: bool = False) -> None:
        """Add ∂(Σ gradient·self)/∂leaf to `grad` of every leaf that this tensor depends on.

        Args:
            gradient: array of this tensor's shape and type; 1 for a tensor of one element.
            keep: keep the records for another backward; else each is freed when it is done.

        Raises:
            AutogradError: nothing here requires a gradient, `gradient` is missing, the graph was
                freed, an array was changed in place, or some backward returned something wrong.
            ShapeError, DtypeError: `gradient` has another shape or type.
        """
        if not self.requires_grad:
            raise AutogradError(
                "backward: this tensor requires no gradient; create an input with "
                "requires_grad=True, outside no_grad()"
            )
        array = gradient.data if isinstance(gradient, Tensor) else gradient
        _run_backward(self, values.first_gradient(array, self.data), keep)


class Function:
    """A differentiable operation: write forward and backward on arrays, call it on tensors.

        class Square(Function):
            name = "square"

            def forward(self, x):
                self.save(x)
                return x * x

            def backward(self, gy):
                (x,) = self.saved()
                return (2 * x * gy,)

        y = Square()(x)

    Attributes:
        name: what listings and errors call the operation.
        needs_gradient: for each input, whether backward has to compute its gradient; set
            before forward. backward may return None for the others.
    """

    name = "function"
    needs_gradient: tuple[bool, ...] = ()
    _recorded = False
    _saved: tuple[tuple[Array, int], ...] = ()

    def forward(self, *arrays: Any) -> Array:
        """Return the output array for the input arrays, which it leaves as they are."""
        raise NotImplementedError

    def backward(self, gy: Array) -> tuple[Array | None, ...]:
        """Return the gradient of each input, given gy, the gradient of the output (read only)."""
        raise NotImplementedError

    def save(self, *arrays: Array) -> None:
        """Keep arrays for backward; does nothing where no gradient is wanted."""
        if any(self.needs_gradient):
            self._saved = tuple([(array, values.fingerprint(array)) for array in arrays])

    def saved(self) -> tuple[Array, ...]:
        """Return the saved arrays.

        Raises:
            AutogradError: one of them was changed in place since, as its fingerprint tells.
        """
        for array, before in self._saved:
            if values.fingerprint(array) != before:
                raise AutogradError(
                    f"backward of {self.name}: an array of shape {array.shape} that it saved was "
                    "changed in place after forward; change a copy, or wait until after backward"
                )
        return tuple([array for array, _ in self._saved])

    def saved_bytes(self) -> int:
        """Return the size of the arrays kept for backward, in bytes."""
        return sum(array.nbytes for array, _ in self._saved)

    def free(self) -> None:
        """Forget the saved arrays."""
        self._saved = ()

    def __call__(self, *inputs: Any) -> Tensor:
        """Apply the operation to tensors (or arrays and numbers) and record it.

        Raises:
            DeviceError: the inputs are on different devices.
            AutogradError: forward returned something else than one array.
        """
        if self._recorded:  # what it saved belongs to that record, so another one is called
            function = copy.copy(self)
            function._recorded = False
            return function(*inputs)
        tensors = tuple([x if isinstance(x, Tensor) else Tensor(x) for x in inputs])
        arrays = [x.data for x in tensors]
        check_devices(self.name, *arrays)
        enabled, hooks = is_grad_enabled(), active_hooks()
        self.needs_gradient = tuple([enabled and x._requires_grad for x in tensors])
        for hook in hooks:
            hook.before_forward(self, tensors)
        array = self.forward(*arrays)
        if type(array) is not np.ndarray or array.dtype not in values.FLOATS:
            array = values.as_output(self.name, array, arrays)
        output = Tensor(array)
        if True in self.needs_gradient and array.dtype in values.FLOATS:
            self._recorded = output._requires_grad = True
            output.record = Record(self, tensors, output)
        for hook in reversed(hooks):
            hook.after_forward(self, tensors, output)
        return output


def active_hooks() -> tuple[Any, ...]:
    """Return the hooks (hooks.py) that are active in this thread, outermost first."""
    return getattr(_state, "hooks", ())


class Record:
    """One executed operation: its function, its inputs, its output, tensors of any shape.

    The output is held weakly: it holds the record.
    """

    __slots__ = ("_output", "freed", "function", "index", "inputs")

    def __init__(self, function: Function, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.function = function
        self.inputs = inputs
        self._output = weakref.ref(output)
        self.index = next(_counter)
        self.freed = False

    @property
    def output(self) -> Tensor | None:
        """The tensor that came out, None if nobody holds it any more."""
        return self._output()

    def free(self) -> None:
        """Let go of the inputs and of what the function saved."""
        self.inputs = ()
        self.function.free()
        self.freed = True


def records_of(output: Tensor) -> list[Record]:
    """Return the records that lead to a tensor, in the order of their execution.

    Raises:
        AutogradError: some were freed by an earlier backward.
    """
    found: dict[int, Record] = {}
    pending = [output.record]
    while pending:
        record = pending.pop()
        if record is None or record.index in found:
            continue
        if record.freed:
            raise AutogradError(
                "backward has already freed this graph; compute the result again, or call the "
                "first backward with keep=True"
            )
        found[record.index] = record
        pending.extend(x.record for x in record.inputs)
    return [found[index] for index in sorted(found)]


def _run_backward(output: Tensor, gy: Array, keep: bool) -> None:
    """Turn the gradient of the output into those of the leaves, last record first."""
    records, hooks = records_of(output), active_hooks()
    gradients: dict[Record, Array] = {}
    _add(gradients, output, gy)
    while records:
        record = records.pop()
        function, gy = record.function, values.read_only(gradients.pop(record))
        for hook in hooks:
            hook.before_backward(function, gy)
        try:
            returned = function.backward(gy)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise AutogradError(
                f"backward of {function.name} changes gy in place, but others read it too; "
                "write gx = 2 * gy instead of gy *= 2"
            ) from error
        inputs, needed = [x.data for x in record.inputs], function.needs_gradient
        input_gradients = values.check_gradients(function.name, returned, inputs, needed)
        for hook in reversed(hooks):
            hook.after_backward(function, gy, input_gradients)
        for x, gx, need in zip(record.inputs, input_gradients, needed, strict=True):
            if gx is not None and need and x._requires_grad:
                _add(gradients, x, gx)
        if not keep:
            record.free()


def _add(gradients: dict[Record, Array], x: Tensor, gx: Array) -> None:
    """Add to the gradient of x; never in place, as one array can be the gradient of several."""
    if x.record is not None:
        gradients[x.record] = values.plus(gradients[x.record], gx) if x.record in gradients else gx
        return
    with _adding:
        x.grad = gx.copy() if x.grad is None else values.plus(x.grad, gx)
