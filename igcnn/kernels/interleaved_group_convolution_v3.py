"""Launches of the fused unit's next version, which no GPU has measured yet; v2 is shipped.

Formula, shapes and what the arguments are: interleaved_group_convolution.py. How a kernel is cut
into blocks and threads is open until `benchmarks/gpu_cuts.py` has tried the cuts on a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from .combine import DeviceNorm
from .interleaved_group_convolution import (
    Incoming,
    Unit,
    entering_arguments,
    input_arguments,
    weight_arguments,
)
from .launch import launch

Array = np.ndarray
Cut = Mapping[str, int]

STEM = "interleaved_group_convolution_v3"
WEIGHT_THREADS = 512  # of a block, as in interleaved_group_convolution_v3.cu
PLAIN: Cut = MappingProxyType({})


def defines(unit: Unit, cut: Cut = PLAIN) -> dict[str, int]:
    """Return all defines of the source: the unit's sizes and its plain cut, changed by `cut`.

    Forward: FM secondary groups and FH rows per block, FO outputs and FQ quads per thread.
    Gradient of the input: IL primary groups, IH rows and IT threads per block, IQ quads per
    thread. Gradients of the weights: WH rows per tile, WQ quads per thread. FF, IF, WF:
    loads in flight.
    """
    sizes = {name: getattr(unit, name) for name in ("L", "M", "H", "W", "G")}
    plain = {"FM": unit.M, "FH": unit.TH, "FO": unit.OT, "FQ": 1, "FF": 8}
    plain |= {"IL": unit.L, "IH": unit.TH, "IQ": 1, "IF": 6, "IT": 160}
    plain |= {"WH": unit.WH, "WQ": 1, "WF": 5}
    return sizes | plain | dict(cut)


def forward_slots(unit: Unit, N: int, cut: Cut = PLAIN) -> int:
    """Return how many moments a channel has after forward: one for FH rows of an image."""
    return N * (unit.H // defines(unit, cut)["FH"])


def launch_igc_forward(
    unit: Unit,
    x: Array,
    x_norm: DeviceNorm | None,
    w1: Array,
    w2: Array,
    z: Array,
    partial: Array,
    cut: Cut = PLAIN,
) -> None:
    """Write z, and the moments of its slots into partial, (C, forward_slots, 3)."""
    names = defines(unit, cut)
    L, M, W, FM, FH = (names[name] for name in ("L", "M", "W", "FM", "FH"))
    threads = FH * W // (4 * names["FQ"]) * (L // names["FO"]) * FM
    sizes = forward_slots(unit, len(x), cut) * (M // FM), threads
    weights = L * FM * M * 9 + L * (FM * L + 4)
    memory = 4 * (L * M * (FH + 2) * W + L * FM * FH * W + weights)
    arguments = entering_arguments(x, x_norm) | {"w1": w1, "w2": w2, "z": z, "partial": partial}
    launch(STEM, "igc_forward_v3", *sizes, shared_bytes=memory, defines=names, **arguments)


def launch_igc_backward_input(
    unit: Unit,
    incoming: Incoming,
    w1: Array,
    w2: Array,
    gx: Array,
    accumulate: bool,
    cut: Cut = PLAIN,
) -> None:
    """Write, or add, the gradient of the unit's input into gx."""
    names = defines(unit, cut)
    L, M, G, IL, IH = (names[name] for name in ("L", "M", "G", "IL", "IH"))
    sizes = len(gx) * (unit.H // IH) * (L // IL), names["IT"]
    tiles = (L + G) * M * (IH + 2) * unit.W
    memory = 4 * (tiles + IL * M * M * 9 + M * L * IL)
    arguments = input_arguments(incoming, w1, w2, gx, accumulate)
    kernel = "igc_backward_input_v3"
    launch(STEM, kernel, *sizes, shared_bytes=memory, defines=names, **arguments)


def launch_igc_backward_weight(
    unit: Unit,
    incoming: Incoming,
    x: Array,
    x_norm: DeviceNorm | None,
    weights: tuple[Array, Array],
    partials: tuple[Array, Array],
    cut: Cut = PLAIN,
) -> None:
    """Write the parts of both weights' gradients; partials as Unit.partial_shapes says."""
    names = defines(unit, cut)
    arguments = weight_arguments(incoming, x, x_norm, weights, partials)
    sizes = len(partials[0]), WEIGHT_THREADS
    x_channel, channel = ((names["WH"] + halo) * unit.W + 4 for halo in (2, 0))
    memory = 4 * unit.L * unit.M * (x_channel + 3 * channel)
    kernel = "igc_backward_weight_v3"
    launch(STEM, kernel, *sizes, shared_bytes=memory, defines=names, **arguments)
