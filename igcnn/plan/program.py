"""The launches of a network's passes on memory that is laid out once: what all devices share.

Every operation of the graph becomes calls with their arrays bound; a pass is a list of such
calls. Nothing is decided or allocated while it runs, so all of it can be captured: as a CUDA
graph, or as one list that the threads of a CPU execute. A subclass a kind of device says what is
fused there and which calls an operation becomes (gpu_program.py, cpu_program.py).

Memory of gradients is counted: an array goes back to the arena with its last holder.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import empty, to_device
from ..kernels.augment import Resident
from . import graph as op

Array = np.ndarray
Call = Callable[[], None]


ALIGNMENT = 256  # bytes, as CUDA's own allocations


class Arena:
    """Hands out arrays of one piece of memory; without a piece it only counts.

    What is given back is handed out again for the next request of the same bytes.

    Args:
        device: where the memory is.
        size: bytes, None to count what will be needed.

    Attributes:
        used: bytes that were handed out, each once, at the most.

    Raises:
        DeviceError: the device has no room.
    """

    def __init__(self, device: str, size: int | None = None) -> None:
        self._memory: Any = None
        if size is not None:
            like = to_device(np.empty(0, np.uint8), device)
            self._memory = empty((size + ALIGNMENT,), np.uint8, like)
            if isinstance(like, np.ndarray):  # a GPU's memory is aligned, the host's may not be
                self._memory = self._memory[-self._memory.ctypes.data % ALIGNMENT :]
        self._free: dict[int, list[int]] = {}
        self._places: dict[int, tuple[int, int]] = {}
        self._held: list[Array] = []
        self._end = 0
        self.used = 0

    def take(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array of arbitrary content, or one without memory while counting."""
        dtype = np.dtype(dtype)
        size = max(1, math.prod(shape)) * dtype.itemsize
        size += -size % ALIGNMENT
        free = self._free.get(size)
        start = free.pop() if free else self._end
        if start == self._end:
            self._end += size
            self.used = max(self.used, self._end)
        if self._memory is None:
            array: Array = np.broadcast_to(np.empty((), dtype), shape)
            array = array.view()
        else:
            flat = self._memory[start : start + math.prod(shape) * dtype.itemsize]
            array = flat.view(dtype).reshape(shape)
        self._places[id(array)] = start, size
        self._held.append(array)  # so that no other gets its id
        return array

    def give(self, array: Array) -> None:
        """Let a later request have the memory of an array."""
        start, size = self._places.pop(id(array))
        self._free.setdefault(size, []).append(start)

    def mark(self) -> int:
        """Return the place up to which memory is in use, for `rewind`."""
        return self._end

    def rewind(self, mark: int) -> None:
        """Let later requests have all memory that was taken since a mark."""
        self._end = mark
        self._free = {
            size: [start for start in starts if start < mark]
            for size, starts in self._free.items()
        }


@dataclass(frozen=True)
class Setup:
    """What a program is made of.

    Attributes:
        graph: the network.
        batch_size: images in a batch, N.
        arena: the source of all memory.
        weights: parameters on the device, in the order of the graph.
        gradients: gradient buffers, None for constants.
        flat_gradient: what they are views of.
        running: running mean and variance of each batch norm.
        training: whether updates are wanted; evaluation needs less memory.
        label_smoothing: ε of the loss in training.
    """

    graph: op.Graph
    batch_size: int
    arena: Arena
    weights: list[Array]
    gradients: list[Array | None]
    flat_gradient: Array
    running: list[tuple[Array, Array]]
    training: bool
    label_smoothing: float = 0.0


class Program:
    """The passes of a network for batches of one size.

    Args:
        setup: the network as this device computes it, and its arrays.
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

    logits: Array
    zeros: list[Array]

    def __init__(self, setup: Setup, stored: str) -> None:
        self.graph = graph = setup.graph
        self.batch_size = batch_size = setup.batch_size
        self.arena = arena = setup.arena
        self.weights = setup.weights
        self.gradients = setup.gradients
        self.running = setup.running
        self.label_smoothing = setup.label_smoothing
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
