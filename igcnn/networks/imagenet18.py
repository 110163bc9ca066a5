"""resnet_imgnet_d18 and resnet_igc_imgnet_d18: 18 layers for 224×224 images.

Stem 7×7 of stride 2, 3×3 max pooling of stride 2, four stages of two residual blocks, strides
1, 2, 2, 2, global average pooling and a classifier.

The three interleaved networks that the authors published grow in two ways from stage to stage:

* growth "M" (L4M32, L16M16): L is kept and M doubles; the stem and the first stage have L·M
  channels.
* growth "L" (L100M2): M is kept and L doubles; the stem has L·M/2 channels, the first stage
  L·M, so it too begins with a projection.

Parameter names follow the published models.
"""

import numpy as np

from ..errors import ConfigError
from ..layers import GlobalAveragePool, Layer, Linear, MaxPool
from .registry import Settings, register_network
from .sizes import first_width
from .units import ResidualBlock, Units

IMAGE_SIZE = 224
MOMENTUM = 0.9

STAGES = 4
BLOCKS = 2


@register_network("resnet_imgnet_d18", image_size=IMAGE_SIZE)
def resnet_imagenet_layers(
    *,
    depth: int = 18,
    L: int = 64,
    M: int = 1,
    num_classes: int = 1000,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `resnet_imgnet_d18`; the stem has L·M channels.

    Raises:
        ConfigError: depth is not 18, or L or M is below 1.
    """
    _check_depth("resnet_imgnet_d18", depth)
    C = first_width("resnet_imgnet_d18", L, M)
    units = Units(MOMENTUM, rng, dtype)
    layers: dict[str, Layer] = {
        "g0": units.conv(3, C, 7, 2, conv_name=""),
        "g0_pool": MaxPool(3, stride=2, padding=1),
    }
    width_in = C
    for k in range(STAGES):
        width = C << k
        for i in range(BLOCKS):
            stride = 2 if k and i == 0 else 1
            shortcut = None
            if width_in != width:
                shortcut = (
                    "proj",
                    units.conv(width_in, width, 1, stride, activation=None, conv_name=""),
                )
            layers[f"g{k + 1}_b{i + 1}"] = ResidualBlock(
                ("conv1", units.conv(width_in, width, stride=stride, conv_name="")),
                ("conv2", units.conv(width, width, activation=None, conv_name="")),
                shortcut,
            )
            width_in = width
    layers["pool"] = GlobalAveragePool()
    layers["fc_score"] = Linear(width_in, num_classes, rng=rng, dtype=dtype)
    return layers


def published_growth(settings: Settings) -> str:
    """Return what grows in the published network of these L and M."""
    return "L" if settings["M"] == 2 else "M"


@register_network(
    "resnet_igc_imgnet_d18", image_size=IMAGE_SIZE, derived={"growth": published_growth}
)
def resnet_igc_imagenet_layers(
    *,
    depth: int = 18,
    L: int = 100,
    M: int = 2,
    num_classes: int = 1000,
    growth: str | None = None,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `resnet_igc_imgnet_d18`.

    Raises:
        ConfigError: depth is not 18, L or M is below 1, growth is neither "L" nor "M", or it is
            "L" with an odd M.
    """
    _check_depth("resnet_igc_imgnet_d18", depth)
    C = first_width("resnet_igc_imgnet_d18", L, M)
    if growth not in ("L", "M"):
        raise ConfigError(f"resnet_igc_imgnet_d18: growth must be L or M, not {growth!r}")
    if growth == "L" and M % 2:
        raise ConfigError(
            f"resnet_igc_imgnet_d18: growing L needs an even M (the stem has L·M/2 channels), "
            f"not {M}; choose {M + 1} or grow M"
        )
    stem = C // 2 if growth == "L" else C
    units = Units(MOMENTUM, rng, dtype)
    layers: dict[str, Layer] = {
        "g0": units.conv(3, stem, 7, 2),
        "g0_pool": MaxPool(3, stride=2, padding=1),
    }
    width_in = stem
    for k in range(STAGES):
        width = C << k
        partitions = L << k if growth == "L" else L
        for i in range(BLOCKS):
            stride = 2 if k and i == 0 else 1
            shortcut = None
            if width_in != width:
                projection = units.conv(
                    width_in, width, 1, stride, groups=partitions, activation=None
                )
                shortcut = "proj", projection
            layers[f"g{k + 1}_b{i + 1}"] = ResidualBlock(
                ("conv1", units.igc(width_in, width, partitions, stride=stride)),
                ("conv2", units.igc(width, width, partitions, activation=None)),
                shortcut,
            )
            width_in = width
    layers["pool"] = GlobalAveragePool()
    layers["fc_score"] = Linear(width_in, num_classes, rng=rng, dtype=dtype)
    return layers


def _check_depth(net: str, depth: int) -> None:
    if depth != 18:
        raise ConfigError(f"{net}: depth must be 18, not {depth}; leave --depth out")
