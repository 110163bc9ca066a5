"""What the program can use of this computer, and how to fix the rest."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from ..backend import gpu_count, install_cupy, nvidia_gpus
from ..compiler import find_compiler, missing_compiler
from ..distributed.nccl import load_nccl
from ..errors import IgcnnError
from ..kernels.compiled import unavailable
from ..training.cores import available_cores


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of the thing.
        works: whether it can be used; None where it is only stated.
        what: version, number, or what is wrong.
        cure: what to do about it, "" for nothing.
    """

    name: str
    works: bool | None
    what: str
    cure: str = ""


def examine() -> Iterator[Finding]:
    """Yield what was found, from the interpreter to the ranks of a cluster."""
    yield Finding("Python", sys.version_info >= (3, 11), platform.python_version())
    yield Finding("NumPy", True, np.__version__)
    yield _blas()
    yield Finding("cores", None, str(available_cores()))
    yield _compiler("CPU kernels", unavailable())
    yield _compiler("emulator", missing_compiler(wheel=False), wheel=False)
    yield from _gpu()
    yield _package("MPI", "mpi4py", "ranks on several machines", "pip install 'igcnn[mpi]'")


def _blas() -> Finding:
    from threadpoolctl import threadpool_info

    found = [x for x in threadpool_info() if x["user_api"] == "blas"]
    if not found:
        return Finding("BLAS", False, "none that can be set to one thread", "pip install numpy")
    name = f"{found[0]['internal_api']} {found[0]['version']}"
    return Finding("BLAS", True, f"{name}, {found[0].get('architecture', 'unknown')} kernels")


def _compiler(name: str, reason: str, wheel: bool = True) -> Finding:
    """Return which compiler compiles for this CPU, or the reason why none does."""
    if reason:
        what, _, cure = reason.partition("; ")
        return Finding(name, False, what, cure or "unset it to compile kernels for this CPU")
    compiler = find_compiler(wheel)
    return Finding(name, True, f"compiled by {compiler.name} {compiler.version}")


def _gpu() -> Iterator[Finding]:
    for gpu in nvidia_gpus():
        yield Finding("NVIDIA GPU", None, f"{gpu.name}, driver {gpu.driver or 'unknown'}")
    install = install_cupy()
    try:
        import cupy
    except ImportError:
        yield Finding("CuPy", False, "not installed; --device cuda needs it", install)
        return
    yield Finding("CuPy", True, cupy.__version__)
    runtime = cupy.cuda.runtime
    yield _attempt(
        "driver",
        lambda: _cuda_version(runtime.driverGetVersion()),
        "install NVIDIA's driver for your GPU",
    )
    for index in range(gpu_count()):
        properties = runtime.getDeviceProperties(index)
        memory = properties["totalGlobalMem"] / 2**30
        what = f"{properties['name'].decode()}, {memory:.0f} GiB"
        yield Finding(f"cuda:{index}", True, what)
    if not gpu_count():
        yield Finding("GPU", False, "none that CUDA can see; training uses --device cpu")
    yield _attempt("NVRTC", lambda: _version(cupy.cuda.nvrtc.getVersion()), install)
    yield _headers(install)
    if gpu_count():
        yield _attempt("kernel", _add_on_the_gpu, f"{install}, then igcnn doctor again")
    yield _attempt("NCCL", _nccl, "pip install nvidia-nccl-cu12, for several GPUs")


def _headers(install: str) -> Finding:
    """Return whether the headers that NVRTC includes are found."""
    candidates = [os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    for path in candidates:
        if path and os.path.isfile(os.path.join(path, "include", "cuda_runtime.h")):
            return Finding("headers", True, os.path.join(path, "include"))
    for wheel in ("nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime"):  # of CUDA 12, of CUDA 13
        with suppress(PackageNotFoundError):
            return Finding("headers", True, f"wheel {version(wheel)}")
    return Finding("headers", False, "CUDA's headers were not found", install)


def _add_on_the_gpu() -> str:
    """Compile and run a kernel on the first GPU; return what it did."""
    from ..backend import to_device, to_host
    from ..kernels.add import add_forward

    ones = to_device(np.ones(3, np.float32), "cuda:0")
    total = to_host(add_forward(ones, ones)).tolist()
    if total != [2.0, 2.0, 2.0]:
        raise RuntimeError(f"1 + 1 = {total}")
    return "compiled and ran"


def _nccl() -> str:
    nccl = load_nccl()
    if nccl is None:
        raise RuntimeError("the library is not installed")
    return str(nccl.get_version())


def _package(name: str, module: str, purpose: str, cure: str) -> Finding:
    try:
        return Finding(name, True, f"{module} {version(module)}")
    except PackageNotFoundError:
        return Finding(name, False, f"{module} is not installed; needed for {purpose}", cure)


def _attempt(name: str, probe: Callable[[], str], cure: str) -> Finding:
    """Return what a probe tells, or why it cannot."""
    try:
        return Finding(name, True, probe())
    except (ImportError, RuntimeError, OSError, AttributeError, IgcnnError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return Finding(name, False, first, cure)


def _cuda_version(number: int) -> str:
    if not number:
        raise RuntimeError("the NVIDIA driver is not loaded")
    return f"for CUDA up to {number // 1000}.{number % 1000 // 10}"


def _version(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"
