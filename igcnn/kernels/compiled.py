"""Launches the compiled CPU kernels: checks every argument, compiles once, runs on threads.

A kernel lives in `<module>.cpp`; its argument struct there is the rule that every launch is held
to (structures.py). A launch is executed at once, or noted in a recording, which executes its
launches in their order, as often as requested, in one call without the GIL:

    with recording() as step:
        launch("relu", "relu_forward", jobs, lanes=16, dtype="float32", x=x, y=y, batch=batch)
        ...
    step.run(threads=4)
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler import cache_folder, find_compiler, missing_compiler, read_source
from ..errors import DeviceError
from .arguments import C_TYPES
from .structures import CACHE_LINE, Structures

HERE = Path(__file__).parent
SWITCH = "IGCNN_COMPILED"
SANITIZE = "IGCNN_SANITIZE"  # for tests: -fsanitize of every kernel, such as thread
FLAGS = ("-std=c++17", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread")
# no kernel throws or asks for the type of an object: nothing of the C++ library is needed
FAST = ("-O3", "-fno-exceptions", "-fno-rtti", "-Wno-psabi")
CHECKED = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-Wno-psabi")
THREADS = "threads"  # the source of the runner


@dataclass(frozen=True)
class Module:
    """A source with what it is compiled for.

    Attributes:
        name: of the source without .cpp, in this folder, or its full path.
        lanes: numbers in a vector V; 0 for the runner, which has no vectors.
        dtype: of `real`, float32 or float64.
    """

    name: str
    lanes: int = 0
    dtype: str = "float32"


class _Launch(ctypes.Structure):
    """The same as Launch in threads.cpp."""

    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("jobs", ctypes.c_int),
        ("wait", ctypes.c_int),
    )


@dataclass(frozen=True)
class NotedLaunch:
    """A checked launch; it keeps its arrays alive.

    Attributes:
        module: the source and what it is compiled for.
        kernel: its name there.
        jobs: number of jobs.
        scratch: vectors of memory that each thread needs, unless the kernel tells it.
        wait: whether the next launch begins only when all jobs of this one have ended.
        arguments: the kernel's struct.
        arrays: what the struct points to.
    """

    module: Module
    kernel: str
    jobs: int
    scratch: int
    wait: bool
    arguments: ctypes.Structure
    arrays: list[Any]


class Recording:
    """Launches that are executed together, in their order.

    Args:
        sanitize: for tests: what to compile the kernels with, as for -fsanitize=.

    Attributes:
        noted: the launches.
    """

    def __init__(self, sanitize: str = "") -> None:
        self._sanitize = sanitize
        self.noted: list[NotedLaunch] = []
        self._launches: ctypes.Array[_Launch] | None = None
        self._scratch_bytes = 0  # of each thread

    def __len__(self) -> int:
        return len(self.noted)

    def add(self, noted: NotedLaunch) -> None:
        """Add a launch to the end."""
        self.noted.append(noted)
        self._launches = None

    def run(self, threads: int) -> None:
        """Execute all launches.

        The result has the same bits for every number of threads. The first run compiles the
        kernels that no earlier run has compiled. Runs of several Python threads take turns.

        Args:
            threads: number of threads, this one included.

        Raises:
            DeviceError: there is no compiler, or it fails.
        """
        self._run(threads, None)

    def seconds(self, threads: int) -> list[tuple[str, float]]:
        """Execute all launches one after the other; return (kernel, seconds) of each."""
        times = np.zeros(len(self.noted))
        self._run(threads, times.ctypes.data)
        return [(n.kernel, float(t)) for n, t in zip(self.noted, times, strict=True)]

    def _run(self, threads: int, seconds: int | None) -> None:
        if threads < 1:
            raise DeviceError(f"threads must be at least 1, not {threads}")
        if not self.noted:
            return
        if self._launches is None:
            self._launches = self._prepare()
        # pairs of lines are fetched
        stride = -(-self._scratch_bytes // (2 * CACHE_LINE)) * 2 * CACHE_LINE
        scratch = _scratch(threads * stride)
        _library(Module(THREADS), self._sanitize).run(
            self._launches,
            len(self._launches),
            threads,
            ctypes.c_void_p(scratch.ctypes.data),
            ctypes.c_size_t(stride),
            ctypes.c_void_p(seconds),
        )

    def _prepare(self) -> ctypes.Array[_Launch]:
        """Compile what is needed, in parallel, and return the list for the runner."""
        modules = dict.fromkeys([Module(THREADS), *(noted.module for noted in self.noted)])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda module: build(module, self._sanitize), modules))
        launches = (_Launch * len(self.noted))()
        for launch_, noted in zip(launches, self.noted, strict=True):
            library = _library(noted.module, self._sanitize)
            kernel = ctypes.cast(getattr(library, noted.kernel), ctypes.c_void_p)
            launch_.kernel = kernel.value
            vectors = noted.scratch
            if hasattr(library, f"{noted.kernel}_scratch"):
                count = getattr(library, f"{noted.kernel}_scratch")
                count.restype = ctypes.c_ssize_t
                vectors = count(ctypes.byref(noted.arguments))
            size = vectors * _structures(noted.module).vector_bytes
            self._scratch_bytes = max(self._scratch_bytes, size)
            launch_.arguments = ctypes.addressof(noted.arguments)
            launch_.jobs = noted.jobs
            launch_.wait = noted.wait
        return launches


_open: ContextVar[Recording | None] = ContextVar("recording", default=None)


def launch(
    module: str,
    kernel: str,
    jobs: int,
    /,
    *,
    lanes: int,
    dtype: str,
    scratch: int = 0,
    wait: bool = True,
    **fields: Any,
) -> None:
    """Note a launch in the open recording, or execute it at once on one thread.

    Args:
        module: name of the source without .cpp, in this folder, or its full path.
        kernel: its name there.
        jobs: number of jobs, which may be executed in any order and at the same time.
        lanes: numbers in a vector V.
        dtype: of `real`: float32 or float64.
        scratch: vectors of memory that each thread needs; a kernel with SCRATCH says so itself.
        wait: whether the next launch begins only when all jobs of this one have ended.
        fields: fields of the kernel's struct by name: arrays in C order, numbers, None where
            the struct says "or null", dicts for nested structs, lists for arrays of them. An
            array of V has `lanes` as its last axis.

    Raises:
        KernelError: a field is missing, unknown or not what the struct says.
        DeviceError: there is no compiler, or it fails.
    """
    key = Module(module, lanes, dtype)
    structures = _structures(key)
    arguments, arrays = structures.fill(kernel, fields)
    if jobs < 1:
        return
    noted = NotedLaunch(key, kernel, jobs, scratch, wait, arguments, arrays)
    open_ = _open.get()
    if open_ is not None:
        open_.add(noted)
        return
    alone = Recording(os.environ.get(SANITIZE, ""))
    alone.add(noted)
    alone.run(1)


@contextmanager
def recording(sanitize: str | None = None) -> Iterator[Recording]:
    """Context in which launches are noted instead of executed; gives the Recording.

    Args:
        sanitize: see Recording; None takes it from IGCNN_SANITIZE.
    """
    result = Recording(os.environ.get(SANITIZE, "") if sanitize is None else sanitize)
    token = _open.set(result)
    try:
        yield result
    finally:
        _open.reset(token)


def unavailable() -> str:
    """Return "" if kernels can be compiled, else why not and what to do about it."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    return missing_compiler()


def build(module: Module, sanitize: str = "") -> Path:
    """Return the shared library of a module, compiled now or before.

    Raises:
        DeviceError: there is no compiler, or it fails.
    """
    reason = unavailable()
    if reason:
        raise DeviceError(f"compiled kernels are not available: {reason}")
    compiler = find_compiler()
    name = Path(module.name).name
    text, defines = _source(module.name), []
    if module.lanes:
        defines = [f"-DREAL={C_TYPES[module.dtype]}", f"-DLANES={module.lanes}"]
        text += _structures(module).assertions()
    mode = [*CHECKED, f"-fsanitize={sanitize}"] if sanitize else list(FAST)
    flags = [*FLAGS, *mode, *compiler.native, *compiler.wide, *defines]

    def compile_(folder: Path) -> None:
        source = folder / f"{name}.cpp"
        source.write_text(text, encoding="utf-8")
        compiler.run([*flags, source.name, "-o", f"{name}.so", "-lm"], folder)

    return compiler.cached("compiled", f"{name}.so", [text, *flags], compile_)


@cache
def _library(module: Module, sanitize: str) -> ctypes.CDLL:
    path = build(module, sanitize)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(
            f"cannot load {path}: {error}; delete {cache_folder('compiled')} or set "
            "XDG_CACHE_HOME to a folder that programs may be loaded from"
        ) from error


@cache
def _source(name: str) -> str:
    return read_source(HERE / f"{name}.cpp")


@cache
def _structures(module: Module) -> Structures:
    return Structures(_source(module.name), f"{module.name}.cpp", module.lanes, module.dtype)


_pool = np.zeros(0, np.uint8)


def _scratch(size: int) -> np.ndarray:
    """Return memory that all recordings share, at an address that is a multiple of 64.

    The runner executes one recording at a time. The caller keeps the array alive.
    """
    global _pool
    if _pool.size < size:
        raw = np.empty(size + CACHE_LINE, np.uint8)
        begin = -raw.ctypes.data % CACHE_LINE
        _pool = raw[begin : begin + size]
    return _pool
