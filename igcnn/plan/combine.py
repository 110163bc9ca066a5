"""Batch norm, addition and ReLU in a plan, in passes over blocks that stay in the cache.

    y = max(0, Σ_t term_t),   term_t = x_t   or   s·x_t + (β − s·μ)  with  s = γ/√(σ² + ε)

Every shard adds up its own images; μ, σ² and the sums of the backward pass are those of the
whole batch, merged from the shards' in a fixed order (Chan, Golub and LeVeque, 1979), so that
the result does not depend on who computed which shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from .convolution import Call
from .memory import Scratch
from .planes import Array, aligned, per_channel

BLOCK_BYTES = 1 << 18
# Σx² − Σx·μ loses as many digits as μ²/σ² has; beyond this the mean is subtracted first
MAX_MEAN_TO_VARIANCE = 100.0
MAX_ROW = 1 << 12  # numbers that are added up in their own precision


class Norm(Protocol):
    """What the forward pass needs of a batch norm: y = scale·x + shift."""

    @property
    def scale(self) -> Array | None:
        """(C,), or None where it is in the weights before."""
        ...

    @property
    def shift(self) -> Array:
        """(C,)."""
        ...


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
    (rows,) = _rows(x)
    ones = np.ones(rows.shape[-1], x.dtype)
    sums = np.empty(rows.shape[:-1], x.dtype)
    squares = np.empty_like(sums)
    count = rows.shape[-2] * rows.shape[-1]

    def call() -> None:
        np.vecdot(rows, ones, out=sums)
        np.vecdot(rows, rows, out=squares)
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


def relu_backward_calls(gy: Array, y: Array, scratch: Scratch) -> Iterator[Call]:
    """Yield the calls that set gy to zero where y is not positive."""
    gy, y = aligned(gy, y)
    for block in _blocks(gy):
        positive = scratch.take(gy[block].shape, "bool")
        yield partial(np.greater, y[block], 0, out=positive)
        yield partial(np.multiply, gy[block], positive, out=gy[block])


def gradient_sums_call(gy: Array, x: Array, slot: Array) -> Call:
    """Return the call that writes Σ gy and Σ gy·x of each channel to slot, (2, C)."""
    gy_rows, x_rows = _rows(*aligned(gy, x))
    ones = np.ones(x_rows.shape[-1], x.dtype)
    sums = np.empty(x_rows.shape[:-1], x.dtype)
    products = np.empty_like(sums)

    def call() -> None:
        np.vecdot(gy_rows, ones, out=sums)
        np.vecdot(gy_rows, x_rows, out=products)
        slot[0] = sums.sum(axis=-1, dtype=np.float64).reshape(-1)
        slot[1] = products.sum(axis=-1, dtype=np.float64).reshape(-1)

    return call


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


def _rows(*views: Array) -> list[Array]:
    """View (…, H, W, N) as rows of up to MAX_ROW numbers, all alike, (…, rows, numbers)."""
    H, W, N = views[0].shape[-3:]
    whole = all(view.strides[-3] == W * N * view.itemsize for view in views)
    fitting = [n for n in range(2, H + 1) if H % n == 0 and n * W * N <= MAX_ROW]
    together = max(fitting, default=1) if whole else 1
    result = [view.reshape(*view.shape[:-3], H // together, -1) for view in views]
    assert all(map(np.shares_memory, result, views))
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
