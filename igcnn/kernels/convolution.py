"""Two-dimensional convolution, dense or grouped.

    y[n, o, i, j] = Σ_{c, a, b} w[o, c, a, b] · x[n, g·C_g + c, i·s + a − p, j·s + b − p]
    gw[o, c, a, b] = Σ_{n, i, j} gy[n, o, i, j] · x[n, g·C_g + c, i·s + a − p, j·s + b − p]
    gx[n, g·C_g + c, r, q] = Σ_{o, a, b} w[o, c, a, b] · gy[n, o, (r + p − a)/s, (q + p − b)/s]

with C_g = C/G input channels per group, g = o div (C_out/G), and zeros outside the image. In
the last sum o runs over the outputs of group g, and only where the quotients are whole. As in
the literature of neural networks this is a cross-correlation. Output size: ⌊(H + 2p − KH)/s⌋ + 1.

Everything is reduced to one unit-stride product, `_correlate`:

* a stride s splits image and kernel into s × s *phases* (every s-th row and column), and the
  strided convolution is the sum of the unit-stride ones of its phases;
* the gradient of the input is the convolution of gy with the kernel flipped and its channels
  exchanged, one phase of the input at a time;
* the gradient of the weight is the same sum read for w, with gy in place of y.

`_correlate` copies one group at a time, with its halo of zeros, into a buffer of memory order
(row, channel, column, image). There the KH·Cg rows that an output row needs are consecutive,
an ordinary matrix; one matrix product a row gives the KW column taps side by side, and KW
shifted additions the result. No im2col: a pixel is copied once, not KH·KW times.

For backward only x and w are kept; the products are cheap to set up again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backend import contiguous, empty, is_on_cpu
from ..errors import DeviceError, KernelError
from . import channelwise, winograd
from .arguments import Arguments
from .checks import check_arrays
from .geometry import Pair, convolution_geometry, output_size, phases
from .lanes import Fields, Lanes, complete, launch_chunks, permutations
from .launch import WARP, launch, launch_each
from .sum_partials import sum_partials

Array = np.ndarray

DEVICE_THREADS = 128  # of a block
FEWEST_THREADS = 1 << 15  # of a launch, if a thread with fewer channels can make them so many
MOST_CHANNELS = 8  # of a group that one thread computes
MOST_CHUNKS = 4  # of channels in a block
SHARED_WEIGHTS = 3072  # numbers, as in convolution.cu
WARPS_AT_ONCE = 1536  # fill the largest GPUs; fixed on all GPUs: same bits
TERMS_OF_A_SUM = 16  # at least, for one thread
# numbers of a channel that a job of the compiled kernels works on at a time, as measured
FORWARD_NUMBERS, BACKWARD_NUMBERS = 256, 1024
ALONE_NUMBERS = 4096  # where the cache holds nothing else
BLOCK_BYTES = 1 << 21  # of one intermediate product; larger ones fall out of the L2 cache


def convolution_forward(
    x: Array, w: Array, stride: int | Pair = 1, padding: int | Pair | str = 0, groups: int = 1
) -> Array:
    """Return y of shape (N, C_out, OH, OW).

    Args:
        x: images, (N, C, H, W).
        w: weights, (C_out, C/groups, KH, KW). Group g maps the input channels
            [g·C/groups, (g+1)·C/groups) to the output channels [g·C_out/groups, …).
        stride: step in pixels, vertical and horizontal.
        padding: rows and columns of zeros on each side; see geometry.window.
        groups: number of groups G.

    Raises:
        ShapeError: channels, groups and weights do not fit, the image is too small, or stride,
            padding or groups are no such numbers.
        DtypeError: x and w are not both float32 or both float64.
    """
    stride, padding, groups = convolution_geometry(x.shape, w.shape, stride, padding, groups)
    OH, OW = output_size(x.shape, w.shape, stride, padding, groups)
    check_arrays("convolution", x, w)
    if not is_on_cpu(x):
        y = empty((x.shape[0], w.shape[0], OH, OW), x.dtype, x)
        launch_convolution_forward(contiguous(x), w, y, stride, padding, groups)
        return y
    x_planes = x.transpose(1, 2, 3, 0)  # (C, H, W, N)
    y_planes = np.empty((w.shape[0], OH, OW, x.shape[0]), x.dtype)
    first = True
    for (u, v), (a, b), offset in phases(w.shape, stride, padding):
        w_phase = w[:, :, a :: stride[0], b :: stride[1]]
        x_phase = x_planes[:, u :: stride[0], v :: stride[1]]
        _correlate(x_phase, w_phase, offset, groups, y_planes, accumulate=not first)
        first = False
    return y_planes.transpose(3, 0, 1, 2)


def convolution_backward_input(
    gy: Array,
    w: Array,
    x_shape: tuple[int, ...],
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    groups: int = 1,
) -> Array:
    """Return gx of shape `x_shape`, the gradient of the input.

    With i = s·j + u, only taps a ≡ u + p (mod s) reach input row i; for them
    gx[i] = Σ_a w[a] · gy[(i + p − a) / s]: a unit-stride convolution with the flipped kernel.
    """
    stride, padding, groups = convolution_geometry(x_shape, w.shape, stride, padding, groups)
    N, C, H, W = x_shape
    C_out, _, KH, KW = w.shape
    if not is_on_cpu(gy):
        gx = empty(x_shape, gy.dtype, gy)
        launch_convolution_backward_input(contiguous(gy), w, gx, stride, padding, groups)
        return gx
    # (G, C_out/G, Cg, KH, KW) → (G, Cg, C_out/G, KH, KW): input and output channels exchanged
    w_exchanged = w.reshape(groups, C_out // groups, C // groups, KH, KW).transpose(0, 2, 1, 3, 4)
    w_exchanged = w_exchanged.reshape(C, C_out // groups, KH, KW)
    gy_planes = gy.transpose(1, 2, 3, 0)
    gx_planes = np.zeros((C, H, W, N), gy.dtype)
    for (u, v), (a, b), (top, left) in phases(w.shape, stride, padding):
        w_phase = w_exchanged[:, :, a :: stride[0], b :: stride[1]]
        A, B = w_phase.shape[2:]
        gx_phase = gx_planes[:, u :: stride[0], v :: stride[1]]
        if gx_phase.size:
            offset = (1 - A - top, 1 - B - left)
            _correlate(gy_planes, w_phase[:, :, ::-1, ::-1], offset, groups, gx_phase, False)
    return gx_planes.transpose(3, 0, 1, 2)


def convolution_backward_weight(
    gy: Array,
    x: Array,
    w_shape: tuple[int, ...],
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    groups: int = 1,
) -> Array:
    """Return gw of shape `w_shape`, the gradient of the weight."""
    stride, padding, groups = convolution_geometry(x.shape, w_shape, stride, padding, groups)
    if not is_on_cpu(gy):
        gw = empty(w_shape, gy.dtype, gy)
        N, _, OH, OW = gy.shape
        partial = empty((weight_slices(N, OH * OW, w_shape, groups), *w_shape), gy.dtype, gy)
        arrays = contiguous(gy), contiguous(x), partial
        launch_convolution_backward_weight(*arrays, stride, padding, groups)
        sum_partials(partial, gw)
        return gw
    gy_planes = gy.transpose(1, 2, 3, 0)
    x_planes = x.transpose(1, 2, 3, 0)
    gw = np.empty(w_shape, gy.dtype)
    for (u, v), (a, b), offset in phases(w_shape, stride, padding):
        gw_phase = gw[:, :, a :: stride[0], b :: stride[1]]
        x_phase = x_planes[:, u :: stride[0], v :: stride[1]]
        _correlate_weight(x_phase, gy_planes, offset, groups, gw_phase)
    return gw


def launch_convolution_forward(
    x: Array,
    w: Array,
    y: Array,
    stride: Pair,
    padding: Pair,
    groups: int,
    branches: Pair = (1, 1),
) -> None:
    """Write convolution_forward into y, on the device.

    branches: channel c of the operation is channel Reorder(branches[0])(c) of x, and likewise
    branches[1] for y; 1 means no permutation.
    """
    S = _regular_stride(x, w, y, stride, padding)
    grid, block, tile = _tiles(y.shape, groups, w.shape, w.shape[0] // groups, MOST_CHANNELS)
    sizes = _sizes(x, w, y, stride, padding, groups, branches)
    kernel, defines = "convolution_forward_v2", {"TILE": tile, "KW": w.shape[3]}
    launch("convolution", kernel, grid, block, defines=defines, x=x, w=w, y=y, S=S, **sizes)


def launch_convolution_formula(
    x: Array, w: Array, y: Array, stride: Pair, padding: Pair, groups: int
) -> None:
    """Write convolution_forward into y with the reference kernel, on the device."""
    sizes = _sizes(x, w, y, stride, padding, groups, (1, 1))
    kernel, defines = "convolution_forward_v1", {"TILE": 1, "KW": w.shape[3]}
    launch_each("convolution", kernel, y.size, defines=defines, x=x, w=w, y=y, **sizes)


def launch_convolution_backward_input(
    gy: Array,
    w: Array,
    gx: Array,
    stride: Pair,
    padding: Pair,
    groups: int,
    branches: Pair = (1, 1),
    accumulate: bool = False,
) -> None:
    """Write, or add, convolution_backward_input into gx, on the device; branches as in forward."""
    S = _regular_stride(gx, w, gy, stride, padding)
    # a thread has four results, or 16 that four of gy meet
    shape, most = (gy.shape, MOST_CHANNELS // 2) if S == 2 else (gx.shape, MOST_CHANNELS)
    grid, block, tile = _tiles(shape, groups, w.shape, w.shape[1], most)
    arguments: Arguments = {"gy": gy, "w": w, "gx": gx, "S": S, "accumulate": accumulate}
    arguments |= _sizes(gx, w, gy, stride, padding, groups, branches)
    kernel, defines = "convolution_backward_input", {"TILE": tile, "KW": w.shape[3]}
    launch("convolution", kernel, grid, block, defines=defines, **arguments)


def launch_convolution_backward_weight(
    gy: Array,
    x: Array,
    partial: Array,
    stride: Pair,
    padding: Pair,
    groups: int,
    branches: Pair = (1, 1),
) -> None:
    """Write the parts of convolution_backward_weight, on the device; branches as in forward.

    partial, (S, *w.shape), receives the sums over S slices of the pixels (sum_partials.py).
    """
    tile, _, warps = _weight_warps(partial.shape[1:], groups)
    blocks = -(-warps * WARP // DEVICE_THREADS), len(partial)
    S = _regular_stride(x, partial[0], gy, stride, padding)
    arguments: Arguments = {"gy": gy, "x": x, "partial": partial, "S": S}
    arguments |= _sizes(x, partial[0], gy, stride, padding, groups, branches)
    kernel, defines = "convolution_backward_weight", {"TILE": tile, "KW": partial.shape[4]}
    launch("convolution", kernel, blocks, DEVICE_THREADS, defines=defines, **arguments)


def weight_slices(N: int, pixels: int, w_shape: tuple[int, ...], groups: int) -> int:
    """Return into how many slices of pixels the gradient of a weight is cut."""
    _, sharing, warps = _weight_warps(w_shape, groups)
    return max(1, min(WARPS_AT_ONCE // warps, N * pixels // (TERMS_OF_A_SUM * sharing)))


def _weight_warps(w_shape: tuple[int, ...], groups: int) -> tuple[int, int, int]:
    """Return TILE, threads that share the pixels, and warps of the gradient of a weight."""
    C_out, Cg, KH, KW = w_shape
    tile = _tile(C_out // groups, w_shape, MOST_CHANNELS)
    split = 2 if KW == 1 and tile == MOST_CHANNELS else 1
    inputs = 4 if KW == 1 else 2 if KW < 4 else 1
    chunks, parts = -(-C_out // groups // (tile * split)), -(-Cg // (inputs * split))
    return tile, WARP // split**2, groups * chunks * parts * KH


def _regular_stride(x: Array, w: Array, y: Array, stride: Pair, padding: Pair) -> int:
    """Return S of convolution.cu: the stride of a regular convolution, 0 for any other."""
    KH, KW = w.shape[2:]
    S = stride[0]
    is_regular = (
        KH == KW in (1, 3)
        and padding == (KW // 2, KW // 2)
        and stride in ((1, 1), (2, 2))
        and x.shape[2:] == (S * y.shape[2], S * y.shape[3])
        and y.shape[3] % 4 == 0
    )
    return S if is_regular else 0


def _tiles(
    images: tuple[int, ...], groups: int, w_shape: tuple[int, ...], channels: int, most: int
) -> tuple[tuple[int, int, int], Pair, int]:
    """Return grid, block and TILE for threads of 4 pixels × TILE of a group's channels.

    Args:
        images: the shape of what the threads share, (N, C, H, W).
        groups: number of groups.
        w_shape: of the weights.
        channels: of a group.
        most: channels of a thread.
    """
    N, _, H, W = images
    quads = N * H * -(-W // 4)
    tile = _tile(channels, w_shape, most)
    while tile > 2 and quads * groups * -(-channels // tile) < FEWEST_THREADS:
        tile //= 2
    chunks = -(-channels // tile)
    fit = SHARED_WEIGHTS // (w_shape[2] * w_shape[3] * tile)
    layers = -(-chunks // min(MOST_CHUNKS, fit))
    together = -(-chunks // layers)
    columns = DEVICE_THREADS // together // WARP * WARP
    return (-(-quads // columns), groups, layers), (columns, together), tile


def _tile(channels: int, w_shape: tuple[int, ...], most: int) -> int:
    """Return how many of the channels of a group one thread computes, at most.

    Raises:
        DeviceError: the kernel is too large for a block's memory.
    """
    taps = w_shape[2] * w_shape[3]
    if taps > SHARED_WEIGHTS:
        raise DeviceError(
            f"convolution: a kernel of {w_shape[2]}×{w_shape[3]} is beyond the GPU's "
            f"{SHARED_WEIGHTS} weights a channel; use --device cpu"
        )
    tiles = (MOST_CHANNELS, 4, 2, 1)
    return next(t for t in tiles if t <= most and t < 2 * channels and t * taps <= SHARED_WEIGHTS)


def _sizes(
    x: Array,
    w: Array,
    y: Array,
    stride: Pair,
    padding: Pair,
    groups: int,
    branches: Pair,
) -> Arguments:
    """Return the numbers that every kernel of convolution.cu takes, by name."""
    sizes: Arguments = dict(zip(("N", "C", "H", "W"), x.shape, strict=True))
    sizes |= dict(zip(("O", "OH", "OW"), y.shape[1:], strict=True)) | {"KH": w.shape[2]}
    sizes |= {"stride_y": stride[0], "stride_x": stride[1], "groups": groups}
    sizes |= {"pad_y": padding[0], "pad_x": padding[1]}
    return sizes | {"x_branches": branches[0], "y_branches": branches[1]}


def _correlate(x: Array, w: Array, offset: Pair, groups: int, y: Array, accumulate: bool) -> None:
    """y[o, i, j] (+)= Σ_{c, a, b} w[o, c, a, b] · x[c, i + a + top, j + b + left], unit stride.

    x is (C, H, W, N), y (C_out, OH, OW, N), both possibly strided; x counts as zero outside.
    """
    C_out, Cg, KH, KW = w.shape
    _, OH, OW, N = y.shape
    Og = C_out // groups
    # (G, Og, Cg, KH, KW) → (G, KW·Og, KH·Cg): rows for the column taps, columns as in the buffer
    taps = w.reshape(groups, Og, Cg, KH, KW).transpose(0, 4, 1, 3, 2)
    taps = np.ascontiguousarray(taps).reshape(groups, KW * Og, KH * Cg)
    width = (OW + KW - 1) * N
    block = _rows_per_block(OH, KW * Og * width * x.itemsize)
    halo = np.zeros((block + KH - 1, Cg, OW + KW - 1, N), x.dtype)
    product = np.empty((block, KW, Og, OW + KW - 1, N), x.dtype)
    for g in range(groups):
        for first in range(0, OH, block):
            rows = min(block, OH - first)
            _fill(halo, x[g * Cg : (g + 1) * Cg], (offset[0] + first, offset[1]))
            np.matmul(
                taps[g],
                _matrices(halo, KH)[:rows],  # (rows, KH·Cg, width)
                out=product.reshape(block, KW * Og, width)[:rows],
            )
            # (Og, rows, OW, N) → (rows, Og, OW, N), as the product has it
            target = y[g * Og : (g + 1) * Og, first : first + rows].transpose(1, 0, 2, 3)
            shifted = [product[:rows, b, :, b : b + OW] for b in range(KW)]
            _sum_into(target, shifted, accumulate)


def _correlate_weight(x: Array, gy: Array, offset: Pair, groups: int, gw: Array) -> None:
    """gw[o, c, a, b] = Σ_{i, j, n} gy[o, i, j] · x[c, i + a + top, j + b + left], unit stride."""
    C_out, Cg, KH, KW = gw.shape
    _, OH, OW, N = gy.shape
    Og = C_out // groups
    width = (OW + KW - 1) * N
    block = _rows_per_block(OH, KW * Og * width * x.itemsize)
    halo = np.zeros((block + KH - 1, Cg, OW + KW - 1, N), x.dtype)
    # gy shifted by each column tap, zeros elsewhere: one product gives all taps
    shifted = np.zeros((block, KW, Og, OW + KW - 1, N), x.dtype)
    for g in range(groups):
        total = np.zeros((KW * Og, KH * Cg), x.dtype)
        for first in range(0, OH, block):
            rows = min(block, OH - first)
            _fill(halo, x[g * Cg : (g + 1) * Cg], (offset[0] + first, offset[1]))
            # (Og, rows, OW, N) → (rows, Og, OW, N)
            source = gy[g * Og : (g + 1) * Og, first : first + rows].transpose(1, 0, 2, 3)
            for b in range(KW):
                shifted[:rows, b, :, b : b + OW] = source
            left = shifted.reshape(block, KW * Og, width)[:rows]
            right = _matrices(halo, KH)[:rows].transpose(0, 2, 1)  # (rows, width, KH·Cg)
            # some BLAS raise the flag of lanes that they throw away (numpy#24067)
            with np.errstate(invalid="ignore"):
                total += np.matmul(left, right).sum(axis=0)
        # (KW, Og, KH, Cg) → (Og, Cg, KH, KW)
        gw[g * Og : (g + 1) * Og] = total.reshape(KW, Og, KH, Cg).transpose(1, 3, 2, 0)


def _sum_into(target: Array, terms: list[Array], accumulate: bool) -> None:
    """Write the sum of the terms into target, or add it there."""
    if not accumulate:
        # the first two at once saves a pass over the target
        if len(terms) == 1:
            target[...] = terms[0]
        else:
            np.add(terms[0], terms[1], out=target)
        terms = terms[2:]
    for term in terms:
        target += term


def _rows_per_block(OH: int, bytes_per_row: int) -> int:
    """Return how many output rows are worked on at once."""
    return max(1, min(OH, BLOCK_BYTES // max(1, bytes_per_row)))


def _fill(halo: Array, x: Array, offset: Pair) -> None:
    """Copy the window of x that begins at `offset` into halo, zeros where it leaves the image.

    halo is (rows, Cg, columns, N), x is (Cg, H, W, N).
    """
    rows, _, columns, _ = halo.shape
    _, H, W, _ = x.shape
    top, left = offset
    inside_rows = slice(min(max(0, -top), rows), max(0, min(rows, H - top)))
    inside_columns = slice(min(max(0, -left), columns), max(0, min(columns, W - left)))
    halo[: inside_rows.start] = 0
    halo[inside_rows.stop :] = 0
    halo[inside_rows, :, : inside_columns.start] = 0
    halo[inside_rows, :, inside_columns.stop :] = 0
    window = x[
        :,
        inside_rows.start + top : inside_rows.stop + top,
        inside_columns.start + left : inside_columns.stop + left,
    ]
    if window.size:
        # (Cg, rows, columns, N) → (rows, Cg, columns, N)
        halo[inside_rows, :, inside_columns] = window.transpose(1, 0, 2, 3)


def _matrices(halo: Array, KH: int) -> Array:
    """View halo (rows + KH − 1, Cg, columns, N) as matrices (rows, KH·Cg, columns·N).

    Successive matrices overlap in all but one image row: a view, never a copy.
    """
    rows, Cg, columns, N = halo.shape
    row, channel, _, item = halo.strides
    shape = (rows - KH + 1, KH * Cg, columns * N)
    return as_strided(halo, shape, (row, channel, item), writeable=False)


class Packed(NamedTuple):
    """Weights in the order in which the compiled kernels read them, each flat.

    Attributes:
        forward: for the convolution itself.
        backward: for the gradient of its input.
    """

    forward: Array
    backward: Array


class Parts(NamedTuple):
    """Into how many parts launches of a convolution leave what they sum up.

    Attributes:
        forward: for the batch norm of the result.
        gx: for the batch norms before it.
        gw: of the gradient of the weights.
        rows: of the result, of which those of a part of `forward` are a multiple.
    """

    forward: int
    gx: int
    gw: int
    rows: int


def compiled_convolution_parts(lanes: Lanes, sizes: Fields) -> Parts:
    """Return the parts of a convolution; sizes: see geometry.convolution_fields."""
    if channelwise.suits(lanes, sizes):
        return Parts(lanes.blocks, lanes.blocks, lanes.blocks, 1)
    if not winograd.suits(lanes, sizes):
        jobs = lanes.jobs(sizes["OH"])
        return Parts(jobs, jobs, jobs, 1)
    forward = winograd.cut_forward(lanes, sizes)
    return Parts(
        forward.parts,
        winograd.cut_backward_input(lanes, sizes).parts,
        winograd.cut_backward_weight(lanes, sizes).parts,
        winograd.TILE if forward.parts > lanes.blocks else 1,
    )


def compiled_packed_size(lanes: Lanes, sizes: Fields, size: int) -> int:
    """Return how many numbers `size` weights take, packed for either direction."""
    return winograd.packed_size(lanes, sizes) if winograd.suits(lanes, sizes) else size


def compiled_convolution_pack(
    lanes: Lanes,
    weights: Sequence[Array],
    scale: Array | None,
    packed: Sequence[Packed],
    sizes: Fields,
    branches: Pair = (1, 1),
    *,
    wait: bool,
) -> None:
    """Order a weight for the kernels, times a factor for each channel of z, (D,).

    branches: as in compiled_convolution_forward.

    Raises:
        KernelError: the packed arrays have another size than compiled_packed_size says.
    """
    size = compiled_packed_size(lanes, sizes, weights[0].size)
    for array in packed[0]:
        if array.size != size:
            raise KernelError(f"convolution: packed weights take {size} numbers, not {array.size}")
    if winograd.suits(lanes, sizes):
        _refuse_permuted(branches)
        arrays = weights[0], scale, *packed[0], sizes
        winograd.compiled_winograd_pack(lanes, *arrays, wait=wait)
        return
    fields = {"w": weights[0], "scale": scale, "wait": wait} | packed[0]._asdict() | sizes
    fields |= permutations(branches)
    lanes.launch("convolution", "convolution_pack", sizes["G"], **fields)


def compiled_convolution_forward(
    lanes: Lanes,
    x: Fields,
    packed: Sequence[Packed],
    z: Array,
    sizes: Fields,
    sums: Array | None = None,
    bias: Array | None = None,
    skip: Array | None = None,
    relu: int = 0,
    branches: Pair = (1, 1),
) -> None:
    """Write z; the arguments are described by ConvolutionForward in convolution.cpp.

    Args:
        lanes: the batch.
        x: an Input.
        packed: the weights.
        z: receives the result.
        sizes: see geometry.convolution_fields.
        sums: receives what the batch norm of z is computed from, (parts, 2, D).
        bias: added to z, (D,).
        skip: added to z, likewise an activation.
        relu: what z goes through then: 0 nothing, 1 ReLU, 2 ReLU6.
        branches: input channel c is channel Reorder(branches[0])(c) of x, and likewise
            branches[1] for z; 1 means no permutation, all that Winograd's kernels support.
    """
    end: Fields = {"sums": sums, "bias": bias, "skip": skip, "relu": relu}
    if winograd.suits(lanes, sizes):
        _refuse_permuted(branches)
        winograd.compiled_winograd_forward(lanes, x, packed[0].forward, z, sizes, **end)
        return
    if channelwise.suits(lanes, sizes):
        arrays = x, packed[0].forward, z, sizes, branches
        channelwise.compiled_channelwise_forward(lanes, *arrays, **end)
        return
    fields = {"x": x, "w": packed[0].forward, "z": z} | end | sizes
    fields |= _loops(lanes, sizes, FORWARD_NUMBERS) | permutations(branches)
    jobs = lanes.jobs(sizes["OH"])
    lanes.launch("convolution", "convolution_forward", jobs, **fields)


def compiled_convolution_backward(
    lanes: Lanes,
    gz: Fields,
    x: Fields,
    packed: Sequence[Packed],
    gx: Array | None,
    ending: Fields,
    partials: Sequence[Array | None],
    sizes: Fields,
    branches: Pair = (1, 1),
) -> None:
    """Write the gradient of x, with its ending, and by parts that of w.

    Args:
        lanes: the batch.
        gz: a Gradient.
        x: an Input.
        packed: the weights.
        gx: receives the gradient of x, unless it is None.
        ending: of gx, an Ending.
        partials: one array, (parts, D, C/groups, KH, KW), that receives the gradient of w, or
            None.
        sizes: see geometry.convolution_fields.
        branches: as in compiled_convolution_forward.
    """
    if winograd.suits(lanes, sizes):
        _refuse_permuted(branches)
        if gx is not None:
            w = packed[0].forward if winograd.is_raw(lanes, sizes) else packed[0].backward
            winograd.compiled_winograd_backward_input(lanes, gz, w, gx, ending, sizes)
        if partials[0] is not None:
            winograd.compiled_winograd_backward_weight(lanes, gz, x, partials[0], sizes)
        return
    if channelwise.suits(lanes, sizes):
        arrays = gz, x, packed[0].forward, gx, ending, partials[0], sizes, branches
        channelwise.compiled_channelwise_backward(lanes, *arrays)
        return
    fields = {"gz": gz, "x": x, "gx": gx, "end": complete(ending, gz["g"])}
    fields |= {"w": packed[0].backward, "gw": partials[0]} | sizes
    fields |= _loops(lanes, sizes, BACKWARD_NUMBERS) | permutations(branches)
    jobs = lanes.jobs(sizes["OH"])
    lanes.launch("convolution", "convolution_backward", jobs, **fields)


def _refuse_permuted(branches: Pair) -> None:
    if branches != (1, 1):
        raise KernelError("convolution: Winograd's kernels do not permute channels")


def bands(lanes: Lanes, sizes: Fields, numbers: int) -> Fields:
    """Return how the rows of a convolution's output are cut into jobs and bands."""
    band = max(1, min(sizes["OH"], numbers // (sizes["OW"] * lanes.lanes)))
    return {"band": band, "batch": lanes.batch(sizes["OH"])}


def _loops(lanes: Lanes, sizes: Fields, numbers: int) -> Fields:
    """Return bands, and whether the channels go through them one by one.

    They do in channel-wise convolutions: in the rings of all channels a pixel would have left the
    cache before it is read again.
    """
    alone = 1 < sizes["G"] == sizes["C"]
    return bands(lanes, sizes, ALONE_NUMBERS if alone else numbers) | {"alone": int(alone)}


def compiled_sum_partials(partials: Array, total: Array, wait: bool) -> None:
    """Write what jobs have left, added in their order."""
    fields = {"partial": partials, "total": total, "count": total.size, "parts": len(partials)}
    dtype = str(total.dtype)
    launch_chunks("convolution", "sum_partials", total.size, dtype, wait=wait, **fields)
