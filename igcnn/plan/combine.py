"""Batch norm, addition and ReLU in a plan, in passes over blocks that stay in the cache.

    y = max(0, Σ_t term_t),   term_t = x_t   or   s·x_t + (β − s·μ)  with  s = γ/√(σ² + ε)

Every shard adds up its own images; μ, σ² and the sums of the backward pass are those of the
whole batch, merged from the shards' in a fixed order (Chan, Golub and LeVeque, 1979), so that
the result does not depend on who computed which shard.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from .memory import Call, Scratch
from .planes import Array, aligned, channel_range, granularity, per_channel
from .source import Norm

BLOCK_BYTES = 1 << 18
# Σx² − Σx·μ loses as many digits as μ²/σ² has; beyond this the mean is subtracted first
MAX_MEAN_TO_VARIANCE = 100.0
MAX_ROW = 1 << 12  # numbers that are added up in their own precision


class BatchStatistics:
    """Mean and variance of one batch norm in a step, and the sums of its gradient.

    Args:
        gamma: γ, (C,), read at every step.
        beta: β, likewise.
        eps: ε.
        shards: where each shard leaves its sums, (2, shards, 2, C) of float64. Those of the
            backward pass have a place of their own: one process may be there already while
            another still reads those of the forward pass.
        counts: how many numbers a channel has in each shard.

    Attributes:
        scale: s, (C,).
        shift: β − s·μ.
        slope: with offset, the gradient of x is s·gy + slope·x + offset.
        offset: see slope.
    """

    def __init__(
        self, gamma: Array, beta: Array, eps: float, shards: Array, counts: list[int]
    ) -> None:
        self.gamma, self.beta, self.eps = gamma, beta, eps
        self.shards = shards
        self.counts = np.array(counts, np.float64)[:, None]
        self.count = float(self.counts.sum())
        self.mean = self.variance = self.ggamma = self.gbeta = np.zeros(gamma.size)
        self.scale, self.shift, self.slope, self.offset = (np.zeros_like(gamma) for _ in range(4))

    def merge_forward(self) -> None:
        """Take (mean, Σ(x − mean)²) of all shards to μ, σ², scale and shift."""
        means, squares = self.shards[0, :, 0], self.shards[0, :, 1]
        self.mean = (self.counts * means).sum(axis=0) / self.count
        between = (self.counts * (means - self.mean) ** 2).sum(axis=0)
        self.variance = (squares.sum(axis=0) + between) / self.count
        scale = self.gamma / np.sqrt(self.variance + self.eps)
        self.scale[...] = scale
        self.shift[...] = self.beta - scale * self.mean

    def merge_backward(self) -> None:
        """Take (Σ gy, Σ gy·x) of all shards to the gradients of β and γ, slope and offset."""
        inverse = 1 / np.sqrt(self.variance + self.eps)
        self.gbeta = self.shards[1, :, 0].sum(axis=0)
        self.ggamma = (self.shards[1, :, 1].sum(axis=0) - self.mean * self.gbeta) * inverse
        slope = -self.gamma * inverse * inverse * self.ggamma / self.count
        self.slope[...] = slope
        self.offset[...] = -self.gamma * inverse * self.gbeta / self.count - slope * self.mean


def statistics_call(x: Array, slot: Array) -> Call:
    """Return the call that writes mean and Σ(x − mean)² of each channel to slot, (2, C).

    Args:
        x: a view (A, B, H, W, N) with rows of W·N numbers.
        slot: of float64.
    """
    rows = _rows(x, _joined_rows(x, x.shape[-3]))
    ones = np.ones(rows.shape[-1], x.dtype)
    sums = np.empty(rows.shape[:-1], x.dtype)
    squares = np.empty_like(sums)
    count = rows.shape[-2] * rows.shape[-1]
    step = max(1, BLOCK_BYTES * len(rows) // x.nbytes)
    parts = [slice(first, first + step) for first in range(0, len(rows), step)]

    def call() -> None:
        for part in parts:
            np.vecdot(rows[part], ones, out=sums[part])
            np.vecdot(rows[part], rows[part], out=squares[part])
        mean = sums.sum(axis=2, dtype=np.float64) / count  # (A, B)
        deviation = squares.sum(axis=2, dtype=np.float64) - count * mean * mean
        if np.any(count * mean * mean > MAX_MEAN_TO_VARIANCE * deviation):
            centred = rows - mean[:, :, None, None].astype(x.dtype)
            rest = np.vecdot(centred, ones).sum(axis=2, dtype=np.float64)
            deviation = np.vecdot(centred, centred).sum(axis=2, dtype=np.float64)
            deviation -= rest * rest / count
        slot[0] = mean.reshape(-1)
        slot[1] = deviation.reshape(-1)

    return call


def forward_calls(
    terms: Sequence[tuple[Array, Norm | None]],
    y: Array,
    relu: bool,
    scratch: Scratch,
) -> Iterator[Call]:
    """Yield the calls that write the sum of the terms to y.

    Args:
        terms: views (A, B, H, W, N), and the batch norm of each.
        y: a view to write.
        relu: whether negative sums become 0.
        scratch: gives memory for a block.
    """
    terms = sorted(terms, key=lambda term: term[1] is None)  # saves a copy of the first
    y, *views = aligned(y, *(x for x, _ in terms))
    # a row of zeros: several times as fast as comparing with the number 0
    zeros = np.zeros(y.shape[-2:], y.dtype)
    for block in _blocks(y):
        target = y[block]
        total = scratch.take(target.shape, y.dtype)
        other = scratch.take(target.shape, y.dtype, slot=1)
        for index, (view, (_, norm)) in enumerate(zip(views, terms, strict=True)):
            x = view[block]
            if norm is None:
                yield (
                    partial(np.add, total, x, out=total) if index else partial(np.copyto, total, x)
                )
                continue
            product = other if index else total
            if norm.scale is not None:
                yield partial(np.multiply, x, per_channel(norm.scale, view)[block], out=product)
                x = product
            yield partial(np.add, x, per_channel(norm.shift, view)[block], out=product)
            if index:
                yield partial(np.add, total, product, out=total)
        if relu:
            yield partial(np.maximum, total, zeros, out=target)
        else:
            yield partial(np.copyto, target, total)


class OutputGradient:
    """Ends the gradient of a sum's output: the mask of ReLU, and the sums for its batch norms.

    Part by part, each as soon as it is computed and while it is in the cache.

    Args:
        gy: the gradient, (A, B, H, W, N), to which nothing is added any more.
        terms: x of each batch norm, (A, B, H, W, N), and where a shard leaves its sums, (2, C).
        relu: whether the sum ends in ReLU.
        step: rows of a part; the last may have fewer.
        scratch: gives memory for a part.
    """

    def __init__(
        self,
        gy: Array,
        terms: Sequence[tuple[Array, Array]],
        relu: bool,
        step: int,
        scratch: Scratch,
    ) -> None:
        self.gy, self.relu, self.scratch = gy, relu, scratch
        C, H = gy.shape[0] * gy.shape[1], gy.shape[-3]
        self.joined = min(_joined_rows(view, step) for view in (gy, *(x for x, _ in terms)))
        self.terms = [(x, slot, np.empty((2, C, H // self.joined), gy.dtype)) for x, slot in terms]

    def part(self, first: int, last: int, rows: slice, y: Array | None) -> Iterator[Call]:
        """Yield the calls for some rows of channels first … last − 1.

        Args:
            first: channel.
            last: channel.
            rows: of the image.
            y: the output there, (A, B, rows, W, N); None without ReLU.
        """
        gy = channel_range(self.gy, first, last)[..., rows, :, :]
        if self.relu:
            assert y is not None
            gradient, output = aligned(gy, y)
            positive = self.scratch.take(gradient.shape, "bool", slot=6)
            yield partial(np.greater, output, 0, out=positive)
            yield partial(np.multiply, gradient, positive, out=gradient)
        for x, _, sums in self.terms:
            part = channel_range(x, first, last)[..., rows, :, :]
            views = aligned(gy, part)
            gy_rows, x_rows = (_rows(view, self.joined) for view in views)
            ones = np.ones(gy_rows.shape[-1], gy.dtype)
            out = sums[:, first:last, rows.start // self.joined : rows.stop // self.joined]
            out = out.reshape(2, *gy_rows.shape[:-1])
            assert np.shares_memory(out, sums)
            yield partial(np.vecdot, gy_rows, ones, out=out[0])
            yield partial(np.vecdot, gy_rows, x_rows, out=out[1])

    def whole(self, y: Array | None) -> Iterator[Call]:
        """Yield all calls, for whole channels of about BLOCK_BYTES."""
        views = [self.gy, *(x for x, _, _ in self.terms), *([] if y is None else [y])]
        C, H = self.gy.shape[0] * self.gy.shape[1], self.gy.shape[-3]
        step = granularity(*views)
        step *= max(1, BLOCK_BYTES * C // (self.gy.nbytes * step))
        for first in range(0, C, step):
            last = min(first + step, C)
            part = None if y is None else channel_range(y, first, last)
            yield from self.part(first, last, slice(0, H), part)
        yield from self.finish()

    def finish(self) -> Iterator[Call]:
        """Yield the calls after all parts: Σ gy and Σ gy·x of each channel."""
        for _, slot, sums in self.terms:
            yield partial(np.add.reduce, sums, axis=-1, dtype=np.float64, out=slot)


def norm_backward_calls(
    gy: Array, x: Array, gx: Array, norm: BatchStatistics, scratch: Scratch
) -> Iterator[Call]:
    """Yield the calls that write gx = s·gy + slope·x + offset; gx may be x."""
    gy, x, gx = aligned(gy, x, gx)
    scale, slope, offset = (
        per_channel(values, x) for values in (norm.scale, norm.slope, norm.offset)
    )
    for block in _blocks(x):
        part = x[block]
        total = scratch.take(part.shape, x.dtype)
        other = scratch.take(part.shape, x.dtype, slot=1)
        yield partial(np.multiply, part, slope[block], out=total)
        yield partial(np.multiply, gy[block], scale[block], out=other)
        yield partial(np.add, total, other, out=total)
        yield partial(np.add, total, offset[block], out=gx[block])


def _joined_rows(view: Array, step: int) -> int:
    """Return how many rows of pixels, all of them or of each `step`, are added up as one."""
    H, W, N = view.shape[-3:]
    if view.strides[-3] != W * N * view.itemsize:
        return 1
    common = math.gcd(H, step)
    return max(
        n for n in range(1, common + 1) if (common % n == 0 and n * W * N <= MAX_ROW) or n == 1
    )


def _rows(view: Array, joined: int) -> Array:
    """View (…, H, W, N) as rows of numbers, (…, H/joined, joined·W·N)."""
    result = view.reshape(*view.shape[:-3], view.shape[-3] // joined, -1)
    assert np.shares_memory(result, view)
    return result


def _blocks(view: Array, start: tuple[int | slice, ...] = ()) -> Iterator[tuple[int | slice, ...]]:
    """Yield indices of parts of a view, whole channels of at most BLOCK_BYTES if possible."""
    A = view.shape[0]
    step = BLOCK_BYTES * A // max(1, view.nbytes)
    if step == 0 and view.ndim > 4:
        for a in range(A):
            yield from _blocks(view[a], (*start, a))
        return
    for first in range(0, A, max(1, step)):
        yield (*start, slice(first, first + max(1, step)))
