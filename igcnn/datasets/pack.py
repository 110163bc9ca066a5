"""`igcnn data pack`: all images of a data set as JPEGs of one size in one HDF5 file.

The file has a group for each split with `data` (uint8, all JPEGs one after the other), `offsets`
(int64, N + 1) and `labels` (int64, N); its attribute `classes` is a JSON list of names. The user
block in front says where the images are and gives the sha256 of all other bytes: they are
verified before the HDF5 library sees them, which can run for ever on a file with flipped bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError
from ..files import sync_folder
from .dataset import Dataset
from .encoded import EncodedSplit, decode
from .photographs import shrunk

BATCH = 256
BLOCK = 512
MAGIC = b"igcnn-packed-images\n"


def pack(
    dataset: Dataset, path: Path, workers: int, report: Callable[[str, int, int], None]
) -> dict[str, int]:
    """Write the file; return how many broken images were left out of each split.

    Args:
        dataset: of encoded images.
        path: of the file; an existing file stays until the new one is complete.
        workers: processes that decode.
        report: called with the split, images so far and images in all.

    Raises:
        DataError: an image is broken and none may be left out, or the file cannot be written.
    """
    import h5py

    part = path.with_name(path.name + ".part")
    try:
        with _SteadyFile(part, "w+") as stream:
            with h5py.File(stream, "w", userblock_size=BLOCK) as file:
                file.attrs["classes"] = json.dumps(dataset.classes)
                left_out = {
                    name: _pack_split(file.create_group(name), split, part, workers, report)
                    for name, split in (("train", dataset.train), ("test", dataset.test))
                    if isinstance(split, EncodedSplit)
                }
                extents = [[g["data"].id.get_offset(), len(g["data"])] for g in file.values()]
            stream.check()
            write_block(part, [(first, size) for first, size in extents if size])
            os.fsync(stream.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}; make room") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return left_out


class _SteadyFile(io.FileIO):
    """A file that tells of an error when it is asked, and goes on until then.

    The HDF5 library loses errors of writing, or crashes at them.
    """

    _error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, or keep the error."""
        rest = memoryview(data)
        end = self.tell() + len(rest)
        try:
            while rest and not self._error:
                rest = rest[super().write(rest) or 0 :]
        except OSError as error:
            self._error = error
        self.seek(end)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or keep the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def check(self) -> None:
        """Raise the first error."""
        if self._error:
            raise self._error


def write_block(path: Path, extents: list[tuple[int, int]]) -> None:
    """Write the user block: where the images are, and the checksum of the rest."""
    places = json.dumps(extents)
    with path.open("r+b") as file:
        digest = hashlib.sha256(places.encode())
        for piece in _rest(file, path.stat().st_size, extents):
            digest.update(piece)
        file.seek(0)
        text = f"{digest.hexdigest()}\n{places}\n".encode()
        file.write((MAGIC + text).ljust(BLOCK, b"\0"))


def check_block(path: Path) -> None:
    """Verify the checksum of all bytes that are not images.

    Raises:
        DataError: it is not that of the user block.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic, *lines = file.read(BLOCK).split(b"\n")
        try:
            digest, places = lines[:2]
            extents = [(int(first), int(length)) for first, length in json.loads(places)]
            inside = all(a >= BLOCK and 0 <= n <= size - a for a, n in extents)
            if magic + b"\n" != MAGIC or not inside or len(extents) > 2:
                raise ValueError
        except (ValueError, TypeError, RecursionError):
            raise DataError(
                f"{path}: was not written by `igcnn data pack`; pack it again"
            ) from None
        found = hashlib.sha256(places)
        for piece in _rest(file, size, extents):
            found.update(piece)
    if found.hexdigest().encode() != digest:
        raise DataError(f"{path}: is damaged: its checksum does not match; pack it again")


def _rest(file: BinaryIO, size: int, extents: list[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes after the block that lie in no extent."""
    place = BLOCK
    for first, length in [*sorted(extents), (size, 0)]:
        file.seek(place)
        while place < first and (piece := file.read(min(1 << 20, first - place))):
            place += len(piece)
            yield piece
        place = max(place, first + length)


def _pack_split(
    group: object,
    split: EncodedSplit,
    part: Path,
    workers: int,
    report: Callable[[str, int, int], None],
) -> int:
    import h5py

    assert isinstance(group, h5py.Group)
    batches = (
        np.arange(first, min(first + BATCH, len(split))) for first in range(0, len(split), BATCH)
    )
    # contiguous, so that images can be read without HDF5: first beside the file, then in it
    offsets, labels, left_out = [0], [], 0
    name = group.name.removeprefix("/")
    raw = part.with_name(f"{part.name}.{name}")
    try:
        with raw.open("wb") as stream:
            for indices, results in decode(split.store, batches, _shrunk, workers):
                for index, result in zip(indices.tolist(), results, strict=True):
                    if isinstance(result, str):
                        split.note(index, result)
                        left_out += 1
                        continue
                    stream.write(result)
                    offsets.append(offsets[-1] + len(result))
                    labels.append(split.labels[index])
                report(name, int(indices[-1]) + 1, len(split))
        data = group.create_dataset("data", (offsets[-1],), np.uint8)
        if offsets[-1]:
            source = np.memmap(raw, np.uint8, "r")
            for first in range(0, offsets[-1], 1 << 24):
                data[first : first + (1 << 24)] = source[first : first + (1 << 24)]
    finally:
        raw.unlink(missing_ok=True)
    group.create_dataset("offsets", data=np.array(offsets, np.int64))
    group.create_dataset("labels", data=np.array(labels, np.int64))
    return left_out


def _shrunk(data: bytes, index: int) -> bytes:
    del index
    return shrunk(data)
