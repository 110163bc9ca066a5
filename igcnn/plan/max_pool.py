"""Max pooling in a plan: formula in kernels/pooling.py.

Stride s splits an image into s × s phases, so that every tap of the window is a view of one
phase with rows of pixels as runs. The gradient goes to the first tap, row by row, that equals
the maximum; what a tap has taken is subtracted, so that no later one takes it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .memory import Call, Scratch
from .planes import Array, aligned, copy


class MaxPool:
    """y = the largest value of each window, for one shard.

    Args:
        x: (A, B, H, W, N).
        y: view (A, B, OH, OW, N) to write.
        kernel_size: K.
        stride: s.
        padding: p, on all sides.
    """

    def __init__(self, x: Array, y: Array, kernel_size: int, stride: int, padding: int) -> None:
        self.stored = x, y
        x, y = aligned(x, y)
        *channels, H, W, N = x.shape
        self.x, self.y = x, y
        self.taps = [(a, b) for a in range(kernel_size) for b in range(kernel_size)]
        self.stride = stride
        OH, OW = y.shape[-3:-1]
        reach = (kernel_size - 1) // stride
        rows = [_phase(u, H, stride, padding) for u in range(stride)]
        columns = [_phase(v, W, stride, padding) for v in range(stride)]
        high = max(OH + reach, *(inside.stop for _, inside in rows))
        wide = max(OW + reach, *(inside.stop for _, inside in columns))
        self.phases = np.full((stride, stride, *channels, high, wide, N), -np.inf, x.dtype)
        # where pixels are in the image, and where in the phases
        self.places = [
            ((..., row, column, slice(None)), (u, v, ..., i, j, slice(None)))
            for u, (row, i) in enumerate(rows)
            for v, (column, j) in enumerate(columns)
        ]

    def _window(self, phases: Array, a: int, b: int) -> Array:
        """View what tap (a, b) meets, in the shape of y."""
        OH, OW = self.y.shape[-3:-1]
        i, j = a // self.stride, b // self.stride
        return phases[a % self.stride, b % self.stride][..., i : i + OH, j : j + OW, :]

    def forward(self) -> Iterator[Call]:
        """Yield the calls that write y."""
        for pixels, place in self.places:
            yield copy(self.phases[place], self.x[pixels])
        first, *others = (self._window(self.phases, a, b) for a, b in self.taps)
        yield partial(np.copyto, self.y, first)
        for other in others:
            yield partial(np.maximum, self.y, other, out=self.y)

    def backward(self, gy: Array, gx: Array, accumulate: bool, scratch: Scratch) -> Iterator[Call]:
        """Yield the calls that write gx, (A, B, H, W, N), or add to it; gy is lost."""
        gx, gy, _, y = aligned(gx, gy, *self.stored)
        gradients = scratch.take(self.phases.shape, gy.dtype)
        share = scratch.take(y.shape, gy.dtype, slot=1)
        chosen = scratch.take(y.shape, "bool", slot=2)
        yield partial(gradients.fill, 0)
        for a, b in self.taps:
            yield partial(np.equal, self._window(self.phases, a, b), y, out=chosen)
            yield partial(np.multiply, gy, chosen, out=share)
            yield partial(np.subtract, gy, share, out=gy)
            target = self._window(gradients, a, b)
            yield partial(np.add, target, share, out=target)
        for pixels, place in self.places:
            if accumulate:
                yield partial(np.add, gx[pixels], gradients[place], out=gx[pixels])
            else:
                yield copy(gx[pixels], gradients[place])


def _phase(u: int, size: int, stride: int, padding: int) -> tuple[slice, slice]:
    """Return which pixels phase u of the padded image takes, and where it has them."""
    first = (u - padding) % stride
    inside = (first + padding) // stride
    return slice(first, None, stride), slice(inside, inside + len(range(first, size, stride)))
