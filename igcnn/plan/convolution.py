"""Convolution in a plan: formula in kernels/convolution.py, memory order in planes.py.

R output rows are one matrix product. Of a 3×3 kernel with Cg = 2 channels a group, R = 2:

    rows of the product     (column tap, output row r, output channel)      KW·R·Og
    summed over             (image row, input channel)                      (R + KH − 1)·Cg

The matrix of weights is zero where an image row does not reach an output row. That costs
(R + KH − 1)/KH of the multiply-adds and gains more where Og is small, because a product of 12
rows runs at twice the speed of one of 6. The column taps' shares are then added, each at its
own offset. The gradient of the weights reads the same matrices the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .memory import Scratch

Array = np.ndarray
Call = Callable[[], object]

BLOCK_BYTES = 1 << 19  # of one intermediate product: half of a core's L2 cache
FULL_ROWS = 8  # output channels times rows from which a product runs at its full speed


class Taps:
    """The weights of one unit-stride convolution, as matrices for R rows at once.

    Args:
        weight: (G, Og, Cg, KH, KW), a view of the parameter; may be flipped or exchanged.
        rows: R.
    """

    def __init__(self, weight: Array, rows: int) -> None:
        G, Og, Cg, KH, KW = weight.shape
        self.weight = weight
        self.rows = rows
        self.array = np.zeros((G, KW, rows, Og, rows + KH - 1, Cg), weight.dtype)
        # (G, Og, Cg, KH, KW) → (G, KW, Og, KH, Cg)
        source = weight.transpose(0, 4, 1, 3, 2)
        targets = [self.array[:, :, r, :, r : r + KH] for r in range(rows)]
        self.refresh: list[Call] = [partial(np.copyto, target, source) for target in targets]

    @property
    def matrices(self) -> Array:
        """(G, KW·R·Og, (R + KH − 1)·Cg)."""
        G, KW, R, Og, rows, Cg = self.array.shape
        return self.array.reshape(G, KW * R * Og, rows * Cg)


def rows_at_once(channels: int, rows: int) -> int:
    """Return R for so many output channels a group and output rows."""
    R = 1
    while 2 * R * channels <= FULL_ROWS // 2 and rows >= 2 * R:
        R *= 2
    return R


class Correlation:
    """y[g, o, i, j] = Σ w[g, o, c, a, b] · x[g, c, i + a, j + b], for shards of N images.

    Args:
        weight: (G, Og, Cg, KH, KW), read at every `refresh`.
        OH: rows of y.
    """

    def __init__(self, weight: Array, OH: int) -> None:
        R = rows_at_once(weight.shape[1], OH)
        self.KH, self.KW = weight.shape[3:]
        self.taps = [Taps(weight, R)]
        self.spans = [(0, OH // R * R, R)]
        if OH % R:
            self.taps.append(Taps(weight, 1))
            self.spans.append((OH // R * R, OH, 1))
        self.refresh = [call for taps in self.taps for call in taps.refresh]

    def calls(
        self, x: Array, y: Array, accumulate: bool, scratch: Scratch, padded: Array | None = None
    ) -> Iterator[Call]:
        """Yield the calls that compute y from x.

        Args:
            x: (G, OH + KH − 1, Cg, OW + KW − 1, N), a window of a Halo.
            y: view (G, Og, OH, OW, N) to write.
            accumulate: add to y instead.
            scratch: gives the memory of intermediate products.
            padded: where y has memory for it, y with KW − 1 more columns, whose content does not
                matter, (G, OH, Og, (OW + KW − 1)·N): written in longer runs.
        """
        for taps, (first, last, R) in zip(self.taps, self.spans, strict=True):
            window = x[:, first : last + self.KH - 1]
            long = None if padded is None else padded[:, first:last]
            yield from self._span(taps, R, window, y[:, :, first:last], accumulate, scratch, long)

    def _span(
        self,
        taps: Taps,
        R: int,
        x: Array,
        y: Array,
        accumulate: bool,
        scratch: Scratch,
        padded: Array | None,
    ) -> Iterator[Call]:
        G, Og, OH, OW, N = y.shape
        width = x.shape[3]
        matrices = row_matrices(x, self.KH, R)  # (G, OH/R, (R + KH − 1)·Cg, width·N)
        run = R * Og * width * N
        for groups, rows in blocks(G, OH // R, self.KW * run * x.itemsize):
            shape = (groups.stop - groups.start, rows.stop - rows.start)
            product = scratch.take((*shape, self.KW, run), x.dtype)
            yield partial(
                np.matmul,
                taps.matrices[groups, None],
                matrices[groups, rows],
                out=product.reshape(*shape, self.KW * R * Og, width * N),
            )
            # the column taps' shares, each from its own offset, all rows as one run: what lies
            # beyond the last column is of no use and not used
            shares = [
                product[:, :, b, b * N : run - (self.KW - 1 - b) * N] for b in range(self.KW)
            ]
            if padded is not None:
                # (g, OH, Og, width·N) → (g, OH/R, R·Og·width·N)
                part = padded[groups, rows.start * R : rows.stop * R].reshape(*shape, run)
                yield from sum_calls(part[..., : shares[0].shape[-1]], shares, accumulate)
                continue
            total = shares[0]
            if self.KW > 2:
                yield from sum_calls(total, shares[1:-1], True)
            # (G, Og, OH, OW, N) → (G, OH/R, R, Og, OW, N)
            part = y[groups, :, rows.start * R : rows.stop * R].transpose(0, 2, 1, 3, 4)
            part = part.reshape(*shape, R, Og, OW, N)
            assert np.shares_memory(part, y)
            columns = product.reshape(*shape, self.KW, R, Og, width, N)
            ends = [columns[:, :, 0, :, :, :OW]]
            if self.KW > 1:
                ends.append(columns[:, :, -1, :, :, self.KW - 1 :])
            yield from sum_calls(part, ends, accumulate)


class WeightGradient:
    """gw[g, o, c, a, b] = Σ gy[g, o, i, j, n] · x[g, c, i + a, j + b, n], for one shard.

    Args:
        x: (G, OH + KH − 1, Cg, OW + KW − 1, N).
        gy: (G, OH, Og, OW, N), rows (i, o) at a constant distance.
        gw: (G, Og, Cg, KH, KW), a view to write.
    """

    def __init__(self, x: Array, gy: Array, gw: Array) -> None:
        OH, Og = gy.shape[1:3]
        R = rows_at_once(Og, OH)
        if R > 1 and 2 * R <= OH:
            R *= 2  # the sums run along the rows: here more of them pay
        self.spans = [(0, OH // R * R, R)]
        if OH % R:
            self.spans.append((OH // R * R, OH, 1))
        self.x, self.gy, self.gw = x, gy, gw

    def calls(self, scratch: Scratch) -> Iterator[Call]:
        """Yield the calls that write gw."""
        KH = self.gw.shape[3]
        for index, (first, last, R) in enumerate(self.spans):
            x, gy = self.x[:, first : last + KH - 1], self.gy[:, first:last]
            yield from self._span(x, gy, R, index > 0, scratch)

    def _span(
        self, x: Array, gy: Array, R: int, accumulate: bool, scratch: Scratch
    ) -> Iterator[Call]:
        G, OH, Og, OW, _ = gy.shape
        Cg, KH, KW = self.gw.shape[2:]
        n = OH // R
        right = row_matrices(gy, 1, R).swapaxes(2, 3)  # (G, n, OW·N, R·Og)
        for b in range(KW):
            left = row_matrices(x[:, :, :, b : b + OW], KH, R)  # (G, n, (R + KH − 1)·Cg, OW·N)
            product = scratch.take((G, n, R + KH - 1, Cg, R, Og), x.dtype)
            flat = product.reshape(G, n, (R + KH - 1) * Cg, R * Og)
            yield partial(np.matmul, left, right, out=flat)
            total = scratch.take((G, R + KH - 1, Cg, R, Og), x.dtype, slot=1)
            yield partial(np.add.reduce, product, axis=1, out=total)
            # (G, Og, Cg, KH) ← Σ_r (G, KH, Cg, Og) of row r
            shares = [total[:, r : r + KH, :, r].transpose(0, 3, 2, 1) for r in range(R)]
            yield from sum_calls(self.gw[..., b], shares, accumulate)


def row_matrices(x: Array, KH: int, R: int) -> Array:
    """View x, (G, H, Cg, W, N), as overlapping matrices (G, (H − KH + 1)/R, (R+KH−1)·Cg, W·N)."""
    G, H, Cg, W, N = x.shape
    group, row, channel, _, item = x.strides
    assert row == Cg * channel
    assert x.strides[3] == N * item
    shape = (G, (H - KH + 1) // R, (R + KH - 1) * Cg, W * N)
    return as_strided(x, shape, (group, R * row, channel, item))


def blocks(G: int, rows: int, row_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of groups and rows whose intermediate products stay in the cache."""
    at_once = max(1, BLOCK_BYTES // row_bytes)
    if at_once >= rows:
        step = max(1, at_once // rows)
        for g in range(0, G, step):
            yield slice(g, min(g + step, G)), slice(0, rows)
        return
    for g in range(G):
        for first in range(0, rows, at_once):
            yield slice(g, g + 1), slice(first, min(first + at_once, rows))


def sum_calls(target: Array, terms: list[Array], accumulate: bool) -> Iterator[Call]:
    """Yield the calls that write the sum of the terms into target, or add it there."""
    terms = list(terms)
    if not accumulate and len(terms) == 1:
        yield partial(np.copyto, target, terms.pop())
    elif not accumulate:
        yield partial(np.add, terms.pop(0), terms.pop(0), out=target)
    for term in terms:
        yield partial(np.add, target, term, out=target)
