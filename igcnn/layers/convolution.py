"""Convolution on the tape (formula and arrays: kernels/convolution.py)."""

from __future__ import annotations

import numpy as np

from ..autograd import Function, Tensor
from ..errors import ShapeError
from ..kernels.convolution import (
    convolution_backward_input,
    convolution_backward_weight,
    convolution_forward,
)
from ..kernels.geometry import Pair, pair
from .initialise import he_normal
from .layer import Layer

Array = np.ndarray


class ConvolutionFunction(Function):
    """y = w ∗ x (+ b): keeps x and w."""

    name = "convolution"

    def __init__(self, stride: int | Pair, padding: int | Pair, groups: int) -> None:
        self.stride = stride
        self.padding = padding
        self.groups = groups

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """Return (N, C_out, OH, OW)."""
        self.save(x, w)
        y = convolution_forward(x, w, self.stride, self.padding, self.groups)
        if b is not None:
            if b.shape != (w.shape[0],):
                raise ShapeError(
                    f"convolution: bias has shape {b.shape}, but w {w.shape} takes ({w.shape[0]},)"
                )
            y += b[:, None, None]
        return y

    def backward(self, gy: Array) -> tuple[Array | None, ...]:
        """Return gx, gw and, where there is a bias, gb; skips what nobody needs."""
        x, w = self.saved()
        geometry = self.stride, self.padding, self.groups
        gx = gw = None
        if self.needs_gradient[0]:
            gx = convolution_backward_input(gy, w, x.shape, *geometry)
        if self.needs_gradient[1]:
            gw = convolution_backward_weight(gy, x, w.shape, *geometry)
        gb = gy.sum(axis=(0, 2, 3))
        return (gx, gw, gb)[: len(self.needs_gradient)]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    groups: int = 1,
) -> Tensor:
    """Return the two-dimensional convolution of x, dense or grouped.

    Args:
        x: images, (N, C, H, W).
        weight: (C_out, C/groups, KH, KW).
        bias: (C_out,) or None; the networks of the paper have none.
        stride: step in pixels.
        padding: rows and columns of zeros on each side.
        groups: number of groups; group g maps the g-th run of C/groups input channels to the
            g-th run of C_out/groups output channels.

    Returns:
        (N, C_out, OH, OW) with OH = ⌊(H + 2·padding − KH)/stride⌋ + 1.

    Raises:
        ShapeError: the shapes do not fit.
        DtypeError: the element types differ.
    """
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return ConvolutionFunction(stride, padding, groups)(*inputs)


class Convolution(Layer):
    """A convolution without bias, as everywhere in these networks.

    Args:
        in_channels: C.
        out_channels: C_out.
        kernel_size: K.
        stride: step in pixels.
        padding: rows and columns of zeros on each side.
        groups: number of groups.
        rng: source of the initial weights, N(0, 2/fan_in) with fan_in = C/groups·K².
        dtype: float32 or float64.

    Raises:
        ShapeError: groups do not divide the channels.
    """

    kind = "conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"convolution: {in_channels} input and {out_channels} output channels do not "
                f"divide into {groups} groups; choose groups that divide both"
            )
        self.stride = stride
        self.padding = padding
        self.groups = groups
        shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.weight = Tensor(he_normal(shape, rng, dtype), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C_out, OH, OW) for x, (N, C, H, W)."""
        return conv2d(x, self.weight, None, self.stride, self.padding, self.groups)

    def macs(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """N·OH·OW·C_out·(C/groups)·K² multiply-adds."""
        N, _, OH, OW = y_shape
        return N * OH * OW * self.weight.size

    def extra_repr(self) -> str:
        """Shape and geometry."""
        C_out, Cg, KH, KW = self.weight.shape
        geometry = f"stride={pair(self.stride)[0]}, padding={pair(self.padding)[0]}"
        return f"{Cg * self.groups} -> {C_out}, {KH}×{KW}, {geometry}, groups={self.groups}"
