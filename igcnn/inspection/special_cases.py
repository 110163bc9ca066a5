"""What an interleaved group convolution becomes at its extremes (paper, section 3.2), computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad
from ..functional import conv2d
from ..layers import InterleavedGroupConvolution
from ..networks.plain_igc import fixed_secondary
from .composed import compose

Array = np.ndarray

SIDE = 8
C = 8  # channels of the small units


@dataclass(frozen=True)
class SpecialCase:
    """A unit beside the operation that it equals.

    Attributes:
        name: "interleaved", "regular", "xception", "identity", "summation", "four_branch".
        L: primary partitions.
        M: channels of one.
        parameters: that the unit has.
        equal_parameters: that the operation has which it equals.
        rank: of the composed kernel.
        paths: from each input to each output channel.
        secondary: the first W^d_m, an L × L matrix.
        kernel: length of each kernel in the composed one, (C_out, C_in).
        difference: largest |unit − operation| on an image of random numbers.
        scale: largest |output|.
    """

    name: str
    L: int
    M: int
    parameters: int
    equal_parameters: int
    rank: int | None
    paths: int
    secondary: list[list[float]]
    kernel: list[list[float]]
    difference: float
    scale: float


def special_cases(seed: int = 0) -> list[SpecialCase]:
    """Return the cases, each computed in float64 and compared with what it is said to equal."""
    rng = np.random.default_rng(seed)

    def unit(L: int, secondary: Array | None = None) -> InterleavedGroupConvolution:
        return InterleavedGroupConvolution(C, C, L, secondary=secondary, rng=rng, dtype="float64")

    x = rng.standard_normal((1, C, SIDE, SIDE))
    half = C // 2
    dense = rng.standard_normal((half, half, 3, 3))
    four = unit(4, fixed_secondary("four_branch", C, 4))
    # W^p = (W11, W12, W21, W22), the four blocks of the regular kernel one below the other
    blocks = dense.reshape(2, half // 2, 2, half // 2, 3, 3).transpose(0, 2, 1, 3, 4, 5)
    four.primary.data[...] = blocks.reshape(C, half // 2, 3, 3)
    twice = np.concatenate([x[:, :half]] * 2, axis=1)

    def once(unit: InterleavedGroupConvolution, x: Array) -> Array:
        return np.concatenate([_conv(x[:, :half], dense)] * 2, axis=1)

    grouped = 9 * C * C // 4
    return [
        _case("interleaved", unit(4), x, _dense, 9 * C * C),
        _case("regular", unit(1), x, _regular, 9 * C * C + C),
        _case("xception", unit(C), x, _xception, 9 * C + C * C),
        _case("identity", unit(4, fixed_secondary("identity", C, 4)), x, _grouped, grouped),
        _case("summation", unit(4, fixed_secondary("summation", C, 4)), x, _summed, grouped),
        _case("four_branch", four, twice, once, dense.size),
    ]


def _case(
    name: str,
    unit: InterleavedGroupConvolution,
    x: Array,
    equal: Callable[[InterleavedGroupConvolution, Array], Array],
    equal_parameters: int,
) -> SpecialCase:
    with no_grad():
        y = unit(Tensor(x)).numpy()
    found = compose(unit, x)
    M = C // unit.L
    trained = [tensor.size for tensor in unit.parameters()]
    lengths = np.sqrt((found.kernel**2).sum(axis=(2, 3)))
    return SpecialCase(
        name=name,
        L=unit.L,
        M=M,
        parameters=sum(trained),
        equal_parameters=equal_parameters,
        rank=found.rank,
        paths=int(found.paths.max()),
        secondary=unit.secondary.data[: unit.L, :, 0, 0].tolist(),
        kernel=lengths.tolist(),
        difference=float(np.abs(y - equal(unit, x)).max()),
        scale=float(np.abs(y).max()),
    )


def _conv(x: Array, w: Array, groups: int = 1) -> Array:
    y: Any = conv2d(Tensor(x), Tensor(w), padding=w.shape[2] // 2, groups=groups).numpy()
    return y


def _dense(unit: InterleavedGroupConvolution, x: Array) -> Array:
    return _conv(x, compose(unit, x).kernel)


def _regular(unit: InterleavedGroupConvolution, x: Array) -> Array:
    """A regular convolution, then a factor for each channel."""
    return _conv(x, unit.primary.data) * unit.secondary.data[None, :, 0]


def _xception(unit: InterleavedGroupConvolution, x: Array) -> Array:
    """A convolution of each channel by itself, then a regular 1×1 convolution."""
    return _conv(_conv(x, unit.primary.data, C), unit.secondary.data)


def _grouped(unit: InterleavedGroupConvolution, x: Array) -> Array:
    return _conv(x, unit.primary.data, unit.L)


def _summed(unit: InterleavedGroupConvolution, x: Array) -> Array:
    """Every partition is the sum of all primary outputs."""
    own = _conv(x, unit.primary.data, unit.L).reshape(1, unit.L, -1, SIDE, SIDE)
    return np.concatenate([own.sum(axis=1)] * unit.L, axis=1)
