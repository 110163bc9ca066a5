"""plain: VGG-like networks of regular convolutions for 32×32 images (the paper's RegConv).

Stem 3×3, three stages of n = (depth − 2)/3 convolutions of widths C, 2C, 4C, the first of
stages 2 and 3 with stride 2; global average pooling and a classifier. C = L·M.
"""

import numpy as np

from ..layers import GlobalAveragePool, Layer, Linear
from .registry import register_network
from .sizes import first_width, plain_stages
from .units import Units

MOMENTUM = 0.99


@register_network("plain")
def plain_layers(
    *,
    depth: int = 20,
    L: int = 16,
    M: int = 1,
    num_classes: int = 10,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `plain`.

    Raises:
        ConfigError: depth is not 5, 8, 11, …, or L or M is below 1.
    """
    stages = plain_stages("plain", depth)
    C = first_width("plain", L, M)
    units = Units(MOMENTUM, rng, dtype)
    layers: dict[str, Layer] = {"g0": units.conv(3, C)}
    width_in = C
    for k, n in enumerate(stages):
        width = C << k
        for i in range(n):
            stride = 2 if k and i == 0 else 1
            layers[f"g{k + 1}_b{i + 1}"] = units.conv(width_in, width, stride=stride)
            width_in = width
    layers["pool"] = GlobalAveragePool()
    layers["fc_score"] = Linear(width_in, num_classes, rng=rng, dtype=dtype)
    return layers
