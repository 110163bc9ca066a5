"""resnet_igc: the residual networks with interleaved group convolutions.

Both convolutions of a block become interleaved group units and the projection is grouped with L
groups. L stays the same in all stages, widths are L·M, 2·L·M, 4·L·M.

The secondary convolution of a block's first unit has C_in/L groups, of its second unit C_out/L.
So in a down-sampling block the first unit's secondary groups hold 2·L channels, two of every
partition, and its two permutations do not cancel. The authors' code does this, and the
parameters of its networks depend on it.
"""

import numpy as np

from ..layers import GlobalAveragePool, Layer, Linear
from .registry import register_network
from .sizes import first_width, residual_stages
from .units import ResidualBlock, Units

MOMENTUM = 0.9


@register_network("resnet_igc")
def resnet_igc_layers(
    *,
    depth: int = 20,
    L: int = 24,
    M: int = 2,
    num_classes: int = 10,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `resnet_igc`.

    Raises:
        ConfigError: depth is odd or below 8, or L or M is below 1.
    """
    stages = residual_stages("resnet_igc", depth)
    C = first_width("resnet_igc", L, M)
    units = Units(MOMENTUM, rng, dtype)
    layers: dict[str, Layer] = {"g0": units.conv(3, C)}
    width_in = C
    for k, n in enumerate(stages):
        width = C << k
        for i in range(n):
            stride = 2 if k and i == 0 else 1
            shortcut = None
            if width_in != width:
                projection = units.conv(width_in, width, 1, stride, groups=L, relu=False)
                shortcut = "p0_line", projection
            layers[f"g{k + 1}_b{i + 1}"] = ResidualBlock(
                ("p2_two1", units.igc(width_in, width, L, width_in // L, stride)),
                ("p2_two2", units.igc(width, width, L, width // L, relu=False)),
                shortcut,
            )
            width_in = width
    layers["pool"] = GlobalAveragePool()
    layers["fc"] = Linear(width_in, num_classes, rng=rng, dtype=dtype)
    return layers
