"""The launches of a network's passes on memory that is laid out once: what all devices share.

Every operation of the graph becomes calls with their arrays bound; a pass is a list of such
calls. Nothing is decided or allocated while it runs, so all of it can be captured: as a CUDA
graph, or as one list that the threads of a CPU execute. A subclass a kind of device says what is
fused there and which calls an operation becomes (gpu_program.py, cpu_program.py).

Memory of gradients is counted: an array goes back to the arena with its last holder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from ..kernels.augment import Resident
from . import graph as op
from .arena import Arena

Array = np.ndarray
Call = Callable[[], None]
Running = list[tuple[Array, Array]]


class Program:
    """The passes of a network for batches of one size.

    Args:
        graph: the network, as this device computes it.
        batch_size: N.
        arena: the source of all memory.
        weights: parameters on the device, in the order of the graph.
        gradients: gradient buffers, None for constants.
        running: running mean and variance of each batch norm.
        stored: element type of activations.

    Attributes:
        x: images, to be filled before a pass.
        labels: int32, (N,), likewise.
        logits: of the last pass.
        losses: of each image, (N,).
        correct: 1 for an image whose label has the largest logit, else 0, (N,).
        forward: the calls of a pass in training, up to the gradient of the logits.
        backward: the calls that write the gradients.
        refresh: the calls that bring changed parameters to `evaluation`.
        evaluation: the calls of a pass by the running statistics, up to the logits.
        zeros: arrays to be filled with zeros once.

    Raises:
        PlanError: the graph contains something that this device has no kernel for.
    """

    def __init__(
        self,
        graph: op.Graph,
        batch_size: int,
        arena: Arena,
        weights: list[Array],
        gradients: list[Array | None],
        running: Running,
        stored: str,
    ) -> None:
        self.graph = graph
        self.batch_size = batch_size
        self.arena = arena
        self.weights = weights
        self.gradients = gradients
        self.running = running
        self.real = graph.dtype
        self.stored = stored
        self.forward: list[Call] = []
        self.backward: list[Call] = []
        self.refresh: list[Call] = []
        self.evaluation: list[Call] = []
        self.gradient_of: dict[int, Array] = {}
        self._holders: dict[int, int] = {}
        # how many operations have still to add their part of a tensor's gradient
        self.parts_left = Counter(i for o in graph.operations for i in o.inputs)
        self.x = arena.take(self.layout(graph.shapes[0]), stored)
        self.labels = arena.take((batch_size,), "int32")
        self.losses = arena.take((batch_size,), self.real)
        self.correct = arena.take((batch_size,), self.real)

    def layout(self, shape: op.Shape) -> op.Shape:
        """Return the shape of an array for N tensors of a shape, (C, H, W) or (K,)."""
        raise NotImplementedError

    def begin(self, source: Resident) -> list[Call]:
        """Return the calls of a training pass on the next batch of resident images."""
        raise NotImplementedError

    def load(self, x: Array) -> None:
        """Bring images of the host, (n, C, H, W), to x."""
        raise NotImplementedError

    def read_logits(self, n: int) -> Array:
        """Return the logits of the first n images on the host, (n, K)."""
        raise NotImplementedError

    def backward_head(self, head: op.Head) -> None:
        """Add the calls from the gradient of the logits to that of the head's input."""
        raise NotImplementedError

    def backward_sum(self, operation: op.NormAddReLU) -> None:
        """Add the calls that pass a gradient on to the terms of a sum."""
        raise NotImplementedError

    def backward_of(self, operation: op.Operation) -> None:
        """Add the calls that write the gradients of any other operation's weights and input."""
        raise NotImplementedError

    def add_backward(self) -> None:
        """Add the calls of the whole backward pass."""
        for operation in reversed(self.graph.operations):
            if isinstance(operation, op.Head):
                self.backward_head(operation)
            elif isinstance(operation, op.NormAddReLU):
                self.backward_sum(operation)
            else:
                self.backward_of(operation)
            for value in operation.inputs:
                self.parts_left[value] -= 1

    # -- memory of gradients

    def target(self, value: int) -> tuple[Array, Array | None]:
        """Return what receives the gradient of a tensor, and what others have left of it.

        Both are the same array where nobody else holds it.
        """
        other = self.gradient_of.get(value)
        if other is not None and self._holders[id(other)] == 1:
            return other, other
        gradient = self.arena.take(self.layout(self.graph.shapes[value]), self.stored)
        self.gradient_of[value] = gradient
        self.hold(gradient)
        if other is not None:
            self.release(other)
        return gradient, other

    def hold(self, gradient: Array) -> None:
        """Count one holder more."""
        self._holders[id(gradient)] = self._holders.get(id(gradient), 0) + 1

    def release(self, gradient: Array) -> None:
        """Count one holder less; without any the memory may be used again."""
        self._holders[id(gradient)] -= 1
        if not self._holders[id(gradient)]:
            del self._holders[id(gradient)]
            self.arena.give(gradient)
