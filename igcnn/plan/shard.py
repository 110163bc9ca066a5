"""Shards: a batch in parts of a few images, and what all parts of a step share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..autograd import Function
from .max_pool import MaxPool
from .memory import Pool
from .planes import Array, Halo
from .source import Deferred

MAX_IMAGES = 16
MIN_SHARDS = 4


def shard_sizes(images: int) -> list[int]:
    """Return how many images each shard of a batch has, as equal as possible.

    At most 16, which a core's caches hold, and at least 4 shards if there are as many images.
    The number of processes has no part in this: it changes no bit of a result.
    """
    shards = max(-(-images // MAX_IMAGES), min(MIN_SHARDS, images))
    return [images // shards + (i < images % shards) for i in range(shards)]


@dataclass
class Memory:
    """What all processes of a plan see.

    Attributes:
        images: (C, H, W, B), normalised.
        labels: (B,), int64.
        weights: one array for each weight of the graph.
        gradients: for each shard, one array for each weight.
        statistics: for each norm, (2, shards, 2, C) of float64: forward, backward.
        losses: for each shard its share of the mean loss, float64.
        hits: for each shard its number of right answers.
        running: for each norm its running mean and variance, (2, C).
        logits: of an evaluation, (K, B).
    """

    images: Array
    labels: Array
    weights: list[Array]
    gradients: list[list[Array]]
    statistics: list[Array]
    losses: Array
    hits: Array
    running: list[Array]
    logits: Array


@dataclass
class Shard:
    """One shard while its calls are laid out. Tensors go by their numbers in the graph.

    Attributes:
        index: number within the batch.
        images: which images of the batch.
        pool: memory of what lives only for a while.
        arrays: memory of tensors, where it is not a halo's.
        values: views of tensors, (A, B, H, W, N), or (K, N).
        halos: layout and storage of those that a convolution reads in place.
        deferred: those that are not stored, as the convolution that takes one reads it.
        matrices: inputs and outputs of `mix` nodes as matrices.
        inputs: what each convolution, by its place in the graph, reads.
        functions: the functions of `function` nodes, by their place in the graph.
        pools: max pooling, likewise.
        gradients: gradients of tensors, while they are needed.
        contributions: how many of those that read a tensor have added to its gradient.
    """

    index: int
    images: slice
    pool: Pool
    arrays: dict[int, Array] = field(default_factory=dict)
    values: dict[int, Array] = field(default_factory=dict)
    halos: dict[int, tuple[object, Halo]] = field(default_factory=dict)
    deferred: dict[int, Deferred] = field(default_factory=dict)
    matrices: dict[int, Array] = field(default_factory=dict)
    inputs: dict[int, list[Any]] = field(default_factory=dict)
    functions: dict[int, Function] = field(default_factory=dict)
    pools: dict[int, MaxPool] = field(default_factory=dict)
    gradients: dict[int, Array] = field(default_factory=dict)
    contributions: Counter[int] = field(default_factory=Counter)

    @property
    def N(self) -> int:
        """How many images."""
        return self.images.stop - self.images.start


def make_shards(batch: int, local: list[int], dtype: str) -> list[Shard]:
    """Return the shards of a batch with these numbers."""
    starts = np.cumsum([0, *shard_sizes(batch)]).tolist()
    return [Shard(i, slice(starts[i], starts[i + 1]), Pool(dtype)) for i in local]


def as_images(view: Array) -> Array:
    """Return a view (A, B, H, W, N) as (N, C, H, W), by a copy where strides cannot say it."""
    A, B, H, W, N = view.shape
    return view.reshape(A * B, H, W, N).transpose(3, 0, 1, 2)


def from_images(images: Array, like: Array) -> Array:
    """Return images, (N, C, H, W), in the axes of a view (A, B, H, W, N)."""
    return np.ascontiguousarray(images.transpose(1, 2, 3, 0)).reshape(like.shape)
