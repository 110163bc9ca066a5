"""Convolution in a plan: formula in kernels/convolution.py, memory order in planes.py.

For each column tap b, rows shifted by b are copied under each other, as rows (row, b, c) of W·N
numbers. There the rows that an output row needs lie one after another,

    y[g, i] = w[g] · stack[g, i … i + KH − 1]        (Og, KH·KW·Cg) · (KH·KW·Cg, OW·N)

one matrix product that writes where y lies. A copy of a few groups stays in the cache, and serves
the gradient of the weight as well, a product of the same matrix with rows of the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .memory import Call, Scratch
from .source import Source

Array = np.ndarray

BLOCK_BYTES = 1 << 19  # of stacked rows: half of a core's L2 cache
FEWEST_ROWS = 8  # of a block: rows above and below it are copied once more
# OpenBLAS multiplies without repacking its arguments up to so many multiply-adds, which is half as
# fast again; a product with few columns is worth cutting for it, one with many only in its columns
SMALL_PRODUCT = 1_000_000
FEWEST_COLUMNS = 16
NARROW = 16

End = Callable[[slice, slice, Array], Iterator[Call]]


class Correlation:
    """y[g, o, i, j] = Σ w[g, o, c, a, b] · x[g, c, i + a, j + b], for shards of N images.

    Args:
        weight: (G, Og, Cg, KH, KW), a view of the parameter, read at every `refresh`; may be
            flipped or exchanged.
    """

    def __init__(self, weight: Array) -> None:
        G, Og, Cg, KH, KW = self.shape = weight.shape
        taps = np.zeros((G, Og, KH, KW, Cg), weight.dtype)
        self.matrices = taps.reshape(G, Og, KH * KW * Cg)
        # (G, Og, Cg, KH, KW) → (G, Og, KH, KW, Cg)
        self.refresh: list[Call] = [partial(np.copyto, taps, weight.transpose(0, 1, 3, 4, 2))]

    def calls(
        self,
        x: Source,
        scratch: Scratch,
        y: Array | None = None,
        accumulate: bool = False,
        rows: Source | None = None,
        gw: Array | None = None,
        end: End | None = None,
    ) -> Iterator[Call]:
        """Yield the calls that compute y from x, the gradient of the weight, or both.

        Args:
            x: the input, with what lies around it.
            scratch: gives the memory of what is between.
            y: view (G, Og, OH, OW, N) to write, with rows of OW·N numbers; None for nothing.
            accumulate: add to y instead.
            rows: (G, OH, Og, OW, N), for gw.
            gw: view (G, Og, Cg, KH, KW) to write Σ rows[g, i, o, j, n] · x[g, i + a, c, j + b, n];
                None for nothing.
            end: yields what is to be done with each part of y and of `rows`.
        """
        G, Og, Cg, KH, KW = self.shape
        OH, J = x.OH, x.J
        products = None
        if gw is not None:
            products = scratch.take((G, OH, KH * KW * Cg, Og), self.matrices.dtype, slot=3)
        for groups, part in self.blocks(OH, J):
            calls, stack = x.stack(groups, part, KH, KW, scratch)
            yield from calls
            matrices = overlapping(stack, KH)  # (groups, rows, KH·KW·Cg, J)
            if y is not None:
                target = as_matrices(y[groups, :, part].swapaxes(1, 2))  # (groups, rows, Og, J)
                yield from self._products(groups, matrices, target, accumulate, scratch)
            if rows is None:
                continue
            calls, others = rows.rows(groups, part, scratch)
            yield from calls
            if products is not None:
                right = as_matrices(others).swapaxes(2, 3)  # (groups, rows, J, Og)
                yield weight_call(matrices, right, products[groups, part], KH)
            if end is not None:
                yield from end(groups, part, others)
        if products is not None and gw is not None:
            total = scratch.take((G, KH, KW, Cg, Og), products.dtype, slot=1)
            yield partial(np.add.reduce, products, axis=1, out=total.reshape(products[:, 0].shape))
            yield partial(np.copyto, gw, total.transpose(0, 4, 3, 1, 2))

    def blocks(self, OH: int, J: int) -> list[tuple[slice, slice]]:
        """Return the parts, groups and output rows, in which `calls` computes an output."""
        G, _, Cg, KH, KW = self.shape
        # what is not copied needs no blocks
        row_bytes = KW * Cg * J * self.matrices.itemsize if KW > 1 else 0
        return list(blocks(G, OH, KH - 1, row_bytes))

    def _products(
        self, groups: slice, x: Array, y: Array, accumulate: bool, scratch: Scratch
    ) -> Iterator[Call]:
        """Yield the calls that write w·x to y, (groups, rows, Og, J), or add it."""
        target = scratch.take(y.shape, y.dtype, slot=1) if accumulate else y
        columns = columns_at_once(*self.matrices.shape[1:], y.shape[-1])
        weight = self.matrices[groups, None, None]
        yield partial(np.matmul, weight, cut(x, columns), out=cut(target, columns))
        if accumulate:
            yield partial(np.add, y, target, out=y)


def overlapping(stack: Array, KH: int) -> Array:
    """View (G, H, KW, Cg, J) as matrices of KH rows each, (G, H − KH + 1, KH·KW·Cg, J)."""
    G, H, KW, Cg, J = stack.shape
    group, row, tap, channel, item = stack.strides
    assert KW == 1 or tap == Cg * channel
    assert KH == 1 or row == KW * Cg * channel
    return as_strided(stack, (G, H - KH + 1, KH * KW * Cg, J), (group, row, channel, item))


def as_matrices(rows: Array) -> Array:
    """View (G, H, C, W, N) as (G, H, C, W·N)."""
    *sizes, W, N = rows.shape
    assert W == 1 or rows.strides[3] == N * rows.itemsize
    return as_strided(rows, (*sizes, W * N), (*rows.strides[:3], rows.itemsize))


def cut(matrices: Array, columns: int) -> Array:
    """View (G, rows, K, J) as (G, rows, J/columns, K, columns)."""
    G, rows, K, J = matrices.shape
    group, row, line, item = matrices.strides
    shape = (G, rows, J // columns, K, columns)
    return as_strided(matrices, shape, (group, row, columns * item, line, item))


def columns_at_once(M: int, K: int, J: int) -> int:
    """Return how many of J columns a product (M, K)·(K, J) takes at a time."""
    for parts in range(1, J // FEWEST_COLUMNS + 1):
        if J % parts == 0 and M * K * (J // parts) <= SMALL_PRODUCT:
            return J // parts
    return J


def weight_call(left: Array, right: Array, out: Array, parts: int) -> Call:
    """Return the call that writes left·right, (G, rows, K, M), with K in parts where that pays."""
    G, rows, K, J = left.shape
    M = right.shape[-1]
    if M > NARROW or M * K * J <= SMALL_PRODUCT:
        return partial(np.matmul, left, right, out=out)
    group, row, line, item = left.strides
    # (G, rows, K, J) → (G, rows, parts, K/parts, J)
    lines = as_strided(
        left, (G, rows, parts, K // parts, J), (group, row, K // parts * line, line, item)
    )
    return partial(
        np.matmul, lines, right[:, :, None], out=out.reshape(G, rows, parts, K // parts, M)
    )


def blocks(G: int, rows: int, more: int, row_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of groups and output rows whose stacked rows stay in the cache.

    Args:
        G: groups.
        rows: output rows.
        more: rows that a block needs beyond its output rows.
        row_bytes: of a stacked row; 0 where nothing is stacked.
    """
    step = BLOCK_BYTES // max(1, (rows + more) * row_bytes)
    if step or not row_bytes:
        for g in range(0, G, step or G):
            yield slice(g, min(g + (step or G), G)), slice(0, rows)
        return
    at_once = max(FEWEST_ROWS, BLOCK_BYTES // row_bytes - more)
    for g in range(G):
        for first in range(0, rows, at_once):
            yield slice(g, g + 1), slice(first, min(first + at_once, rows))
