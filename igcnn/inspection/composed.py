"""The regular convolution that an interleaved group convolution equals (paper, section 3).

The unit is linear, y = P · W^d · P^T · W^p · x, so it is one dense convolution with the kernel

    W = P · W^d · P^T · W^p        W[(l,m), (l',m')] = W^d_m[l, l'] · W^p_l'[m, m']

Between an input and an output channel there is exactly one path, through channel m of primary
partition l', and no two products share an entry of W. Seen as L × L blocks of M × M kernels,
block (l, l') is W^p_l' with its rows scaled by the diagonal matrix of W^d_m[l, l']: all blocks
of a column have the same rows up to factors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor, no_grad
from ..functional import conv2d
from ..kernels.interleaved_group_convolution import check_mix
from ..kernels.permutation import permutation_index
from ..layers.interleaved_group_convolution import InterleavedGroupConvolution

Array = np.ndarray

LARGEST_BLOCK = 512  # rows of a matrix whose singular values are worth waiting for


@dataclass(frozen=True)
class Composition:
    """A unit beside the regular convolution that it equals.

    Attributes:
        outputs: the output channels that were looked at, (R,).
        kernel: their rows of W, (R, C_in, KH, KW).
        parameters: what the unit spends.
        dense_parameters: what the regular convolution would.
        paths: how many ways lead from each input to each of these channels, (R, C_in).
        rank: of W as a matrix (C_out, C_in·KH·KW); None where it was too large to say.
        difference: largest |unit − regular convolution| on the images given.
        scale: largest |output| of them.
    """

    outputs: Array
    kernel: Array
    parameters: int
    dense_parameters: int
    paths: Array
    rank: int | None
    difference: float
    scale: float


def composed_kernel(
    primary: Array, secondary: Array, L: int, secondary_groups: int, outputs: Array | None = None
) -> Array:
    """Return W = P · W^d · P^T · W^p.

    Args:
        primary: W^p, (C_out, C_in/L, KH, KW).
        secondary: W^d, (C_out, C_out/secondary_groups, 1, 1).
        L: number of primary partitions.
        secondary_groups: number of secondary partitions.
        outputs: the output channels to return, (R,); by default all.

    Returns:
        (R, C_in, KH, KW).

    Raises:
        ShapeError: L or secondary_groups do not divide C_out, or the weights do not fit them.
    """
    C_out, Cg, KH, KW = primary.shape
    check_mix(C_out, secondary.shape, L, secondary_groups)
    outputs = np.arange(C_out) if outputs is None else outputs
    K = C_out // secondary_groups
    # P: row t of W^d makes the output; P^T: its K inputs are the primary outputs q
    t = permutation_index(C_out, secondary_groups)[outputs]
    q = permutation_index(C_out, L)[t[:, None] // K * K + np.arange(K)]
    partition = q // (C_out // L)
    W = np.zeros((len(outputs), L, Cg, KH, KW), primary.dtype)
    for k in range(K):
        factors = secondary[t, k, 0, 0][:, None, None, None]
        W[np.arange(len(outputs)), partition[:, k]] += factors * primary[q[:, k]]
    return W.reshape(len(outputs), L * Cg, KH, KW)


def compose(
    unit: InterleavedGroupConvolution, x: Array, outputs: Array | None = None
) -> Composition:
    """Return the regular convolution that a unit equals, verified on images.

    Args:
        unit: an interleaved group convolution, on the CPU.
        x: (N, C_in, H, W), of the unit's element type.
        outputs: the output channels to look at, (R,); by default all.
    """
    weights = unit.primary.data, unit.secondary.data
    partitions = unit.L, unit.secondary_groups
    outputs = np.arange(len(weights[0])) if outputs is None else outputs
    kernel = composed_kernel(*weights, *partitions, outputs)
    # with all weights 1 each product counts one path
    primary, secondary = (np.ones_like(w[:, :, :1, :1]) for w in weights)
    paths = composed_kernel(primary, secondary, *partitions, outputs)[:, :, 0, 0]
    with no_grad():
        y = unit(Tensor(x)).numpy()[:, outputs]
        dense = conv2d(Tensor(x), Tensor(kernel), stride=unit.stride, padding=unit.padding)
    return Composition(
        outputs=outputs,
        kernel=kernel,
        parameters=sum(w.size for w in weights),
        dense_parameters=weights[0].size * unit.L,
        paths=paths.astype(int),
        rank=_rank(*weights, *partitions),
        difference=float(np.abs(y - dense.numpy()).max()),
        scale=float(np.abs(y).max()),
    )


def _rank(primary: Array, secondary: Array, L: int, secondary_groups: int) -> int | None:
    """Return the rank of W, from its factors where one of them has full rank."""
    C_out = len(primary)
    K = C_out // secondary_groups
    if max(C_out // L, K) > LARGEST_BLOCK:
        return None
    # the factors are block-diagonal, so their ranks are sums over blocks
    rank_p = int(np.linalg.matrix_rank(primary.reshape(L, C_out // L, -1)).sum())
    rank_d = int(np.linalg.matrix_rank(secondary.reshape(secondary_groups, K, K)).sum())
    if C_out in (rank_p, rank_d):
        return min(rank_p, rank_d)
    if C_out > LARGEST_BLOCK:
        return None
    W = composed_kernel(primary, secondary, L, secondary_groups)
    return int(np.linalg.matrix_rank(W.reshape(C_out, -1)))


def widest(budget: float, kernel_area: int = 9) -> tuple[int, int]:
    """Return the (L, M) of the widest unit that a number of parameters pays for.

    The unit has T = L·M²·S + M·L² parameters for a kernel of S = K² taps, and so, of all (L, M)
    of one width G = L·M, the fewest where L = M·S (paper, section 3.2); the width is at most
    (T/(2·√S))^(2/3). Of equally wide ones that with fewer parameters is returned.

    Args:
        budget: T, at least the S + 1 of a single channel.
        kernel_area: S.
    """
    return max(
        candidates(budget, kernel_area),
        key=lambda LM: (LM[0] * LM[1], -unit_parameters(LM[0], LM[1], kernel_area)),
    )


def candidates(budget: float, kernel_area: int = 9) -> Iterator[tuple[int, int]]:
    """Yield for M = 1, 2, … the (L, M) with the largest L that a number of parameters pays for."""
    M = 1
    while M * M * kernel_area + M <= budget:
        # the largest L with M·L² + M²·S·L ≤ T
        half = M * kernel_area / 2
        yield max(1, int(np.sqrt(half * half + budget / M) - half + 1e-9)), M
        M += 1


def unit_parameters(L: int, M: int, kernel_area: int = 9) -> int:
    """Return T = L·M²·S + M·L², the parameters of a unit of L primary partitions of M channels."""
    return L * M * M * kernel_area + M * L * L
