"""What a convolution's stride and padding make of image and kernel."""

from collections.abc import Iterator

from ..errors import ShapeError

Pair = tuple[int, int]


def output_size(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    groups: int,
) -> Pair:
    """Return (OH, OW), after checking that image, weights and groups fit each other."""
    if len(x_shape) != 4 or len(w_shape) != 4:
        raise ShapeError(
            "convolution: x must be (N, C, H, W) and w (C_out, C/groups, KH, KW), "
            f"not {tuple(x_shape)} and {tuple(w_shape)}"
        )
    _, C, H, W = x_shape
    C_out, Cg, KH, KW = w_shape
    if groups < 1 or C % groups or C_out % groups:
        raise ShapeError(
            f"convolution: {C} input and {C_out} output channels do not divide into "
            f"{groups} groups; choose groups that divide both"
        )
    if Cg * groups != C:
        raise ShapeError(
            f"convolution: x has {C} channels but w takes {Cg}·{groups} = {Cg * groups} "
            f"(channels a group · groups); give w the shape ({C_out}, {C // groups}, {KH}, {KW})"
        )
    if min(stride) < 1 or min(padding) < 0:
        raise ShapeError(
            f"convolution: stride must be ≥ 1 and padding ≥ 0, not {stride} and {padding}"
        )
    OH = (H + 2 * padding[0] - KH) // stride[0] + 1
    OW = (W + 2 * padding[1] - KW) // stride[1] + 1
    if OH < 1 or OW < 1:
        raise ShapeError(
            f"convolution: image {H}×{W} with padding {padding[0]}, {padding[1]} is smaller than "
            f"the kernel {KH}×{KW}; enlarge the image or the padding"
        )
    return OH, OW


def pair(value: int | Pair) -> Pair:
    """Return (value, value) for a number, and a pair as it is."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


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
