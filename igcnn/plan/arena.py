"""Memory of a plan: measured first, then taken in one piece."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import empty, to_device

Array = np.ndarray

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
