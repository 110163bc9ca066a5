"""The fused unit as a ladder of CUDA kernels to read: naive, shared memory, micro-tiles.

    z = P · W^d · P^T · W^p · x        formula and shapes: kernels/interleaved_group_convolution.py

One source a rung, each with the same three kernels: `igc_forward`, `igc_backward_input` and
`igc_backward_weight`, for 3×3 kernels of stride 1 and padding 1, M secondary groups and images
of any size. `docs/ladder.md` climbs the rungs. Training does not use them; its kernels, in
interleaved_group_convolution.cu, are the next rung.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...backend import device_of, empty, is_on_cpu, shared_bytes
from ...errors import ConfigError, DeviceError, ShapeError
from ..launch import MOST_BLOCKS, THREADS, WARP, launch
from ..sum_partials import sum_partials

Array = np.ndarray

RUNGS = ("naive", "shared_memory", "micro_tiles")
COLUMNS = 8  # of a tile
ROWS = {"shared_memory": (4, 2), "micro_tiles": (8, 4, 2)}  # the first that has room
TILE_THREADS = 128
MOST_THREADS = 1024  # of a block
RESIDENT_BLOCKS = 132  # of igc_backward_weight in micro_tiles: one a multiprocessor
# channels of a tile in shared memory, with halo and without
PLANES = {"igc_forward": (1, 1), "igc_backward_input": (2, 0), "igc_backward_weight": (1, 3)}


class Cut(NamedTuple):
    """How a launch is cut into blocks.

    Attributes:
        blocks: of the launch.
        threads: of a block.
        shared_bytes: of a block.
        defines: sizes that the source leaves open, by name.
    """

    blocks: int
    threads: int
    shared_bytes: int
    defines: dict[str, int]


def ladder_forward(rung: str, x: Array, w1: Array, w2: Array) -> Array:
    """Return z, (N, C, H, W).

    Args:
        rung: one of RUNGS.
        x: (N, C, H, W), on a GPU or the emulator.
        w1: primary weights W^p, (C, M, 3, 3), float32 or float64.
        w2: secondary weights W^d, (C, L, 1, 1) with L = C/M.

    Raises:
        ConfigError: there is no such rung.
        ShapeError: the weights do not fit, or the unit is too large for a block.
        DeviceError: the arrays live on the CPU.
        KernelError: element types or devices differ.
    """
    z = empty(x.shape, x.dtype, x)
    kernel = "igc_forward"
    _launch(rung, kernel, cut(rung, kernel, x, w1, w2), x=x, w1=w1, w2=w2, z=z)
    return z


def ladder_backward_input(rung: str, gz: Array, w1: Array, w2: Array) -> Array:
    """Return gx, (N, C, H, W), of gz in that shape; else as ladder_forward."""
    gx = empty(gz.shape, gz.dtype, gz)
    kernel = "igc_backward_input"
    _launch(rung, kernel, cut(rung, kernel, gz, w1, w2), gz=gz, w1=w1, w2=w2, gx=gx)
    return gx


def ladder_backward_weight(
    rung: str, gz: Array, x: Array, w1: Array, w2: Array
) -> tuple[Array, Array]:
    """Return gw1 and gw2 in the shapes of w1 and w2; else as ladder_forward."""
    kernel = "igc_backward_weight"
    how = cut(rung, kernel, x, w1, w2)
    parts = 1 if rung == "naive" else how.blocks
    partial1, partial2 = (empty((parts, *w.shape), w.dtype, w) for w in (w1, w2))
    _launch(rung, kernel, how, gz=gz, x=x, w1=w1, w2=w2, partial1=partial1, partial2=partial2)
    gw1, gw2 = (empty(w.shape, w.dtype, w) for w in (w1, w2))
    sum_partials(partial1, gw1)
    sum_partials(partial2, gw2)
    return gw1, gw2


def cut(rung: str, kernel: str, x: Array, w1: Array, w2: Array) -> Cut:
    """Return how a rung cuts the work of a kernel; arguments and errors as for ladder_forward."""
    if rung not in RUNGS:
        raise ConfigError(f"ladder: no rung {rung!r}; choose {', '.join(RUNGS)}")
    if is_on_cpu(x):
        raise DeviceError("ladder: x lives on the CPU; move it to a GPU or to emu with to_device")
    N, C, H, W = x.shape
    M = w1.shape[1]
    L = C // M
    if C % M or (w1.shape, w2.shape) != ((C, M, 3, 3), (C, L, 1, 1)):
        raise ShapeError(
            f"ladder: {C} channels take weights (C, M, 3, 3) and (C, C/M, 1, 1), stride 1 and "
            f"padding 1, not {w1.shape} and {w2.shape}; kernels/convolution.py has other units"
        )
    defines = {"L": L, "M": M}
    if rung == "naive":
        results = w1.size + w2.size if kernel == "igc_backward_weight" else x.size
        blocks = min(-(-results // THREADS), MOST_BLOCKS)
        return Cut(blocks, THREADS, 0, defines | {"THREADS": THREADS})
    rows, size = _tile(rung, kernel, w1, w2, shared_bytes(device_of(x)))
    blocks, threads = N * -(-H // rows) * -(-W // COLUMNS), TILE_THREADS
    if (rung, kernel) == ("micro_tiles", "igc_backward_weight"):
        blocks = min(blocks, RESIDENT_BLOCKS)
        threads = _threads_of_weights(L, M)
    defines |= {"ROWS": rows, "COLUMNS": COLUMNS, "THREADS": threads}
    return Cut(blocks, threads, size, defines)


def _tile(rung: str, kernel: str, w1: Array, w2: Array, limit: int) -> tuple[int, int]:
    """Return the rows of a tile and its bytes of shared memory, of which there are `limit`."""
    C, M, L = *w1.shape[:2], w2.shape[1]
    with_halo, without = PLANES[kernel]
    for rows in ROWS[rung]:
        numbers = with_halo * (rows + 2) * (COLUMNS + 2) + without * (rows * COLUMNS + 1)
        size = w1.itemsize * C * (9 * M + L + numbers)
        if size <= limit:
            return rows, size
    raise ShapeError(
        f"ladder: {kernel} of {rung} takes {size:,} bytes of shared memory for L = {L}, "
        f"M = {M}, but a block may have {limit:,}; choose fewer channels"
    )


def _threads_of_weights(L: int, M: int) -> int:
    """Return the threads of igc_backward_weight in micro_tiles: one for each micro-tile."""
    pairs, fours = -(-M // 2), -(-L // 4)
    threads = sum(-(-count // WARP) * WARP for count in (L * pairs**2, M * fours**2))
    if threads > MOST_THREADS:
        raise ShapeError(
            f"ladder: igc_backward_weight of micro_tiles takes {threads:,} threads for L = {L}, "
            f"M = {M}, but a block may have {MOST_THREADS:,}; choose fewer channels"
        )
    return threads


def _launch(rung: str, kernel: str, how: Cut, **arrays: Array) -> None:
    """Run a kernel of a rung; `arrays` as in its signature, the first of them images."""
    N, _, H, W = next(iter(arrays.values())).shape
    stem, sizes = f"ladder/{rung}", (how.blocks, how.threads)
    memory, defines = how.shared_bytes, how.defines
    launch(stem, kernel, *sizes, shared_bytes=memory, defines=defines, N=N, H=H, W=W, **arrays)
