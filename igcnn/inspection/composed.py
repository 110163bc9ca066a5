"""The regular convolution that an interleaved group convolution equals (paper, section 3).

The unit is linear, y = P · W^d · P^T · W^p · x, so it is one dense convolution with the kernel

    W = P · W^d · P^T · W^p        W[(l,m), (l',m')] = W^d_m[l, l'] · W^p_l'[m, m']

Between an input and an output channel there is exactly one path, through channel m of primary
partition l', and no two products share an entry of W. Seen as L × L blocks of M × M kernels,
block (l, l') is W^p_l' with its rows scaled by the diagonal matrix of W^d_m[l, l']: all blocks
of a column have the same rows up to factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor, no_grad
from ..functional import conv2d
from ..kernels.interleaved_group_convolution import check_mix
from ..kernels.permutation import permutation_index
from ..layers.interleaved_group_convolution import InterleavedGroupConvolution

Array = np.ndarray


@dataclass(frozen=True)
class Composition:
    """A unit beside the regular convolution that it equals.

    Attributes:
        kernel: W of that convolution, (C_out, C_in, KH, KW).
        parameters: what the unit spends.
        dense_parameters: what the regular convolution would.
        paths: how many ways lead from each input to each output channel, (C_out, C_in).
        rank: of W as a matrix (C_out, C_in·KH·KW).
        difference: largest |unit − regular convolution| on the images given.
        scale: largest |output| of them.
    """

    kernel: Array
    parameters: int
    dense_parameters: int
    paths: Array
    rank: int
    difference: float
    scale: float


def dense_kernel(w: Array, groups: int) -> Array:
    """Return the weights of a group convolution as those of a regular one, zero between groups.

    Args:
        w: (C_out, C_in/groups, KH, KW).
        groups: number of groups.

    Returns:
        (C_out, C_in, KH, KW).
    """
    C_out, Cg, KH, KW = w.shape
    dense = np.zeros((groups, C_out // groups, groups, Cg, KH, KW), w.dtype)
    own = np.arange(groups)
    dense[own, :, own] = w.reshape(groups, C_out // groups, Cg, KH, KW)
    return dense.reshape(C_out, groups * Cg, KH, KW)


def composed_kernel(primary: Array, secondary: Array, L: int, secondary_groups: int) -> Array:
    """Return W = P · W^d · P^T · W^p.

    Args:
        primary: W^p, (C_out, C_in/L, KH, KW).
        secondary: W^d, (C_out, C_out/secondary_groups, 1, 1).
        L: number of primary partitions.
        secondary_groups: number of secondary partitions.

    Returns:
        (C_out, C_in, KH, KW).

    Raises:
        ShapeError: L or secondary_groups do not divide C_out, or the weights do not fit them.
    """
    C_out = len(primary)
    check_mix(C_out, secondary.shape, L, secondary_groups)
    interleaved = dense_kernel(primary, L)[permutation_index(C_out, L)]  # P^T · W^p
    mixed = dense_kernel(secondary, secondary_groups)[:, :, 0, 0]  # W^d, (C_out, C_out)
    mixed = mixed[permutation_index(C_out, secondary_groups)]  # P · W^d
    return np.tensordot(mixed, interleaved, 1)


def compose(unit: InterleavedGroupConvolution, x: Array) -> Composition:
    """Return the regular convolution that a unit equals, verified on images.

    Args:
        unit: an interleaved group convolution, on the CPU.
        x: (N, C_in, H, W), of the unit's element type.
    """
    weights = unit.primary.data, unit.secondary.data
    kernel = composed_kernel(*weights, unit.L, unit.secondary_groups)
    # with all weights 1 each product counts one path
    primary, secondary = (np.ones_like(w[:, :, :1, :1]) for w in weights)
    paths = composed_kernel(primary, secondary, unit.L, unit.secondary_groups)[:, :, 0, 0]
    with no_grad():
        y = unit(Tensor(x)).numpy()
        dense = conv2d(Tensor(x), Tensor(kernel), stride=unit.stride, padding=unit.padding)
    return Composition(
        kernel=kernel,
        parameters=sum(w.size for w in weights),
        dense_parameters=kernel.size,
        paths=paths.astype(int),
        rank=int(np.linalg.matrix_rank(kernel.reshape(len(kernel), -1))),
        difference=float(np.abs(y - dense.numpy()).max()),
        scale=float(np.abs(y).max()),
    )


def widest(budget: float, kernel_area: int = 9) -> tuple[int, int]:
    """Return the (L, M) of the widest unit that a number of parameters pays for.

    The unit has T = L·M²·S + M·L² parameters for a kernel of S = K² taps, and so, of all (L, M)
    of one width G = L·M, the fewest where L = M·S (paper, section 3.2); the width is at most
    (T/(2·√S))^(2/3). Of equally wide ones that with fewer parameters is returned.

    Args:
        budget: T, at least the S + 1 of a single channel.
        kernel_area: S.
    """
    best = (1, 1)
    M = 1
    while M * M * kernel_area + M <= budget:
        # the largest L with M·L² + M²·S·L ≤ T
        half = M * kernel_area / 2
        L = max(1, int(np.sqrt(half * half + budget / M) - half + 1e-9))
        candidate = L, M
        better = L * M - best[0] * best[1]
        if better > 0 or (better == 0 and unit_parameters(*candidate) < unit_parameters(*best)):
            best = candidate
        M += 1
    return best


def unit_parameters(L: int, M: int, kernel_area: int = 9) -> int:
    """Return T = L·M²·S + M·L², the parameters of a unit of L primary partitions of M channels."""
    return L * M * M * kernel_area + M * L * L
