"""igcv2: interleaved structured sparse convolutions (Xie et al., 2018) for 32×32 images.

A unit is a channel-wise 3×3 convolution and then n 1×1 group convolutions, of which the l-th
mixes K_l channels, each followed by a permutation; batch norm and ReLU end it. Where the product
of the K_l is the width there is exactly one path from every input channel to every output (the
strict complementary condition), or two in the units that double the width. Where all K_l are 9,
the taps of the 3×3, a unit has the fewest parameters for its width (balance). Three stages of
(depth − 2)/3 units, as in plain_igc, of widths C, 2C, 4C; K_1 doubles with the width.

With condition "loose" the K_l are the same in all stages, and some channels do not meet within a
unit, or meet by several paths. The paper's table of its networks could not be read, and its code
was never published: width 416, factors 8,8, depth 20 is a *candidate* for its IGCV2*-C416, which
meets the 0.65 M parameters printed there (650,208 with 100 classes and without the classifier's
bias). It is loose: 8·8 < 416.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import ConfigError
from ..layers import GlobalAveragePool, Layer, Linear
from .registry import register_network
from .sizes import plain_stages, whole_numbers
from .units import Units

MOMENTUM = 0.99


@register_network("igcv2")
def igcv2_layers(
    *,
    depth: int = 20,
    width: int = 64,
    factors: str = "8,8",
    condition: str = "strict",
    num_classes: int = 10,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `igcv2`.

    Args:
        depth: number of layers with weights, a unit counting as one: 2 + 3·n.
        width: C, channels of the first stage.
        factors: K_1, K_2, … of the first stage, separated by commas; their product is C.
        condition: "strict", or "loose" for other factors, the same in all stages.
        num_classes: outputs of the classifier.
        rng: source of the initial weights.
        dtype: float32 or float64.

    Raises:
        ConfigError: the factors do not fit the width, or a setting cannot be used.
    """
    stages = plain_stages("igcv2", depth)
    if condition not in ("strict", "loose"):
        raise ConfigError(f"igcv2: condition must be strict or loose, not {condition!r}")
    if width < 1:
        raise ConfigError(f"igcv2: width must be at least 1, not {width}")
    sizes = whole_numbers("igcv2", "factors", factors)
    _check(width, sizes, condition)
    units = Units(MOMENTUM, rng, dtype)
    layers: dict[str, Layer] = {"g0": units.conv(3, width)}
    width_in = width
    for k, n in enumerate(stages):
        C = width << k
        K = [sizes[0] << k, *sizes[1:]] if condition == "strict" else sizes
        for i in range(n):
            stride = 2 if k and i == 0 else 1
            # the first factor has a group for each input channel: two outputs each where C doubles
            groups = [width_in, *(C // size for size in K)]
            channels = [width_in] + [C] * (len(K) + 1)
            layers[f"g{k + 1}_b{i + 1}"] = units.product(channels, groups, stride)
            width_in = C
    layers["pool"] = GlobalAveragePool()
    layers["fc_score"] = Linear(width_in, num_classes, rng=rng, dtype=dtype)
    return layers


def _check(width: int, sizes: list[int], condition: str) -> None:
    """Raise ConfigError unless the factors fit the width; name some that do."""
    text = ",".join(map(str, sizes))
    if condition == "strict" and math.prod(sizes) != width:
        choices = "; ".join(",".join(map(str, choice)) for choice in factorings(width, len(sizes)))
        advice = f"choose {choices}" if choices else "choose another number of factors"
        raise ConfigError(
            f"igcv2: factors {text} multiply to {math.prod(sizes)}, not to the width {width}, so "
            f"that channels do not meet by exactly one path; {advice}, or condition = loose"
        )
    if any(width % size for size in sizes):
        raise ConfigError(
            f"igcv2: factors {text} must each divide the width {width}; choose divisors of it"
        )


def factorings(width: int, count: int, most: int = 3) -> list[list[int]]:
    """Return factors ≥ 2 whose product is a width, those nearest to each other first.

    Args:
        width: their product.
        count: how many factors.
        most: how many choices to return.
    """

    def split(rest: int, parts: int, least: int) -> list[list[int]]:
        if parts == 1:
            return [[rest]] if rest >= least else []
        found = []
        for first in range(least, math.isqrt(rest) + 1):
            if rest % first == 0:
                found += [[first, *others] for others in split(rest // first, parts - 1, first)]
        return found

    choices = split(width, count, 2)
    return sorted(choices, key=sum)[:most]
