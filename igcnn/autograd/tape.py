"""Tape: the records of the operations that led to a tensor, in the order they were executed.

Every operation whose result requires a gradient leaves a record: the function, the tensors that
went in, the tensor that came out. A tensor refers to its record and a record to its inputs, so a
graph that nobody holds any more is freed at once; the tape is read off it when it is asked for.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import AutogradError
from .hooks import active_hooks

if TYPE_CHECKING:
    from .function import Function
    from .tensor import Tensor

Array = np.ndarray

_counter = itertools.count()

FREED = (
    "backward ran through this graph already and freed what it needs; compute the result again, "
    "or use Tape.of(loss).backward(keep=True) the first time"
)


class Record:
    """One executed operation: its function, its input tensors, its output tensor.

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

    def __repr__(self) -> str:
        inputs = ", ".join(x.name or str(x.shape) for x in self.inputs)
        shape = "freed" if self.output is None else self.output.shape
        return f"{self.function.name}({inputs}) -> {shape}"


class Tape:
    """The records that lead to one tensor, oldest first."""

    def __init__(self, output: Tensor, records: list[Record]) -> None:
        self.output = output
        self.records = records

    @classmethod
    def of(cls, output: Tensor) -> Tape:
        """Return the tape that leads to `output`.

        Raises:
            AutogradError: part of the graph was freed by an earlier backward.
        """
        found: dict[int, Record] = {}
        pending = [output.record]
        while pending:
            record = pending.pop()
            if record is None or record.index in found:
                continue
            if record.freed:
                raise AutogradError(FREED)
            found[record.index] = record
            pending.extend(x.record for x in record.inputs)
        return cls(output, [found[index] for index in sorted(found)])

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        return "\n".join(f"{index:4d}  {record}" for index, record in enumerate(self.records))

    def replay(self) -> Tensor:
        """Execute the records again, on what their leaves hold now, and return the output.

        Raises:
            AutogradError: backward freed the records.
        """
        for record in self.records:
            output = record.output
            if record.freed or output is None:
                raise AutogradError(FREED)
            output.data = record.function.forward(*(x.data for x in record.inputs))
        return self.output

    def backward(self, gradient: Any = None, keep: bool = False) -> None:
        """Add the gradients of Σ gradient·output to the leaves, last record first.

        Each record is freed as soon as it is done, unless `keep`; arguments and errors are
        those of Tensor.backward.
        """
        start = self.output.initial_gradient(gradient)
        if not self.records:
            _accumulate(self.output, start)
            return
        hooks = active_hooks()
        gradients = {self.records[-1].index: start}
        remaining = list(self.records)
        if not keep:
            self.records = []
        while remaining:
            record = remaining.pop()
            if record.freed:
                raise AutogradError(FREED)
            function, gy = record.function, gradients.pop(record.index)
            for hook in hooks:
                hook.before_backward(function, gy)
            input_gradients = function.backward(gy)
            for hook in reversed(hooks):
                hook.after_backward(function, gy, input_gradients)
            _check(record, input_gradients)
            for x, gx in zip(record.inputs, input_gradients, strict=True):
                if gx is None or not x.requires_grad:
                    continue
                if x.record is None:
                    _accumulate(x, gx)
                elif x.record.index in gradients:
                    gradients[x.record.index] = gradients[x.record.index] + gx
                else:
                    gradients[x.record.index] = gx
            if not keep:
                record.free()


def _accumulate(leaf: Tensor, gradient: Array) -> None:
    # Never in place: one array can be the gradient of several tensors.
    leaf.grad = gradient.copy() if leaf.grad is None else leaf.grad + gradient


def _check(record: Record, gradients: tuple[Array | None, ...]) -> None:
    """Raise AutogradError unless every input that needs one has a gradient of its shape."""
    name = record.function.name
    if len(gradients) != len(record.inputs):
        raise AutogradError(
            f"backward of {name} returned {len(gradients)} gradients for "
            f"{len(record.inputs)} inputs; return one for each, None where none is needed"
        )
    for position, (x, gx) in enumerate(zip(record.inputs, gradients, strict=True)):
        if gx is None and record.function.needs_gradient[position]:
            raise AutogradError(
                f"backward of {name} returned no gradient for input {position} "
                f"of shape {x.shape}, which requires one"
            )
        if gx is not None and gx.shape != x.shape:
            raise AutogradError(
                f"backward of {name} returned a gradient of shape {gx.shape} for input {position} "
                f"of shape {x.shape}; they must be equal"
            )
