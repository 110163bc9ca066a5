"""What a data set is: two splits of images, names of the classes, how to prepare a pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from ..kernels.augment import crop_and_mirror
from ..kernels.philox import below, philox

Array = np.ndarray

# what the third word of the counter stands for
ORDER_STREAM = 0
AUGMENT_STREAM = 1


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        pad: pixels of mean colour added on each side before a crop of the original size.
        mirror: whether half of the images are mirrored left to right.
    """

    pad: int
    mirror: bool


@dataclass(frozen=True)
class Draw:
    """How training images change in an epoch: by (seed, epoch, sample) and nothing else.

    Attributes:
        seed: from 0 to 2⁶⁴ − 1.
        epoch: from 0 up.
        fill: the mean colour, red, green, blue, 0 to 255.
        augmentation: of images in memory; None for nothing.
    """

    seed: int
    epoch: int
    fill: tuple[int, int, int]
    augmentation: Augmentation | None

    def words(self, indices: Array, stream: int, part: int = 0) -> tuple[Array, ...]:
        """Return four arrays of random 32-bit words for samples of these indices."""
        low, high = self.seed & 0xFFFFFFFF, self.seed >> 32
        return philox((indices, self.epoch, stream, part), (low, high))


class Images(Protocol):
    """The images of a split, wherever they are.

    Attributes:
        view: what is seen of an image, as in training.Preprocessing.
    """

    view: ClassVar[str]

    @property
    def labels(self) -> Array:
        """int64, (N,)."""
        ...

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W) of what a network sees."""
        ...

    def batches(
        self, batches: Iterable[Array], draw: Draw | None
    ) -> Iterator[tuple[Array, Array]]:
        """Yield (indices, images as bytes, (n, 3, H, W)) for batches of indices.

        Args:
            batches: indices of each batch.
            draw: how they change in training; None for images as they are.
        """
        ...


@dataclass(frozen=True)
class Split:
    """Images in memory, with their labels.

    Attributes:
        images: uint8, (N, 3, H, W), red, green, blue.
        labels: int64, (N,).
    """

    images: Array
    labels: Array
    view: ClassVar[str] = "square"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        _, C, H, W = self.images.shape
        return C, H, W

    def batches(
        self, batches: Iterable[Array], draw: Draw | None
    ) -> Iterator[tuple[Array, Array]]:
        """Yield (indices, images) for batches of indices; see Images."""
        for indices in batches:
            yield indices, self._augmented(indices, draw)

    def _augmented(self, indices: Array, draw: Draw | None) -> Array:
        images = self.images[indices]
        change = draw and draw.augmentation
        if not draw or not change:
            return images
        a, b, c, _ = draw.words(indices, AUGMENT_STREAM)
        offsets = np.stack([below(word, 2 * change.pad + 1) for word in (a, b)], axis=1)
        mirror = below(c, 2).astype(bool) & change.mirror
        return crop_and_mirror(images, change.pad, np.array(draw.fill, np.uint8), offsets, mirror)


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        name: what `--dataset` calls it.
        classes: names of the classes, in the order of the labels.
        mean: mean of the training pixels, red, green, blue, from 0 to 255.
        std: their standard deviation.
        augmentation: what happens to training images in memory; None for nothing.
        train: what to train on.
        test: what to test on.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augmentation: Augmentation | None
    train: Images
    test: Images


@dataclass
class Decoding:
    """How images are decoded.

    Attributes:
        workers: processes; 0 for this one.
        skip: whether a broken image is left out instead of ending the run.
        say: told of each image that is left out, and of data that are not the official ones.
    """

    workers: int = 0
    skip: bool = False
    say: Callable[[str], None] = field(default=lambda _: None)
