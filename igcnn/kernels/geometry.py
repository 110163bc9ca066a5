"""What stride and padding make of image and kernel, and what is taken for them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ShapeError

Pair = tuple[int, int]

MOST = 2**31 - 1  # what a kernel's int holds


def count(operation: str, name: str, value: Any, least: int = 1) -> int:
    """Return a whole number from `least` on: Python's or NumPy's integer, no bool, no float.

    Raises:
        ShapeError: it is none.
    """
    if not _is_count(value, least):
        raise ShapeError(
            f"{operation}: {name} must be an integer ≥ {least} and < 2³¹, not {_shown(value)}"
        )
    return int(value)


def pair(operation: str, name: str, value: Any, least: int = 1) -> Pair:
    """Return (vertical, horizontal) for one integer from `least` on, or a tuple or list of two.

    Raises:
        ShapeError: it is neither.
    """
    values = value if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2 or not all(_is_count(v, least) for v in values):
        way_out = "; np.pad the images where sides differ" if len(values) == 4 else ""
        raise ShapeError(
            f"{operation}: {name} must be an integer ≥ {least} and < 2³¹, or two "
            f"(vertical, horizontal), not {_shown(value)}{way_out}"
        )
    return int(values[0]), int(values[1])


def window(operation: str, kernel: Any, stride: Any, padding: Any) -> tuple[Pair, Pair, Pair]:
    """Return kernel, stride and padding, each (vertical, horizontal).

    padding may be "same", which keeps the size of the image.

    Raises:
        ShapeError: one of them is invalid, or "same" is impossible.
    """
    kernel = pair(operation, "kernel_size", kernel)
    stride = pair(operation, "stride", stride)
    if not isinstance(padding, str):
        return kernel, stride, pair(operation, "padding", padding, least=0)
    if padding != "same" or stride != (1, 1) or not all(K % 2 for K in kernel):
        raise ShapeError(
            f'{operation}: padding is a number, two, or "same" for stride 1 and odd kernels, not '
            f"{padding!r} for stride {as_text(stride)} and kernel {as_text(kernel)}; "
            "give it as a number"
        )
    return kernel, stride, (kernel[0] // 2, kernel[1] // 2)


def as_text(value: Pair) -> str:
    """Return "3" for (3, 3), else "(3, 1)"."""
    return str(value[0] if value[0] == value[1] else value)


def _is_count(value: Any, least: int) -> bool:
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_integer and least <= int(value) <= MOST


def _shown(value: Any) -> str:
    """Return a value of any kind in a line of an error."""
    return " ".join(repr(value).split())[:60]


def convolution_geometry(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Any, padding: Any, groups: Any
) -> tuple[Pair, Pair, int]:
    """Return stride, padding and groups, each checked by itself.

    Raises:
        ShapeError: one of them is none, or image or weights have not four axes.
    """
    if len(x_shape) != 4 or len(w_shape) != 4:
        one = "; of one image make a batch with x[None]" if len(x_shape) == 3 else ""
        raise ShapeError(
            "convolution: x must be (N, C, H, W) and w (C_out, C/groups, KH, KW), "
            f"not {tuple(x_shape)} and {tuple(w_shape)}{one}"
        )
    groups = count("convolution", "groups", groups)
    return *window("convolution", tuple(w_shape[2:]), stride, padding)[1:], groups


def output_size(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    groups: int,
) -> Pair:
    """Return (OH, OW), after checking that image, weights and groups fit each other.

    Raises:
        ShapeError: they do not.
    """
    _, C, H, W = x_shape
    C_out, Cg, KH, KW = w_shape
    check_layout("convolution", x_shape, Cg * groups)
    if C % groups or C_out % groups:
        raise ShapeError(
            f"convolution: {C} input and {C_out} output channels do not divide into "
            f"{groups} groups; choose groups that divide both"
        )
    if Cg * groups != C:
        raise ShapeError(
            f"convolution: x has {C} channels but w takes {Cg}·{groups} = {Cg * groups} "
            f"(channels a group · groups); x must have {Cg * groups} channels, or w the shape "
            f"({C_out}, {C // groups}, {KH}, {KW})"
        )
    OH = (H + 2 * padding[0] - KH) // stride[0] + 1
    OW = (W + 2 * padding[1] - KW) // stride[1] + 1
    if OH < 1 or OW < 1:
        raise ShapeError(
            f"convolution: image {H}×{W} with padding {padding[0]}, {padding[1]} is smaller than "
            f"the kernel {KH}×{KW}; enlarge the image or the padding"
        )
    return OH, OW


def check_layout(operation: str, x_shape: tuple[int, ...], channels: int) -> None:
    """Raise ShapeError for images that have the channels last instead of second.

    Args:
        operation: the operation, for the message.
        x_shape: of the images.
        channels: how many they should have.
    """
    if len(x_shape) == 4 and x_shape[1] != channels == x_shape[3]:
        raise ShapeError(
            f"{operation}: images must be (N, C, H, W) with {channels} channels; "
            f"{tuple(x_shape)} looks like (N, H, W, C): use images.transpose(0, 3, 1, 2)"
        )


def phases(
    w_shape: tuple[int, ...], stride: Pair, padding: Pair
) -> Iterator[tuple[Pair, Pair, Pair]]:
    """Yield (phase of the image, phase of the kernel, offset) for each phase with taps.

    Row i·s + a − p with a = s·a' + r is row i + a' + t of the image's phase u, where
    r − p = s·t + u. The same holds for columns.
    """
    rows = [(r, *divmod(r - padding[0], stride[0])) for r in range(min(stride[0], w_shape[2]))]
    columns = [(r, *divmod(r - padding[1], stride[1])) for r in range(min(stride[1], w_shape[3]))]
    for a, top, u in rows:
        for b, left, v in columns:
            yield (u, v), (a, b), (top, left)


def convolution_fields(
    x_shape: tuple[int, ...],
    z_shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    groups: int,
) -> dict[str, int]:
    """Return the sizes that the compiled kernels take; x_shape is (C, H, W), z_shape likewise."""
    names = "C H W D OH OW KH KW SH SW PH PW G".split()
    sizes = *x_shape, *z_shape, *kernel, *stride, *padding, groups
    return dict(zip(names, sizes, strict=True))
