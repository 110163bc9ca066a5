"""Checks the arguments of a CUDA kernel against its signature (signature.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..backend import EmulatedArray, device_of
from ..errors import DeviceError, KernelError
from .signature import Parameter, fits

Array = np.ndarray
Arguments = dict[str, Any]  # of a launch, by name

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
INTEGERS = "int", "unsigned"
NULL = np.uintp(0)  # in place of an array that is None: CuPy passes a NumPy number by value


def check(
    kernel: str,
    parameters: Sequence[Parameter],
    arguments: Mapping[str, Any],
    sizes: Mapping[str, int],
) -> tuple[list[Any], tuple[str, ...]]:
    """Return the arguments as the kernel takes them, in order, and the defines of its types.

    Args:
        kernel: its name.
        parameters: of its signature.
        arguments: arrays, numbers and None, by name.
        sizes: what shapes may name besides the integers among the arguments.

    Raises:
        KernelError: an argument is missing or unknown, or not what the signature says.
        DeviceError: an array has more elements than a kernel can index.
    """
    check_names(kernel, "argument", [p.name for p in parameters], arguments)
    generic: dict[str, str] = {}
    devices = set()
    values: list[Any] = []
    for parameter in parameters:
        argument = arguments[parameter.name]
        if not parameter.is_array:
            values.append(check_number(kernel, parameter, argument))
            continue
        if argument is None and parameter.optional:
            values.append(NULL)
            continue
        _check_array(kernel, parameter, argument, generic)
        devices.add(device_of(argument))
        values.append(argument)
    if len(devices) != 1:
        raise KernelError(
            f"{kernel}: all arrays must live on one device, not on {', '.join(sorted(devices))}"
        )
    _check_shapes(kernel, parameters, values, sizes)
    stored = generic.get("stored", generic.get("real", "float32"))
    real = generic.get("real", "float64" if stored == "float64" else "float32")
    number = np.dtype(real).type
    values = [number(value) if isinstance(value, float) else value for value in values]
    return values, (f"REAL={C_TYPES[real]}", f"STORED={C_TYPES[stored]}")


def check_names(
    kernel: str, what: str, expected: Collection[str], given: Mapping[str, Any]
) -> None:
    """Check that exactly the expected names are given.

    Args:
        kernel: its name.
        what: they are names of.
        expected: names.
        given: names and values.

    Raises:
        KernelError: a name is missing or unknown.
    """
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    if missing or unknown:
        groups = {"missing": missing, "unknown": unknown}
        problems = [f"{word} {what} {', '.join(names)}" for word, names in groups.items() if names]
        raise KernelError(
            f"{kernel}: {' and '.join(problems)}; it takes {', '.join(expected) or 'none'}"
        )


def check_number(kernel: str, parameter: Parameter, value: Any) -> Any:
    """Return a number in the type of the signature; `real` stays a float until that is known.

    Raises:
        KernelError: it is not such a number.
    """
    if isinstance(value, bool | int | np.integer) and parameter.type in INTEGERS:
        limits = np.iinfo(DTYPES[parameter.type])
        if limits.min <= value <= limits.max:
            return np.dtype(DTYPES[parameter.type]).type(value)
    elif isinstance(value, float | int | np.floating) and not isinstance(value, bool):
        if parameter.type == "real":
            return float(value)
        if parameter.type in ("float", "double"):
            return np.dtype(DTYPES[parameter.type]).type(value)
    raise KernelError(f"{kernel}: {parameter.name} must be {parameter.type}, not {value!r}")


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


def _check_array(kernel: str, parameter: Parameter, array: Any, generic: dict[str, str]) -> None:
    """Check type and memory of an array; the first of type real or stored decides that type."""
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
    dtype = str(array.dtype)
    expected = DTYPES.get(parameter.type) or generic.setdefault(parameter.type, dtype)
    if parameter.type not in DTYPES and dtype not in C_TYPES:
        expected = " or ".join(C_TYPES)
    if dtype != expected:
        raise KernelError(
            f"{kernel}: {parameter.name} must be an array of {expected}, not {dtype}"
        )


def _check_shapes(
    kernel: str, parameters: Sequence[Parameter], values: Sequence[Any], sizes: Mapping[str, int]
) -> None:
    """Check the shape of every array; `sizes` has what shapes may name besides integers."""
    known = dict(sizes)
    arrays = []
    for parameter, value in zip(parameters, values, strict=True):
        if parameter.type in INTEGERS and not parameter.is_array:
            known[parameter.name] = int(value)
        elif parameter.shape and value is not NULL:
            arrays.append((parameter.name, parameter.shape, value.shape))
    for _, declared, shape in arrays:
        declared.bind(shape, known)
    for name, declared, shape in arrays:
        lengths = declared.lengths(known)
        if lengths is None or not fits(shape, lengths):
            meant = "" if lengths is None else f" = {lengths}"
            raise KernelError(f"{kernel}: {name} must be {declared.text}{meant}, not {shape}")
