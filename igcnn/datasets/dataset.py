"""What a data set is: two splits of images, names of the classes, how to prepare a pixel."""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
        images: uint8, (N, 3, H, W), red, green, blue.
        labels: int64, (N,).
    """

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


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
class Dataset:
    """A data set, read into memory.

    Attributes:
        name: what `--dataset` calls it.
        classes: names of the classes, in the order of the labels.
        mean: mean of the training pixels, red, green, blue, from 0 to 255.
        std: their standard deviation.
        augmentation: what happens to training images; None for nothing.
        train: what to train on.
        test: what to test on.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augmentation: Augmentation | None
    train: Split
    test: Split
