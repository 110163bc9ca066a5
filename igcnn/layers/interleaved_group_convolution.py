"""Interleaved group convolution on the tape, whole or in its four steps (paper, section 3).

Formula and arrays: kernels/convolution.py for the primary group convolution,
kernels/interleaved_group_convolution.py for the rest.
"""

from __future__ import annotations

import numpy as np

from ..autograd import Function, Tensor
from ..errors import ShapeError
from ..kernels.checks import check_arrays
from ..kernels.convolution import (
    convolution_backward_input,
    convolution_backward_weight,
    convolution_forward,
)
from ..kernels.geometry import (
    Pair,
    as_text,
    check_layout,
    convolution_geometry,
    count,
    output_size,
    window,
)
from ..kernels.interleaved_group_convolution import (
    check_mix,
    mix_backward_input,
    mix_backward_weight,
    mix_forward,
)
from .initialise import he_normal
from .interleaved_product import interleaved_product
from .layer import Layer

Array = np.ndarray


class InterleavedGroupConvolutionFunction(Function):
    """y = P · W^d · P^T · W^p · x: keeps x, both weights and the primary output."""

    name = "interleaved_group_convolution"

    def __init__(self, stride: Pair, padding: Pair, L: int, secondary_groups: int) -> None:
        self.geometry = stride, padding, L
        self.mix = L, secondary_groups

    def forward(self, x: Array, w1: Array, w2: Array) -> Array:
        """Return (N, C_out, OH, OW)."""
        check_arrays(self.name, x, w1, w2)
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
    padding: int | Pair | str = 1,
    L: int | None = None,
    secondary_groups: int | None = None,
) -> Tensor:
    """Return the interleaved group convolution of x as one operation.

    It equals its four steps, `interleaved_group_conv2d_steps`, without storing the permuted
    images between them.

    Args:
        x: images, (N, C, H, W), float32 or float64; both weights likewise.
        primary: spatial weights W^p, (C_out, C/L, KH, KW): L partitions.
        secondary: 1×1 weights W^d, (C_out, C_out/secondary_groups, 1, 1).
        stride: step of the primary convolution; see conv2d.
        padding: zeros around the image for the primary convolution; see conv2d.
        L: number of primary partitions; by default C / primary.shape[1].
        secondary_groups: number of secondary partitions, by default C_out/L, so that each has
            one channel of every primary partition.

    Returns:
        (N, C_out, OH, OW).

    Raises:
        ShapeError: the shapes, L and secondary_groups do not fit each other, or one of the
            numbers is invalid.
        DtypeError: the arrays are not all float32 or all float64.
        DeviceError: they are not on one device.
    """
    sizes = _sizes(x, primary, secondary, L, secondary_groups, stride, padding)
    return InterleavedGroupConvolutionFunction(*sizes)(x, primary, secondary)


def interleaved_group_conv2d_steps(
    x: Tensor,
    primary: Tensor,
    secondary: Tensor,
    stride: int | Pair = 1,
    padding: int | Pair | str = 1,
    L: int | None = None,
    secondary_groups: int | None = None,
) -> Tensor:
    """Return the same as interleaved_group_conv2d, by the four steps of the paper.

    They are an interleaved_product of two factors.

    Args:
        x: (N, C, H, W), float32 or float64, as are both weights.
        primary: weight, as of interleaved_group_conv2d.
        secondary: weight, likewise.
        stride: of the primary convolution, likewise.
        padding: likewise.
        L: primary partitions, likewise.
        secondary_groups: likewise.

    Raises:
        ShapeError: the shapes, L and secondary_groups do not fit each other, or one of the
            numbers is invalid.
        DtypeError: the arrays are not all float32 or all float64.
        DeviceError: they are not on one device.
    """
    sizes = _sizes(x, primary, secondary, L, secondary_groups, stride, padding)
    stride, padding, L, S = sizes
    return interleaved_product(x, (primary, secondary), (L, S), stride, padding)


class InterleavedGroupConvolution(Layer):
    """An interleaved group convolution: the authors' conv1 (primary) and conv2 (secondary).

    Args:
        in_channels: C, a multiple of L.
        out_channels: C_out, a multiple of L.
        L: number of primary partitions.
        secondary_groups: number of secondary partitions; None stands for C_out/L.
        kernel_size: K of the primary convolution, or (KH, KW); padded by K div 2.
        stride: step of the primary convolution, one integer or two.
        secondary: fixed secondary weights, which are then not trained; None to learn them.
        rng: source of the initial weights.
        dtype: float32 or float64.

    Raises:
        ShapeError: channels, L and secondary_groups do not fit each other, or one of the
            numbers is invalid.
        ConfigError: rng is not a generator.
        DtypeError: dtype is another.
    """

    kind = "conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        L: int,
        secondary_groups: int | None = None,
        kernel_size: int | Pair = 3,
        stride: int | Pair = 1,
        *,
        secondary: Array | None = None,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        name = InterleavedGroupConvolutionFunction.name
        C = count(name, "in_channels", in_channels)
        C_out = count(name, "out_channels", out_channels)
        self.L = count(name, "L", L)
        if C % self.L or C_out % self.L:
            raise ShapeError(
                f"{name}: {C} input and {C_out} output channels do not divide into L = {L} "
                "partitions; choose an L that divides both"
            )
        (KH, KW), self.stride, _ = window(name, kernel_size, stride, 0)
        self.padding = KH // 2, KW // 2
        S = C_out // self.L if secondary_groups is None else secondary_groups
        self.secondary_groups = count(name, "secondary_groups", S)
        shape1 = (C_out, C // self.L, KH, KW)
        shape2 = (C_out, C_out // self.secondary_groups, 1, 1)
        check_mix(C_out, shape2, self.L, self.secondary_groups)
        self.conv1_weight = Tensor(he_normal(shape1, rng, dtype), requires_grad=True)
        self.conv2_weight: Tensor | Array
        if secondary is None:
            self.conv2_weight = Tensor(he_normal(shape2, rng, dtype), requires_grad=True)
        else:
            check_mix(C_out, secondary.shape, self.L, self.secondary_groups)
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

    @property
    def weights(self) -> list[Tensor]:
        """W^p and W^d: those of an interleaved product of two factors."""
        return [self.primary, self.secondary]

    @property
    def groups(self) -> tuple[int, int]:
        """The numbers of primary and of secondary partitions."""
        return self.L, self.secondary_groups

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C_out, OH, OW) for x, (N, C, H, W); errors as in the operation."""
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
            f"{Cg * self.L} -> {C_out}, {KH}×{KW}, stride={as_text(self.stride)}, L={self.L}, "
            f"secondary_groups={self.secondary_groups}"
        )


def _sizes(
    x: Tensor,
    primary: Tensor,
    secondary: Tensor,
    L: int | None,
    secondary_groups: int | None,
    stride: int | Pair,
    padding: int | Pair | str,
) -> tuple[Pair, Pair, int, int]:
    """Return stride, padding, L and the number of secondary groups; checks that all fits."""
    name = InterleavedGroupConvolutionFunction.name
    fits = len(x.shape) == len(primary.shape) == 4
    if L is None:
        L = max(1, x.shape[1] // max(1, primary.shape[1])) if fits else 1
    elif fits:
        L = count(name, "L", L)
        check_layout(name, x.shape, primary.shape[1] * L)
        if x.shape[1] % L:
            raise ShapeError(
                f"{name}: x has {x.shape[1]} channels, which do not divide into L = {L} "
                f"partitions; choose an L that divides {x.shape[1]}"
            )
    geometry = convolution_geometry(x.shape, primary.shape, stride, padding, L)
    output_size(x.shape, primary.shape, *geometry)
    C_out = primary.shape[0]
    S = C_out // L if secondary_groups is None else secondary_groups
    S = count(name, "secondary_groups", S)
    check_mix(C_out, secondary.shape, L, S)
    return *geometry, S
