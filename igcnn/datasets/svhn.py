"""SVHN, Street View House Numbers (Netzer et al., 2011), cropped digits, from its .mat files.

Training uses the images of `train` and `extra` together, 604,388, as in the paper (section
4.2); nothing is augmented. In the files the digit 0 has the label 10.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np

from ..errors import DataError, MissingDataError
from ..files import write_atomically
from .dataset import Dataset, Decoding, Split
from .matfile import MatArray, read_arrays
from .registry import register_dataset

Array = np.ndarray

# part: images, bytes of the file
PARTS = {
    "train": (73_257, 182_040_794),
    "extra": (531_131, 1_329_278_602),
    "test": (26_032, 64_275_384),
}
SOURCE = "http://ufldl.stanford.edu/housenumbers/"
SIDE = 32
CACHE_VERSION = 1
IMAGE_BYTES = 3 * SIDE * SIDE
IMAGES_AT_ONCE = 256
MAX_INFLATION = 1032  # of zlib: bytes that one byte can stand for


@register_dataset("svhn")
def load_svhn(data_dir: Path | None, decoding: Decoding) -> Dataset:
    """Return SVHN: 604,388 training images (1.9 GB) and 26,032 test images of 32 × 32.

    Files of the same format with other numbers of images are read as well.

    Args:
        data_dir: a folder that holds train_32x32.mat, extra_32x32.mat and test_32x32.mat, or
            whose folder `svhn` does.
        decoding: its `say` is called if the numbers of images differ.

    Raises:
        DataError: files are missing or damaged.
    """
    folder = _find(data_dir)
    counts = {part: _count(folder / _file(part)) for part in PARTS}
    train = _cached(folder, {part: counts[part] for part in ("train", "extra")})
    test = _cached(folder, {"test": counts["test"]})
    if any(counts[part] != count for part, (count, _) in PARTS.items()):
        official = PARTS["train"][0] + PARTS["extra"][0]
        decoding.say(
            f"{folder} does not hold the official svhn: {len(train):,} training and "
            f"{len(test):,} test images, not {official:,} and {PARTS['test'][0]:,}"
        )
    return Dataset(
        name="svhn",
        classes=tuple("0123456789"),
        mean=(111.609, 113.161, 120.565),
        std=(50.498, 51.259, 50.244),
        augmentation=None,
        train=train,
        test=test,
    )


def _file(part: str) -> str:
    return f"{part}_32x32.mat"


def _find(data_dir: Path | None) -> Path:
    """Return the folder with all files."""
    folders = [] if data_dir is None else [data_dir, data_dir / "svhn"]
    missing = {f: [p for p in PARTS if not (f / _file(p)).is_file()] for f in folders}
    for folder, parts in missing.items():
        if not parts:
            return folder
    where = "no --data-dir was given"
    parts = list(PARTS)
    if data_dir is not None:
        folder = min(folders, key=lambda f: len(missing[f]))
        parts = missing[folder]
        where = f"not in {folder}: {', '.join(map(_file, parts))}"
    files = ", ".join(f"{_file(part)} ({PARTS[part][1]:,} bytes)" for part in parts)
    raise MissingDataError(
        f"svhn: {where}; run igcnn data fetch svhn, or put {files} from {SOURCE} into a folder "
        "and pass the folder as --data-dir"
    )


def _count(path: Path) -> int:
    """Return the number of images in a file.

    Raises:
        DataError: the file holds no such images, or is too small for so many.
    """
    shape = next((array.shape for array in read_arrays(path) if array.name == "X"), None)
    if shape is None:
        raise DataError(f"{path}: has no array X; download the file again from {SOURCE}")
    if shape[:-1] != (SIDE, SIDE, 3) or shape[-1] < 1:
        raise DataError(
            f"{path}: X has shape {shape} instead of ({SIDE}, {SIDE}, 3, N); download the file "
            f"again from {SOURCE}"
        )
    if shape[-1] * IMAGE_BYTES > MAX_INFLATION * path.stat().st_size:
        raise DataError(f"{path}: too small for {shape[-1]:,} images; download it again")
    return shape[-1]


def _cached(folder: Path, counts: dict[str, int]) -> Split:
    """Return the images of several files, from what an earlier start left beside them.

    Args:
        folder: of the files.
        counts: part → number of images in its file.

    The cache is made of the same bytes as the arrays in memory, mapped instead of read, so that
    a start takes no time and processes share it. It is rewritten when a file has changed, and
    done without where the folder cannot be written.
    """
    images_path = folder / f".{'-'.join(counts)}.igcnn-images.npy"
    key_path = images_path.with_suffix(".json")
    files = [(folder / _file(part)).stat() for part in counts]
    key = [[CACHE_VERSION, file.st_size, file.st_mtime_ns] for file in files]
    total = sum(counts.values())
    split = _read_cache(images_path, key_path, key, total)
    if split is not None:
        return split
    labels = np.empty(total, np.int64)
    part_path = images_path.with_suffix(f".{os.getpid()}.part")
    images: Array
    try:
        images = _mapped(part_path, (total, 3, SIDE, SIDE))
    except OSError:
        images = np.empty((total, 3, SIDE, SIDE), np.uint8)
    try:
        _read(folder, counts, images, labels)
        if isinstance(images, np.memmap):
            content = {"key": key, "labels": labels.astype(np.uint8).tobytes().hex()}
            # a full folder is no harm: what was read is whole, and goes on without a name
            with contextlib.suppress(OSError):
                images.flush()
                os.replace(part_path, images_path)
                write_atomically(key_path, json.dumps(content).encode())
    finally:
        part_path.unlink(missing_ok=True)
    return Split(images, labels)


def _read_cache(images: Path, key_path: Path, key: list[list[int]], count: int) -> Split | None:
    """Return what is in the cache if it is of these files."""
    try:
        content = json.loads(key_path.read_text(encoding="ascii"))
        labels = np.frombuffer(bytes.fromhex(content["labels"]), np.uint8).astype(np.int64)
        array = np.load(images, mmap_mode="r", allow_pickle=False)
        whole = array.shape == (count, 3, SIDE, SIDE) and array.dtype == np.uint8
        if content["key"] == key and whole and labels.shape == (count,) and labels.max() < 10:
            return Split(array, labels)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, EOFError):
        pass
    return None


def _mapped(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Return an array that is a file; its room is taken now, not in the middle of writing.

    Raises:
        OSError: there is no room, or the folder cannot be written.
    """
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    try:
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return array


def _read(folder: Path, counts: dict[str, int], images: Array, labels: Array) -> None:
    """Fill images and labels from several files, one after the other."""
    first = 0
    for part, count in counts.items():
        _read_part(
            folder / _file(part), images[first : first + count], labels[first : first + count]
        )
        first += count


def _read_part(path: Path, images: Array, labels: Array) -> None:
    """Fill images, (N, 3, 32, 32), and labels, (N,), from one file."""
    try:
        found = _fill(path, images, labels)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the disk") from error
    if found != {"X", "y"}:
        absent = ", ".join(sorted({"X", "y"} - found))
        raise DataError(f"{path}: has no array {absent}; download the file again from {SOURCE}")
    wrong = np.flatnonzero((labels < 1) | (labels > 10))
    if wrong.size:
        raise DataError(
            f"{path}: has label {labels[wrong[0]]} at image {wrong[0]}, where 1 to 10 are valid; "
            f"download the file again from {SOURCE}"
        )
    labels %= 10


def _fill(path: Path, images: Array, labels: Array) -> set[str]:
    """Return the names of the arrays that were found in the file and read."""
    found = set()
    for array in read_arrays(path):
        if array.name == "X":
            _check(path, array, (SIDE, SIDE, 3, len(images)))
            _read_images(array, images)
        elif array.name == "y":
            _check(path, array, (len(labels), 1))
            labels[...] = array.read(len(labels))
        else:
            continue
        found.add(array.name)
    return found


def _check(path: Path, array: MatArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise DataError(
            f"{path}: {array.name} has shape {array.shape} instead of {shape}; fetch the file "
            f"again from {SOURCE}"
        )
    if array.name == "X" and array.dtype != np.uint8:
        raise DataError(f"{path}: X holds {array.dtype} instead of bytes; download the file again")


def _read_images(array: MatArray, images: Array) -> None:
    for first in range(0, len(images), IMAGES_AT_ONCE):
        block = images[first : first + IMAGES_AT_ONCE]
        # column order: (row, column, colour, image) with the row running fastest
        pixels = array.read(len(block) * IMAGE_BYTES).reshape(len(block), 3, SIDE, SIDE)
        block[...] = pixels.transpose(0, 1, 3, 2)
