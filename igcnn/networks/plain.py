"""plain: VGG-like networks of regular convolutions for 32×32 images (the paper's RegConv).

Stem 3×3, three stages of n = (depth − 2)/3 convolutions of widths C, 2C, 4C, the first of
stages 2 and 3 with stride 2; global average pooling and a classifier. C = L·M.
"""

from ..layers import GlobalAveragePool, Layer, Linear
from .depth import plain_stages
from .units import Units

MOMENTUM = 0.99


def plain_layers(depth: int, L: int, M: int, num_classes: int, units: Units) -> dict[str, Layer]:
    """Return the named layers of `plain`.

    Raises:
        ConfigError: depth is not 5, 8, 11, …
    """
    stages = plain_stages("plain", depth)
    C = L * M
    layers: dict[str, Layer] = {"g0": units.conv(3, C)}
    width_in = C
    for k, n in enumerate(stages):
        width = C << k
        for i in range(n):
            stride = 2 if k and i == 0 else 1
            layers[f"g{k + 1}_b{i + 1}"] = units.conv(width_in, width, stride=stride)
            width_in = width
    layers["pool"] = GlobalAveragePool()
    layers["fc_score"] = Linear(width_in, num_classes, rng=units.rng, dtype=units.dtype)
    return layers
