"""The tape of a training step, record by record."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..autograd import Function, Hook, Tensor
from ..errors import PlanError
from ..functional import cross_entropy
from ..layers import Layer, forward_hook, undisturbed
from ..plan.trace import trace as trace_plan


@dataclass
class TracedRecord:
    """One record of the tape.

    Attributes:
        layer: full name of the layer that it belongs to, "" for none.
        op: name of the function.
        inputs: their shapes.
        output: its shape.
        kept: bytes kept for backward; what several records keep is counted for each.
        forward_ms: milliseconds.
        backward_ms: likewise.
    """

    layer: str
    op: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    kept: int = 0
    forward_ms: float = 0.0
    backward_ms: float = 0.0


@dataclass(frozen=True)
class Trace:
    """A training step on the tape.

    Attributes:
        records: in the order of execution.
        peak_bytes: largest memory that arrays of the step took at once.
        plan: the operations of its plan, by kind; None if there is no plan.
        reason: why there is none.
    """

    records: tuple[TracedRecord, ...]
    peak_bytes: int
    plan: dict[str, int] | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return asdict(self)


class _Watch(Hook):
    """Notes every call; the clock runs inside the calls alone."""

    def __init__(self) -> None:
        self.rows: list[TracedRecord] = []
        self.functions: dict[Function, TracedRecord] = {}
        self.outputs: list[Tensor] = []
        self.start = 0.0

    def before_forward(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def after_forward(
        self, function: Function, inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        """Note the call."""
        elapsed = 1e3 * (time.perf_counter() - self.start)
        shapes = tuple(x.shape for x in inputs)
        kept = function.saved_bytes()
        row = TracedRecord("", function.name, shapes, output.shape, kept, elapsed)
        self.rows.append(row)
        self.functions[function] = row
        self.outputs.append(output)

    def before_backward(self, function: Function, gy: np.ndarray) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def after_backward(
        self, function: Function, gy: np.ndarray, gradients: tuple[np.ndarray | None, ...]
    ) -> None:
        """Note the time."""
        self.functions[function].backward_ms = 1e3 * (time.perf_counter() - self.start)

    def name(self, layer: Layer, name: str, x: Tensor, y: Tensor) -> None:
        """Give the call that made y its layer's name."""
        for row, output in zip(reversed(self.rows), reversed(self.outputs), strict=True):
            if output is y:
                row.layer = name
                return


def trace(network: Layer, image_shape: tuple[int, int, int], images: int = 8) -> Trace:
    """Return the records of a training step on random images; the network is left as it was.

    Args:
        network: gives logits.
        image_shape: (3, H, W).
        images: of the batch.
    """
    rng = np.random.default_rng(0)
    dtype = network.parameters()[0].dtype
    x = np.empty((*image_shape, images), dtype).transpose(3, 0, 1, 2)
    x[...] = rng.standard_normal(x.shape)

    def step() -> None:
        logits = network(x)
        cross_entropy(logits, np.zeros(images, np.int64)).backward()
        network.zero_grad()

    with undisturbed(network, training=True):
        step()  # the first finds no memory that it could use again
        watch = _Watch()
        with watch, forward_hook(watch.name):
            step()
        records = tuple(watch.rows)
        del watch
        tracemalloc.start()
        try:
            step()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    kinds: dict[str, int] = {}
    try:
        for operation in trace_plan(network, image_shape).graph.operations:
            kinds[operation.name] = kinds.get(operation.name, 0) + 1
    except PlanError as error:
        return Trace(records, peak, None, str(error))
    return Trace(records, peak, kinds, "")
