"""Memory of a plan: everything is taken while the plan is made, nothing during a step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray
Call = Callable[[], object]  # a step of a program, on memory that is there already


class Scratch:
    """Memory for values that do not outlive the calls of one operation on one shard.

    Requests of one slot get the same memory: what one operation left, the next overwrites. An
    operation that needs several arrays at once takes them from different slots.
    """

    def __init__(self) -> None:
        self._slabs: dict[int, Array] = {}
        self._bordered: dict[object, Array] = {}

    def take(self, shape: tuple[int, ...], dtype: np.dtype | str, slot: int = 0) -> Array:
        """Return an array of arbitrary content."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        slab = self._slabs.get(slot)
        if slab is None or slab.size < size:
            slab = np.empty(max(size, 1 << 20), np.uint8)
            self._slabs[slot] = slab
        return slab[:size].view(dtype).reshape(shape)

    def bordered(
        self, shape: tuple[int, ...], inner: tuple[slice, ...], dtype: np.dtype | str
    ) -> tuple[Array, Array]:
        """Return an array of zeros and its inner part, to be written as a whole, nothing else."""
        key = shape, tuple((part.start, part.stop) for part in inner), str(dtype)
        if key not in self._bordered:
            self._bordered[key] = np.zeros(shape, dtype)
        array = self._bordered[key]
        return array, array[inner]


class Pool:
    """Memory for gradients, which live from the first operation that writes them to the last.

    Operations take and give back in the order in which a shard executes them.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self._free: dict[int, list[Array]] = {}

    def take(self, shape: tuple[int, ...]) -> Array:
        """Return an array of arbitrary content."""
        free = self._free.setdefault(math.prod(shape), [])
        flat = free.pop() if free else np.empty(math.prod(shape), self.dtype)
        return flat.reshape(shape)

    def give(self, array: Array) -> None:
        """Let the next request of this size have the array."""
        flat = array.reshape(-1)
        assert np.shares_memory(flat, array)
        self._free.setdefault(flat.size, []).append(flat)
