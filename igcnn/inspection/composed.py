"""The regular convolution that a product of group convolutions equals.

An interleaved group convolution (paper, section 3) and the longer products of IGCV2 are linear,
y = P_K · W_K · … · P_1 · W_1 · x, so each is one dense convolution. For the two factors of a unit
its kernel is

    W = P · W^d · P^T · W^p        W[(l,m), (l',m')] = W^d_m[l, l'] · W^p_l'[m, m']

Between an input and an output channel there is exactly one path, through channel m of primary
partition l', and no two products share an entry of W. Seen as L × L blocks of M × M kernels,
block (l, l') is W^p_l' with its rows scaled by the diagonal matrix of W^d_m[l, l']: all blocks
of a column have the same rows up to factors.

Products of any length have *conditions* (IGCV2, section 3): complementary, if every
input reaches every output, strictly if by exactly one path; and balanced, if all factors have
the same fan-in, for then no product of as many factors with one path has fewer parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor, no_grad
from ..errors import ShapeError
from ..functional import conv2d
from ..kernels.permutation import permutation_index
from ..layers import InterleavedGroupConvolution, InterleavedProduct, Layer

Array = np.ndarray
Unit = InterleavedGroupConvolution | InterleavedProduct

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
        difference: largest `|unit − regular convolution|` on the images given.
        scale: largest `|output|` of them.
    """

    outputs: Array
    kernel: Array
    parameters: int
    dense_parameters: int
    paths: Array
    rank: int | None
    difference: float
    scale: float


@dataclass(frozen=True)
class Conditions:
    """What holds of a product of K factors (IGCV2, section 3).

    Attributes:
        fan_ins: of each factor: inputs of one output, taps of a spatial kernel included.
        least_paths: fewest paths from an input to an output channel; 0: some do not meet.
        most_paths: most of them.
        parameters: of all factors, Q.
        bound: K·C·(S·C)^(1/K), which no strict product of K factors of width C and S taps comes
            below; None where the factors have several widths.
    """

    fan_ins: tuple[int, ...]
    least_paths: int
    most_paths: int
    parameters: int
    bound: float | None

    @property
    def complementary(self) -> bool:
        """Whether every input reaches every output."""
        return self.least_paths > 0

    @property
    def strict(self) -> bool:
        """Whether every input reaches every output by exactly one path."""
        return self.least_paths == self.most_paths == 1

    @property
    def balanced(self) -> bool:
        """Whether all factors have the same fan-in."""
        return len(set(self.fan_ins)) == 1

    def __str__(self) -> str:
        parts = [f"fan-ins {', '.join(map(str, self.fan_ins))}"]
        if self.balanced:
            parts[0] += " (balanced)"
        if not self.complementary:
            parts.append(f"some channels do not meet, others by at most {self._paths()}")
        elif self.least_paths == self.most_paths:
            parts.append(f"{self._paths()} from every input to every output")
        else:
            parts.append(f"{self.least_paths} to {self.most_paths} paths between channels")
        if self.strict and self.bound:
            ratio = self.parameters / self.bound
            parts.append(f"{ratio:.2f} times the fewest parameters for the width")
        return "; ".join(parts)

    def _paths(self) -> str:
        return "1 path" if self.most_paths == 1 else f"{self.most_paths} paths"


def composed_kernel(
    weights: Sequence[Array], groups: Sequence[int], outputs: Array | None = None
) -> Array:
    """Return W = P_K · W_K · … · P_1 · W_1.

    Args:
        weights: W_1, …, W_K, each (C_k, C_{k−1}/G_k, KH, KW), at most one larger than 1×1.
        groups: G_1, …, G_K.
        outputs: the output channels to return, (R,); by default all.

    Returns:
        (R, C_0, KH, KW).

    Raises:
        ShapeError: the groups do not divide the channels, or the weights do not fit each other.
    """
    for k, (weight, G) in enumerate(zip(weights, groups, strict=True)):
        C, C_in = len(weight), weight.shape[1] * G
        if C % G or (k and C_in != len(weights[k - 1])):
            raise ShapeError(
                f"composed_kernel: weight {k + 1}, {weight.shape} in {G} groups, takes {C_in} "
                f"channels to {C}; they must divide into the groups and follow the weight before"
            )
    C_out = len(weights[-1])
    chosen = slice(None) if outputs is None else outputs
    rows: Array = np.eye(C_out, dtype=weights[0].dtype)[chosen]
    rows = rows.reshape(-1, C_out, 1, 1)
    for weight, G in zip(reversed(weights), reversed(groups), strict=True):
        C, Cg, KH, KW = weight.shape
        R, _, h, w = rows.shape
        convolved = np.empty_like(rows)
        convolved[:, permutation_index(C, G)] = rows  # what P_k takes from where
        # (R, G, C/G, h, w) · (G, C/G, Cg, KH, KW), of which one is 1×1
        rows = np.einsum(
            "rgohw,gocab->rgchawb",
            convolved.reshape(R, G, C // G, h, w),
            weight.reshape(G, C // G, Cg, KH, KW),
            optimize=True,
        ).reshape(R, G * Cg, h * KH, w * KW)
    return rows


def conditions(unit: Unit, outputs: Array | None = None) -> Conditions:
    """Return which conditions a unit meets.

    Args:
        unit: an interleaved group convolution or product.
        outputs: the output channels whose paths are counted, (R,); by default all.
    """
    weights = [tensor.data for tensor in unit.weights]
    fan_ins = tuple(math.prod(weight.shape[1:]) for weight in weights)
    # with all weights 1 each product counts one path
    ones = [np.ones(weight.shape[:2], np.float64)[:, :, None, None] for weight in weights]
    paths = composed_kernel(ones, unit.groups, outputs)
    widths = {len(weight) for weight in weights} | {weights[0].shape[1] * unit.groups[0]}
    parameters = sum(weight.size for weight in weights)
    bound = None
    if len(widths) == 1:
        (C,), K = widths, len(weights)
        taps = math.prod(math.prod(weight.shape[2:]) for weight in weights)
        bound = K * C * (taps * C) ** (1 / K)
    return Conditions(fan_ins, int(paths.min()), int(paths.max()), parameters, bound)


def describe_conditions(network: Layer) -> list[str]:
    """Return a line for the units of a network that meet the same conditions."""
    names: dict[str, list[str]] = {}
    for name, layer in network.named_layers():
        if isinstance(layer, Unit):
            C = len(layer.weights[-1].data)
            # of wide units evenly spread outputs: all of a partition are alike
            outputs = np.unique(np.linspace(0, C - 1, min(C, LARGEST_BLOCK)).round().astype(int))
            names.setdefault(str(conditions(layer, outputs)), []).append(name)
    return [
        f"{first}{f' and {len(more)} more' if more else ''}: {text}"
        for text, (first, *more) in names.items()
    ]


def compose(unit: Unit, x: Array, outputs: Array | None = None) -> Composition:
    """Return the regular convolution that a unit equals, verified on images.

    Args:
        unit: an interleaved group convolution or product, on the CPU.
        x: (N, C_in, H, W), of the unit's element type.
        outputs: the output channels to look at, (R,); by default all.
    """
    weights = [tensor.data for tensor in unit.weights]
    outputs = np.arange(len(weights[-1])) if outputs is None else outputs
    kernel = composed_kernel(weights, unit.groups, outputs)
    # with all weights 1 each product counts one path
    ones = [np.ones_like(weight[:, :, :1, :1]) for weight in weights]
    paths = composed_kernel(ones, unit.groups, outputs)[:, :, 0, 0]
    padding = kernel.shape[2] // 2, kernel.shape[3] // 2
    with no_grad():
        y = unit(Tensor(x)).numpy()[:, outputs]
        dense = conv2d(Tensor(x), Tensor(kernel), stride=unit.stride, padding=padding)
    return Composition(
        outputs=outputs,
        kernel=kernel,
        parameters=sum(w.size for w in weights),
        dense_parameters=len(weights[-1]) * math.prod(kernel.shape[1:]),
        paths=paths.astype(int),
        rank=_rank(weights, unit.groups),
        difference=float(np.abs(y - dense.numpy()).max()),
        scale=float(np.abs(y).max()),
    )


def _rank(weights: Sequence[Array], groups: Sequence[int]) -> int | None:
    """Return the rank of W, from its factors where at most one of them lacks full rank."""
    widths = [len(weight) for weight in weights]
    if max(C // G for C, G in zip(widths, groups, strict=True)) > LARGEST_BLOCK:
        return None
    # the factors are block-diagonal, so their ranks are sums over blocks
    ranks = [
        int(np.linalg.matrix_rank(weight.reshape(G, len(weight) // G, -1)).sum())
        for weight, G in zip(weights, groups, strict=True)
    ]
    lacking = sum(rank < C for rank, C in zip(ranks, widths, strict=True))
    if lacking <= 1 and len(set(widths)) == 1:
        return min(ranks)
    if max(widths) > LARGEST_BLOCK:
        return None
    W = composed_kernel(weights, groups)
    return int(np.linalg.matrix_rank(W.reshape(len(W), -1)))


def widest(budget: float, kernel_area: int = 9) -> tuple[int, int]:
    """Return the (L, M) of the widest unit that a number of parameters pays for.

    The unit has T = L·M²·S + M·L² parameters for a kernel of S = K² taps, and so, of all (L, M)
    of one width G = L·M, the fewest where L = M·S (paper, section 3.2); the width is at most
    (T/(2·√S))^(2/3). Of equally wide ones that with fewer parameters is returned.

    Args:
        budget: T, at least the S + 1 of a single channel.
        kernel_area: taps of the spatial kernel, S.
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
    """Return T = L·M²·S + M·L², the parameters of an interleaved group convolution.

    Args:
        L: primary partitions.
        M: channels of each.
        kernel_area: S, elements of the primary kernel.
    """
    return L * M * M * kernel_area + M * L * L
