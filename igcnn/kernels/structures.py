"""Argument structs of the compiled CPU kernels: reads them from a source, checks what they get.

The C++ source is the rule that every launch is held to. A kernel takes one struct, with one
field a line and a comment behind it; `// or null` allows None:

    struct BatchNormSums {
        const V *x;           // [blocks][H][C][W]
        const real *mean;     // or null: ...
        Batch batch;
    };
    KERNEL(batch_norm_sums, BatchNormSums) { ... }
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend import device_of, is_array
from ..errors import KernelError
from .arguments import C_TYPES, DTYPES, check_memory, check_number
from .signature import Parameter

STRUCT = re.compile(r"\bstruct\s+(\w+)\s*\{([^{}]*)\}\s*;")
KERNEL = re.compile(r"^\s*KERNEL\(\s*(\w+)\s*,\s*(\w+)\s*\)", re.MULTILINE)
TYPE = re.compile(r"(const\s+)?(unsigned\s+char|\w+)\s*(.*)", re.DOTALL)
NAME = re.compile(r"(\*?)\s*(\w+)\s*(?:\[(\d+)\])?")
CTYPES: dict[str, type[Any]] = {
    "int": ctypes.c_int32,
    "unsigned": ctypes.c_uint32,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "unsigned char": ctypes.c_ubyte,
}
CACHE_LINE = 64


@dataclass(frozen=True)
class Field:
    """One field of an argument struct.

    Attributes:
        parameter: its name and type.
        count: of elements if it is an array within the struct, else None.
        optional: whether its comment begins with "or null", which allows None.
    """

    parameter: Parameter
    count: int | None
    optional: bool


class Structures:
    """The argument structs of a source, for one width of vectors and one element type.

    Args:
        text: C++ source, with the files that it includes.
        name: of the source file, for messages.
        lanes: numbers in a vector V.
        dtype: of `real`: float32 or float64.
    """

    def __init__(self, text: str, name: str, lanes: int, dtype: str) -> None:
        self.kernels = dict(KERNEL.findall(text))
        self.vector_bytes = lanes * np.dtype(dtype).itemsize
        self._name = name
        self._lanes = lanes
        self._dtype = dtype
        self._bodies = dict(STRUCT.findall(text))
        self._fields: dict[str, dict[str, Field]] = {}
        self._classes: dict[str, type[ctypes.Structure]] = {}

    def fill(self, kernel: str, values: Mapping[str, Any]) -> tuple[ctypes.Structure, list[Any]]:
        """Return the checked arguments of a kernel, and the arrays that they point to.

        Args:
            kernel: its name in the source.
            values: every field by name: arrays, numbers, None, dicts for nested structs, lists
                for arrays of them (missing ones are zero).

        Raises:
            KernelError: the source has no such kernel, or a field is missing, unknown or not
                what the struct says.
        """
        if kernel not in self.kernels:
            raise KernelError(f"{self._name} has no kernel {kernel}")
        arrays: list[Any] = []
        return self._filled(kernel, "", self.kernels[kernel], values, arrays), arrays

    def assertions(self) -> str:
        """Return C++ that fails to compile if the compiler lays out a struct in another way."""
        for name in self.kernels.values():
            self.structure(name)
        lines = []
        for name, structure in self._classes.items():
            for field in self._fields[name]:
                offset = getattr(structure, field).offset
                lines.append(f'static_assert(offsetof({name}, {field}) == {offset}, "layout");')
            lines.append(f'static_assert(sizeof({name}) == {ctypes.sizeof(structure)}, "layout");')
        return "\n".join(["#include <stddef.h>", *lines, ""])

    def fields(self, name: str) -> dict[str, Field]:
        """Return the fields of a struct by name.

        Raises:
            KernelError: there is no such struct, or a field has a form that is not understood.
        """
        if name in self._fields:
            return self._fields[name]
        if name not in self._bodies:
            raise KernelError(f"{self._name} has no struct {name}")
        fields = {}
        for line in self._bodies[name].splitlines():
            code, _, comment = line.partition("//")
            optional = comment.strip().startswith("or null")
            for declaration in filter(None, map(str.strip, code.split(";"))):
                for field in self._declared(name, declaration, optional):
                    fields[field.parameter.name] = field
        self._fields[name] = fields
        return fields

    def structure(self, name: str) -> type[ctypes.Structure]:
        """Return a struct as a class of ctypes."""
        if name not in self._classes:
            members = []
            for field in self.fields(name).values():
                parameter = field.parameter
                member: Any = ctypes.c_void_p
                if not parameter.is_array:
                    member = CTYPES.get(self._plain(parameter.type))
                    member = member or self.structure(parameter.type)
                if field.count is not None:
                    member = member * field.count
                members.append((parameter.name, member))
            self._classes[name] = type(name, (ctypes.Structure,), {"_fields_": members})
        return self._classes[name]

    def _declared(self, struct: str, declaration: str, optional: bool) -> list[Field]:
        """Return the fields of one declaration, such as `const real *gamma, *beta`."""
        parts = TYPE.fullmatch(declaration)
        names = [NAME.fullmatch(part.strip()) for part in parts[3].split(",")] if parts else []
        fields = []
        for match in names:
            if parts is None or match is None:
                break
            type_, pointer = " ".join(parts[2].split()), bool(match[1])
            known = self._plain(type_) in CTYPES
            # a V by value needs an alignment that ctypes cannot give
            known |= type_ == "V" if pointer else type_ in self._bodies and type_ != "V"
            if not known or (pointer and match[3]):
                break
            parameter = Parameter(match[2], type_, pointer, bool(parts[1]))
            fields.append(Field(parameter, int(match[3]) if match[3] else None, optional))
        if not fields or len(fields) != len(names):
            raise KernelError(f"{self._name}: struct {struct}: cannot read field `{declaration}`")
        return fields

    def _plain(self, type_: str) -> str:
        return C_TYPES[self._dtype] if type_ == "real" else type_

    def _filled(
        self, kernel: str, prefix: str, struct: str, values: Any, arrays: list[Any]
    ) -> ctypes.Structure:
        """Return a struct with checked values; `prefix` leads to it from the arguments."""
        fields = self.fields(struct)
        listed = f"{struct} has {', '.join(fields)}"
        if not isinstance(values, Mapping):
            raise KernelError(f"{kernel}: {prefix[:-1]} must be a dict, not {values!r}; {listed}")
        missing, unknown = fields.keys() - values.keys(), values.keys() - fields.keys()
        if missing or unknown:
            names = ", ".join(prefix + name for name in sorted(missing or unknown))
            problem = "missing" if missing else "unknown"
            raise KernelError(f"{kernel}: {problem} {names}; {listed}")
        result = self.structure(struct)()
        for name, field in fields.items():
            place, value = replace(field.parameter, name=prefix + name), values[name]
            if value is None and field.optional:
                continue
            if field.count is None:
                setattr(result, name, self._value(kernel, place, value, arrays))
                continue
            if not isinstance(value, Sequence) or len(value) > field.count:
                raise KernelError(
                    f"{kernel}: {place.name} must be a list of up to {field.count}, not {value!r}"
                )
            for k, element in enumerate(value):
                place = replace(place, name=f"{prefix}{name}[{k}]")
                getattr(result, name)[k] = self._value(kernel, place, element, arrays)
        return result

    def _value(self, kernel: str, place: Parameter, value: Any, arrays: list[Any]) -> Any:
        """Return a checked value as ctypes takes it: an address, a number or a struct."""
        if place.is_array:
            self._check_array(kernel, place, value)
            arrays.append(value)
            return value.ctypes.data
        if self._plain(place.type) in CTYPES:
            number = check_number(kernel, place, value)
            return number.item() if isinstance(number, np.generic) else number
        return self._filled(kernel, f"{place.name}.", place.type, value, arrays)

    def _check_array(self, kernel: str, place: Parameter, array: Any) -> None:
        is_vector = place.type == "V"
        if is_array(array) and device_of(array) != "cpu":
            raise KernelError(f"{kernel}: {place.name} is on {device_of(array)}, not on the CPU")
        alignment = min(CACHE_LINE, self.vector_bytes) if is_vector else 1
        check_memory(kernel, place.name, array, alignment)
        expected = self._dtype if place.type in ("real", "V") else DTYPES[place.type]
        if array.dtype != expected:
            raise KernelError(
                f"{kernel}: {place.name} must be an array of {expected}, not {array.dtype}"
            )
        if is_vector and array.shape[-1:] != (self._lanes,):
            raise KernelError(
                f"{kernel}: {place.name} of shape {array.shape} must have {self._lanes} lanes as "
                "its last axis"
            )
        if not place.is_constant and not array.flags.writeable:
            raise KernelError(f"{kernel}: {place.name} is written to, but is read-only")
