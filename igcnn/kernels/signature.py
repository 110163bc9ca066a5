"""Signatures of the CUDA kernels, read from their sources: names, types and shapes of parameters.

The `extern "C" __global__` signature is the rule that every launch is held to (arguments.py). A
comment beside each array says its shape, and `or null` before it that there may be none:

    linear_forward(const stored *__restrict__ x,  // [N][I]
                   const real *__restrict__ w,    // [O][I]
                   const real *__restrict__ b,    // or null: [O]
                   stored *__restrict__ y,        // [N][O]
                   int N, int I, int O, int has_bias) {

A dimension is a product or quotient of integers and names. A name is an integer parameter of the
kernel, a define of its source, or gridDim.x, y or z. Any other name is the length of that axis in
the first array that has it, and the other arrays of the launch must agree. `[...]` is any shape.

Several axes of an array may be one dimension, and axes of length 1 do not count: (N, C, H, W) is
[N][C][pixels] with pixels = H·W, since its elements lie at the same places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import KernelError

SIGNATURE = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*'
    r"\(((?://[^\n]*|[^)])*)\)"
)
COMMENT = re.compile(r"\s*(or null)?:?\s*((?:\[[^\]]*\])*)")
FACTOR = r"(\d+|gridDim\.[xyz]|[A-Za-z_]\w*)"
DIMENSION = re.compile(rf"{FACTOR}([*/]{FACTOR})*")
ANY = "[...]"

Dimension = tuple[tuple[str, str], ...]  # operator and factor, one after the other


@dataclass(frozen=True)
class Shape:
    """The declared shape of an array.

    Attributes:
        text: as in the source.
        dimensions: what is between the brackets.
    """

    text: str
    dimensions: tuple[Dimension, ...]

    def bind(self, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
        """Add to `sizes` the names that it does not have, with the lengths of an array's axes."""
        if len(shape) == len(self.dimensions):
            for dimension, length in zip(self.dimensions, shape, strict=True):
                if len(dimension) == 1 and not dimension[0][1].isdigit():
                    sizes.setdefault(dimension[0][1], length)

    def lengths(self, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
        """Return the length of each dimension, None if one has a name that `sizes` has not."""
        try:
            return tuple(_length(dimension, sizes) for dimension in self.dimensions)
        except KeyError:
            return None


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel.

    Attributes:
        name: in the source.
        type: without const, * and __restrict__.
        is_array: whether it is a pointer.
        is_constant: whether it is a pointer to const.
        shape: of an array, None for any.
        optional: whether it may be None.
    """

    name: str
    type: str
    is_array: bool
    is_constant: bool
    shape: Shape | None = None
    optional: bool = False


def parse(text: str) -> dict[str, tuple[Parameter, ...]]:
    """Return the parameters of every kernel in a source, by name of the kernel.

    Raises:
        KernelError: an array has no shape beside it, or one that cannot be read.
    """
    return {kernel: tuple(_parameters(kernel, body)) for kernel, body in SIGNATURE.findall(text)}


def fits(shape: tuple[int, ...], lengths: tuple[int, ...]) -> bool:
    """Return whether elements of an array lie where they do in one of the declared lengths."""
    if shape == lengths:
        return True
    if 0 in shape:
        return 0 in lengths
    axes = iter([length for length in shape if length != 1])
    for length in lengths:
        merged = 1
        while merged < length:
            merged *= next(axes, length + 1)
        if merged != length:
            return False
    return next(axes, None) is None


def _length(dimension: Dimension, sizes: Mapping[str, int]) -> int:
    result = 1
    for operator, factor in dimension:
        size = int(factor) if factor.isdigit() else sizes[factor]
        result = result // size if operator == "/" else result * size
    return result


def _parameters(kernel: str, body: str) -> Iterator[Parameter]:
    for line in body.splitlines():
        code, _, comment = line.partition("//")
        for part in filter(None, map(str.strip, code.split(","))):
            words = re.sub(r"\b(const|__restrict__)\b|\*", " ", part).split()
            name, type_ = words[-1], " ".join(words[:-1])
            if "*" not in part:
                yield Parameter(name, type_, is_array=False, is_constant=False)
                continue
            shape, optional = _declared(kernel, name, comment)
            is_constant = "const" in part.split("*")[0]
            yield Parameter(name, type_, True, is_constant, shape, optional)


def _declared(kernel: str, name: str, comment: str) -> tuple[Shape | None, bool]:
    """Return the shape that a comment declares, and whether the array may be None."""
    match = COMMENT.match(comment)
    assert match is not None  # all of it may be empty
    text, optional = match[2], match[1] is not None
    if text == ANY:
        return None, optional
    parts = re.findall(r"\[([^\]]*)\]", text)
    if not parts or not all(map(DIMENSION.fullmatch, parts)):
        raise KernelError(
            f"{kernel}: cannot read the shape of {name} in `//{comment}`; "
            "write it beside the parameter, like // [N][C/groups][3]"
        )
    dimensions = tuple(tuple(re.findall(rf"([*/]?){FACTOR}", part)) for part in parts)
    return Shape(text, dimensions), optional
