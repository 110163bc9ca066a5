"""Dense 3×3 convolutions of stride 1 and padding 1 by Winograd's algorithm, on a CPU.

The kernels are in winograd.cpp, the algorithm is explained in winograd.hpp. This module decides
which convolutions use them, and cuts their launches into jobs: by what depends on the network and
the batch alone, so that the bits are the same for any number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .lanes import JOBS, LEAST_LANES, Fields, Lanes, complete

Array = np.ndarray

TILE = 4  # rows and columns of the output
PLANES = (TILE + 2) ** 2  # products that a tile takes for a pair of channels
TOGETHER = 8  # channels that no cut parts
# as measured:
LEAST_CHANNELS = 8
LEAST_PAIRS = 128  # of channels
LEAST_SAVING = 1.5  # how many times as many products the formula takes
WIDE_GRADIENT = 256 * 256  # weights from which their gradient is cut by channels
WIDE = 256 * 512  # weights from which few blocks are cut by channels, and map them on the way
BAND_NUMBERS = 512  # of a row, from which a band is one row of tiles, not two
RAW_ROWS = 16  # of a band that maps its weights
PACKED_BY_JOB = 1 << 10  # weights


class Cut(NamedTuple):
    """How a launch is cut into jobs.

    Attributes:
        parts: how many parts its jobs leave of what they sum up.
        by_channels: whether the slices are of output channels; else they are of rows.
        batch: the fields of a Batch.
    """

    parts: int
    by_channels: bool
    batch: Fields

    @property
    def jobs(self) -> int:
        """How many jobs there are."""
        return int(self.batch["blocks"] * self.batch["slices"])

    @property
    def fields(self) -> Fields:
        """The fields of a kernel's struct."""
        return {"by_channels": int(self.by_channels), "batch": self.batch}


def suits(lanes: Lanes, sizes: Fields) -> bool:
    """Return whether a convolution of these sizes is computed by Winograd's algorithm."""
    if lanes.lanes < LEAST_LANES:  # its maps take the pixels of a tile apart
        return False
    kernel = {"KH": 3, "KW": 3, "SH": 1, "SW": 1, "PH": 1, "PW": 1, "G": 1}
    if any(sizes[name] != value for name, value in kernel.items()):
        return False
    C, D, H, W = (sizes[name] for name in "CDHW")
    tiles = -(-H // TILE) * -(-W // TILE)
    saving = 9 * H * W / (PLANES * tiles)  # small where most of a tile lies outside the image
    return bool(min(C, D) >= LEAST_CHANNELS and C * D >= LEAST_PAIRS and saving >= LEAST_SAVING)


def cut_forward(lanes: Lanes, sizes: Fields) -> Cut:
    """Return how the convolution is cut. A slice of rows consists of whole tiles."""
    is_whole = sizes["H"] % TILE == 0
    return _cut(lanes, sizes["H"], sizes["D"], not is_whole or is_raw(lanes, sizes), is_whole)


def cut_backward_input(lanes: Lanes, sizes: Fields) -> Cut:
    """Return how the gradient of the input is cut."""
    return _cut(lanes, sizes["H"], sizes["C"], is_raw(lanes, sizes))


def cut_backward_weight(lanes: Lanes, sizes: Fields) -> Cut:
    """Return how the gradient of the weights is cut."""
    is_wide = sizes["C"] * sizes["D"] >= WIDE_GRADIENT
    return _cut(lanes, sizes["H"], sizes["D"], is_wide)


def _cut(lanes: Lanes, rows: int, channels: int, is_wide: bool, may_cut_rows: bool = True) -> Cut:
    """Return a cut into JOBS jobs if the shape allows.

    Args:
        lanes: the batch.
        rows: of a block.
        channels: that the launch writes.
        is_wide: whether channels are cut if they can be, else only if there are too few rows.
        may_cut_rows: whether rows may be cut at all.
    """
    wanted = -(-JOBS // lanes.blocks)
    of_rows = min(wanted, -(-rows // TILE)) if may_cut_rows else 1
    of_channels = min(wanted, -(-channels // TOGETHER))
    by_channels = of_channels > of_rows or (is_wide and of_channels > 1)
    slices = of_channels if by_channels else of_rows
    batch = lanes.batch() | {"slices": slices}
    return Cut(lanes.blocks * (1 if by_channels else slices), by_channels, batch)


def is_raw(lanes: Lanes, sizes: Fields) -> bool:
    """Return whether the kernels map the weights on the way, and take them as they are."""
    return sizes["C"] * sizes["D"] >= WIDE and lanes.blocks < JOBS


def packed_size(lanes: Lanes, sizes: Fields) -> int:
    """Return how many numbers the weights take as the kernels read them."""
    return int((9 if is_raw(lanes, sizes) else PLANES) * sizes["C"] * sizes["D"])


def _bands(lanes: Lanes, sizes: Fields, rows: int | None = None) -> int:
    """Return how many rows a job works on at a time: all, or so many."""
    every = -(-sizes["H"] // TILE) * TILE
    if rows is None:
        rows = TILE if sizes["W"] * lanes.lanes >= BAND_NUMBERS else 2 * TILE
    return int(min(every, rows))


def _fields(sizes: Fields) -> Fields:
    return {name: sizes[name] for name in ("C", "D", "H", "W")}


def compiled_winograd_pack(
    lanes: Lanes,
    w: Array,
    scale: Array | None,
    forward: Array,
    backward: Array,
    sizes: Fields,
    wait: bool,
) -> None:
    """Map a weight, (D, C, 3, 3), for the kernels, times a factor for each output channel.

    With factors only `forward` is written: evaluation has no gradients.
    """
    raw = is_raw(lanes, sizes)
    C, D = sizes["C"], sizes["D"]
    jobs = max(1, min(C * D // PACKED_BY_JOB, max(C, D) // TOGETHER))
    fields = {"w": w, "scale": scale, "forward": forward, "C": C, "D": D, "raw": int(raw)}
    fields |= {"backward": backward if scale is None else None, "jobs": jobs, "wait": wait}
    lanes.launch("winograd", "winograd_pack", jobs, **fields)


def compiled_winograd_forward(
    lanes: Lanes, x: Fields, w: Array, z: Array, sizes: Fields, **end: Any
) -> None:
    """Write z from weights as packed for it.

    Args:
        lanes: the batch.
        x: an Input.
        w: the packed weights.
        z: receives the result.
        sizes: see geometry.convolution_fields.
        end: sums, (parts, 2, D), bias, skip, relu, as compiled_convolution_forward takes them.
    """
    cut, raw = cut_forward(lanes, sizes), is_raw(lanes, sizes)
    fields = {"x": x, "w": w, "z": z, "raw": int(raw)} | end | _fields(sizes) | cut.fields
    fields["band"] = _bands(lanes, sizes, RAW_ROWS if raw else None)
    lanes.launch("winograd", "winograd_forward", cut.jobs, **fields)


def compiled_winograd_backward_input(
    lanes: Lanes, gz: Fields, w: Array, gx: Array, ending: Fields, sizes: Fields
) -> None:
    """Write the gradient of x, with its ending, from weights as packed for it.

    Args:
        lanes: the batch.
        gz: a Gradient.
        w: the packed weights.
        gx: receives the gradient of x.
        ending: of gx, an Ending, whose sums are (parts, 2, C).
        sizes: see geometry.convolution_fields.
    """
    cut, raw = cut_backward_input(lanes, sizes), is_raw(lanes, sizes)
    fields = {"gz": gz, "w": w, "gx": gx, "end": complete(ending, gz["g"]), "raw": int(raw)}
    fields |= _fields(sizes) | cut.fields
    fields["band"] = _bands(lanes, sizes, RAW_ROWS if raw else None)
    lanes.launch("winograd", "winograd_backward_input", cut.jobs, **fields)


def compiled_winograd_backward_weight(
    lanes: Lanes, gz: Fields, x: Fields, gw: Array, sizes: Fields
) -> None:
    """Write the gradient of the weights, by parts: gw is (parts, D, C, 3, 3)."""
    cut = cut_backward_weight(lanes, sizes)
    is_wide = cut.by_channels or sizes["C"] * sizes["D"] >= WIDE_GRADIENT
    fields = {"gz": gz, "x": x, "gw": gw} | _fields(sizes) | cut.fields
    fields["band"] = _bands(lanes, sizes, sizes["H"] + TILE if is_wide else None)
    lanes.launch("winograd", "winograd_backward_weight", cut.jobs, **fields)
