"""What the networks are made of: convolution unit, interleaved group unit, residual block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor
from ..layers import (
    BatchNorm,
    Chain,
    Convolution,
    InterleavedGroupConvolution,
    InterleavedProduct,
    Layer,
    ReLU,
)
from ..layers.add import add

Array = np.ndarray
Activation = Callable[[], Layer] | None


@dataclass(frozen=True)
class Units:
    """Makes the units of one network.

    Attributes:
        momentum: of batch norm; 0.99 in the plain families, 0.9 in the residual ones.
        rng: source of the initial weights.
        dtype: float32 or float64.
        eps: of batch norm.
    """

    momentum: float
    rng: np.random.Generator
    dtype: str
    eps: float = 2e-5

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = ReLU,
        conv_name: str = "conv",
    ) -> Chain:
        """Return convolution, batch norm and activation; padded by K div 2."""
        padding = kernel_size // 2
        layers: dict[str, Layer] = {
            conv_name: Convolution(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                groups,
                rng=self.rng,
                dtype=self.dtype,
            )
        }
        return self._finished(layers, out_channels, activation)

    def igc(
        self,
        in_channels: int,
        out_channels: int,
        L: int,
        secondary_groups: int | None = None,
        stride: int = 1,
        activation: Activation = ReLU,
        secondary: Array | None = None,
    ) -> Chain:
        """Return interleaved group convolution, batch norm and activation.

        Nothing stands between the primary and the secondary convolution.
        """
        layers: dict[str, Layer] = {
            "": InterleavedGroupConvolution(
                in_channels,
                out_channels,
                L,
                secondary_groups,
                stride=stride,
                secondary=secondary,
                rng=self.rng,
                dtype=self.dtype,
            )
        }
        return self._finished(layers, out_channels, activation)

    def product(self, channels: list[int], groups: list[int], stride: int = 1) -> Chain:
        """Return an interleaved product, batch norm and ReLU; see InterleavedProduct."""
        product = InterleavedProduct(
            channels, groups, stride=stride, rng=self.rng, dtype=self.dtype
        )
        return self._finished({"": product}, channels[-1], ReLU)

    def _finished(self, layers: dict[str, Layer], channels: int, activation: Activation) -> Chain:
        layers["bn"] = BatchNorm(channels, self.momentum, self.eps, dtype=self.dtype)
        if activation:
            layers["relu"] = activation()
        return Chain(layers)


class ResidualBlock(Layer):
    """y = relu(shortcut(x) + second(first(x))), the post-activation block.

    Args:
        first: name and layer of the first unit, which ends in ReLU.
        second: name and layer of the second unit, which does not.
        shortcut: name and layer of the projection, None for the identity.
    """

    def __init__(
        self,
        first: tuple[str, Layer],
        second: tuple[str, Layer],
        shortcut: tuple[str, Layer] | None = None,
    ) -> None:
        for unit in (shortcut, first, second, ("relu", ReLU())):
            if unit:
                self.add_child(*unit)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        *shortcut, first, second, relu = self.children().values()
        skipped = shortcut[0](x) if shortcut else x
        return relu(add(skipped, second(first(x))))
