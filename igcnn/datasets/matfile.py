"""Numeric arrays from MAT-files of level 5, streamed: no more than a block is held beside them.

Format: MathWorks, "MAT-File Format". A file is a header of 128 bytes and a row of elements,
each a tag (type, bytes) and a body; an array is an element that holds elements (flags, sizes,
name, numbers), or such an element as one zlib stream. Numbers are in column order. Little-endian
files are read, as all of SVHN's are; strings, cells, structures and sparse arrays are passed over.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from ..errors import DataError

Array = np.ndarray

BLOCK = 1 << 20

MATRIX, COMPRESSED = 14, 15
TYPES = {
    1: "<i1",
    2: "<u1",
    3: "<i2",
    4: "<u2",
    5: "<i4",
    6: "<u4",
    7: "<f4",
    9: "<f8",
    12: "<i8",
    13: "<u8",
}
NUMERIC_CLASSES = range(6, 16)  # double, single, and the integers
COMPLEX = 0x08
MAX_DIMENSIONS = 32
MAX_NAME = 63


class MatArray:
    """A numeric array of a MAT-file, not read yet.

    Attributes:
        name: of the variable.
        shape: of the array.
        dtype: of its numbers as they are stored; a double may be stored as bytes.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, source: _Source
    ) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self._source = source

    def read(self, count: int) -> Array:
        """Return the next `count` numbers, in column order.

        Raises:
            DataError: the file ends before, or is damaged.
        """
        return np.frombuffer(self._source.read(count * self.dtype.itemsize), self.dtype)


def read_arrays(path: Path) -> Iterator[MatArray]:
    """Yield the numeric arrays of a file; each must be read before the next is asked for.

    Raises:
        DataError: the file is not a MAT-file of level 5, is truncated or damaged.
    """
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            _check_header(path, file.read(128))
            position = 128
            while position < size:
                file.seek(position)
                kind, length = struct.unpack("<II", _Plain(path, file, size - position).read(8))
                position += 8 + length
                if position > size:
                    raise _damaged(path, f"ends {position - size:,} bytes before its last array")
                if kind == COMPRESSED:
                    yield from _compressed(path, _Plain(path, file, length))
                elif kind == MATRIX:
                    yield from _array(path, _Plain(path, file, length))
                else:
                    raise _damaged(path, f"has an element of type {kind} where an array belongs")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); download it again") from error


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}; it is damaged or incomplete; download it again")


def _check_header(path: Path, header: bytes) -> None:
    if header[:8] == b"\x89HDF\r\n\x1a\n" or header.startswith(b"MATLAB 7.3"):
        raise DataError(f"{path}: a MAT-file of version 7.3; SVHN's own files are of version 5")
    if len(header) < 128 or header[126:128] not in (b"IM", b"MI"):
        raise _damaged(path, "is not a MAT-file")
    if header[126:128] == b"MI":
        raise DataError(f"{path}: a big-endian MAT-file; SVHN's own files are little-endian")
    if header[124:126] != b"\x00\x01":
        raise _damaged(path, f"has version {header[125]}.{header[124]} instead of 1.0")


class _Source(Protocol):
    """Where the bytes of an element come from."""

    def read(self, count: int) -> bytes:
        """Return so many bytes, or raise DataError."""
        ...


class _Plain:
    """Bytes of a file as they are, at most `length`."""

    def __init__(self, path: Path, file: BinaryIO, length: int) -> None:
        self.path = path
        self.file = file
        self.length = length

    def read(self, count: int) -> bytes:
        """Return so many bytes."""
        content = self.file.read(min(count, self.length))
        self.length -= len(content)
        if len(content) < count:
            raise _damaged(self.path, f"ends {count - len(content):,} bytes too early")
        return content

    def read_some(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        return self.read(min(BLOCK, self.length))


class _Inflated:
    """Bytes of one zlib stream."""

    def __init__(self, path: Path, source: _Plain) -> None:
        self.path = path
        self.source = source
        self.zlib = zlib.decompressobj()
        self.waiting = b""

    def read(self, count: int) -> bytes:
        """Return so many bytes."""
        parts = []
        while count:
            if not self.waiting:
                self.waiting = self.source.read_some()
            if not self.waiting or self.zlib.eof:
                raise _damaged(self.path, f"has an array that ends {count:,} bytes too early")
            try:
                part = self.zlib.decompress(self.waiting, min(count, BLOCK))
            except zlib.error as error:
                raise _damaged(self.path, f"has a broken zlib stream ({error})") from error
            self.waiting = self.zlib.unconsumed_tail
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def _compressed(path: Path, source: _Plain) -> Iterator[MatArray]:
    inflated = _Inflated(path, source)
    kind, _ = struct.unpack("<II", inflated.read(8))
    if kind != MATRIX:
        raise _damaged(path, f"has a compressed element of type {kind} instead of an array")
    yield from _array(path, inflated)


def _array(path: Path, source: _Source) -> Iterator[MatArray]:
    """Yield the array of an element whose tag has been read, if it is numeric."""
    flags = _element(path, source, 16)
    if len(flags) != 8:
        raise _damaged(path, f"has array flags of {len(flags)} bytes instead of 8")
    kind, options = flags[0], flags[1]
    sizes = _element(path, source, 4 * MAX_DIMENSIONS)
    if len(sizes) % 4 or len(sizes) < 8:
        raise _damaged(path, f"has an array with sizes in {len(sizes)} bytes")
    shape = struct.unpack(f"<{len(sizes) // 4}i", sizes)
    name = _element(path, source, MAX_NAME).decode("ascii", "replace")
    if kind not in NUMERIC_CLASSES:
        return
    if options & COMPLEX:
        raise _damaged(path, f"has complex numbers in {name}")
    if min(shape) < 0:
        raise _damaged(path, f"has the array {name} of shape {shape}")
    type_number, length = _tag(source)[:2]
    if type_number not in TYPES:
        raise _damaged(path, f"has numbers of type {type_number} in {name}")
    dtype = np.dtype(TYPES[type_number])
    if length != math.prod(shape) * dtype.itemsize:
        raise _damaged(path, f"has {length:,} bytes for {name} of shape {shape}, {dtype}")
    yield MatArray(name, shape, dtype, source)


def _tag(source: _Source) -> tuple[int, int, bool]:
    """Return type, bytes, and whether the body follows in the next 4 bytes."""
    (word,) = struct.unpack("<I", source.read(4))
    if word >> 16:
        return word & 0xFFFF, word >> 16, True
    (length,) = struct.unpack("<I", source.read(4))
    return word, length, False


def _element(path: Path, source: _Source, limit: int) -> bytes:
    """Return the body of a small element."""
    _, length, small = _tag(source)
    if length > (4 if small else limit):
        raise _damaged(path, f"has an element of {length:,} bytes where at most {limit} belong")
    body = source.read(4) if small else source.read(-(-length // 8) * 8)
    return body[:length]
