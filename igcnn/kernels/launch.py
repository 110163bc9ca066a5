"""Launches CUDA kernels: finds the source, checks every argument, compiles once, runs.

CuPy's RawKernel checks nothing: a wrong count, element type or stride gives wrong numbers or
worse, and a Python number goes in as 8 bytes. Here the `extern "C" __global__` signature in the
source is the rule that every launch is held to. The same launch runs on a GPU (CuPy) and on the
emulator.

In a source, `real` is the type of the arithmetic and `stored` that of activations in memory;
both follow from the arrays that a kernel is given (common.cuh).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import UNWRITTEN, EmulatedArray, device_of, on_device
from ..compiler import read_source
from ..emulator import Step, Traffic
from ..errors import DeviceError, KernelError

Array = np.ndarray
Size = int | tuple[int, ...]

HERE = Path(__file__).parent
DTYPES = {
    "int": "int32",
    "unsigned": "uint32",
    "float": "float32",
    "double": "float64",
    "unsigned char": "uint8",
    "unsigned short": "uint16",
    "float4": "float32",
}
ALIGNMENT = {"float4": 16}
C_TYPES = {"float32": "float", "float64": "double", "uint16": "bfloat16"}
OPTIONS = ("-std=c++17",)
SHARED_BYTES = 48 << 10  # more has to be asked for
WARP = 32
THREADS = 256  # of a block, where a kernel has no reason for another number
MOST_BLOCKS = 1 << 16
SIGNATURE = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)'
)


Edit = Callable[[str, str], str]


@dataclass(frozen=True)
class Followed:
    """A launch on the emulator in which one thread was followed.

    Attributes:
        stem: of the source file.
        kernel: its name there.
        grid: blocks in x, y and z.
        block: threads of a block in x, y and z.
        names: of the parameters, at the positions that `steps` give.
        steps: what the thread did to memory, in order.
        traffic: bytes that all threads moved.
    """

    stem: str
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    names: tuple[str, ...]
    steps: list[Step]
    traffic: Traffic


@dataclass
class Mode:
    """How the emulator runs; see emulation."""

    checked: bool = False
    backwards: bool = False
    edit: Edit | None = None
    launched: set[tuple[str, str, tuple[str, ...]]] = field(default_factory=set)
    follow: tuple[int, int] | None = None
    followed: list[Followed] = field(default_factory=list)


_mode: ContextVar[Mode] = ContextVar("mode", default=Mode())  # noqa: B039  never written to


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel.

    Attributes:
        name: in the source.
        type: without const, * and __restrict__.
        is_array: whether it is a pointer.
        is_constant: whether it is a pointer to const.
    """

    name: str
    type: str
    is_array: bool
    is_constant: bool


def launch(
    stem: str,
    kernel: str,
    grid: Size,
    block: Size,
    *arguments: Any,
    shared_bytes: int = 0,
    **defines: int,
) -> None:
    """Run a kernel of `<stem>.cu` on the device that its arrays live on.

    Args:
        stem: of the source file.
        kernel: its name there.
        grid: blocks, in up to three dimensions.
        block: threads of a block, likewise.
        arguments: arrays and numbers, as in the signature.
        shared_bytes: of dynamic shared memory.
        defines: what the source leaves open, by name.

    Raises:
        KernelError: count, type, element type, memory order, alignment or device of an argument
            is not what the signature says.
        DeviceError: an array has more elements than a kernel can index.
    """
    parameters = signatures(stem)[kernel]
    values, types = check(kernel, parameters, arguments)
    options = (*types, *(f"{name}={value}" for name, value in defines.items()))
    sizes = _three(grid), _three(block)
    if 0 in sizes[0]:  # an empty batch; CUDA refuses an empty grid
        return
    device = device_of(next(v for v in values if not isinstance(v, np.generic)))
    if device == "emu":
        _emulate(stem, kernel, options, parameters, sizes, values, shared_bytes)
        return
    with on_device(device):
        function = _compiled(stem, options).get_function(kernel)
        if shared_bytes > SHARED_BYTES:
            function.max_dynamic_shared_size_bytes = shared_bytes
        function(*sizes, tuple(values), shared_mem=shared_bytes)


def launch_each(stem: str, kernel: str, count: int, *arguments: Any, **defines: int) -> None:
    """Run a kernel with a thread for each of `count` elements; its loop covers what is beyond."""
    blocks = min(-(-count // THREADS), MOST_BLOCKS)
    launch(stem, kernel, blocks, THREADS, *arguments, **defines)


def launch_warps(stem: str, kernel: str, count: int, *arguments: Any, **defines: int) -> None:
    """Run a kernel with a warp for each of `count` results."""
    launch(stem, kernel, -(-count * WARP // THREADS), THREADS, *arguments, **defines)


def check(
    kernel: str, parameters: Sequence[Parameter], arguments: Sequence[Any]
) -> tuple[list[Any], tuple[str, ...]]:
    """Return the arguments as the kernel takes them, and the defines that its types need.

    Raises:
        KernelError: see launch.
    """
    if len(arguments) != len(parameters):
        raise KernelError(
            f"{kernel}: takes {len(parameters)} arguments "
            f"({', '.join(p.name for p in parameters)}), not {len(arguments)}"
        )
    generic: dict[str, str] = {}
    devices = set()
    values: list[Any] = []
    for parameter, argument in zip(parameters, arguments, strict=True):
        if not parameter.is_array:
            values.append(check_number(kernel, parameter, argument))
            continue
        _check_array(kernel, parameter, argument)
        dtype = str(argument.dtype)
        expected = DTYPES.get(parameter.type) or generic.setdefault(parameter.type, dtype)
        if dtype != expected or (parameter.type in ("real", "stored") and dtype not in C_TYPES):
            raise KernelError(
                f"{kernel}: {parameter.name} must be an array of {expected}, not {dtype}"
            )
        devices.add(device_of(argument))
        values.append(argument)
    if len(devices) != 1:
        raise KernelError(
            f"{kernel}: all arrays must live on one device, not on {', '.join(sorted(devices))}"
        )
    real = generic.get("real", "float32")
    types = {"REAL": C_TYPES[real], "STORED": C_TYPES[generic.get("stored", real)]}
    if "real" not in generic and types["STORED"] == "double":
        types["REAL"] = "double"
    values = [
        np.dtype("float64" if types["REAL"] == "double" else "float32").type(v)
        if isinstance(v, float)
        else v
        for v in values
    ]
    return values, tuple(f"{name}={value}" for name, value in types.items())


@cache
def signatures(stem: str) -> dict[str, tuple[Parameter, ...]]:
    """Return the parameters of every kernel in `<stem>.cu`, by name."""
    return {
        name: tuple(_parameter(part) for part in text.split(","))
        for name, text in SIGNATURE.findall(source(stem))
    }


@cache
def source(stem: str) -> str:
    """Return the source of `<stem>.cu`, with the files that it includes put in."""
    return read_source(HERE / f"{stem}.cu")


@contextmanager
def emulation(
    checked: bool = False, backwards: bool = False, edit: Edit | None = None
) -> Iterator[set[tuple[str, str, tuple[str, ...]]]]:
    """Context that says how the emulator runs; gives the (stem, kernel, defines) that it ran.

    Args:
        checked: watch every access to memory, and raise KernelError for a forbidden one. Arrays
            that nothing was written to may not be read.
        backwards: run threads in the opposite order.
        edit: changes the source of a stem, to plant a fault.
    """
    with _in(Mode(checked, backwards, edit)) as mode:
        yield mode.launched


@contextmanager
def following(block: int = 0, thread: int = 0) -> Iterator[list[Followed]]:
    """Context in which the emulator watches every access; gives the launches, one by one.

    Args:
        block: rank of the block that the followed thread belongs to.
        thread: its rank there.
    """
    with _in(Mode(checked=True, follow=(block, thread))) as mode:
        yield mode.followed


@contextmanager
def _in(mode: Mode) -> Iterator[Mode]:
    token = _mode.set(mode)
    try:
        yield mode
    finally:
        _mode.reset(token)


@cache
def emulated(
    stem: str, defines: tuple[str, ...], checked: bool = False, edit: Edit | None = None
) -> Any:
    """Return the kernels of `<stem>.cu` compiled for this CPU (an igcnn.emulator.Library)."""
    from ..emulator import Library

    text = source(stem) if edit is None else edit(stem, source(stem))
    return Library(_callable(stem, text), f"{stem}.cu", defines, checked)


def _callable(stem: str, text: str) -> str:
    """Return a source with one function a kernel that takes its arguments as void **."""
    lines = [text, '#line 1 "launch"']
    for name, parameters in signatures(stem).items():
        types = [f"{p.type} *" if p.is_array else p.type for p in parameters]
        values = ", ".join(f"*({t} *)a[{i}]" for i, t in enumerate(types))
        lines.append(
            f'extern "C" __attribute__((no_sanitize("thread", "undefined"))) '
            f"void emulate_{name}(void **a) {{ {name}({values}); }}"
        )
    return "\n".join(lines) + "\n"


def _emulate(
    stem: str,
    kernel: str,
    options: tuple[str, ...],
    parameters: Sequence[Parameter],
    sizes: tuple[tuple[int, int, int], tuple[int, int, int]],
    values: Sequence[Any],
    shared_bytes: int,
) -> None:
    mode = _mode.get()
    mode.launched.add((stem, kernel, options))
    library = emulated(stem, options, mode.checked, mode.edit)
    constant = [p.is_constant for p in parameters]
    written = (i for i, p in enumerate(parameters) if p.is_array and not p.is_constant)
    library.launch(
        kernel,
        *sizes,
        values,
        shared_bytes=shared_bytes,
        constant=constant,
        uninitialised=[i for i in written if _is_unwritten(values[i])] if mode.checked else (),
        backwards=mode.backwards,
        follow=mode.follow,
    )
    if mode.follow:
        names = tuple(p.name for p in parameters)
        told = library.steps(values)
        mode.followed.append(Followed(stem, kernel, *sizes, names, *told))


def _is_unwritten(array: Array) -> bool:
    return bool((array.reshape(-1).view(np.uint8) == UNWRITTEN).all())


def variants(stem: str) -> Iterator[tuple[str, ...]]:
    """Yield the defines that `<stem>.cu` names at its head: each choice, or each `variant:`."""
    whole = re.findall(r"^// variant: (.*)$", source(stem), re.MULTILINE)
    if whole:
        yield from (tuple(line.split()) for line in whole)
        return
    line = re.search(r"^// variants: (.*)$", source(stem), re.MULTILINE)
    options = [part.split("=") for part in line[1].split()] if line else []
    choices = [[f"{name}={value}" for value in values.split(",")] for name, values in options]
    yield from itertools.product(*choices)


def cubin_name(stem: str, defines: tuple[str, ...], architecture: str) -> str:
    """Return the name of the file that holds kernels compiled before; it changes with the source.

    Args:
        stem: of the source file.
        defines: what the source leaves open, types included.
        architecture: as CuPy names it, "90" for sm_90.
    """
    text = "\n".join([source(stem), *OPTIONS, *sorted(defines)])
    digest = hashlib.sha256(text.encode()).hexdigest()[:24]
    return f"{stem}-{digest}.sm_{architecture}.cubin"


@cache
def _compiled(stem: str, defines: tuple[str, ...]) -> Any:
    """Return the kernels of `<stem>.cu` compiled for the GPU.

    They come from the folder IGCNN_CUBINS if that has them (benchmarks/cubins.py), else from
    CuPy's cache on disk, else from NVRTC.
    """
    import cupy

    if folder := os.environ.get("IGCNN_CUBINS"):
        architecture = cupy.cuda.Device().compute_capability
        path = Path(folder) / cubin_name(stem, defines, architecture)
        if path.exists():
            return cupy.RawModule(path=str(path))
    options = (*OPTIONS, *(f"-D{define}" for define in defines))
    return cupy.RawModule(code=source(stem), options=options)


def _parameter(text: str) -> Parameter:
    words = re.sub(r"\b(const|__restrict__)\b|\*", " ", text).split()
    return Parameter(words[-1], " ".join(words[:-1]), "*" in text, "const" in text.split("*")[0])


def check_number(kernel: str, parameter: Parameter, value: Any) -> Any:
    """Return a number in the type of the signature; `real` stays a float until that is known.

    Raises:
        KernelError: it does not fit the type.
    """
    if isinstance(value, bool | int | np.integer) and parameter.type in ("int", "unsigned"):
        limits = np.iinfo(DTYPES[parameter.type])
        if limits.min <= value <= limits.max:
            return np.dtype(DTYPES[parameter.type]).type(value)
    elif isinstance(value, float | int | np.floating) and not isinstance(value, bool):
        if parameter.type == "real":
            return float(value)
        if parameter.type in ("float", "double"):
            return np.dtype(DTYPES[parameter.type]).type(value)
    raise KernelError(f"{kernel}: {parameter.name} must be {parameter.type}, not {value!r}")


def _check_array(kernel: str, parameter: Parameter, array: Any) -> None:
    if isinstance(array, np.ndarray) and not isinstance(array, EmulatedArray):
        raise KernelError(
            f"{kernel}: {parameter.name} lives on the CPU; move it with to_device first"
        )
    if getattr(array, "size", 0) >= 2**31:
        raise DeviceError(
            f"{kernel}: {parameter.name} has {array.size:,} elements; kernels index up to "
            "2,147,483,647: choose a smaller --batch-size"
        )
    check_memory(kernel, parameter.name, array, ALIGNMENT.get(parameter.type, 1))


def check_memory(kernel: str, name: str, array: Any, alignment: int) -> None:
    """Check that an argument is an array in C order whose address is a multiple of `alignment`.

    The address must be a multiple of the size of an element, too.

    Raises:
        KernelError: it is not.
    """
    if not hasattr(array, "dtype") or isinstance(array, np.generic):
        raise KernelError(f"{kernel}: {name} must be an array, not {array!r}")
    if not array.flags.c_contiguous:
        raise KernelError(
            f"{kernel}: {name} of shape {array.shape} is not in C order; use backend.contiguous"
        )
    alignment = max(alignment, array.itemsize)
    if address(array) % alignment:
        raise KernelError(
            f"{kernel}: {name} begins at an address that is not a multiple of {alignment}"
        )


def address(array: Array) -> int:
    """Return where an array begins in the memory of its device."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def _three(size: Size) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, int) else size
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z
