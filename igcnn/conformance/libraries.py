"""The libraries that can be asked, by name.

A library is a function of the operation's name, its inputs and its options that returns results
by name, as `problem.py` names them. What it leaves out it does not offer; where it raises
NotImplementedError it offers nothing of the case.

    def function(op: str, inputs: dict[str, np.ndarray], options: dict) -> dict[str, np.ndarray]:
        if op != "convolution":
            raise NotImplementedError
        return {"y": my_convolution(inputs["x"], inputs["w"], inputs["b"], **options)}
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ..backend import gpu_count, resolve_device
from ..errors import ConfigError
from ..kernels.compiled import unavailable
from ..version import __version__

Function = Callable[[str, dict[str, np.ndarray], dict[str, Any]], dict[str, Any]]


class Library(NamedTuple):
    """Somebody to ask.

    Attributes:
        name: as in --library.
        version: in words.
        function: see the text of this file.
    """

    name: str
    version: str
    function: Function


def _own(device: str, name: str) -> Library:
    from .tape import results

    device = resolve_device(device)
    return Library(name, f"igcnn {__version__}", partial(results, device))


def _compiled(name: str) -> Library:
    from .compiled import results

    if reason := unavailable():
        raise ConfigError(f"compiled kernels are not available: {reason}")
    return Library(name, f"igcnn {__version__}", results)


def _other(module: str, package: str, name: str) -> Library:
    try:
        version = import_module(package).__version__
        function = import_module(module, __package__).results
    except ImportError as error:
        raise ConfigError(f"{name} cannot be imported ({error}); pip install {package}") from error
    if package == "cupy":
        resolve_device("cuda")
    return Library(name, f"{package} {version}", function)


LIBRARIES: dict[str, Callable[[str], Library]] = {
    "numpy": partial(_own, "cpu"),
    "compiled": _compiled,
    "emu": partial(_own, "emu"),
    "cuda": partial(_own, "cuda"),
    "torch": partial(_other, ".pytorch", "torch"),
    "onnxruntime": partial(_other, ".onnx_runtime", "onnxruntime"),
    "cupy": partial(_other, ".array_module", "cupy"),
}


def own_libraries() -> list[str]:
    """Return the names of igcnn's implementations that this computer can run."""
    compiled = [] if unavailable() else ["compiled", "emu"]
    return ["numpy", *compiled, *(["cuda"] if gpu_count() else [])]


def find_library(name: str) -> Library:
    """Return a library by its name, or MODULE:FUNCTION.

    Raises:
        ConfigError: there is none of this name, or it cannot be imported.
        DeviceError: it needs a GPU, and there is none.
    """
    if name in LIBRARIES:
        return LIBRARIES[name](name)
    module, colon, function = name.partition(":")
    if not colon:
        names = ", ".join(LIBRARIES)
        raise ConfigError(f"unknown library {name!r}; choose {names} or MODULE:FUNCTION")
    if os.getcwd() not in sys.path:  # as `python` itself would find it
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"cannot import {name}: {error}; give a module that Python finds and a function in it"
        ) from error
    return Library(name, getattr(import_module(module), "__version__", ""), found)
