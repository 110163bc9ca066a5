"""Batches: the order of an epoch, augmentation, normalisation.

Everything random is a function of (seed, epoch, sample): the pixels of a sample do not depend on
the size of the batch or on what was loaded before, and a run that is resumed in the middle of an
epoch needs no saved state.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import numpy as np

from ..errors import ConfigError
from ..kernels.augment import normalise
from .dataset import ORDER_STREAM, Augmentation, Draw, Images

Array = np.ndarray


class Loader:
    """Training batches of one split.

    Args:
        split: the images.
        batch_size: B, samples in every batch.
        mean: subtracted from the pixels, red, green, blue, 0 to 255.
        std: they are divided by it.
        augmentation: what to change at random; None for nothing.
        seed: of order and augmentation, from 0 to 2⁶⁴ − 1.
        rank: which part of every batch is wanted, from 0.
        ranks: into how many parts batches are cut, as equal as possible; 1 for whole ones.

    Attributes:
        local_batch_size: samples of a part.

    Raises:
        ConfigError: batch_size is not from 1 to the number of images, or below the number of
            ranks, or the seed out of range.
    """

    def __init__(
        self,
        split: Images,
        *,
        batch_size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not 1 <= batch_size <= len(split):
            raise ConfigError(
                f"batch size must be from 1 to {len(split)}, the number of training images, "
                f"not {batch_size}"
            )
        if batch_size < ranks:
            raise ConfigError(
                f"batch size {batch_size} is less than the number of ranks, {ranks}; "
                "choose a larger batch size or start fewer ranks"
            )
        if not 0 <= operator.index(seed) < 2**64:
            raise ConfigError(f"seed must be from 0 to 2**64 - 1, not {seed}")
        self.split = split
        self.batch_size = batch_size
        self.mean = np.array(mean, np.float32)
        self.std = np.array(std, np.float32)
        self.augmentation = augmentation
        self.seed = seed
        self._first = batch_size * rank // ranks
        self.local_batch_size = batch_size * (rank + 1) // ranks - self._first

    def __repr__(self) -> str:
        return (
            f"Loader({len(self.split):,} images in {len(self)} batches of {self.batch_size}, "
            f"seed {self.seed})"
        )

    def __len__(self) -> int:
        """Return the batches of an epoch, ⌈N/B⌉."""
        return -(-len(self.split) // self.batch_size)

    def order(self, epoch: int) -> Array:
        """Return the order of the samples in an epoch, a permutation of 0 … N − 1."""
        a, b, _, _ = self._draw(epoch).words(np.arange(len(self.split)), ORDER_STREAM)
        return np.argsort(a << np.uint64(32) | b, kind="stable")

    def parts(self, epoch: int) -> Array:
        """Return the samples of this rank's part of each batch of an epoch, (len, n).

        The last batch is completed with the first samples of the epoch, as in the authors' code.
        """
        order = self.order(epoch)
        firsts = np.arange(len(self)) * self.batch_size + self._first
        positions = firsts[:, None] + np.arange(self.local_batch_size)  # (len, n)
        return order[positions % len(order)]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield (x, labels) from batch `start` on.

        x is float32, (n, 3, H, W), the batch innermost in memory; labels are int64, (n,); n is
        B, or what this rank has of it.
        """
        parts = self.parts(epoch)[start:]
        for indices, images in self.split.batches(parts, self._draw(epoch)):
            yield normalise(images, self.mean, self.std), self.split.labels[indices]

    def _draw(self, epoch: int) -> Draw:
        red, green, blue = np.round(self.mean).astype(int).tolist()
        return Draw(self.seed, epoch, (red, green, blue), self.augmentation)


def evaluation_batches(
    split: Images,
    *,
    batch_size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[Array, Array]]:
    """Yield (x, labels) of every image once, in order, unchanged; the last batch may be short.

    x is float32, (n, 3, H, W); labels are int64, (n,); n is at most batch_size.

    Args:
        split: the images.
        batch_size: images of a batch.
        mean: for each colour, in pixel values; x is (pixels − mean) / std.
        std: likewise.
        rank: of this process among several; rank r has batches r, r + ranks, …
        ranks: how many there are.

    Raises:
        ConfigError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch size must be at least 1, not {batch_size}")
    means, deviations = np.array(mean, np.float32), np.array(std, np.float32)
    batches = (
        np.arange(first, min(first + batch_size, len(split)))
        for first in range(rank * batch_size, len(split), ranks * batch_size)
    )
    for indices, images in split.batches(batches, None):
        yield normalise(images, means, deviations), split.labels[indices]
