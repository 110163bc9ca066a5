"""A compiled kernel library: launches kernels on NumPy arrays, checked or not."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import KernelError
from .build import build, locate

Array = np.ndarray
Argument = Array | np.generic

_SHARED, _BARRIER = -1, -2  # in place of an array, as in check.cpp
GUARD = 1 << 16  # bytes around each array in check mode, which nothing may touch


class Step(NamedTuple):
    """An access to memory of one thread, or a barrier that it passed.

    Attributes:
        places: (file, line) of the access, then of the calls around it that were inlined.
        array: position in the arguments, −1 for shared memory, None for a barrier.
        element: its index there; in shared memory counted in 4 bytes.
        value: that was read or written; of shared memory as float32.
        write: whether it was written.
    """

    places: tuple[tuple[str, int], ...]
    array: int | None
    element: int
    value: Any
    write: bool


class Traffic(NamedTuple):
    """Bytes that all threads of a launch moved.

    Attributes:
        global_read: from global memory.
        global_written: to it.
        shared_read: from shared memory.
        shared_written: to it.
    """

    global_read: int
    global_written: int
    shared_read: int
    shared_written: int


class _Range(ctypes.Structure):
    """One array of a kernel's arguments; the same as Range in runtime.h."""

    _fields_ = (
        ("begin", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("granule", ctypes.c_int),
        ("initialised", ctypes.c_int),
        ("writable", ctypes.c_int),
    )


class _Step(ctypes.Structure):
    """One step of a followed thread; the same as Step in check.cpp."""

    _fields_ = (
        ("pc", ctypes.c_size_t),
        ("array", ctypes.c_int),
        ("bytes", ctypes.c_int),
        ("offset", ctypes.c_int64),
        ("write", ctypes.c_int),
        ("value", ctypes.c_ubyte * 16),
    )


class _Traffic(ctypes.Structure):
    """Bytes that a launch moved; the same as Traffic in check.cpp."""

    _fields_ = tuple((name, ctypes.c_int64) for name in Traffic._fields)


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
        follow: tuple[int, int] | None = None,
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
            follow: ranks of a block and of a thread in it, whose accesses `steps` then tells.

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
        if self.checked:
            self._library.emulator_follow(*(follow or (-1, -1)))
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

    def steps(self, arguments: Sequence[Argument]) -> tuple[list[Step], Traffic]:
        """Return what the followed thread did in the last launch, and what all threads moved.

        Args:
            arguments: of that launch.
        """
        first, moved = ctypes.POINTER(_Step)(), _Traffic()
        count = self._library.emulator_steps(ctypes.byref(first), ctypes.byref(moved))
        arrays = {i: a for i, a in enumerate(arguments) if isinstance(a, np.ndarray)}
        positions = list(arrays)
        raw = [first[k] for k in range(count)]
        codes = sorted({step.pc for step in raw})
        base = _base(self._path)
        places = dict(zip(codes, locate(self._path, [pc - base for pc in codes]), strict=True))
        result = []
        for step in raw:
            where = tuple(places[step.pc])
            if step.array == _BARRIER:
                result.append(Step(where, None, 0, None, False))
                continue
            shared = step.array == _SHARED
            dtype = np.dtype("float32") if shared else arrays[positions[step.array]].dtype
            value = np.frombuffer(bytes(step.value), dtype, 1)[0]
            element = step.offset // dtype.itemsize
            array = -1 if shared else positions[step.array]
            result.append(Step(where, array, element, value, bool(step.write)))
        return result, Traffic(*(getattr(moved, name) for name in Traffic._fields))

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
        places = locate(self._path, [pc - base])[0] if pc and base else []
        return f"{places[0][0]}:{places[0][1]}, " if places else ""


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
