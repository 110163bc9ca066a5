"""Sum of tensors, each as it is or batch normalised, then perhaps ReLU: what ends a unit.

    y = max(Σ_k t_k, 0)      t_k = x_k or scale_k · x_k + shift_k

with scale = γ/√(σ² + ε) and shift = β − μ·scale of batch_norm.py: one pass over memory for the
batch norms, the addition and the ReLU of a residual unit. Backward, with g = gy where y > 0,

    gx_k = g or scale_k · (g − Σ g/m − (x_k − μ) · Σ g·(x_k − μ) / (m·(σ² + ε)))

Only plans have these kernels; the tape computes the operations one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arguments import Arguments
from .batch_norm import SUMS_AT_ONCE
from .lanes import Fields, Lanes, complete, image
from .launch import THREADS, launch, launch_each

Array = np.ndarray

LOADS = 2  # as in combine.cu

# where ReLU let the gradient through
NO_RELU = 0
WHERE_Y = 1  # is positive
WHERE_NORMED = 2  # the normalised x is positive
WHERE_Y6 = 3  # the result of ReLU6 lies between 0 and 6


@dataclass(frozen=True)
class DeviceNorm:
    """The arrays of one batch norm on a device, each (C,) but for `coefficients`.

    Attributes:
        gamma: γ.
        beta: β.
        running_mean: moved towards the batch's by every step of training.
        running_var: likewise.
        mean: of the batch, or the running one.
        variance: likewise.
        scale: γ/√(variance + ε).
        shift: β − mean·scale.
        ggamma: receives the gradient of γ.
        gbeta: receives the gradient of β.
        coefficients: of the gradient of the input, (C, 3).
        tickets: uint32, zeros, by which the blocks of a channel tell which ends last.
        momentum: share of the running statistics that a step keeps.
        eps: ε.
    """

    gamma: Array
    beta: Array
    running_mean: Array
    running_var: Array
    mean: Array
    variance: Array
    scale: Array
    shift: Array
    ggamma: Array
    gbeta: Array
    coefficients: Array
    tickets: Array
    momentum: float
    eps: float

    def fields(self, names: str) -> Arguments:
        """Return the attributes of these names."""
        return {name: getattr(self, name) for name in names.split()}


def launch_statistics(x: Array, partial: Array) -> None:
    """Write into partial, (C, S, 3), count, mean and Σ(x − mean)² of S slices of x."""
    N, C, H, W = x.shape
    grid = partial.shape[:2]
    arguments = {"x": x, "partial": partial, "N": N, "C": C, "pixels": H * W}
    launch("batch_norm", "batch_norm_statistics", grid, THREADS, **arguments)


def launch_norm(
    x: Array, norm: DeviceNorm, partial: Array, training: bool, summed: bool = False
) -> None:
    """Write mean, variance, scale and shift for x, (N, C, H, W); moves the running statistics.

    partial receives what launch_statistics writes, or holds that of S parts if x is `summed`. In
    evaluation x is not looked at.
    """
    C, S, _ = partial.shape
    if training and not summed:
        launch_statistics(x, partial)
    names = "gamma beta running_mean running_var mean variance scale shift eps momentum"
    arguments = norm.fields(names) | {"partial": partial, "S": S, "training": training}
    launch("combine", "norm_coefficients", C, THREADS, defines={"VEC": 1}, **arguments)


def launch_combine_forward(
    terms: list[tuple[Array, DeviceNorm | None]], y: Array, relu: int
) -> None:
    """Write y for one or two terms, each a tensor and its batch norm, if it has one."""
    N, C, H, W = y.shape
    normed = sum(1 << k for k, (_, norm) in enumerate(terms) if norm)
    arguments: Arguments = dict.fromkeys(("x1", "scale0", "shift0", "scale1", "shift1"))
    for k, (x, norm) in enumerate(terms):
        arguments[f"x{k}"] = x
        if norm:
            arguments |= {f"scale{k}": norm.scale, f"shift{k}": norm.shift}
    arguments |= {"y": y, "N": N, "C": C, "pixels": H * W}
    arguments |= {"terms": len(terms), "normed": normed, "relu": relu}
    _launch_each("combine_forward", y.size, H * W, **arguments)


def sum_slices(N: int, C: int, pixels: int) -> int:
    """Return how many blocks share a channel in launch_combine_sums."""
    rounds = N * pixels / (_side_by_side(pixels) * LOADS * THREADS)
    of_block = max(1, math.ceil(rounds / max(1, SUMS_AT_ONCE // C)))
    return max(1, int(rounds / of_block))


def launch_combine_sums(
    gy: Array, y: Array, x: Array, norm: DeviceNorm, partial: Array, mask: int, masked: Array
) -> None:
    """Write the gradients of γ and β and the coefficients of the gradient of x.

    Args:
        gy: gradient of what a sum ends in.
        y: what it ends in; only looked at for WHERE_Y and WHERE_Y6.
        x: a normalised term.
        norm: its batch norm.
        partial: receives the sums of slices, (C, sum_slices(N, C, H·W), 2).
        mask: NO_RELU, WHERE_Y, WHERE_NORMED or WHERE_Y6: how to find out where ReLU or ReLU6
            passed gy.
        masked: receives, for WHERE_Y and WHERE_Y6, the gradient of the sum before ReLU; may be gy.
    """
    arguments = _sums_arguments(gy, y, x, norm, mask, masked)
    arguments |= {"partial": partial, "tickets": norm.tickets}
    grid, defines = partial.shape[:2], {"VEC": _side_by_side(arguments["pixels"])}
    launch("combine", "combine_sums_v2", grid, THREADS, defines=defines, **arguments)


def launch_combine_sums_formula(
    gy: Array, y: Array, x: Array, norm: DeviceNorm, mask: int, masked: Array
) -> None:
    """Like launch_combine_sums, with the reference kernel."""
    arguments = _sums_arguments(gy, y, x, norm, mask, masked)
    launch_each("combine", "combine_sums_v1", x.shape[1], defines={"VEC": 1}, **arguments)


def _sums_arguments(
    gy: Array, y: Array, x: Array, norm: DeviceNorm, mask: int, masked: Array
) -> Arguments:
    """Return what both versions of the kernel take, by name."""
    N, C, H, W = x.shape
    arguments = {"gy": gy, "y": y, "x": x, "masked": masked, "mask": mask}
    names = "mean scale shift variance gamma ggamma gbeta coefficients eps"
    return arguments | norm.fields(names) | {"N": N, "C": C, "pixels": H * W}


def launch_combine_backward(
    gy: Array, x: Array, norm: DeviceNorm, gx: Array, mask: int, accumulate: bool
) -> None:
    """Write, or add, the gradient of a normalised term x into gx; mask: NO_RELU, WHERE_NORMED."""
    N, C, H, W = gx.shape
    arguments = norm.fields("mean scale shift coefficients") | {"gy": gy, "x": x, "gx": gx}
    arguments |= {"N": N, "C": C, "pixels": H * W, "mask": mask, "accumulate": accumulate}
    _launch_each("combine_backward_input", gx.size, H * W, **arguments)


def launch_skip_backward(gy: Array, y: Array, gx: Array, relu: int, accumulate: bool) -> None:
    """Write, or add, the gradient of a term that is added as it is into gx, which may be gy."""
    arguments = {"gy": gy, "y": y, "gx": gx, "n": gx.size, "relu": relu}
    _launch_each("skip_backward", gx.size, gx.size, accumulate=accumulate, **arguments)


def _launch_each(kernel: str, size: int, pixels: int, /, **arguments: Any) -> None:
    """Run a kernel with a thread for as many of `size` elements as it takes at once."""
    at_once = _side_by_side(pixels)
    launch_each("combine", kernel, size // at_once, defines={"VEC": at_once}, **arguments)


def _side_by_side(pixels: int) -> int:
    """Return how many pixels of a channel a thread takes at once."""
    return 1 if pixels % 4 else 4


def compiled_combine_forward(lanes: Lanes, terms: list[Fields], y: Array, relu: int) -> None:
    """Write y = Σ terms, each an Input, then nothing, ReLU (1) or ReLU6 (2)."""
    fields = {"term": terms, "terms": len(terms), "y": y, "relu": relu}
    rows = y.shape[1]
    fields |= image(y) | {"batch": lanes.batch(rows)}
    lanes.launch("combine", "combine_forward", lanes.jobs(rows), **fields)


def compiled_combine_backward(lanes: Lanes, gradient: Fields, gx: Array, ending: Fields) -> None:
    """Write a Gradient with its Ending."""
    rows = gx.shape[1]
    fields = {"from": gradient, "g": gx, "end": complete(ending, gx)}
    fields |= image(gx) | {"batch": lanes.batch(rows)}
    lanes.launch("combine", "combine_backward", lanes.jobs(rows), **fields)
