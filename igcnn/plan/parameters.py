"""Parameters, gradients, velocity and statistics of a plan: each kind in one array.

The network's tensors become views of them. One kernel updates all parameters, ranks sum long runs
of gradients: *buckets*, each as soon as the backward pass has written it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..autograd import Tensor
from ..backend import copy_to, to_device, to_host
from ..layers import Layer

Array = np.ndarray
Call = Callable[[], None]

BUCKET_BYTES = 1 << 20  # of gradients that are summed at once, at least


class Parameters:
    """What a plan computes with and writes, on its device.

    Args:
        network: becomes the owner of views.
        tensors: parameters and constants of the graph.
        running: running mean and variance of each batch norm, arrays of the network.
        device: where the arrays lie.

    Attributes:
        tensors: the trained parameters.
        starts: where each of them begins in `flat`.
        flat: their values, (size,).
        flat_gradient: their gradients, likewise.
        flat_velocity: their velocity, likewise.
        flat_statistics: all running statistics.
        gradients: views of the gradients, as the parameters are shaped.
        velocity: likewise.
        weights: for each of `tensors` of the graph its values.
        weight_gradients: for each its gradient, None for a constant.
        running: running mean and variance of each batch norm, on the device.
    """

    def __init__(
        self,
        network: Layer,
        tensors: list[Tensor],
        running: list[tuple[Array, Array]],
        device: str,
    ) -> None:
        self.device = device
        self.real = tensors[0].dtype
        self.tensors = [tensor for tensor in tensors if tensor.requires_grad]
        self.starts, size = _starts([tensor.data for tensor in self.tensors])
        self.flat, self.parameters = self._flat([tensor.data for tensor in self.tensors])
        self.flat_gradient, self.flat_velocity = (
            to_device(np.zeros(size, self.real), device) for _ in range(2)
        )
        self.gradients = self._views(self.flat_gradient)
        self.velocity = self._views(self.flat_velocity)
        # constants, such as the weights of a summation, lie by themselves
        views = {id(t): v for t, v in zip(self.tensors, self.parameters, strict=True)}
        gradients = {id(t): g for t, g in zip(self.tensors, self.gradients, strict=True)}
        self.weights = [
            views[id(t)] if id(t) in views else to_device(to_host(t.data), device) for t in tensors
        ]
        self.weight_gradients = [gradients.get(id(t)) for t in tensors]
        statistics = [array for pair in running for array in pair]
        self.flat_statistics, moved = self._flat(statistics)
        places = {id(array): view for array, view in zip(statistics, moved, strict=True)}
        self.running = [(places[id(mean)], places[id(var)]) for mean, var in running]
        self._buffers = [
            (layer, name, places.get(id(array), to_device(array, device)))
            for _, layer in network.named_layers()
            for name, array in layer.buffers().items()
        ]
        self.take_over()

    def take_over(self) -> None:
        """Let the network's parameters and statistics be those of the plan.

        Values that were assigned to the network since then are kept.
        """
        for tensor, view in zip(self.tensors, self.parameters, strict=True):
            if tensor.data is not view:
                copy_to(view, to_host(tensor.data))
                tensor.data = view
        for layer, name, view in self._buffers:
            array = getattr(layer, name)
            if array is not view:
                copy_to(view, to_host(array))
                setattr(layer, name, view)

    def take_velocity(self, tensors: list[Tensor], velocity: list[Array]) -> None:
        """Replace each velocity, in the order of `tensors`, by a view of the plan's."""
        views = {id(t): v for t, v in zip(self.tensors, self.velocity, strict=True)}
        for i, tensor in enumerate(tensors):
            view = views[id(tensor)]
            copy_to(view, to_host(velocity[i]))
            velocity[i] = view

    def trained(self, tensors: list[Tensor]) -> list[tuple[Array, Array, Array]]:
        """Return values, gradients and velocity of these parameters: a triple a run of them."""
        wanted = {id(tensor) for tensor in tensors}
        runs: list[tuple[int, int]] = []
        stops = [*self.starts[1:], self.flat.size]
        for tensor, start, stop in zip(self.tensors, self.starts, stops, strict=True):
            if id(tensor) not in wanted:
                continue
            if runs and runs[-1][1] == start:
                start, _ = runs.pop()
            runs.append((start, stop))
        w, g, v = self.flat, self.flat_gradient, self.flat_velocity
        return [(w[start:stop], g[start:stop], v[start:stop]) for start, stop in runs]

    def buckets(self, calls: list[Call]) -> list[GradientBucket]:
        """Return a backward pass in pieces, each with the gradients that it completes.

        Args:
            calls: partial objects, in their order.
        """
        writers = {id(array): k for k, call in enumerate(calls) for array in _arrays(call)}
        buckets = []
        first, stop, last = 0, self.flat_gradient.size, 0
        for gradient, start in zip(reversed(self.gradients), reversed(self.starts), strict=True):
            last = max(last, writers[id(gradient)] + 1)
            full = (stop - start) * gradient.itemsize >= BUCKET_BYTES
            if (full and last > first) or start == 0:  # one call may complete those of many
                buckets.append(GradientBucket(calls[first:last], self.flat_gradient[start:stop]))
                first, stop = last, start
        buckets[-1].calls.extend(calls[first:])
        return buckets

    def _flat(self, arrays: list[Array]) -> tuple[Array, list[Array]]:
        """Return one array on the device with the content of all, and views of each in it."""
        starts, size = _starts(arrays)
        content = np.zeros(size, self.real)
        for array, start in zip(arrays, starts, strict=True):
            content[start : start + array.size] = to_host(array).ravel()
        flat = to_device(content, self.device)
        views = [
            flat[start : start + array.size].reshape(array.shape)
            for array, start in zip(arrays, starts, strict=True)
        ]
        return flat, views

    def _views(self, flat: Array) -> list[Array]:
        """Return the part of each parameter in an array of all."""
        return [
            flat[start : start + tensor.data.size].reshape(tensor.shape)
            for tensor, start in zip(self.tensors, self.starts, strict=True)
        ]


class GradientBucket(NamedTuple):
    """Some launches, and the gradients that are complete after them, (size,)."""

    calls: list[Call]
    gradients: Array


def _arrays(value: Any) -> Iterator[Any]:
    """Yield the arrays among the arguments of a call, also those in containers and records."""
    if isinstance(value, partial):
        for argument in (value.func, *value.args, *value.keywords.values()):
            yield from _arrays(argument)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _arrays(item)
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _arrays(getattr(value, field.name))
    elif hasattr(value, "dtype"):
        yield value


def _starts(arrays: list[Array]) -> tuple[list[int], int]:
    """Return where each array begins in one that holds all, and the size of that."""
    starts, size = [], 0
    for array in arrays:
        starts.append(size)
        size += array.size + -array.size % 4  # each begins where a float4 may
    return starts, size
