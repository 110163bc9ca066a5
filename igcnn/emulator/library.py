"""A compiled kernel library: launches kernels on NumPy arrays, checked or not."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import KernelError
from .build import build, locate

Array = np.ndarray
Argument = Array | np.generic

GUARD = 1 << 16  # bytes around each array in check mode, which nothing may touch


class _Range(ctypes.Structure):
    """One array of a kernel's arguments; the same as Range in runtime.h."""

    _fields_ = (
        ("begin", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("granule", ctypes.c_int),
        ("initialised", ctypes.c_int),
        ("writable", ctypes.c_int),
    )


class Library:
    """The kernels of one source, compiled for this CPU.

    Args:
        source: CUDA C, complete, with one function `emulate_NAME(void **)` for each kernel.
        name: of the source file, for messages.
        defines: NAME=VALUE, as for the CUDA compiler.
        checked: whether launches watch every access to memory.

    Raises:
        DeviceError: there is no g++, or it refuses the source.
    """

    def __init__(
        self, source: str, name: str, defines: Sequence[str] = (), checked: bool = False
    ) -> None:
        self.checked = checked
        self._path = build(source, name, defines, checked)
        self._library = ctypes.CDLL(str(self._path))
        self._library.emulator_message.restype = ctypes.c_char_p
        self._library.emulator_message_pc.restype = ctypes.c_size_t

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[Argument],
        *,
        shared_bytes: int = 0,
        constant: Sequence[bool] = (),
        uninitialised: Sequence[int] = (),
        backwards: bool = False,
    ) -> None:
        """Execute a kernel; arrays are changed in place.

        Args:
            kernel: its name.
            grid: blocks in x, y and z.
            block: threads of a block in x, y and z.
            arguments: C-contiguous arrays, and NumPy scalars of the types in the signature.
            shared_bytes: of dynamic shared memory.
            constant: for each argument, whether it is an array that the kernel only reads; for
                check mode, as the following.
            uninitialised: positions of arrays that may not be read before they are written.
            backwards: run blocks, warps and threads in the opposite order.

        Raises:
            KernelError: the kernel did what the CUDA model forbids; says what and where.
        """
        arrays = {i: a for i, a in enumerate(arguments) if isinstance(a, np.ndarray)}
        inside = {i: _guarded(a) if self.checked else a for i, a in arrays.items()}
        pointers: list[Any] = []
        for i, argument in enumerate(arguments):
            if i in inside:
                pointers.append(ctypes.c_void_p(inside[i].ctypes.data))
            else:
                pointers.append(ctypes.create_string_buffer(np.asarray(argument).tobytes()))
        addresses = (ctypes.c_void_p * len(pointers))(
            *(ctypes.cast(ctypes.byref(p), ctypes.c_void_p) for p in pointers)
        )
        ranges = (_Range * len(inside))(
            *(
                _Range(
                    array.ctypes.data,
                    array.ctypes.data + array.nbytes,
                    min(array.itemsize, 4),
                    i not in uninitialised,
                    not (constant and constant[i]),
                )
                for i, array in inside.items()
            )
        )
        failed = self._library.emulator_launch(
            getattr(self._library, f"emulate_{kernel}"),
            addresses,
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            ctypes.c_size_t(shared_bytes),
            ranges,
            len(ranges),
            int(self.checked),
            int(backwards),
        )
        if failed:
            raise KernelError(self._failure(kernel))
        if self.checked:
            for i, array in arrays.items():
                if not (constant and constant[i]):
                    array[...] = inside[i]

    def _failure(self, kernel: str) -> str:
        """Return what went wrong in the last launch, and where."""
        place = (ctypes.c_uint * 6)()
        self._library.emulator_message_place(place)
        block, thread = tuple(place[:3]), tuple(place[3:])
        what = self._library.emulator_message().decode()
        where = self._line(self._library.emulator_message_pc())
        return f"{kernel}: {what}; {where}block {block}, thread {thread}"

    def _line(self, pc: int) -> str:
        base = _base(self._path)
        line = locate(self._path, pc - base) if pc and base else ""
        return f"{line}, " if line else ""


def _guarded(array: Array) -> Array:
    """Return a copy of an array with nothing else near it in memory."""
    buffer = np.full(array.nbytes + 2 * GUARD, 0xFF, np.uint8)
    start = GUARD + -(buffer.ctypes.data + GUARD) % 256
    inside = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    inside[...] = array
    return inside


def _base(path: Path) -> int:
    """Return the address that this process has loaded a library at, 0 if it cannot be told."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split("-")[0], 16) for line in lines if line.endswith(str(path))), 0)
