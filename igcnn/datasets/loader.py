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
from ..kernels.augment import crop_and_mirror, normalise
from ..kernels.philox import below, philox
from .dataset import Augmentation, Split

Array = np.ndarray

# what the third word of the counter stands for
ORDER_STREAM = 0
AUGMENT_STREAM = 1


class Loader:
    """Training batches of one split.

    Args:
        split: the images.
        batch_size: B, samples in every batch.
        mean: subtracted from the pixels, red, green, blue, 0 to 255.
        std: they are divided by it.
        augmentation: what to change at random; None for nothing.
        seed: of order and augmentation, from 0 to 2⁶⁴ − 1.

    Raises:
        ConfigError: batch_size is not from 1 to the number of images, or the seed out of range.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        if not 1 <= batch_size <= len(split):
            raise ConfigError(
                f"batch size must be from 1 to {len(split)}, the number of training images, "
                f"not {batch_size}"
            )
        if not 0 <= operator.index(seed) < 2**64:
            raise ConfigError(f"seed must be from 0 to 2**64 - 1, not {seed}")
        self.split = split
        self.batch_size = batch_size
        self.mean = np.array(mean, np.float32)
        self.std = np.array(std, np.float32)
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        """Return the batches of an epoch, ⌈N/B⌉."""
        return -(-len(self.split) // self.batch_size)

    def order(self, epoch: int) -> Array:
        """Return the order of the samples in an epoch, a permutation of 0 … N − 1."""
        a, b, _, _ = self._words(np.arange(len(self.split)), epoch, ORDER_STREAM)
        return np.argsort(a << np.uint64(32) | b, kind="stable")

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield (x, labels) from batch `start` on.

        x is float32, (B, 3, H, W), the batch innermost in memory; labels are int64, (B,). The
        last batch is completed with the first samples of the epoch, as in the authors' code.
        """
        order = self.order(epoch)
        for batch in range(start, len(self)):
            positions = np.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
            indices = order[positions % len(order)]
            yield self.samples(indices, epoch), self.split.labels[indices]

    def samples(self, indices: Array, epoch: int) -> Array:
        """Return the samples of these indices as they look in `epoch`, (n, 3, H, W)."""
        images = self.split.images[indices]
        if self.augmentation is not None:
            pad = self.augmentation.pad
            a, b, c, _ = self._words(indices, epoch, AUGMENT_STREAM)
            offsets = np.stack([below(a, 2 * pad + 1), below(b, 2 * pad + 1)], axis=1)
            mirror = below(c, 2).astype(bool) & self.augmentation.mirror
            fill = np.round(self.mean).astype(np.uint8)
            images = crop_and_mirror(images, pad, fill, offsets, mirror)
        return normalise(images, self.mean, self.std)

    def _words(self, indices: Array, epoch: int, stream: int) -> tuple[Array, ...]:
        low, high = self.seed & 0xFFFFFFFF, self.seed >> 32
        return philox((indices, epoch, stream, 0), (low, high))


def evaluation_batches(
    split: Split,
    *,
    batch_size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Iterator[tuple[Array, Array]]:
    """Yield (x, labels) of every image once, in order, unchanged; the last batch may be short.

    Raises:
        ConfigError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch size must be at least 1, not {batch_size}")
    means, deviations = np.array(mean, np.float32), np.array(std, np.float32)
    for first in range(0, len(split), batch_size):
        part = slice(first, first + batch_size)
        yield normalise(split.images[part], means, deviations), split.labels[part]
