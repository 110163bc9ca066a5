"""A product of group convolutions and permutations of any length, on the tape.

    y = P_K · W_K · … · P_2 · W_2 · P_1 · W_1 · x
    gx = W_1ᵀ · P_1ᵀ · W_2ᵀ · P_2ᵀ · … · W_Kᵀ · P_Kᵀ · gy

Each W_k is a group convolution of G_k groups, at most one of them spatial, and each P_k the
permutation Reorder(G_k), after which every group of W_{k+1} takes its channels from as many
groups of W_k as possible. Two factors are the interleaved group convolution of IGCNets (Zhang
et al., 2017); a channel-wise 3×3 convolution and then 1×1 group convolutions that of IGCV2 (Xie
et al., 2018), where W_k mixes K_k channels, C/G_k, and a product of all K_k of C gives exactly
one path from every input to every output: the strict complementary condition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..autograd import Tensor
from ..errors import ShapeError
from ..kernels.geometry import Pair, as_text, count, pair
from .convolution import conv2d
from .initialise import he_normal
from .layer import Layer
from .permutation import permute_channels

NAME = "interleaved_product"


def interleaved_product(
    x: Tensor,
    weights: Sequence[Tensor],
    groups: Sequence[int],
    stride: int | Pair = 1,
    padding: int | Pair | str | None = None,
) -> Tensor:
    """Return the product of group convolutions and permutations of x.

    Args:
        x: images, (N, C_0, H, W), float32 or float64; the weights likewise.
        weights: W_1, …, W_K, each (C_k, C_{k−1}/G_k, KH, KW); at most one is larger than 1×1.
        groups: G_1, …, G_K; each is followed by Reorder(G_k).
        stride: of the spatial convolution, or of the first if all are 1×1.
        padding: of the same one; by default half of its kernel, rounded down.

    Returns:
        (N, C_K, OH, OW).

    Raises:
        ShapeError: there are no weights, not as many groups, two spatial ones, or the shapes do
            not fit each other.
        DtypeError: the arrays are not all float32 or all float64.
        DeviceError: they are not on one device.
    """
    if not weights or len(weights) != len(groups):
        raise ShapeError(
            f"{NAME}: {len(weights)} weights and {len(groups)} numbers of groups; give one or "
            "more weights, and groups for each"
        )
    spatial = spatial_factor([weight.shape[2:] for weight in weights])
    for k, (weight, G) in enumerate(zip(weights, groups, strict=True)):
        if k == spatial:
            half = (weight.shape[2] // 2, weight.shape[3] // 2)
            x = conv2d(x, weight, None, stride, half if padding is None else padding, G)
        else:
            x = conv2d(x, weight, groups=G)
        x = permute_channels(x, G)
    return x


def spatial_factor(kernels: Sequence[tuple[int, ...]]) -> int:
    """Return which kernel is larger than 1×1, the first if none is.

    Raises:
        ShapeError: several are.
    """
    larger = [k for k, kernel in enumerate(kernels) if tuple(kernel) != (1, 1)]
    if len(larger) > 1:
        numbers = " and ".join(str(k + 1) for k in larger[:2])
        raise ShapeError(
            f"{NAME}: factors {numbers} are both larger than 1×1; let one be spatial, so that "
            "the product is one convolution of that kernel"
        )
    return larger[0] if larger else 0


class InterleavedProduct(Layer):
    """A product of group convolutions and permutations; see interleaved_product.

    Args:
        channels: C_0, C_1, …, C_K, one more than there are factors.
        groups: G_1, …, G_K; G_k divides C_{k−1} and C_k.
        kernel_sizes: of each factor; by default 3 for the first and 1 for the others.
        stride: of the spatial factor.
        rng: source of the initial weights, N(0, 2/fan_in) in each factor.
        dtype: float32 or float64.

    Raises:
        ShapeError: channels and groups do not fit each other, or one of the numbers is
            invalid.
        ConfigError: rng is not a generator.
        DtypeError: dtype is another.
    """

    kind = "conv"

    def __init__(
        self,
        channels: Sequence[int],
        groups: Sequence[int],
        kernel_sizes: Sequence[int | Pair] | None = None,
        stride: int | Pair = 1,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        C = [count(NAME, "channels", number) for number in channels]
        self.groups = tuple(count(NAME, "groups", number) for number in groups)
        if kernel_sizes is None:
            kernel_sizes = [3] + [1] * (len(self.groups) - 1)
        kernels = [pair(NAME, "kernel_sizes", size) for size in kernel_sizes]
        if not self.groups or len(C) != len(self.groups) + 1 or len(kernels) != len(self.groups):
            raise ShapeError(
                f"{NAME}: {len(C)} channels, {len(self.groups)} groups and {len(kernels)} kernel "
                "sizes; K factors take K + 1 channels, K groups and K kernel sizes"
            )
        self.stride = pair(NAME, "stride", stride)
        spatial_factor(kernels)
        for k, G in enumerate(self.groups):
            if C[k] % G or C[k + 1] % G:
                raise ShapeError(
                    f"{NAME}: factor {k + 1} maps {C[k]} channels to {C[k + 1]}, which do not "
                    f"divide into {G} groups; choose groups that divide both"
                )
            weight = he_normal((C[k + 1], C[k] // G, *kernels[k]), rng, dtype)
            setattr(self, f"conv{k + 1}_weight", Tensor(weight, requires_grad=True))

    @property
    def weights(self) -> list[Tensor]:
        """W_1, …, W_K."""
        return [getattr(self, f"conv{k + 1}_weight") for k in range(len(self.groups))]

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C_K, OH, OW) for x, (N, C_0, H, W); errors as in interleaved_product."""
        return interleaved_product(x, self.weights, self.groups, self.stride)

    def macs(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Multiply-adds: those before the spatial factor are at the size of x."""
        weights = self.weights
        spatial = spatial_factor([weight.shape[2:] for weight in weights])
        before = sum(weight.size for weight in weights[:spatial])
        after = sum(weight.size for weight in weights[spatial:])
        N, _, H, W = x_shape
        return N * (H * W * before + y_shape[2] * y_shape[3] * after)

    def extra_repr(self) -> str:
        """Channels, groups and geometry."""
        weights = self.weights
        channels = [weights[0].shape[1] * self.groups[0], *(w.shape[0] for w in weights)]
        kernels = ", ".join("×".join(map(str, w.shape[2:])) for w in weights)
        return (
            f"{' -> '.join(map(str, channels))}, {kernels}, stride={as_text(self.stride)}, "
            f"groups={self.groups}"
        )
