"""resnet: residual networks of regular convolutions for 32×32 images.

Stem 3×3, three stages of blocks of two 3×3 convolutions, widths C, 2C, 4C with C = L·M, ReLU
after the sum. Where the width changes the shortcut is a 1×1 convolution of stride 2 with batch
norm, elsewhere the identity.
"""

import numpy as np

from ..layers import GlobalAveragePool, Layer, Linear
from .registry import register_network
from .sizes import first_width, residual_stages
from .units import ResidualBlock, Units

MOMENTUM = 0.9


@register_network("resnet")
def resnet_layers(
    *,
    depth: int = 20,
    L: int = 16,
    M: int = 1,
    num_classes: int = 10,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `resnet`.

    Raises:
        ConfigError: depth is odd or below 8, or L or M is below 1.
    """
    stages = residual_stages("resnet", depth)
    C = first_width("resnet", L, M)
    units = Units(MOMENTUM, rng, dtype)
    layers: dict[str, Layer] = {"g0": units.conv(3, C)}
    width_in = C
    for k, n in enumerate(stages):
        width = C << k
        for i in range(n):
            stride = 2 if k and i == 0 else 1
            shortcut = None
            if width_in != width:
                shortcut = "p0_line", units.conv(width_in, width, 1, stride, relu=False)
            layers[f"g{k + 1}_b{i + 1}"] = ResidualBlock(
                ("p2_two1", units.conv(width_in, width, stride=stride)),
                ("p2_two2", units.conv(width, width, relu=False)),
                shortcut,
            )
            width_in = width
    layers["pool"] = GlobalAveragePool()
    layers["fc"] = Linear(width_in, num_classes, rng=rng, dtype=dtype)
    return layers
