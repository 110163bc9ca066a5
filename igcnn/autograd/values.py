"""Which arrays the engine takes: as data, as a result, as a gradient.

The rule for element types, which every operation keeps: it computes in float32 or in float64, and
all its arguments have that one type. Numbers, lists of numbers and masks of truth values have none
and take that of the other operand, or float32; an array keeps the type that it has, and `astype`
converts it. Integers can be held (labels, images), but nothing is computed with them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import EmulatedArray, device_of, empty, is_array, to_device, to_host
from ..errors import AutogradError, DtypeError, ShapeError
from ..kernels.checks import FLOATS

Array = np.ndarray

NUMBERS = "biuf"  # the kinds of NumPy: truth values, integers with and without sign, floats
LARGEST = 3e38  # what float32 holds for certain
EXACT_ELEMENTS = 1 << 14
SAMPLED_ELEMENTS = 256


def as_array(value: Any, dtype: np.dtype | None = None) -> Array:
    """Return an array, a number or a list of numbers as an array of this machine's byte order.

    Args:
        value: an array of any device, which is not copied; what NumPy can read as one (a memory
            map, a record array, a tensor of another library) is read as a plain array.
        dtype: element type for numbers and lists; float32, or a NumPy scalar's own, if None.

    Raises:
        DtypeError: these are no real numbers, a number is too large for the type, or elements are
            masked.
        ShapeError: a list whose rows have different lengths.
        AutogradError: these are tensors, whose graph would be lost.
    """
    if type(value) is np.ndarray and value.dtype.kind in NUMBERS and value.dtype.isnative:
        return value
    items = value if isinstance(value, list | tuple) else [value]
    if any(hasattr(item, "record") for item in items):
        raise AutogradError("a tensor of tensors loses their graph; use them, or x.numpy()")
    if isinstance(value, np.ma.MaskedArray):
        raise DtypeError("a masked array: give x.filled(number), or x.compressed()")
    if is_array(value) and not isinstance(value, np.ndarray):  # in a GPU's memory
        return value
    try:
        array = value if isinstance(value, EmulatedArray) else np.asarray(value)
    except ValueError:
        raise ShapeError("a list whose rows have different lengths is no array") from None
    if array.dtype.kind not in NUMBERS:
        shown = type(value).__name__ if array.ndim == 0 else f"an array of {array.dtype}"
        raise DtypeError(
            f"{shown}: not numbers, or too large; a tensor holds real numbers and truth values"
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if isinstance(value, np.generic):
        dtype = dtype or array.dtype
    elif hasattr(value, "__array__"):
        return array
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype or np.float32, copy=False)
    except FloatingPointError:
        name = np.dtype(dtype or np.float32).name
        raise DtypeError(f"{value!r:.40} is too large for {name}; give float64 data") from None


def fingerprint(array: Array) -> int:
    """Return a number that tells whether an array was changed; 0 for one in a GPU's memory.

    Up to 16,384 elements are looked at one by one, of larger arrays 256 that are evenly spaced.
    """
    if not isinstance(array, np.ndarray):  # to look would be to wait for the GPU
        return 0
    if array.size > EXACT_ELEMENTS:
        array = array.ravel(order="K")[:: array.size // SAMPLED_ELEMENTS]
    return zlib.crc32(array.tobytes())


def as_operand(value: Any, like: Array | None) -> Array:
    """Return what a tensor is combined with: a number or list with the type and device of `like`.

    Truth values take its type too: x · (x > 0) is what it looks like.

    Raises:
        DtypeError, ShapeError, AutogradError: as as_array.
    """
    if like is None or (hasattr(value, "__array__") and not isinstance(value, np.generic)):
        array = as_array(value)
        return array if like is None or array.dtype.kind != "b" else array.astype(like.dtype)
    if type(value) in (int, float) and abs(value) <= LARGEST:  # mostly, and sooner
        array = np.array(value, like.dtype)
    else:
        array = as_array(value, like.dtype)
    return array if type(like) is np.ndarray else to_device(array, device_of(like))


def check_differentiable(array: Array) -> None:
    """Raise DtypeError if an array has no gradient: if it is not float32 or float64."""
    if array.dtype not in FLOATS:
        raise DtypeError(
            f"a gradient needs float32 or float64 data, not {array.dtype}; convert with astype"
        )


def as_output(name: str, value: Any, inputs: Sequence[Array]) -> Array:
    """Return what forward of a function returned, if it is one array, a number as one.

    Raises:
        AutogradError: it is not.
        DtypeError: its elements are floating, but not float32 or float64.
    """
    if isinstance(value, np.generic):
        value = to_device(np.asarray(value), device_of(inputs[0]) if inputs else "cpu")
    if not is_array(value):
        raise AutogradError(
            f"forward of {name} returned {type(value).__name__}; a Function returns one array"
        )
    if value.dtype.kind == "f" and value.dtype not in FLOATS:
        raise DtypeError(f"forward of {name} returned {value.dtype}, not float32 or float64")
    return value


def first_gradient(gradient: Any, output: Array) -> Array:
    """Return what backward starts from: `gradient`, or 1 if it is None, like an output.

    Raises:
        AutogradError: it is None, but the output is not a single number.
        ShapeError, DtypeError: its shape or type differs from the output's.
    """
    if gradient is None:
        if output.size != 1:
            raise AutogradError(
                f"backward: a tensor of shape {output.shape} is not a single number; give "
                "backward(gradient) an array of that shape"
            )
        return np.ones_like(output)
    array = as_array(gradient, output.dtype)
    if array.dtype != output.dtype:
        raise DtypeError(
            f"backward: gradient is {array.dtype}, but the tensor {output.dtype}; "
            "convert it with astype"
        )
    if array.shape != output.shape:
        raise ShapeError(
            f"backward: gradient has shape {array.shape}, but the tensor {output.shape}; "
            "they must be equal"
        )
    device = device_of(output)
    return array if device_of(array) == device else to_device(to_host(array), device)


def check_gradients(
    name: str, gradients: Any, inputs: Sequence[Array], needed: Sequence[bool]
) -> list[Array | None]:
    """Return what backward of a function returned, if it is one gradient for each input.

    Raises:
        AutogradError: there are more or fewer, one that is needed is None, or one has another
            shape or type than its input.
    """
    is_sequence = isinstance(gradients, (tuple, list))
    if not is_sequence or len(gradients) != len(inputs):
        count = len(gradients) if is_sequence else "no tuple of"
        raise AutogradError(
            f"backward of {name} returned {count} gradients for {len(inputs)} inputs; "
            "return one for each, None where none is needed"
        )
    checked: list[Array | None] = []
    for x, gx, need in zip(inputs, gradients, needed, strict=True):
        if type(gx) is np.ndarray:
            fits = gx.shape == x.shape and gx.dtype == x.dtype
        elif gx is None:
            fits = not need
        else:
            gx = np.asarray(gx) if isinstance(gx, np.generic) else gx
            fits = is_array(gx) and gx.shape == x.shape and gx.dtype == x.dtype
        if not fits:
            what = f"a gradient of shape {gx.shape} and type {gx.dtype}" if is_array(gx) else gx
            raise AutogradError(
                f"backward of {name} returned {'no gradient' if gx is None else what} for input "
                f"{len(checked)} of shape {x.shape} and type {x.dtype}; they must be equal"
            )
        checked.append(gx)
    return checked


def read_only(array: Array) -> Array:
    """Return a view that NumPy does not write to; an array in a GPU's memory as it is."""
    if isinstance(array, np.ndarray):
        array = array.view()
        array.setflags(write=False)
    return array


def plus(a: Array, b: Array) -> Array:
    """Return a + b of one shape, an array where there are no axes too."""
    return a + b if a.ndim else np.add(a, b, out=empty((), a.dtype, like=a))
