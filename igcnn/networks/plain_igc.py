"""plain_igc: the plain networks with interleaved group convolutions in the stages.

L stays the same in all stages and M doubles with the width: L·M, 2·L·M, 4·L·M channels. The
secondary convolution has as many groups as a partition has channels (M, 2M, 4M), so each
secondary group takes one channel from every partition.

With a fixed secondary convolution (`fusion`) the network becomes one of the paper's special
cases (section 3.2):

* "summation": every W^d_m is all ones; each partition receives the sum of all primary outputs.
* "identity": W^d is the identity; plain group convolution, partitions never mix.
* "four_branch": L = 4, the input is duplicated, and two sums of two branches equal one regular
  convolution of half the width, whose kernel the four branches split. Equal at the start of
  training; the batch norm of the duplicates then learns for itself.

L = 1 is a regular convolution with a scale for each channel, M = 1 the channel-wise and 1×1
convolution of an Xception block: both are settings, not modes.
"""

import numpy as np

from ..autograd import Tensor
from ..backend import to_device
from ..errors import ConfigError
from ..layers import GlobalAveragePool, Layer, Linear
from ..layers.convolution import conv2d
from .registry import register_network
from .sizes import first_width, plain_stages
from .units import Units

MOMENTUM = 0.99

FUSIONS = ("learned", "summation", "identity", "four_branch")

Array = np.ndarray


class Duplicate(Layer):
    """[x1, x2] → [x1, x2, x1, x2]: the doubled input of the four-branch view.

    Args:
        channels: C of the input.
        dtype: float32 or float64.
    """

    def __init__(self, channels: int, dtype: str) -> None:
        super().__init__()
        identity = np.eye(channels, dtype=dtype)
        # (2C, C, 1, 1): a 1×1 convolution by two identities, one above the other
        self.weight = np.concatenate([identity, identity])[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 2C, H, W) for x, (N, C, H, W)."""
        return conv2d(x, Tensor(to_device(self.weight, x.device)))


@register_network("plain_igc")
def plain_igc_layers(
    *,
    depth: int = 20,
    L: int = 24,
    M: int = 2,
    num_classes: int = 10,
    fusion: str = "learned",
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `plain_igc`.

    Raises:
        ConfigError: depth is not 5, 8, 11, …, there is no such fusion, or L and M do not suit it.
    """
    stages = plain_stages("plain_igc", depth)
    if fusion not in FUSIONS:
        raise ConfigError(f"plain_igc: fusion must be one of {', '.join(FUSIONS)}, not {fusion!r}")
    if fusion == "four_branch" and (L != 4 or M % 2):
        raise ConfigError(
            f"plain_igc: four_branch fusion needs L = 4 and an even M, not L = {L} and M = {M}; "
            f"choose --L 4 --M {M + M % 2}"
        )
    C = first_width("plain_igc", L, M)
    units = Units(MOMENTUM, rng, dtype)
    layers: dict[str, Layer] = {"g0": units.conv(3, C if fusion != "four_branch" else C // 2)}
    if fusion == "four_branch":
        layers["duplicate"] = Duplicate(C // 2, units.dtype)
    layers |= _stages(stages, [C, 2 * C, 4 * C], L, fusion, units)
    layers["fc_score"] = Linear(4 * C, num_classes, rng=rng, dtype=dtype)
    return layers


@register_network("plain_igc_equal")
def plain_igc_equal_layers(
    *,
    depth: int = 20,
    L: int = 24,
    M: int = 2,
    num_classes: int = 10,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `plain_igc_equal`: plain_igc with L·M channels in all stages.

    So one budget of parameters a unit holds for all of them, which the paper's comparison of
    (L, M) needs (Fig. 3).

    Raises:
        ConfigError: depth is not 5, 8, 11, …, or L or M is below 1.
    """
    stages = plain_stages("plain_igc_equal", depth)
    C = first_width("plain_igc_equal", L, M)
    units = Units(MOMENTUM, rng, dtype)
    layers: dict[str, Layer] = {"g0": units.conv(3, C)}
    layers |= _stages(stages, [C, C, C], L, "learned", units)
    layers["fc_score"] = Linear(C, num_classes, rng=rng, dtype=dtype)
    return layers


def _stages(
    stages: list[int], widths: list[int], L: int, fusion: str, units: Units
) -> dict[str, Layer]:
    """Return the units of all stages, and the mean over the pixels."""
    layers: dict[str, Layer] = {}
    width_in = widths[0]
    for k, (n, width) in enumerate(zip(stages, widths, strict=True)):
        for i in range(n):
            stride = 2 if k and i == 0 else 1
            layers[f"g{k + 1}_b{i + 1}"] = units.igc(
                width_in, width, L, stride=stride, secondary=fixed_secondary(fusion, width, L)
            )
            width_in = width
    layers["pool"] = GlobalAveragePool()
    return layers


def fixed_secondary(fusion: str, channels: int, L: int) -> Array | None:
    """Return the constant secondary weights, (C, L, 1, 1), or None where they are learned."""
    if fusion == "learned":
        return None
    matrices = {
        "summation": np.ones((L, L)),
        "identity": np.eye(L),
        "four_branch": np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]),
    }
    # the same L×L matrix for each of the C/L secondary groups
    return np.tile(matrices[fusion], (channels // L, 1))[:, :, None, None].astype(float)
