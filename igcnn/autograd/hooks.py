"""Hooks: look at every operation, forward and backward, while a `with` block runs.

with TimerHook() as timer:
    loss = network(x)
    loss.backward()
print(timer)
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ..errors import AutogradError
from .function import Function, Tensor, _state, active_hooks

Array = np.ndarray


class Hook:
    """Base of all hooks: a context manager; override what you want to see."""

    def before_forward(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        """Called before forward of `function`."""

    def after_forward(
        self, function: Function, inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        """Called after forward of `function`."""

    def before_backward(self, function: Function, gy: Array) -> None:
        """Called before backward of `function`, gy being the gradient of its output."""

    def after_backward(
        self, function: Function, gy: Array, gradients: tuple[Array | None, ...]
    ) -> None:
        """Called after backward of `function`, with the gradients of its inputs."""

    def __enter__(self) -> Self:
        _state.hooks = (*active_hooks(), self)
        return self

    def __exit__(self, *exception: object) -> None:
        _state.hooks = tuple(hook for hook in active_hooks() if hook is not self)


@dataclass
class Timing:
    """Seconds and number of calls of one operation."""

    forward_seconds: float = 0.0
    forward_calls: int = 0
    backward_seconds: float = 0.0
    backward_calls: int = 0


class TimerHook(Hook):
    """Adds up the time of every operation by its name.

    Attributes:
        timings: name of the operation → Timing.
    """

    def __init__(self) -> None:
        self.timings: dict[str, Timing] = {}
        self._starts: list[float] = []

    def before_forward(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        """Start the clock."""
        self._starts.append(time.perf_counter())

    def after_forward(
        self, function: Function, inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        """Stop it."""
        timing = self.timings.setdefault(function.name, Timing())
        timing.forward_seconds += time.perf_counter() - self._starts.pop()
        timing.forward_calls += 1

    def before_backward(self, function: Function, gy: Array) -> None:
        """Start the clock."""
        self._starts.append(time.perf_counter())

    def after_backward(
        self, function: Function, gy: Array, gradients: tuple[Array | None, ...]
    ) -> None:
        """Stop it."""
        timing = self.timings.setdefault(function.name, Timing())
        timing.backward_seconds += time.perf_counter() - self._starts.pop()
        timing.backward_calls += 1

    def __str__(self) -> str:
        rows = [f"{'operation':32}{'forward':>12}{'calls':>7}{'backward':>12}{'calls':>7}"]
        for name, t in self.timings.items():
            forward, backward = 1e3 * t.forward_seconds, 1e3 * t.backward_seconds
            rows.append(
                f"{name:32}{forward:9.2f} ms{t.forward_calls:7d}"
                f"{backward:9.2f} ms{t.backward_calls:7d}"
            )
        return "\n".join(rows)


@dataclass(frozen=True)
class RecordedCall:
    """What RecordHook notes of one call: shapes, and the bytes kept for backward."""

    direction: str
    name: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    saved_bytes: int


@dataclass
class RecordHook(Hook):
    """Lists every call, forward and backward, in the order of execution.

    Attributes:
        calls: what was executed.
    """

    calls: list[RecordedCall] = field(default_factory=list)

    def after_forward(
        self, function: Function, inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        """Note a forward call."""
        shapes = tuple(x.shape for x in inputs)
        self.calls.append(
            RecordedCall("forward", function.name, shapes, output.shape, function.saved_bytes())
        )

    def after_backward(
        self, function: Function, gy: Array, gradients: tuple[Array | None, ...]
    ) -> None:
        """Note a backward call; its inputs are the gradients it returned."""
        shapes = tuple(() if gx is None else gx.shape for gx in gradients)
        self.calls.append(
            RecordedCall("backward", function.name, shapes, gy.shape, function.saved_bytes())
        )


class NaNHook(Hook):
    """Raises AutogradError at the first operation that makes a NaN or an infinity."""

    def after_forward(
        self, function: Function, inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        """Check the output."""
        self._check(f"forward of {function.name}", output.data)

    def after_backward(
        self, function: Function, gy: Array, gradients: tuple[Array | None, ...]
    ) -> None:
        """Check the gradients."""
        for position, gx in enumerate(gradients):
            if gx is not None:
                self._check(f"backward of {function.name}, input {position}", gx)

    def _check(self, where: str, array: Array) -> None:
        if not np.isfinite(array).all():
            bad = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise AutogradError(f"{where}: {array[bad]} at {bad} of shape {array.shape}")
