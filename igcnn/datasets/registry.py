"""Data sets by name: what `register_dataset` knows of each, and `load_dataset`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import ConfigError
from ..registry import Registry
from .dataset import Dataset, Decoding
from .sources import data_home, load_sources

Load = TypeVar("Load", bound=Callable[..., Dataset])

IMAGE_SIZE = 32  # pixels of a side, for images of any size
KEYWORDS = ("data_dir", "image_size", "decoding")  # what a registered function may ask for

DATASETS: Registry[Callable[..., Dataset]] = Registry(
    "data set",
    "igcnn.datasets",
    {
        "digits": "igcnn.datasets.digits",
        "cifar10": "igcnn.datasets.cifar",
        "cifar100": "igcnn.datasets.cifar",
        "svhn": "igcnn.datasets.svhn",
        "imagenet": "igcnn.datasets.imagenet",
        "folder": "igcnn.datasets.folder",
    },
)


def register_dataset(name: str) -> Callable[[Load], Load]:
    """Return a decorator that registers a function as the loader of a data set::

        @register_dataset("stripes")
        def load_stripes(data_dir: Path | None = None) -> Dataset:
            return Dataset("stripes", …)

        load_dataset("stripes")

    The function is called by keywords, with those of the following that it takes: `data_dir`, the
    folder that the user names, None for none (where igcnn knows a source of the files: its own
    folder); `image_size`, the side in pixels to which images are resized; `decoding`, a Decoding.
    The Dataset that it returns has the same name.

    Args:
        name: what `--dataset` calls the data set.

    Raises:
        ConfigError: another module has registered the name, or the function needs something else.
    """

    def register(load: Load) -> Load:
        for key, keyword in inspect.signature(load).parameters.items():
            if key not in KEYWORDS and keyword.default is inspect.Parameter.empty:
                raise ConfigError(
                    f"{name}: {load.__name__} needs {key}; a data set gets "
                    f"{', '.join(KEYWORDS)}, so give {key} a default"
                )
        DATASETS.add(name, load, load.__module__)
        return load

    return register


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int | None = None,
    workers: int = 0,
    skip_broken: bool = False,
    say: Callable[[str], None] | None = None,
) -> Dataset:
    """Return a data set; of the built-in ones, all but imagenet are read into memory.

    Args:
        name: one of DATASETS.
        data_dir: where its official files are, archives or unpacked; by default the folder that
            `igcnn data where` prints. digits needs none.
        image_size: side in pixels to which `folder` resizes; None for 32.
        workers: processes that decode images of imagenet and folder; 0 for none.
        skip_broken: leave out images that cannot be read.
        say: told of each of these, and of official files with other numbers of images.

    Raises:
        ConfigError: there is no data set of this name, it reads nothing from data_dir, or
            image_size or workers is too small.
        MissingDataError: files are missing; the message says which, and where they belong.
        DataError: files are damaged.
    """
    image_size = IMAGE_SIZE if image_size is None else image_size
    if image_size < 1 or workers < 0:
        raise ConfigError(
            f"image_size {image_size} must be at least 1, and workers {workers} at least 0"
        )
    load = DATASETS[name]
    taken = inspect.signature(load).parameters
    folder = None if data_dir is None else Path(data_dir)
    if folder is not None and "data_dir" not in taken:
        raise ConfigError(
            f"{name} does not read files; to use those in {folder}, pass "
            "--dataset folder (or cifar10, cifar100, svhn, imagenet)"
        )
    if folder is None and "data_dir" in taken and name in load_sources():
        folder = data_home()
    decoding = Decoding(workers, skip_broken, say or (lambda _: None))
    offered = {"data_dir": folder, "image_size": image_size, "decoding": decoding}
    dataset = load(**{key: value for key, value in offered.items() if key in taken})
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            f"{name}: {load.__name__} returned {type(dataset).__name__}; it must return a Dataset"
        )
    return dataset
