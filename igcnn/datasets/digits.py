"""digits: 1,797 handwritten digits of 8×8 pixels, included in the package.

They are the test part of Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak,
UCI Machine Learning Repository, 1998, CC BY 4.0; data/DIGITS-LICENSE.md). Grey values from 0 to
16 are scaled to 0 to 255 and repeated in three channels, so that every network takes them.
Every fifth image, from the first, is for testing: 360 of them; 1,437 are for training.
"""

import gzip
import hashlib
from importlib.resources import files

import numpy as np

from ..errors import DataError
from .dataset import Augmentation, Dataset, Split
from .registry import register_dataset

SHA256 = "e31b7ccbf8cc2b158de948b1bb7a67bf39a856fb064b3aa8ef489f12a2dc4b63"

CLASSES = tuple("0123456789")
MEAN = 77.842
STD = 95.920


@register_dataset("digits")
def load_digits() -> Dataset:
    """Return the data set.

    Raises:
        DataError: the file in the package is damaged.
    """
    path = files(__package__) / "data" / "digits.csv.gz"
    compressed = path.read_bytes()
    if hashlib.sha256(compressed).hexdigest() != SHA256:
        raise DataError(f"{path}: damaged (its sha256 is not {SHA256[:12]}…); reinstall igcnn")
    lines = gzip.decompress(compressed).decode().splitlines()
    rows = np.array([line.split(",") for line in lines], np.int64)
    # (1797, 64) → (1797, 1, 8, 8) → (1797, 3, 8, 8)
    grey = np.round(rows[:, :64] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    images = np.repeat(grey, 3, axis=1)
    labels = rows[:, 64]
    held_out = np.arange(len(labels)) % 5 == 0
    return Dataset(
        name="digits",
        classes=CLASSES,
        mean=(MEAN, MEAN, MEAN),
        std=(STD, STD, STD),
        augmentation=Augmentation(pad=1, mirror=False),
        train=Split(images[~held_out], labels[~held_out]),
        test=Split(images[held_out], labels[held_out]),
    )
