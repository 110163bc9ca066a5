"""What a data set is: two splits of images, names of the classes, how to prepare a pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from ..kernels.augment import crop_and_mirror
from ..kernels.philox import below, philox
from ..notebook import picture_address

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray

# what the third word of the counter stands for
ORDER_STREAM = 0
AUGMENT_STREAM = 1
HOLD_OUT_STREAM = 2

PICTURES = 10  # images that a notebook shows of a data set
SIDE = 48  # of these in pixels, at least
GAP = 4  # between them


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

    def take(self, indices: Array) -> Images:
        """Return a split of these images alone, in this order."""
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


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return repr_of_split(self)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        _, C, H, W = self.images.shape
        return C, H, W

    def take(self, indices: Array) -> Split:
        """Return a split of these images alone, in this order."""
        return Split(self.images[indices], self.labels[indices])

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


@dataclass(frozen=True, repr=False)
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
        validation: what to select the best weights on; None for none.
        notes: what a reader of results has to know, a line each.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augmentation: Augmentation | None
    train: Images
    test: Images
    validation: Images | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        _, height, width = self.train.image_shape
        return (
            f"Dataset({self.name!r}, {len(self.train):,} training and {len(self.test):,} test "
            f"images of {height}×{width}, {len(self.classes)} classes)"
        )

    def _repr_html_(self) -> str:
        """Return a training image of each of the first classes, with their names."""
        labels = self.train.labels
        shown = [k for k in range(len(self.classes)) if (labels == k).any()][:PICTURES]
        indices = np.array([np.argmax(labels == k) for k in shown])
        _, images = next(iter(self.train.batches([indices], None)))
        names = ", ".join(self.classes[k] for k in shown)
        more = ", …" if len(self.classes) > len(shown) else ""
        return (
            f"<p>{escape(repr(self))}</p>"
            f'<img alt="an image of each class" src="{picture_address(_row(images))}">'
            f"<p>{escape(names)}{more}</p>"
        )


def repr_of_split(split: Images) -> str:
    """Return the kind of a split, and how many images of which size it has."""
    size = "×".join(map(str, split.image_shape))
    return f"{type(split).__name__}({len(split):,} images of {size})"


def _row(images: Array) -> Image.Image:
    """Return images, uint8, (n, 3, H, W), beside each other in one that can be seen."""
    from PIL import Image

    scale = max(1, -(-SIDE // images.shape[-1]))
    # (n, 3, H, W) → (n, H, W, 3), larger, with a gap to the right → (H, n·W, 3)
    large = images.transpose(0, 2, 3, 1).repeat(scale, axis=1).repeat(scale, axis=2)
    spaced = np.pad(large, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255)
    return Image.fromarray(np.concatenate(list(spaced), axis=1))


@dataclass
class Decoding:
    """How images are decoded.

    Attributes:
        workers: processes; 0 for this one.
        skip: whether a broken image is left out instead of ending the run.
        say: told of each image that is left out.
    """

    workers: int = 0
    skip: bool = False
    say: Callable[[str], None] = field(default=lambda _: None)
