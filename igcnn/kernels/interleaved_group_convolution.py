"""The second half of an interleaved group convolution, with both permutations folded in.

The whole unit (paper, section 3) is y = P · W^d · P^T · W^p · x: the primary group convolution
W^p (kernels/convolution.py) over L partitions, Reorder(L), the secondary 1×1 group convolution
W^d, and Reorder back. Here is everything after the primary one, the *mix* of its output p:

    y = Reorder(S) · W^d · Reorder(L) · p        S: number of secondary groups

On the CPU a permutation is a stride. Reading the channels as (L, C/L) and exchanging the two
axes is Reorder(L), so the mix is one batched matrix product on exchanged views. Only where a
secondary group holds more than one channel of each partition (S < C/L, the down-sampling unit
of resnet_igc) no single stride reaches its channels, and reshape makes a copy.

For backward p and W^d are kept.
"""

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from ..errors import ShapeError
from .checks import check_dtypes
from .convolution import (
    Pair,
    launch_convolution_backward_input,
    launch_convolution_backward_weight,
    launch_convolution_forward,
    weight_slices,
)

Array = np.ndarray


def mix_forward(p: Array, w2: Array, L: int, secondary_groups: int) -> Array:
    """Return y of shape (N, C, H, W).

    Args:
        p: output of the primary convolution, (N, C, H, W).
        w2: secondary weights W^d, (C, C/secondary_groups, 1, 1).
        L: number of primary partitions.
        secondary_groups: number of secondary partitions; C/L gives the paper's unit.

    Raises:
        ShapeError: L or secondary_groups do not divide C, or w2 does not fit.
        DtypeError: p and w2 differ in element type.
    """
    check_mix(p.shape[1], w2.shape, L, secondary_groups)
    check_dtypes("interleaved_group_convolution", p, w2)
    N, C, H, W = p.shape
    if not is_on_cpu(p):
        y = empty(p.shape, p.dtype, p)
        launch_convolution_forward(contiguous(p), w2, y, *device_mix(C, L, secondary_groups))
        return y
    y = np.empty((C, H, W, N), p.dtype)
    matrices = w2.reshape(secondary_groups, C // secondary_groups, C // secondary_groups)
    np.matmul(matrices, _gather(p, L, secondary_groups), out=_scattered(y, secondary_groups))
    return y.transpose(3, 0, 1, 2)


def mix_backward_input(gy: Array, w2: Array, L: int, secondary_groups: int) -> Array:
    """Return gp, (N, C, H, W): Reorder(C/L) · W^dT · Reorder(C/S) · gy."""
    N, C, H, W = gy.shape
    if not is_on_cpu(gy):
        gp = empty(gy.shape, gy.dtype, gy)
        mix = device_mix(C, L, secondary_groups)
        launch_convolution_backward_input(contiguous(gy), w2, gp, *mix)
        return gp
    K = C // secondary_groups
    matrices = w2.reshape(secondary_groups, K, K).transpose(0, 2, 1)
    gp = np.empty((C, H, W, N), gy.dtype)
    planes = _scattered(_planes(gy), secondary_groups)
    if secondary_groups == C // L:
        # (L, C/L, H·W·N) → (C/L, L, H·W·N): written where Reorder(L) had read
        np.matmul(matrices, planes, out=gp.reshape(L, C // L, -1).transpose(1, 0, 2))
    else:
        mixed = np.matmul(matrices, planes).reshape(C // L, L, -1)
        gp.reshape(L, C // L, -1)[...] = mixed.transpose(1, 0, 2)
    return gp.transpose(3, 0, 1, 2)


def mix_backward_weight(
    gy: Array, p: Array, w2_shape: tuple[int, ...], L: int, secondary_groups: int
) -> Array:
    """Return gw2 of shape `w2_shape`: one product of matrices a secondary group."""
    if not is_on_cpu(gy):
        gw2 = empty(w2_shape, gy.dtype, gy)
        N, C, H, W = gy.shape
        partial = empty((weight_slices(N, H * W, w2_shape), *w2_shape), gy.dtype, gy)
        mix = device_mix(C, L, secondary_groups)
        launch_convolution_backward_weight(contiguous(gy), contiguous(p), gw2, partial, *mix)
        return gw2
    planes = _scattered(_planes(gy), secondary_groups)
    gw2 = np.matmul(planes, _gather(p, L, secondary_groups).transpose(0, 2, 1))
    return gw2.reshape(w2_shape)


def device_mix(C: int, L: int, secondary_groups: int) -> tuple[Pair, Pair, int, Pair]:
    """Return stride, padding, groups and branches that make a convolution on a GPU the mix."""
    return (1, 1), (0, 0), secondary_groups, (L, C // secondary_groups)


def check_mix(C: int, w2_shape: tuple[int, ...], L: int, secondary_groups: int) -> None:
    """Raise ShapeError unless C channels, W^d, L and the secondary groups fit each other."""
    if L < 1 or C % L:
        raise ShapeError(
            f"interleaved_group_convolution: {C} channels do not divide into L = {L} primary "
            f"partitions; choose an L that divides {C}"
        )
    if secondary_groups < 1 or C % secondary_groups:
        raise ShapeError(
            f"interleaved_group_convolution: {C} channels do not divide into "
            f"{secondary_groups} secondary groups; C/L = {C // L} is the paper's choice"
        )
    expected = (C, C // secondary_groups, 1, 1)
    if tuple(w2_shape) != expected:
        raise ShapeError(
            f"interleaved_group_convolution: secondary weights have shape {tuple(w2_shape)}, but "
            f"{C} channels in {secondary_groups} groups take {expected}"
        )


def _planes(x: Array) -> Array:
    """View (or copy) x, (N, C, H, W), as contiguous planes (C, H·W·N)."""
    return np.ascontiguousarray(x.transpose(1, 2, 3, 0)).reshape(x.shape[1], -1)


def _gather(p: Array, L: int, secondary_groups: int) -> Array:
    """Return Reorder(L) of p as (S, C/S, H·W·N); a view where a stride can say it."""
    C = p.shape[1]
    # (C, HWN) → (L, C/L, HWN) → (C/L, L, HWN) → (S, C/S, HWN)
    planes = _planes(p).reshape(L, C // L, -1).transpose(1, 0, 2)
    return planes.reshape(secondary_groups, C // secondary_groups, -1)


def _scattered(y: Array, secondary_groups: int) -> Array:
    """View planes y, (C, …), so that writing (S, C/S, H·W·N) writes Reorder(S) of it."""
    C = y.shape[0]
    return y.reshape(C // secondary_groups, secondary_groups, -1).transpose(1, 0, 2)
