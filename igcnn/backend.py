"""Where an array lives. The only module that asks which devices there are.

Device names: `cpu`; `cuda` or `cuda:1`, a GPU; `emu`, the GPU's kernels executed on this CPU;
`auto`, the fastest device at hand. An array tells its device by its type: np.ndarray,
cupy.ndarray, EmulatedArray.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ConfigError, DeviceError

Array = np.ndarray

ROOT = Path("/")  # of the files that tell of NVIDIA's driver
CUDA13_DRIVER = 580  # the first that runs CUDA 13

EMULATED_SHARED_BYTES = 227 << 10  # as on the largest GPUs
UNWRITTEN = 0xFF  # what fills an empty array of the emulator


class EmulatedArray(np.ndarray):
    """An array of the device `emu`: of this computer's memory, for the GPU's kernels."""


def resolve_device(name: str, local_rank: int = 0) -> str:
    """Return the device that `name` stands for: "cpu", "emu" or "cuda:i".

    Args:
        name: "auto", "cpu", "cuda", "cuda:1", … or "emu".
        local_rank: number of this process among those on this computer; without a number in
            the name, each has a GPU of its own as far as there are enough.

    Raises:
        DeviceError: the device is known but not available.
        ConfigError: no device has this name.
    """
    if name == "auto":
        name = "cuda" if gpu_count() else "cpu"
        if name == "cpu" and local_rank == 0:
            _warn_of_unused_gpu()
    if name in ("cpu", "emu"):
        return name
    if not (isinstance(name, str) and re.fullmatch(r"cuda(:\d+)?", name)):
        raise ConfigError(f"unknown device {name!r}; choose auto, cpu, cuda, cuda:1, … or emu")
    index = _number(name, local_rank % max(1, gpu_count()))
    if index >= gpu_count():
        raise DeviceError(f"device {name} is not available: {_no_gpu()}; use --device cpu")
    return f"cuda:{index}"


@cache
def gpu_count() -> int:
    """Return how many GPUs can be used."""
    try:
        import cupy
    except ImportError:
        return 0
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0


@dataclass(frozen=True)
class NvidiaGPU:
    """A GPU that NVIDIA's driver knows, whether or not CuPy is there to use it.

    Attributes:
        name: of the model.
        driver: version, such as 580.65.06; "" if it is not known.
    """

    name: str
    driver: str


def nvidia_gpus() -> list[NvidiaGPU]:
    """Return the GPUs that NVIDIA's driver shows to this process: of /proc, else of nvidia-smi."""
    folder = ROOT / "proc/driver/nvidia"
    if not folder.is_dir():
        return _ask_nvidia_smi()
    if not (ROOT / "dev/nvidiactl").exists():  # a container that was not given the GPUs
        return []
    try:
        version = re.search(r"\b\d{3,}\.[\d.]+", (folder / "version").read_text())
        models = [path.read_text() for path in sorted(folder.glob("gpus/*/information"))]
    except OSError:
        return []
    names = [re.search(r"^Model:\s*(.+)$", model, re.MULTILINE) for model in models]
    driver = version[0] if version else ""
    return [NvidiaGPU(name[1].strip(), driver) for name in names if name]


def _ask_nvidia_smi() -> list[NvidiaGPU]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rpartition(", ") for line in done.stdout.splitlines()]
    return [NvidiaGPU(name.strip(), driver.strip()) for name, _, driver in rows if name]


def install_cupy() -> str:
    """Return the command that installs CuPy for this computer's driver."""
    drivers = [gpu.driver.partition(".")[0] for gpu in nvidia_gpus()]
    newest = any(major.isdigit() and int(major) >= CUDA13_DRIVER for major in drivers)
    return f"pip install 'igcnn[cuda{13 if newest else 12}]'"


@cache
def _warn_of_unused_gpu() -> None:
    """Say once why the device `auto` is the CPU on a computer with an NVIDIA GPU."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not hidden and (gpus := nvidia_gpus()):
        logging.getLogger("igcnn").warning(
            "igcnn: %s is not used: %s; computing on the CPU", gpus[0].name, _no_gpu()
        )


def device_of(array: Array) -> str:
    """Return the device that an array lives on: "cpu", "emu" or "cuda:i"."""
    if isinstance(array, EmulatedArray):
        return "emu"
    if isinstance(array, np.ndarray):
        return "cpu"
    return f"cuda:{array.device.id}"


def is_on_cpu(array: Array) -> bool:
    """Return whether NumPy computes on an array, rather than the GPU's kernels."""
    return type(array) is np.ndarray


def is_array(value: Any) -> bool:
    """Return whether a value is an array of any device."""
    return isinstance(value, np.ndarray) or hasattr(value, "__cuda_array_interface__")


def to_device(array: Array, device: str) -> Array:
    """Return a C-contiguous array with the content of a host array, on a device.

    Raises:
        DeviceError: the device is not there or has no room for it.
        ConfigError: no device has this name.
    """
    if device == "cpu":
        return array
    if device == "emu":
        return np.array(array, order="C").view(EmulatedArray)
    device = resolve_device(device)
    import cupy

    with _room_on(device, array.nbytes):
        return cupy.asarray(array, order="C")


def to_host(array: Array) -> Array:
    """Return an array of any device as np.ndarray, without a copy where it is in host memory."""
    if isinstance(array, EmulatedArray):
        return array.view(np.ndarray)
    on_gpu: Any = array
    return on_gpu.get() if hasattr(array, "__cuda_array_interface__") else array


def copy_to(target: Array, source: Array) -> None:
    """Copy a host array into an array of any device, of the same shape."""
    if isinstance(target, np.ndarray):
        target[...] = source
    else:
        target.set(np.asarray(source, target.dtype, order="C"))


def add_at(target: Array, index: Any, values: Array) -> None:
    """Add values to target[index], more than once where an index comes more than once."""
    if isinstance(target, np.ndarray):
        np.add.at(target, index, values)
        return
    import cupyx

    cupyx.scatter_add(target, index, values)


def empty(shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
    """Return an uninitialised C-contiguous array on the device of `like`.

    On `emu` every byte is 255, which is NaN: a kernel that leaves an element out shows.

    Raises:
        DeviceError: the device has no room for it.
    """
    if isinstance(like, EmulatedArray):
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = UNWRITTEN
        return array.view(EmulatedArray)
    if isinstance(like, np.ndarray):
        return np.empty(shape, dtype)
    import cupy

    with _room_on(device_of(like), math.prod(shape) * np.dtype(dtype).itemsize):
        return cupy.empty(shape, dtype)


def contiguous(array: Array) -> Array:
    """Return an array in C order on its device; itself if it is."""
    return array if array.flags.c_contiguous else array.copy(order="C")


def free_bytes(device: str) -> float:
    """Return how much memory a GPU has left; no limit is known for the host's."""
    if device in ("cpu", "emu"):
        return float("inf")
    import cupy

    with on_device(device):
        return float(cupy.cuda.runtime.memGetInfo()[0])


def shared_bytes(device: str) -> int:
    """Return how much memory the threads of a block may share."""
    if device == "emu":
        return EMULATED_SHARED_BYTES
    import cupy

    attributes = cupy.cuda.Device(_number(device)).attributes
    return int(attributes["MaxSharedMemoryPerBlockOptin"])


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """Context in which a GPU is the current one; nothing for other devices."""
    scope: AbstractContextManager[object] = nullcontext()
    if device.startswith("cuda"):
        import cupy

        scope = cupy.cuda.Device(_number(device))
    with scope:
        yield


def single_threaded_blas() -> AbstractContextManager[object]:
    """Context in which matrix products run on one thread.

    The convolution is many small products, which gain nothing from a second thread, and a sum
    that is split over threads has other bits than one that is not: inside this context results
    are equal whatever OPENBLAS_NUM_THREADS says.
    """
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> Any:
    """Return what sets threads; to find the libraries takes longer than a small step."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def keep_memory() -> None:
    """Let this process keep the memory of freed arrays instead of returning it to the system.

    A training step allocates and frees the same large arrays again and again. By default glibc
    maps each afresh, and the page faults take a quarter of the step. Other systems' allocators
    are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # a C library other than glibc
        return
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
    mallopt(m_trim_threshold, 2**31 - 1)
    mallopt(m_top_pad, 1 << 26)
    mallopt(m_mmap_max, 0)


@contextmanager
def _room_on(device: str, size: int) -> Iterator[None]:
    """Context in which `size` bytes of a GPU are asked for.

    Raises:
        DeviceError: there are fewer.
    """
    import cupy

    try:
        with on_device(device):
            yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise DeviceError(
            f"{device} cannot allocate {size:,} more bytes; choose a smaller --batch-size"
        ) from error


def _number(device: str, default: int = 0) -> int:
    """Return which of the GPUs "cuda:i" is."""
    return int(device.partition(":")[2] or default)


def _no_gpu() -> str:
    """Return why a GPU cannot be used."""
    try:
        import cupy
    except ImportError:
        return f"CuPy is not installed ({install_cupy()})"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "insufficient" in str(error).lower():
            return "the NVIDIA driver is missing or too old for this CuPy; run igcnn doctor"
        return f"CUDA finds no GPU ({error})"
    return f"this computer has {count}"
