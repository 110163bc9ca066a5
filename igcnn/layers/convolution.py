"""Convolution on the tape (formula and arrays: kernels/convolution.py)."""

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
from ..kernels.geometry import Pair, as_text, convolution_geometry, count, window
from .initialise import he_normal
from .layer import Layer

Array = np.ndarray


class ConvolutionFunction(Function):
    """y = w ∗ x (+ b): keeps x and w."""

    name = "convolution"

    def __init__(self, stride: int | Pair, padding: int | Pair | str, groups: int) -> None:
        self.arguments = stride, padding, groups

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """Return (N, C_out, OH, OW)."""
        self.geometry = convolution_geometry(x.shape, w.shape, *self.arguments)
        self.save(x, w)
        if b is None:
            return convolution_forward(x, w, *self.geometry)
        check_arrays("convolution", x, w, b)
        if b.shape != (w.shape[0],):
            raise ShapeError(
                f"convolution: bias has shape {b.shape}, but w {w.shape} takes ({w.shape[0]},)"
            )
        y = convolution_forward(x, w, *self.geometry)
        y += b[:, None, None]
        return y

    def backward(self, gy: Array) -> tuple[Array | None, ...]:
        """Return gx, gw and, where there is a bias, gb; skips what nobody needs."""
        x, w = self.saved()
        gx = gw = None
        if self.needs_gradient[0]:
            gx = convolution_backward_input(gy, w, x.shape, *self.geometry)
        if self.needs_gradient[1]:
            gw = convolution_backward_weight(gy, x, w.shape, *self.geometry)
        gb = gy.sum(axis=(0, 2, 3))
        return (gx, gw, gb)[: len(self.needs_gradient)]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    groups: int = 1,
) -> Tensor:
    """Return the two-dimensional convolution of x, dense or grouped.

    Args:
        x: images, (N, C, H, W), float32 or float64; weight and bias likewise.
        weight: (C_out, C/groups, KH, KW).
        bias: (C_out,) or None; the networks of the paper have none.
        stride: step in pixels, one integer or two (vertical, horizontal).
        padding: rows and columns of zeros on each side, likewise; or "same", with stride 1 and
            odd kernels, for results of the size of the image.
        groups: number of groups; group g maps the g-th run of C/groups input channels to the
            g-th run of C_out/groups output channels.

    Returns:
        (N, C_out, OH, OW) with OH = ⌊(H + 2·padding − KH)/stride⌋ + 1.

    Raises:
        ShapeError: the shapes do not fit, or stride, padding or groups are no such numbers.
        DtypeError: the arrays are not all float32 or all float64.
        DeviceError: they are not on one device.
    """
    inputs = (x, weight) if bias is None else (x, weight, bias)
    return ConvolutionFunction(stride, padding, groups)(*inputs)


class Convolution(Layer):
    """A convolution without bias, as everywhere in these networks.

    Args:
        in_channels: input channels, C.
        out_channels: C_out.
        kernel_size: K, or (KH, KW).
        stride: step in pixels, one integer or two (vertical, horizontal).
        padding: rows and columns of zeros on each side, likewise, or "same"; see conv2d.
        groups: number of groups.
        rng: source of the initial weights, N(0, 2/fan_in) with fan_in = C/groups·K².
        dtype: float32 or float64.

    Raises:
        ShapeError: groups do not divide the channels, or a size is invalid.
        ConfigError: rng is not a generator.
        DtypeError: dtype is another.
    """

    kind = "conv"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        groups: int = 1,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        C = count("convolution", "in_channels", in_channels)
        C_out = count("convolution", "out_channels", out_channels)
        self.groups = count("convolution", "groups", groups)
        if C % self.groups or C_out % self.groups:
            raise ShapeError(
                f"convolution: {C} input and {C_out} output channels do not divide into "
                f"{groups} groups; choose groups that divide both"
            )
        kernel, self.stride, self.padding = window("convolution", kernel_size, stride, padding)
        shape = (C_out, C // self.groups, *kernel)
        self.weight = Tensor(he_normal(shape, rng, dtype), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C_out, OH, OW) for x, (N, C, H, W); errors as in conv2d."""
        return conv2d(x, self.weight, None, self.stride, self.padding, self.groups)

    def macs(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """N·OH·OW·C_out·(C/groups)·K² multiply-adds."""
        N, _, OH, OW = y_shape
        return N * OH * OW * self.weight.size

    def extra_repr(self) -> str:
        """Shape and geometry."""
        C_out, Cg, KH, KW = self.weight.shape
        geometry = f"stride={as_text(self.stride)}, padding={as_text(self.padding)}"
        return f"{Cg * self.groups} -> {C_out}, {KH}×{KW}, {geometry}, groups={self.groups}"
