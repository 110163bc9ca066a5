"""igcv3 and mobilenetv2: inverted residual blocks with and without interleaved group convolutions.

A block widens its input by a factor t, convolves each channel by itself, and narrows the result:

| layer | IGCV3 (Sun et al., 2018) | MobileNetV2 (Sandler et al., 2018) |
|---|---|---|
| 1×1, to t·C channels | 2 groups, batch norm | dense, batch norm, ReLU6 |
| permutation | Reorder(2) | none |
| 3×3, channel-wise, stride s | batch norm, ReLU6 | the same |
| 1×1, to C_out channels | 2 groups, batch norm | dense, batch norm |

IGCV3 is twice as deep, so as to have as many parameters; without ReLU6 after its first layer it
has as many activations. Its numbers follow the code that its authors released
(homles11/IGCV3), whose second permutation was never in force: `second_permutation` adds it.

Both begin with a 3×3 convolution and end with a 1×1 one to 1,280 channels, global mean and
classifier. For 32×32 images the first layers keep the size of the image. The authors published
two readings of the strides there: the multiply-adds printed beside their accuracies, 166 M, are
those of the default, in which the sixth sequence keeps the size; in the other it halves it:
1,1,1,2,2,1,2,1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor
from ..errors import ConfigError
from ..layers import GlobalAveragePool, Layer, Linear, ReLU6
from ..layers.add import add
from ..layers.permutation import permute_channels
from .registry import register_network
from .sizes import whole_numbers
from .units import Units

MOMENTUM, EPS = 0.9, 1e-5
HEAD = 1280  # channels before the classifier

# of the seven sequences of blocks
CHANNELS = (16, 24, 32, 64, 96, 160, 320)
WIDER_CHANNELS = (32, 48, 64, 128, 192, 320, 640)
IGCV3_BLOCKS = "1,4,6,8,6,6,1"
FEW_BLOCKS = "1,2,3,4,3,3,1"
# of the stem and of the first block of each sequence
CIFAR_STRIDES = "1,1,1,2,2,1,1,1"
IMAGENET = {"strides": "2,1,2,2,2,1,2,1", "num_classes": 1000}


class InvertedResidual(Layer):
    """y = narrow(depthwise(widen(x))), plus x where `shortcut`.

    Args:
        widen: name and layer of the first 1×1 convolution, None where there is none.
        depthwise: name and layer of the channel-wise convolution.
        narrow: name and layer of the second 1×1 convolution.
        branches: b of the permutations after the first and the second 1×1 convolution; 1: none.
        shortcut: whether x is added.
    """

    def __init__(
        self,
        widen: tuple[str, Layer] | None,
        depthwise: tuple[str, Layer],
        narrow: tuple[str, Layer],
        branches: tuple[int, int],
        shortcut: bool,
    ) -> None:
        super().__init__()
        for unit in (widen, depthwise, narrow):
            if unit:
                self.add_child(*unit)
        self.branches = branches
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        *widen, depthwise, narrow = self.children().values()
        first, second = self.branches
        y = widen[0](x) if widen else x
        if first > 1:
            y = permute_channels(y, first)
        y = narrow(depthwise(y))
        if second > 1:
            y = permute_channels(y, second)
        return add(x, y) if self.shortcut else y

    def extra_repr(self) -> str:
        """Permutations and shortcut."""
        return f"branches={self.branches}, shortcut={self.shortcut}"


@dataclass(frozen=True)
class Shape:
    """What the families differ in.

    Attributes:
        channels: of the stem, of the seven sequences, and of the last convolution.
        blocks: of each sequence.
        strides: of the first convolution, and of the first block of each sequence.
        groups: of the first and of the second 1×1 convolution.
        interleaved: whether a permutation and no activation follow the first.
        second_permutation: whether one follows the second.
        widen_first: whether the blocks of the first sequence, with t = 1, have their first 1×1.
    """

    channels: tuple[int, ...]
    blocks: list[int]
    strides: list[int]
    groups: tuple[int, int]
    interleaved: bool
    second_permutation: bool
    widen_first: bool


def inverted_layers(shape: Shape, num_classes: int, units: Units) -> dict[str, Layer]:
    """Return the named layers of a network of inverted residual blocks."""
    stem, *sequences, head = shape.channels
    layers: dict[str, Layer] = {
        "first": units.conv(3, stem, stride=shape.strides[0], activation=ReLU6, conv_name="")
    }
    width_in = stem
    for k, width in enumerate(sequences):
        for i in range(shape.blocks[k]):
            stride = shape.strides[k + 1] if i == 0 else 1
            layers[f"seq{k + 1}_block{i + 1}"] = _block(
                shape, units, width_in, width, stride, t=6 if k else 1, shortcut=i > 0
            )
            width_in = width
    layers["last"] = units.conv(width_in, head, 1, activation=ReLU6, conv_name="")
    layers["pool"] = GlobalAveragePool()
    layers["fc"] = Linear(head, num_classes, rng=units.rng, dtype=units.dtype)
    return layers


def _block(
    shape: Shape, units: Units, C: int, C_out: int, stride: int, t: int, shortcut: bool
) -> InvertedResidual:
    wide = t * C
    first, second = shape.groups

    widen = None
    if t > 1 or shape.widen_first:
        activation = None if shape.interleaved else ReLU6
        widen = "exp", units.conv(C, wide, 1, 1, first, activation, conv_name="")
    return InvertedResidual(
        widen,
        ("depthwise", units.conv(wide, wide, 3, stride, wide, ReLU6, conv_name="")),
        ("linear", units.conv(wide, C_out, 1, 1, second, None, conv_name="")),
        (first if shape.interleaved else 1, C_out // 2 if shape.second_permutation else 1),
        shortcut,
    )


@register_network("igcv3_imgnet", image_size=224, defaults=IMAGENET)
@register_network("igcv3")
def igcv3_layers(
    *,
    width_mult: float = 1.0,
    blocks: str | None = None,
    strides: str = CIFAR_STRIDES,
    secondary_groups: int = 2,
    wider: bool = False,
    second_permutation: bool = False,
    num_classes: int = 10,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `igcv3`, and with other defaults of `igcv3_imgnet`.

    Args:
        width_mult: factor of all widths, which become even; the last convolution has at least
            1,280 channels.
        blocks: of each of the seven sequences, separated by commas; 1,4,6,8,6,6,1 by default.
            "0.5×" and "0.7×" of the paper have fewer; how many was not published.
        strides: of the stem and of the first block of each sequence, separated by commas.
        secondary_groups: groups of the second 1×1 convolution; 4 is the authors' igcv3_g2g4.
        wider: the channels of the authors' igcv3_wider, with as many blocks as MobileNetV2.
        second_permutation: Reorder(C_out/2) after the second 1×1 convolution.
        num_classes: outputs of the classifier.
        rng: source of the initial weights.
        dtype: float32 or float64.

    Raises:
        ConfigError: a setting cannot be used.
    """
    if secondary_groups not in (1, 2, 4):
        raise ConfigError(f"igcv3: secondary_groups must be 1, 2 or 4, not {secondary_groups}")
    unit = 4 if secondary_groups == 4 else 2
    base = WIDER_CHANNELS if wider else CHANNELS
    channels = [_scaled(c, width_mult, unit) for c in (32, *base, HEAD)]
    shape = Shape(
        (*channels[:-1], max(HEAD, channels[-1])),
        whole_numbers("igcv3", "blocks", blocks or (FEW_BLOCKS if wider else IGCV3_BLOCKS), 7),
        whole_numbers("igcv3", "strides", strides, 8),
        (2, secondary_groups),
        interleaved=True,
        second_permutation=second_permutation,
        widen_first=True,
    )
    return inverted_layers(shape, num_classes, Units(MOMENTUM, rng, dtype, EPS))


@register_network("mobilenetv2_imgnet", image_size=224, defaults=IMAGENET)
@register_network("mobilenetv2")
def mobilenetv2_layers(
    *,
    width_mult: float = 1.0,
    strides: str = CIFAR_STRIDES,
    widen_first: bool = False,
    num_classes: int = 10,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `mobilenetv2`, the yardstick of igcv3, and `mobilenetv2_imgnet`.

    Args:
        width_mult: factor of all widths, which become multiples of 8; the last convolution has
            at least 1,280 channels.
        strides: of the stem and of the first block of each sequence, separated by commas.
        widen_first: keep the 1×1 convolution of the first block, which widens by 1, as in the
            IGCV3 paper's table of CIFAR.
        num_classes: outputs of the classifier.
        rng: source of the initial weights.
        dtype: float32 or float64.

    Raises:
        ConfigError: a setting cannot be used.
    """
    channels = [_divisible(c, width_mult) for c in (32, *CHANNELS, HEAD)]
    shape = Shape(
        (*channels[:-1], max(HEAD, channels[-1])),
        whole_numbers("mobilenetv2", "blocks", FEW_BLOCKS, 7),
        whole_numbers("mobilenetv2", "strides", strides, 8),
        (1, 1),
        interleaved=False,
        second_permutation=False,
        widen_first=widen_first,
    )
    return inverted_layers(shape, num_classes, Units(MOMENTUM, rng, dtype, EPS))


def _scaled(channels: int, width_mult: float, unit: int) -> int:
    """Return channels · width_mult, rounded, then up to a multiple of `unit`."""
    _check_width(width_mult)
    rounded = max(1, round(channels * width_mult))
    return rounded + -rounded % unit


def _divisible(channels: int, width_mult: float) -> int:
    """Return channels · width_mult as a multiple of 8 that is at most 10 % smaller."""
    _check_width(width_mult)
    wanted = channels * width_mult
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def _check_width(width_mult: float) -> None:
    if not 0 < width_mult <= 100:
        raise ConfigError(f"width_mult must be a number above 0 and at most 100, not {width_mult}")
