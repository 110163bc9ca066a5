"""People's own images: train/ and test/, each with a folder for each class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError, MissingDataError
from .dataset import Augmentation, Dataset, Decoding, Split
from .encoded import EncodedSplit
from .registry import register_dataset
from .stores import class_folders

PADDING = 8  # of how many pixels one is added on each side, as 4 of 32 in the paper
BATCH = 64


@register_dataset("folder")
def load_folder(data_dir: Path | None, image_size: int, decoding: Decoding) -> Dataset:
    """Return the images, their middle squares resized to image_size pixels a side, in memory.

    Mean and deviation are those of the training images. Augmentation is that of CIFAR: padding
    by an eighth, random crop, mirror.

    Args:
        data_dir: a folder with train/ and test/ (or val/).
        image_size: side in pixels.
        decoding: processes, and what becomes of broken images.

    Raises:
        MissingDataError: the folders are not there.
        DataError: an image cannot be read, or the classes of both differ.
    """
    test = "test" if data_dir and (data_dir / "test").is_dir() else "val"
    if data_dir is None or not all((data_dir / name).is_dir() for name in ("train", test)):
        where = "no --data-dir was given" if data_dir is None else f"not in {data_dir}"
        raise MissingDataError(
            f"folder: {where}: train/ and test/, each with a folder of images for each class; "
            "name the folder that holds both with --data-dir"
        )
    train_split, classes = _read(data_dir / "train", image_size, decoding)
    test_split, test_classes = _read(data_dir / test, image_size, decoding)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))[:3]
        raise DataError(
            f"{data_dir}: train and {test} have other classes: {', '.join(odd)}; every class "
            "needs a folder in both"
        )
    planes = train_split.images.transpose(1, 0, 2, 3).reshape(3, -1)
    red, green, blue = (float(plane.mean(dtype=np.float64)) for plane in planes)
    deviations = [max(1.0, float(plane.std(dtype=np.float64))) for plane in planes]
    return Dataset(
        name="folder",
        classes=classes,
        mean=(red, green, blue),
        std=(deviations[0], deviations[1], deviations[2]),
        augmentation=Augmentation(pad=image_size // PADDING, mirror=True),
        train=train_split,
        test=test_split,
    )


def _read(folder: Path, side: int, decoding: Decoding) -> tuple[Split, tuple[str, ...]]:
    found = class_folders(folder)
    split = EncodedSplit(found.store, found.labels, decoding, side, whole_square=True)
    batches = (
        np.arange(first, min(first + BATCH, len(split))) for first in range(0, len(split), BATCH)
    )
    images = np.empty((len(split), *split.image_shape), np.uint8)
    kept: list[int] = []
    for indices, pixels in split.batches(batches, None):
        images[len(kept) : len(kept) + len(indices)] = pixels
        kept += indices.tolist()
    if not kept:
        raise DataError(f"{folder}: no image can be read")
    return Split(images[: len(kept)], found.labels[kept]), found.classes
