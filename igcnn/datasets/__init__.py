"""Data sets by name, and the loader that makes batches of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError
from .dataset import Augmentation, Dataset, Decoding, Draw, Images, Split
from .loader import Loader, evaluation_batches
from .sources import data_home

__all__ = [
    "DATASETS",
    "Augmentation",
    "Dataset",
    "Decoding",
    "Draw",
    "Images",
    "Loader",
    "Split",
    "evaluation_batches",
    "load_dataset",
]

DATASETS = ("digits", "cifar10", "cifar100", "svhn", "imagenet", "folder")


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int = 32,
    workers: int = 0,
    skip_broken: bool = False,
    say: Callable[[str], None] | None = None,
) -> Dataset:
    """Return a data set; all but imagenet are read into memory.

    Args:
        name: one of DATASETS.
        data_dir: where its official files are, archives or unpacked; by default the folder that
            `igcnn data where` prints. digits needs none.
        image_size: side to which `folder` resizes.
        workers: processes that decode images of imagenet and folder; 0 for none.
        skip_broken: leave out images that cannot be read.
        say: told of each of these, and of official files with other numbers of images.

    Raises:
        ConfigError: there is no data set of this name, or image_size or workers is too small.
        MissingDataError: files are missing; the message says which, and where they belong.
        DataError: files are damaged.
    """
    if image_size < 1 or workers < 0:
        raise ConfigError(
            f"image_size {image_size} must be at least 1, and workers {workers} at least 0"
        )
    decoding = Decoding(workers, skip_broken, say or (lambda _: None))
    folder = data_home() if data_dir is None else Path(data_dir)
    match name:
        case "digits":
            from .digits import load_digits

            return load_digits()
        case "cifar10":
            from .cifar import load_cifar10

            return load_cifar10(folder, decoding.say)
        case "cifar100":
            from .cifar import load_cifar100

            return load_cifar100(folder, decoding.say)
        case "svhn":
            from .svhn import load_svhn

            return load_svhn(folder, decoding.say)
        case "imagenet":
            from .imagenet import load_imagenet

            return load_imagenet(folder, decoding)
        case "folder":
            from .folder import load_folder

            own = None if data_dir is None else folder
            return load_folder(own, image_size, decoding)
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"unknown data set {name!r}: {hint}choose one of {', '.join(DATASETS)}")
