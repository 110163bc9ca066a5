"""Compiles C++ for this CPU: finds a compiler and caches what it builds on disk.

The emulator and the compiled CPU kernels share this module.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .errors import DeviceError
from .files import locked

ON_PATH = ("g++", "clang++")
# the wheel would first build a C++ standard library, which the kernels do not use: 50 s
WHEEL = (sys.executable, "-m", "ziglang", "c++", "-nostdlib++")
INSTALL = "install g++ (Debian, Ubuntu: apt install g++)"
INSTALL_WHEEL = 'pip install "igcnn[compiler]"'
INCLUDE = re.compile(r'^#include "([\w./]+)"\n', re.MULTILINE)


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler that works on this machine.

    Attributes:
        command: starts the compiler.
        name: the command without its folder, "zig c++" for the ziglang wheel.
        version: such as 12.2.0.
        native: flags that select the instructions of this CPU.
        wide: flags that make the compiler use the widest vectors of this CPU, if it needs any.
        identity: digest of the command, the version and the instructions of this CPU.
    """

    command: tuple[str, ...]
    name: str
    version: str
    native: tuple[str, ...]
    wide: tuple[str, ...]
    identity: str

    def run(self, arguments: Sequence[str], folder: Path) -> None:
        """Run the compiler in a folder.

        Raises:
            DeviceError: the compiler refuses its input; has the first error that it prints.
        """
        command = [*self.command, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines()]
            errors = [line for line in lines if "error" in line] or [" ".join(lines)[:300]]
            raise DeviceError(f"{self.name} {self.version} failed: {errors[0]}")

    def cached(
        self, folder: str, name: str, key: Sequence[str], build: Callable[[Path], None]
    ) -> Path:
        """Return a file from the cache; build it if it is missing.

        Of several processes that want the same file, one builds it and the others wait. It appears
        in the cache under its final name only when it is complete.

        Args:
            folder: subfolder of the cache.
            name: of the file; a digest is added to its stem.
            key: everything that the file depends on, except the compiler and the CPU.
            build: writes a file called `name` into the empty folder that it is given.

        Raises:
            DeviceError: the compiler failed, or there is no room for the file.
        """
        path = Path(name)
        target = cache_folder(folder) / f"{path.stem}-{digest(*key, self.identity)}{path.suffix}"
        if target.is_file():
            return target
        try:
            with (
                locked(target.with_suffix(".lock")),
                tempfile.TemporaryDirectory(dir=target.parent) as work,
            ):
                if target.is_file():  # another process was building it
                    return target
                build(Path(work))
                built = Path(work) / name
                with built.open("rb+") as file:  # a power failure must not leave a torn file
                    os.fsync(file.fileno())
                built.replace(target)
        except OSError as error:
            raise DeviceError(
                f"cannot write {target}: {error.strerror}; free some space or set XDG_CACHE_HOME"
            ) from error
        return target


def find_compiler(wheel: bool = True) -> Compiler:
    """Return the compiler to use: $CXX, g++, clang++ or the ziglang wheel, in this order.

    Args:
        wheel: whether the ziglang wheel is good enough. It comes without a standard library.

    Raises:
        DeviceError: there is no compiler; says how to install one.
    """
    found = _find(os.environ.get("CXX", ""), os.environ.get("PATH", ""), wheel)
    if isinstance(found, str):
        raise DeviceError(found)
    return found


def missing_compiler(wheel: bool = True) -> str:
    """Return "" if find_compiler finds a compiler, else why not and what to install."""
    try:
        find_compiler(wheel)
    except DeviceError as error:
        return str(error)
    return ""


def cache_folder(name: str) -> Path:
    """Return a subfolder of the user's cache, or a temporary folder if it is not writable."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "igcnn" / name
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else _temporary_folder(name)


def read_source(path: Path) -> str:
    """Return a source file with the files of its own folder that it includes, each once."""
    seen = {path.name}

    def read(name: str) -> str:
        text = (path.parent / name).read_text(encoding="utf-8")

        def included(match: re.Match[str]) -> str:
            line = text.count("\n", 0, match.start()) + 2
            if match[1] in seen:
                return "\n"
            seen.add(match[1])
            return f'{read(match[1])}#line {line} "{name}"\n'

        return f'#line 1 "{name}"\n' + INCLUDE.sub(included, text)

    return read(path.name)


def digest(*parts: str) -> str:
    """Return a short digest of texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


@cache
def _find(cxx: str, path: str, wheel: bool) -> Compiler | str:
    """Return the compiler for values of $CXX and $PATH, or why there is none."""
    if cxx:
        found = _examine(tuple(shlex.split(cxx)), path)
        return found or f"CXX={cxx} is not a working C++ compiler; unset CXX or correct it"
    candidates: list[tuple[str, ...]] = [(name,) for name in ON_PATH]
    if wheel and find_spec("ziglang"):
        candidates.append(WHEEL)
    for command in candidates:
        found = _examine(command, path)
        if found:
            return found
    install = f"{INSTALL} or {INSTALL_WHEEL}" if wheel else INSTALL
    return f"no C++ compiler; {install}"


def _examine(command: tuple[str, ...], path: str) -> Compiler | None:
    """Return a compiler with the flags that it accepts, or None if it does not work."""
    program = shutil.which(command[0], path=path)
    if program is None:
        return None
    command = (program, *command[1:])
    attempts: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        (("-march=native",), ()),
        (("-mcpu=native",), ()),  # some versions of clang know only this one on ARM
        ((), ()),
    ]
    if platform.machine().lower() in ("x86_64", "amd64", "i686"):
        attempts.insert(0, (("-march=native",), ("-mprefer-vector-width=512",)))
    for native, wide in attempts:
        # the predefined macros name the version and the instructions of this CPU
        flags = [*native, *wide, "-dM", "-E", "-x", "c++", os.devnull]
        try:
            done = subprocess.run([*command, *flags], capture_output=True, text=True)
        except OSError:
            return None
        if done.returncode == 0 and "__cplusplus" in done.stdout:
            version = re.search(r'__VERSION__ ".*?(\d+\.[\d.]+)', done.stdout)
            name = "zig c++" if "ziglang" in command else Path(program).name
            identity = digest(*command, *native, *wide, done.stdout)
            return Compiler(command, name, version[1] if version else "?", native, wide, identity)
    return None


@cache
def _temporary_folder(name: str) -> Path:
    """Return a folder that is removed when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"igcnn-{name}-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked process may end before
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
