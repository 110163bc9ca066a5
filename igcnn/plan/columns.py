"""Convolution with many channels on small images in a plan: one product with im2col.

Where rows of pixels are short and channels many, the matrices of plan/convolution.py would be
read again for every row. Here the pixels that each output pixel reads are copied into a column,
and forward, backward and weight gradient are one product each.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .memory import Call, Scratch
from .planes import Array, Images, aligned, copy

SHORT_ROW = 40  # numbers, W·N
MANY_CHANNELS = 32  # of a group's output


class ColumnsConvolution:
    """A convolution like StridedConvolution, whose arguments it takes."""

    layout = None  # it reads no image where it lies
    refresh: tuple[Call, ...] = ()

    def __init__(
        self,
        weight: Array,
        image: tuple[int, ...],
        stride: tuple[int, int],
        padding: tuple[int, int],
        groups: int,
    ) -> None:
        C_out, self.Cg, self.KH, self.KW = weight.shape
        self.G, self.Og = groups, C_out // groups
        self.matrix = weight.reshape(groups, self.Og, -1)  # (G, Og, Cg·KH·KW)
        assert np.shares_memory(self.matrix, weight)
        self.OH, self.OW = (
            (size + 2 * p - k) // s + 1
            for size, p, k, s in zip(image[1:], padding, weight.shape[2:], stride, strict=True)
        )
        rows = [_meeting(a, image[1], self.OH, stride[0], padding[0]) for a in range(self.KH)]
        columns = [_meeting(b, image[2], self.OW, stride[1], padding[1]) for b in range(self.KW)]
        # for each tap: which pixels of the image it meets, and which of the output they are for
        self.taps = [
            ((..., row, column, slice(None)), (slice(None), slice(None), a, b, i, j))
            for a, (row, i) in enumerate(rows)
            for b, (column, j) in enumerate(columns)
            if i.stop > i.start and j.stop > j.start
        ]
        self._gradients: dict[tuple[int, str], Images] = {}

    def inputs(self, x: Array, halo: object) -> tuple[list[Array], list[Call]]:
        """Return the columns, (G, Cg, KH, KW, OH, OW, N), and the calls that copy them."""
        del halo
        shape = (self.G, self.Cg, self.KH, self.KW, self.OH, self.OW, x.shape[-1])
        columns = np.zeros(shape, x.dtype)
        calls = []
        for pixels, place in self.taps:
            target, source = aligned(columns[place], x[pixels])
            calls.append(copy(target, source))
        return [columns], calls

    def forward(self, inputs: list[Array], y: Array, scratch: Scratch) -> Iterator[Call]:
        """Yield the calls that write y, (G, Og, OH, OW, N)."""
        columns = self._flat(inputs[0])
        out = y.reshape(self.G, self.Og, -1)
        if np.shares_memory(out, y):
            yield partial(np.matmul, self.matrix, columns, out=out)
            return
        out = scratch.take(out.shape, y.dtype)
        yield partial(np.matmul, self.matrix, columns, out=out)
        yield partial(np.copyto, y, out.reshape(y.shape))

    def _flat(self, columns: Array) -> Array:
        """View columns as matrices (G, Cg·KH·KW, OH·OW·N)."""
        return columns.reshape(self.G, self.Cg * self.KH * self.KW, -1)

    def new_output_gradient(self, N: int, dtype: str) -> Images:
        """Return memory for gy, the same at every call: it is used up at once."""
        key = N, dtype
        if key not in self._gradients:
            shape = (self.G, self.Og, self.OH, self.OW, N)
            self._gradients[key] = Images(np.empty(shape, dtype))
        return self._gradients[key]

    def backward(
        self,
        inputs: list[Array],
        gy: Images,
        gx: Array | None,
        accumulate: bool,
        gw: Array | None,
        scratch: Scratch,
    ) -> Iterator[Call]:
        """Yield the calls that write gx and gw; arguments as of StridedConvolution."""
        flat = gy.view.reshape(self.G, self.Og, -1)
        if gw is not None:
            columns = self._flat(inputs[0]).swapaxes(1, 2)
            yield partial(np.matmul, flat, columns, out=gw.reshape(self.matrix.shape))
        if gx is None:
            return
        shape = (self.G, self.Cg, self.KH, self.KW, *gy.view.shape[2:])
        columns = scratch.take(shape, gx.dtype)
        transposed = self.matrix.swapaxes(1, 2)
        yield partial(np.matmul, transposed, flat, out=self._flat(columns))
        if not accumulate:
            yield partial(gx.fill, 0)
        for pixels, place in self.taps:
            yield partial(np.add, gx[pixels], columns[place], out=gx[pixels])


def _meeting(tap: int, size: int, out: int, stride: int, padding: int) -> tuple[slice, slice]:
    """Return which pixels of a row a tap meets, and which output pixels they are for.

    Output pixel i meets pixel i·s + tap − p, if there is one.
    """
    first = max(0, -(-(padding - tap) // stride))
    last = max(first, min(out, (size - 1 + padding - tap) // stride + 1))
    start = first * stride + tap - padding
    return slice(start, start + (last - first) * stride, stride), slice(first, last)
