"""Where encoded images are: class folders, tar archives as they are, one packed HDF5 file.

Each is scanned once; the index lies beside the images (or in the cache, where that folder cannot
be written) and is used again as long as what it was made of has not changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import write_atomically
from .sources import data_home

Array = np.ndarray

ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MAX_IMAGE_BYTES = 1 << 28
INDEX_VERSION = 1


@dataclass(frozen=True)
class Files:
    """Images in files of their own.

    Attributes:
        folder: where they are.
        paths: of each, from there.
    """

    folder: Path
    paths: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        """Return the bytes of one."""
        return (self.folder / self.paths[index]).read_bytes()

    def name(self, index: int) -> str:
        """Return its path."""
        return str(self.folder / self.paths[index])


@dataclass(frozen=True)
class Pieces:
    """Images that are parts of one large file.

    Attributes:
        path: of the file.
        names: of each image; empty where they have only numbers.
        offsets: first byte of each, (N,).
        sizes: in bytes, (N,).
    """

    path: Path
    names: list[str]
    offsets: Array
    sizes: Array

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, index: int) -> bytes:
        """Return the bytes of one."""
        with self.path.open("rb") as file:
            file.seek(int(self.offsets[index]))
            return file.read(int(self.sizes[index]))

    def name(self, index: int) -> str:
        """Return what it is called within the file."""
        return f"{self.path}: {self.names[index] if self.names else f'image {index}'}"


@dataclass(frozen=True)
class Labelled:
    """Encoded images with the names of their classes.

    Attributes:
        store: the images.
        labels: int64, (N,).
        classes: names, in the order of the labels.
    """

    store: Files | Pieces
    labels: Array
    classes: tuple[str, ...]


def class_folders(folder: Path) -> Labelled:
    """Return the images of a folder with one folder for each class, in the order of names.

    Raises:
        DataError: there are no class folders, or no images in them.
    """
    folders = sorted(entry.path for entry in _scan(folder) if entry.is_dir())
    key = [[Path(path).name, os.stat(path).st_mtime_ns] for path in folders]
    content = _load(folder, key)
    if content is None:
        paths, labels = [], []
        for label, path in enumerate(folders):
            names = sorted(_images(Path(path)))
            paths += [f"{Path(path).name}/{name}" for name in names]
            labels += [label] * len(names)
        content = {"paths": paths, "labels": labels}
        if paths:
            _save(folder, key, content)
    if not content["paths"]:
        raise DataError(
            f"{folder}: no images in class folders; it must hold a folder for each class, and "
            f"each of these images ({', '.join(ENDINGS[:3])}, …)"
        )
    classes = tuple(Path(path).name for path in folders)
    own = np.array(content["labels"], np.int64)
    return Labelled(Files(folder, content["paths"]), own, classes)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def _images(folder: Path, inside: str = "") -> Iterator[str]:
    for entry in _scan(folder / inside):
        name = f"{inside}{entry.name}"
        if entry.is_dir():
            yield from _images(folder, f"{name}/")
        elif entry.name.lower().endswith(ENDINGS):
            yield name


def training_tar(path: Path) -> Labelled:
    """Return the images of ILSVRC2012_img_train.tar: a tar of one tar for each class.

    Raises:
        DataError: the archive is damaged or of another form.
    """
    content = _tar_index(path, nested=True)
    classes = tuple(sorted(set(content["groups"])))
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[group] for group in content["groups"]], np.int64)
    return Labelled(_pieces(path, content), labels, classes)


def flat_tar(path: Path) -> Pieces:
    """Return the images of ILSVRC2012_img_val.tar, in the order of their names.

    Raises:
        DataError: the archive is damaged or of another form.
    """
    return _pieces(path, _tar_index(path, nested=False))


def _pieces(path: Path, content: dict[str, Any]) -> Pieces:
    offsets, sizes = (np.array(content[key], np.int64) for key in ("offsets", "sizes"))
    return Pieces(path, content["names"], offsets, sizes)


def _tar_index(path: Path, nested: bool) -> dict[str, Any]:
    status = path.stat()
    key = [nested, status.st_size, status.st_mtime_ns]
    content = _load(path, key)
    if content is not None:
        return content
    try:
        with path.open("rb") as file:
            found = sorted(_nested(file) if nested else _members(file, 0, status.st_size, ""))
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{path}: is not a readable tar archive ({error})") from error
    if not found:
        raise DataError(f"{path}: holds no images")
    groups, names, offsets, sizes = (list(column) for column in zip(*found, strict=True))
    content = {"groups": groups, "names": names, "offsets": offsets, "sizes": sizes}
    _save(path, key, content)
    return content


def _nested(file: Any) -> Iterator[tuple[str, str, int, int]]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        inner = [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]
    for name, offset, size in inner:
        if name.endswith(".tar"):
            yield from _members(file, offset, size, Path(name).stem)


def _members(file: Any, start: int, size: int, group: str) -> Iterator[tuple[str, str, int, int]]:
    """Yield (group, name, offset, size) of the images of a tar that lies within a file."""
    part = _Part(file, start, size)
    with tarfile.open(fileobj=part, mode="r:") as archive:  # type: ignore[call-overload]
        for member in archive:
            if not member.isreg() or not member.name.lower().endswith(ENDINGS):
                continue
            if member.size > MAX_IMAGE_BYTES or member.offset_data + member.size > size:
                raise ValueError(f"{member.name} has {member.size:,} bytes")
            yield group, Path(member.name).name, start + member.offset_data, member.size


class _Part:
    """A stretch of a file, to be read like a file."""

    def __init__(self, file: Any, start: int, size: int) -> None:
        self.file, self.start, self.size, self.place = file, start, size, 0

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.place)
        self.file.seek(self.start + self.place)
        data: bytes = self.file.read(left if size < 0 else min(size, left))
        self.place += len(data)
        return data

    def seek(self, place: int) -> None:
        self.place = place

    def tell(self) -> int:
        return self.place


def packed(path: Path, split: str) -> Labelled:
    """Return a split of a file that `igcnn data pack` wrote.

    Raises:
        DataError: it was not written by `igcnn data pack`, or is damaged.
    """
    import h5py

    from .pack import check_block

    check_block(path)
    try:
        with h5py.File(path, "r") as file:
            group = file[split]
            data, offsets = group["data"], group["offsets"][()]
            labels = group["labels"][()].astype(np.int64)
            classes = tuple(json.loads(file.attrs["classes"]))
            first = data.id.get_offset()
            right = (
                first is not None
                and data.dtype == np.uint8
                and offsets.dtype == np.int64
                and len(offsets) == len(labels) + 1
                and offsets[0] == 0
                and offsets[-1] == len(data)
                and np.all(np.diff(offsets) >= 0)
                and len(labels) > 0
                and 0 <= labels.min() <= labels.max() < len(classes)
                and first + len(data) <= path.stat().st_size
            )
    # a damaged HDF5 file can raise nearly anything
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({error}); pack it again") from error
    if not right:
        raise DataError(
            f"{path}: is damaged or was not written by `igcnn data pack`; pack it again"
        )
    sizes = np.diff(offsets)
    return Labelled(Pieces(path, [], first + offsets[:-1], sizes), labels, classes)


# -- index files --------------------------------------------------------------------------------


def _index_paths(source: Path) -> list[Path]:
    """Return where an index may lie: beside its source, or in the cache."""
    digest = hashlib.sha256(str(source.absolute()).encode()).hexdigest()[:16]
    beside = source.with_name(f".{source.name}.igcnn-index.json")
    return [beside, data_home().parent / "index" / f"{digest}.json"]


def _load(source: Path, key: list[Any]) -> dict[str, Any] | None:
    """Return the content of an index that was made of the same source."""
    for path in _index_paths(source):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["version"] == INDEX_VERSION and found["key"] == key:
                content = found["content"]
                text = json.dumps(content)
                if found["sha256"] == hashlib.sha256(text.encode()).hexdigest():
                    return dict(content)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def _save(source: Path, key: list[Any], content: dict[str, Any]) -> None:
    """Write an index where that is possible."""
    text = json.dumps(content)
    digest = hashlib.sha256(text.encode()).hexdigest()
    whole = json.dumps(
        {"version": INDEX_VERSION, "key": key, "sha256": digest, "content": content}
    )
    for path in _index_paths(source):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, whole.encode())
        except OSError:
            continue
        return
