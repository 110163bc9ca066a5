"""Compiles a CUDA source for this CPU, with a scheduler and checks in place of a GPU."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..compiler import Compiler, find_compiler, missing_compiler
from ..errors import DeviceError

HERE = Path(__file__).parent
CACHE = "emulator"  # its subfolder
RUNTIME = ("device.h", "runtime.h", "runtime.cpp", "check.cpp")
# a·b + c rounded once, as nvcc makes it, where this CPU can
ARITHMETIC = ("-ffp-contract=fast",)
FLAGS = ("-std=c++20", "-fPIC", "-fno-strict-aliasing", *ARITHMETIC, "-w")
# a fortified longjmp refuses to leave a fiber's stack
FAST = ("-O2", "-U_FORTIFY_SOURCE")
CHECKED = ("-O1", "-g", "-U_FORTIFY_SOURCE")
SANITIZERS = "thread,alignment,bounds,signed-integer-overflow,shift"


def build(source: str, name: str, defines: Sequence[str], checked: bool) -> Path:
    """Return the shared library of a source, compiled now or before.

    Args:
        source: CUDA C, with what it includes, and functions that call its kernels.
        name: of the file, for messages.
        defines: NAME=VALUE, as for the CUDA compiler.
        checked: whether the kernels report what they do to memory.

    Raises:
        DeviceError: there is no compiler, or it refuses the source.
    """
    options = [f"-D{define}" for define in defines]
    mode = [*FLAGS, *(CHECKED if checked else FAST)]
    instrumented = [f"-fsanitize={SANITIZERS}"] if checked else []
    header = ["-include", str(HERE / "device.h")]
    compiler = _compiler()
    stem = Path(name).stem

    def compile_(folder: Path) -> None:
        (folder / name).write_text(source, encoding="utf-8")
        kernel = [*mode, *compiler.native, *options, *instrumented, *header, "-x", "c++"]
        compiler.run([*kernel, "-c", name, "-o", "kernel.o"], folder)
        objects = ["kernel.o", *(str(path) for path in _runtime_objects(compiler, checked))]
        compiler.run(["-shared", *objects, "-o", f"{stem}.so"], folder)

    key = [source, *options, *mode, *_runtime_texts()]
    return compiler.cached(CACHE, f"{stem}.so", key, compile_)


def locate(library: Path, offsets: Sequence[int]) -> list[list[tuple[str, int]]]:
    """Return (file, line) of places in the code of a library.

    Each place has that of the function that it was written in, then those of the functions that
    this one was inlined into; nothing where it cannot be told.
    """
    if shutil.which("addr2line") is None or not offsets:
        return [[] for _ in offsets]
    command = ["addr2line", "-a", "-i", "-e", str(library), *(hex(n - 1) for n in offsets)]
    done = subprocess.run(command, capture_output=True, text=True)
    places: list[list[tuple[str, int]]] = []
    for line in done.stdout.splitlines():
        if line.startswith("0x"):
            places.append([])
            continue
        path, _, number = line.partition(" ")[0].rpartition(":")
        if path and Path(path).name not in RUNTIME and number.isdigit():
            places[-1].append((Path(path).name, int(number)))
    return places


@cache
def _runtime_objects(compiler: Compiler, checked: bool) -> list[Path]:
    """Return the compiled scheduler and checks, which all kernels share."""
    mode = [*FLAGS, *([*CHECKED, "-DEMULATOR_CHECK"] if checked else FAST)]

    def compile_(name: str) -> Path:
        stem = Path(name).stem
        arguments = [*mode, *compiler.native, "-c", str(HERE / name), "-o", f"{stem}.o"]
        return compiler.cached(
            CACHE,
            f"{stem}.o",
            [*mode, *_runtime_texts()],
            lambda folder: compiler.run(arguments, folder),
        )

    return [compile_(name) for name in ("runtime.cpp", "check.cpp")]


def _compiler() -> Compiler:
    reason = missing_compiler(wheel=False)
    if reason:
        raise DeviceError(
            f"--device emu compiles the kernels for this CPU: {reason}, or use --device cpu"
        )
    return find_compiler(wheel=False)


@cache
def _runtime_texts() -> list[str]:
    return [(HERE / name).read_text(encoding="utf-8") for name in RUNTIME]
