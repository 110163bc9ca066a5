"""Channel-wise 3×3 convolutions of stride 1 and padding 1 on a CPU.

The kernels are in channelwise.cpp. This module decides which convolutions use them, and how their
launches are cut into jobs: by channels, so that no row is read twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .geometry import Pair
from .lanes import JOBS, LEAST_LANES, Fields, Lanes, complete, permutations

Array = np.ndarray

TOGETHER = 8  # channels of a job, at least


def suits(lanes: Lanes, sizes: Fields) -> bool:
    """Return whether a convolution of these sizes is computed by these kernels."""
    kernel = {"KH": 3, "KW": 3, "SH": 1, "SW": 1, "PH": 1, "PW": 1}
    if lanes.lanes < LEAST_LANES or any(sizes[name] != n for name, n in kernel.items()):
        return False
    return bool(1 < sizes["G"] == sizes["C"] == sizes["D"])


def _fields(lanes: Lanes, sizes: Fields, branches: Pair) -> Fields:
    slices = max(1, min(-(-JOBS // lanes.blocks), sizes["C"] // TOGETHER))
    fields = {name: sizes[name] for name in ("C", "H", "W")}
    return fields | permutations(branches) | {"batch": lanes.batch() | {"slices": slices}}


def _jobs(fields: Fields) -> int:
    return int(fields["batch"]["blocks"] * fields["batch"]["slices"])


def compiled_channelwise_forward(
    lanes: Lanes, x: Fields, w: Array, z: Array, sizes: Fields, branches: Pair, **end: Any
) -> None:
    """Write z.

    Args:
        lanes: the batch.
        x: an Input.
        w: the weights, (C, 1, 3, 3), flat.
        z: receives the result.
        sizes: see geometry.convolution_fields.
        branches: as in compiled_convolution_forward.
        end: sums, (blocks, 2, C), bias, skip, relu, as compiled_convolution_forward takes them.
    """
    fields = {"x": x, "w": w, "z": z} | end | _fields(lanes, sizes, branches)
    lanes.launch("channelwise", "channelwise_forward", _jobs(fields), **fields)


def compiled_channelwise_backward(
    lanes: Lanes,
    gz: Fields,
    x: Fields,
    w: Array,
    gx: Array | None,
    ending: Fields,
    gw: Array | None,
    sizes: Fields,
    branches: Pair,
) -> None:
    """Write the gradient of x, with its ending, and by blocks that of w.

    Args:
        lanes: the batch.
        gz: a Gradient.
        x: an Input.
        w: the weights, (C, 1, 3, 3), flat.
        gx: receives the gradient of x, unless it is None.
        ending: of gx, an Ending, whose sums are (blocks, 2, C).
        gw: receives the gradient of w, (blocks, C, 1, 3, 3), unless it is None.
        sizes: see geometry.convolution_fields.
        branches: as in compiled_convolution_forward.
    """
    fields = {"gz": gz, "x": x, "w": w, "gx": gx, "end": complete(ending, gz["g"]), "gw": gw}
    fields |= _fields(lanes, sizes, branches)
    lanes.launch("channelwise", "channelwise_backward", _jobs(fields), **fields)
