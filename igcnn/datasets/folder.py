"""People's own images: a folder for each class, directly or in each of train/ and test/."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError, MissingDataError
from .dataset import Augmentation, Dataset, Decoding, Split
from .encoded import EncodedSplit
from .registry import register_dataset
from .splitting import stratified
from .stores import class_folders

PADDING = 8  # of how many pixels one is added on each side, as 4 of 32 in the paper
BATCH = 64
TEST_FRACTION = 0.2  # of images that are not divided into train/ and test/
TEST_SEED = 0  # the same images in every run, so that runs can be compared


@register_dataset("folder")
def load_folder(data_dir: Path | None, image_size: int, decoding: Decoding) -> Dataset:
    """Return the images, their middle squares resized to image_size pixels a side, in memory.

    Mean and deviation come from the training images. Augmentation as for CIFAR: padding by an
    eighth, random crop, mirror.

    Args:
        data_dir: a folder with train/ and test/ (or val/), each with a folder for each class;
            or with the folders of the classes: a fifth of each class is then for testing.
        image_size: side in pixels.
        decoding: processes, and what becomes of broken images.

    Raises:
        MissingDataError: the folders are not there.
        DataError: an image cannot be read, the classes of both differ, or there is only one.
    """
    where = "no --data-dir was given" if data_dir is None else f"not in {data_dir}"
    missing = MissingDataError(
        f"folder: {where}: a folder of images for each class, either directly or in train/ and "
        "test/ (or val/); name the folder that holds them with --data-dir"
    )
    if data_dir is None:
        raise missing
    parts = [name for name in ("train", "test", "val") if (data_dir / name).is_dir()]
    notes: tuple[str, ...] = ()
    if not parts and _has_folders(data_dir):
        train_split, test_split, classes = _divided(data_dir, image_size, decoding)
        total, held_out = len(train_split) + len(test_split), len(test_split)
        notes = (
            f"{data_dir} has no train/ and test/: {held_out} of its {total} images are held "
            f"out for testing, a random {TEST_FRACTION:.0%} of each class, the same in every run",
        )
    elif "train" in parts and len(parts) > 1:
        train_split, classes = _read(data_dir / "train", image_size, decoding)
        test_split, test_classes = _read(data_dir / parts[1], image_size, decoding)
        if classes != test_classes:
            odd = sorted(set(classes) ^ set(test_classes))[:3]
            raise DataError(
                f"{data_dir}: train/ and {parts[1]}/ contain different classes: only one has "
                f"{', '.join(odd)}; every class needs a directory in both"
            )
    else:
        raise missing
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
        notes=notes,
    )


def _has_folders(folder: Path) -> bool:
    """Return whether there is a folder that has folders, hidden ones aside."""
    if not folder.is_dir():
        return False
    return any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())


def _divided(folder: Path, side: int, decoding: Decoding) -> tuple[Split, Split, tuple[str, ...]]:
    """Return training and test images of class folders that are not divided yet."""
    whole, classes = _read(folder, side, decoding)
    if len(classes) == 1:
        raise DataError(
            f"{folder}: contains only one class directory, {classes[0]}; add a directory of "
            "images for every other class"
        )
    held_out = stratified(whole.labels, TEST_FRACTION, TEST_SEED)
    if not held_out.any():
        raise DataError(f"{folder}: no class has two images, one for training and one for testing")
    train, test = (whole.take(np.flatnonzero(part)) for part in (~held_out, held_out))
    return train, test, classes


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
        raise DataError(f"{folder}: no image is readable")
    return Split(images[: len(kept)], found.labels[kept]), found.classes
