"""Sum of tensors, each as it is or batch normalised, then perhaps ReLU: what ends a unit.

    y = max(Σ_k t_k, 0)      t_k = x_k  or  scale_k · x_k + shift_k

with scale = γ/√(σ² + ε) and shift = β − μ·scale of batch_norm.py: one pass over memory for the
batch norms, the addition and the ReLU of a residual unit. Backward, with g = gy where y > 0,

    gx_k = g  or  scale · (g − Σg/m − (x − μ) · Σ g·(x − μ) / (m·(σ² + ε)))

Only plans have these kernels; the tape computes the operations one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

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


def launch_statistics(x: Array, partial: Array) -> None:
    """Write into partial, (C, S, 3), count, mean and Σ(x − mean)² of S slices of x."""
    N, C, H, W = x.shape
    grid = partial.shape[:2]
    launch("batch_norm", "batch_norm_statistics", grid, THREADS, x, partial, N, C, H * W)


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
    parameters = norm.gamma, norm.beta, norm.running_mean, norm.running_var
    written = norm.mean, norm.variance, norm.scale, norm.shift
    numbers = S, norm.eps, norm.momentum, training
    arrays = partial, *parameters, *written
    launch("combine", "norm_coefficients", C, THREADS, *arrays, *numbers, VEC=1)


def launch_combine_forward(
    terms: list[tuple[Array, DeviceNorm | None]], y: Array, relu: int, unread: Array
) -> None:
    """Write y for one or two terms, each a tensor and its batch norm, if it has one.

    unread is any array of the element type of the arithmetic.
    """
    N, C, H, W = y.shape
    normed = sum(1 << k for k, (_, norm) in enumerate(terms) if norm)
    arrays = []
    for x, norm in (terms * 2)[:2]:
        arrays += [x, norm.scale if norm else unread, norm.shift if norm else unread]
    numbers = N, C, H * W, len(terms), normed, relu
    _launch_each("combine_forward", H * W, *arrays, y, *numbers, size=y.size)


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
    N, C, H, W = x.shape
    read = gy, y, x, norm.mean, norm.scale, norm.shift, norm.variance, norm.gamma
    written = partial, norm.tickets, norm.ggamma, norm.gbeta, norm.coefficients, masked
    numbers = N, C, H * W, mask, norm.eps
    grid = C, partial.shape[1]
    kernel = "combine_sums_v2"
    launch("combine", kernel, grid, THREADS, *read, *written, *numbers, VEC=_side_by_side(H * W))


def launch_combine_sums_formula(
    gy: Array, y: Array, x: Array, norm: DeviceNorm, mask: int, masked: Array
) -> None:
    """Like launch_combine_sums, with the reference kernel."""
    N, C, H, W = x.shape
    read = gy, y, x, norm.mean, norm.scale, norm.shift, norm.variance, norm.gamma
    written = norm.ggamma, norm.gbeta, norm.coefficients, masked
    numbers = N, C, H * W, mask, norm.eps
    launch_each("combine", "combine_sums_v1", C, *read, *written, *numbers, VEC=1)


def launch_combine_backward(
    gy: Array, x: Array, norm: DeviceNorm, gx: Array, mask: int, accumulate: bool
) -> None:
    """Write, or add, the gradient of a normalised term x into gx; mask: NO_RELU, WHERE_NORMED."""
    N, C, H, W = gx.shape
    arrays = gy, x, norm.mean, norm.scale, norm.shift, norm.coefficients, gx
    numbers = N, C, H * W, mask, accumulate
    _launch_each("combine_backward_input", H * W, *arrays, *numbers, size=gx.size)


def launch_skip_backward(gy: Array, y: Array, gx: Array, relu: int, accumulate: bool) -> None:
    """Write, or add, the gradient of a term that is added as it is into gx, which may be gy."""
    numbers = gx.size, relu, accumulate
    _launch_each("skip_backward", gx.size, gy, y, gx, *numbers, size=gx.size)


def _launch_each(kernel: str, pixels: int, *arguments: Any, size: int) -> None:
    """Run a kernel with a thread for as many of `size` elements as it takes at once."""
    at_once = _side_by_side(pixels)
    launch_each("combine", kernel, size // at_once, *arguments, VEC=at_once)


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
