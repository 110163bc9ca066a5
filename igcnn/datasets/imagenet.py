"""ImageNet (ILSVRC 2012): class folders, the official tar archives, or one packed file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import DataError, MissingDataError
from .dataset import Dataset, Decoding
from .encoded import EncodedSplit
from .registry import register_dataset
from .stores import Labelled, class_folders, flat_tar, packed, training_tar

PACKED = "imagenet.h5"
TRAIN_TAR = "ILSVRC2012_img_train.tar"
TEST_TAR = "ILSVRC2012_img_val.tar"
# for each image of TEST_TAR in the order of names, the name of its class
TEST_CLASSES = ("validation_classes.txt", "imagenet_2012_validation_synset_labels.txt")


@register_dataset("imagenet")
def load_imagenet(data_dir: Path | None, decoding: Decoding) -> Dataset:
    """Return ImageNet; images are decoded when they are needed.

    Args:
        data_dir: a folder with imagenet.h5 of `igcnn data pack`; or train/ and val/, with a
            folder for each class; or the official archives, with a text file that names the
            class of each validation image.
        decoding: processes, and what becomes of broken images.

    Raises:
        MissingDataError: none of these forms exists.
        DataError: a file is damaged, or train and val have different classes.
    """
    folders = [] if data_dir is None else [data_dir, data_dir / "imagenet"]
    for folder in folders:
        found = _train_and_test(folder)
        if found:
            return _dataset(folder, *found, decoding)
    where = "no --data-dir was given" if data_dir is None else f"none of its forms in {data_dir}"
    raise MissingDataError(
        f"imagenet: {where}; put into a folder train/ and val/ with a folder of images for each "
        f"class, or {TRAIN_TAR} (147,897,477,120 bytes), {TEST_TAR} (6,744,924,160 bytes) and "
        f"{TEST_CLASSES[0]} (a line for each validation image: the name of its class), or "
        f"{PACKED}, and name the folder with --data-dir; image-net.org gives the archives after "
        "registration"
    )


def _train_and_test(folder: Path) -> tuple[Labelled, Labelled] | None:
    if (folder / PACKED).is_file():
        return packed(folder / PACKED, "train"), packed(folder / PACKED, "test")
    train = None
    if (folder / "train").is_dir():
        train = class_folders(folder / "train")
    elif (folder / TRAIN_TAR).is_file():
        train = training_tar(folder / TRAIN_TAR)
    if train is None:
        return None
    if (folder / "val").is_dir():
        return train, class_folders(folder / "val")
    if (folder / TEST_TAR).is_file():
        return train, _test_tar(folder, train.classes)
    raise DataError(f"{folder}: has training images but neither val/ nor {TEST_TAR}")


def _test_tar(folder: Path, classes: tuple[str, ...]) -> Labelled:
    store = flat_tar(folder / TEST_TAR)
    path = next((folder / name for name in TEST_CLASSES if (folder / name).is_file()), None)
    if path is None:
        raise DataError(
            f"{folder}: {TEST_TAR} does not say which class an image has; put "
            f"{TEST_CLASSES[0]} beside it, a line for each image in the order of their names: the "
            "name of its class, such as n01440764"
        )
    names = path.read_text(encoding="utf-8", errors="replace").split()
    number = {name: label for label, name in enumerate(classes)}
    if len(names) != len(store) or not number.keys() >= set(names):
        unknown = next((name for name in names if name not in number), None)
        reason = f"{len(names):,} lines for {len(store):,} images"
        if unknown is not None:
            reason = (
                f"the class {re.sub(r'[^ -~]', '?', unknown)[:40]!r}, which is not in training"
            )
        raise DataError(f"{path}: has {reason}")
    return Labelled(store, np.array([number[name] for name in names], np.int64), classes)


def _dataset(folder: Path, train: Labelled, test: Labelled, decoding: Decoding) -> Dataset:
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[:3]
        raise DataError(
            f"{folder}: training and validation have different classes: {', '.join(odd)}, …"
        )
    return Dataset(
        name="imagenet",
        classes=train.classes,
        mean=(123.370, 112.757, 99.406),
        std=(68.998, 66.093, 68.292),
        augmentation=None,
        train=EncodedSplit(train.store, train.labels, decoding),
        test=EncodedSplit(test.store, test.labels, decoding),
    )
