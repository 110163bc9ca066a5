"""Where an array lives. The only module that asks which devices there are.

Device names: `cpu`; `auto` is the fastest device at hand. The names `cuda[:i]` and `emu` are
reserved for the CUDA kernels and are refused with a DeviceError until those exist.
"""

import ctypes
import sys
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from .errors import ConfigError, DeviceError


def resolve_device(name: str) -> str:
    """Return the device that `name` stands for.

    Raises:
        DeviceError: the device is known but not available.
        ConfigError: no device has this name.
    """
    if name in ("auto", "cpu"):
        return "cpu"
    if name == "emu" or name.split(":")[0] == "cuda":
        raise DeviceError(f"device {name} is not available in this version; use --device cpu")
    raise ConfigError(f"unknown device {name!r}; choose auto or cpu")


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
