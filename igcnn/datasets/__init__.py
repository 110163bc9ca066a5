"""Data sets by name, and the loader that makes batches of them."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..errors import ConfigError
from .dataset import Augmentation, Dataset, Split
from .loader import Loader, evaluation_batches

__all__ = [
    "DATASETS",
    "Augmentation",
    "Dataset",
    "Loader",
    "Split",
    "evaluation_batches",
    "load_dataset",
]

DATASETS = ("digits", "cifar10", "cifar100", "svhn")


def load_dataset(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Return a data set, read into memory.

    Args:
        name: one of DATASETS.
        data_dir: where its official files are, archives or unpacked; digits needs none.

    Raises:
        ConfigError: there is no data set of this name.
        DataError: files are missing or damaged; the message says which, and where they belong.
    """
    folder = None if data_dir is None else Path(data_dir)
    match name:
        case "digits":
            from .digits import load_digits

            return load_digits()
        case "cifar10":
            from .cifar import load_cifar10

            return load_cifar10(folder)
        case "cifar100":
            from .cifar import load_cifar100

            return load_cifar100(folder)
        case "svhn":
            from .svhn import load_svhn

            return load_svhn(folder)
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"unknown data set {name!r}: {hint}choose one of {', '.join(DATASETS)}")
