"""Compiles a kernel's source for this CPU: once, with the user's g++, into a cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..errors import DeviceError

HERE = Path(__file__).parent
RUNTIME = ("device.h", "runtime.h", "runtime.cpp", "check.cpp")
# a·b + c rounded once, as nvcc makes it, where this CPU can
ARITHMETIC = ("-march=native", "-ffp-contract=fast")
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
        DeviceError: there is no g++, or it refuses the source.
    """
    options = [f"-D{define}" for define in defines]
    mode = CHECKED if checked else FAST
    key = _hash(source, *options, *mode, *FLAGS, _runtime_hash(), _compiler())
    target = _cache() / f"{Path(name).stem}-{key}.so"
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        work = Path(folder)
        (work / name).write_text(source, encoding="utf-8")
        instrumented = [f"-fsanitize={SANITIZERS}"] if checked else []
        header = ["-include", str(HERE / "device.h")]
        kernel = [*FLAGS, *mode, *options, *instrumented, *header, "-x", "c++", "-c", name]
        _run([*kernel, "-o", "kernel.o"], work)
        objects = ["kernel.o", *(str(path) for path in _runtime_objects(checked))]
        _run(["-shared", *objects, "-o", "library.so"], work)
        (work / "library.so").replace(target)
    return target


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
def _runtime_objects(checked: bool) -> list[Path]:
    """Return the compiled scheduler and checks, which all kernels share."""
    mode = [*CHECKED, "-DEMULATOR_CHECK"] if checked else list(FAST)
    key = _hash(_runtime_hash(), *mode, *FLAGS, _compiler())
    paths = []
    for name in ("runtime.cpp", "check.cpp"):
        path = _cache() / f"{Path(name).stem}-{key}.o"
        if not path.is_file():
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                _run([*FLAGS, *mode, "-c", str(HERE / name), "-o", "object.o"], Path(folder))
                (Path(folder) / "object.o").replace(path)
        paths.append(path)
    return paths


def _run(arguments: list[str], folder: Path) -> None:
    done = subprocess.run(["g++", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        raise DeviceError(f"emulator: g++ refuses the source: {first.strip()}")


@cache
def _compiler() -> str:
    if shutil.which("g++") is None:
        raise DeviceError(
            "device emu compiles the kernels for this CPU and finds no g++; install one "
            "(Debian, Ubuntu: apt install g++), or use --device cpu"
        )
    # its version, and what this CPU can: the cache may be shared with another
    command = ["g++", "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, text=True).stdout


@cache
def _runtime_hash() -> str:
    return _hash(*((HERE / name).read_text(encoding="utf-8") for name in RUNTIME))


@cache
def _cache() -> Path:
    """Return the folder for compiled kernels; a temporary one where the user's has no room."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "igcnn" / "emulator"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        return folder
    return Path(tempfile.mkdtemp(prefix="igcnn-emulator-"))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
