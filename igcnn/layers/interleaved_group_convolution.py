"""Interleaved group convolution on the tape, whole or in its four steps (paper, section 3).

Formula and arrays: kernels/convolution.py for the primary group convolution,
kernels/interleaved_group_convolution.py for the rest.
"""

from __future__ import annotations

import numpy as np

from ..autograd import Function, Tensor
from ..errors import ShapeError
from ..kernels.convolution import (
    Pair,
    convolution_backward_input,
    convolution_backward_weight,
    convolution_forward,
    output_size,
    pair,
)
from ..kernels.interleaved_group_convolution import (
    check_mix,
    mix_backward_input,
    mix_backward_weight,
    mix_forward,
)
from .convolution import conv2d
from .initialise import he_normal
from .layer import Layer
from .permutation import permute_channels

Array = np.ndarray


class InterleavedGroupConvolutionFunction(Function):
    """y = P · W^d · P^T · W^p · x: keeps x, both weights and the primary output."""

    name = "interleaved_group_convolution"

    def __init__(
        self, stride: int | Pair, padding: int | Pair, L: int, secondary_groups: int
    ) -> None:
        self.geometry = stride, padding, L
        self.mix = L, secondary_groups

    def forward(self, x: Array, w1: Array, w2: Array) -> Array:
        """Return (N, C_out, OH, OW)."""
        p = convolution_forward(x, w1, *self.geometry)
        self.save(x, w1, w2, p)
        return mix_forward(p, w2, *self.mix)

    def backward(self, gy: Array) -> tuple[Array | None, ...]:
        """Return gx, gw1, gw2; skips what nobody needs."""
        x, w1, w2, p = self.saved()
        gx = gw1 = gw2 = None
        if self.needs_gradient[2]:
            gw2 = mix_backward_weight(gy, p, w2.shape, *self.mix)
        if any(self.needs_gradient[:2]):
            gp = mix_backward_input(gy, w2, *self.mix)
        if self.needs_gradient[0]:
            gx = convolution_backward_input(gp, w1, x.shape, *self.geometry)
        if self.needs_gradient[1]:
            gw1 = convolution_backward_weight(gp, x, w1.shape, *self.geometry)
        return gx, gw1, gw2


def interleaved_group_conv2d(
    x: Tensor,
    primary: Tensor,
    secondary: Tensor,
    stride: int | Pair = 1,
    padding: int | Pair = 1,
    L: int | None = None,
    secondary_groups: int | None = None,
) -> Tensor:
    """Return the interleaved group convolution of x as one operation.

    It equals its four steps, `interleaved_group_conv2d_steps`, without storing the permuted
    images between them.

    Args:
        x: images, (N, C, H, W).
        primary: spatial weights W^p, (C_out, C/L, KH, KW): L partitions.
        secondary: 1×1 weights W^d, (C_out, C_out/secondary_groups, 1, 1).
        stride: step of the primary convolution.
        padding: zeros around the image for the primary convolution.
        L: number of primary partitions; by default C / primary.shape[1].
        secondary_groups: number of secondary partitions, by default C_out/L, so that each has
            one channel of every primary partition.

    Returns:
        (N, C_out, OH, OW).

    Raises:
        ShapeError: the shapes, L and secondary_groups do not fit each other.
        DtypeError: the element types differ.
    """
    L, secondary_groups = _partitions(x, primary, secondary, L, secondary_groups, stride, padding)
    function = InterleavedGroupConvolutionFunction(stride, padding, L, secondary_groups)
    return function(x, primary, secondary)


def interleaved_group_conv2d_steps(
    x: Tensor,
    primary: Tensor,
    secondary: Tensor,
    stride: int | Pair = 1,
    padding: int | Pair = 1,
    L: int | None = None,
    secondary_groups: int | None = None,
) -> Tensor:
    """Return the same as interleaved_group_conv2d, by the four steps of the paper."""
    L, secondary_groups = _partitions(x, primary, secondary, L, secondary_groups, stride, padding)
    p = conv2d(x, primary, stride=stride, padding=padding, groups=L)
    interleaved = permute_channels(p, L)
    mixed = conv2d(interleaved, secondary, groups=secondary_groups)
    return permute_channels(mixed, secondary_groups)


class InterleavedGroupConvolution(Layer):
    """An interleaved group convolution: the authors' conv1 (primary) and conv2 (secondary).

    Args:
        in_channels: C, a multiple of L.
        out_channels: C_out, a multiple of L.
        L: number of primary partitions.
        secondary_groups: number of secondary partitions; None stands for C_out/L.
        kernel_size: K of the primary convolution, padded by K div 2.
        stride: step of the primary convolution.
        secondary: fixed secondary weights, which are then not trained; None to learn them.
        rng: source of the initial weights.
        dtype: float32 or float64.

    Raises:
        ShapeError: channels, L and secondary_groups do not fit each other.
    """

    kind = "conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        L: int,
        secondary_groups: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        secondary: Array | None = None,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        if L < 1 or in_channels % L or out_channels % L:
            raise ShapeError(
                f"interleaved_group_convolution: {in_channels} input and {out_channels} output "
                f"channels do not divide into L = {L} partitions; choose an L that divides both"
            )
        self.L = L
        self.stride = stride
        self.padding = kernel_size // 2
        self.secondary_groups = secondary_groups or out_channels // L
        shape1 = (out_channels, in_channels // L, kernel_size, kernel_size)
        shape2 = (out_channels, out_channels // self.secondary_groups, 1, 1)
        check_mix(out_channels, shape2, L, self.secondary_groups)
        self.conv1_weight = Tensor(he_normal(shape1, rng, dtype), requires_grad=True)
        self.conv2_weight: Tensor | Array
        if secondary is None:
            self.conv2_weight = Tensor(he_normal(shape2, rng, dtype), requires_grad=True)
        else:
            check_mix(out_channels, secondary.shape, L, self.secondary_groups)
            self.conv2_weight = self.add_buffer("conv2_weight", secondary.astype(dtype))

    @property
    def primary(self) -> Tensor:
        """W^p."""
        return self.conv1_weight

    @property
    def secondary(self) -> Tensor:
        """W^d: a parameter, or fixed."""
        weight = self.conv2_weight
        return weight if isinstance(weight, Tensor) else Tensor(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C_out, OH, OW) for x, (N, C, H, W)."""
        return interleaved_group_conv2d(
            x,
            self.primary,
            self.secondary,
            self.stride,
            self.padding,
            self.L,
            self.secondary_groups,
        )

    def macs(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """N·OH·OW multiply-adds for each weight, primary and secondary."""
        N, _, OH, OW = y_shape
        return N * OH * OW * (self.primary.size + self.secondary.size)

    def extra_repr(self) -> str:
        """Shape and geometry."""
        C_out, Cg, KH, KW = self.primary.shape
        return (
            f"{Cg * self.L} -> {C_out}, {KH}×{KW}, stride={self.stride}, L={self.L}, "
            f"secondary_groups={self.secondary_groups}"
        )


def _partitions(
    x: Tensor,
    primary: Tensor,
    secondary: Tensor,
    L: int | None,
    secondary_groups: int | None,
    stride: int | Pair,
    padding: int | Pair,
) -> tuple[int, int]:
    """Return L and the number of secondary groups, after checking that everything fits."""
    if L is None:
        L = max(1, x.shape[1] // primary.shape[1]) if x.ndim == primary.ndim == 4 else 1
    elif x.ndim == 4 and (L < 1 or x.shape[1] % L):
        raise ShapeError(
            f"interleaved_group_convolution: x has {x.shape[1]} channels, which do not divide "
            f"into L = {L} partitions; choose an L that divides {x.shape[1]}"
        )
    output_size(x.shape, primary.shape, pair(stride), pair(padding), L)
    C_out = primary.shape[0]
    if secondary_groups is None:
        secondary_groups = C_out // L
    check_mix(C_out, secondary.shape, L, secondary_groups)
    return L, secondary_groups
