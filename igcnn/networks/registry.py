"""Networks by name."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..layers import Chain, Layer
from . import imagenet18, plain, plain_igc, resnet, resnet_igc
from .units import Units

NETWORKS = (
    "plain",
    "resnet",
    "plain_igc",
    "resnet_igc",
    "resnet_imgnet_d18",
    "resnet_igc_imgnet_d18",
)


class Network(Chain):
    """A network for images of three channels.

    Attributes:
        settings: the arguments of build_network that make the same network again.
    """

    def __init__(self, layers: dict[str, Layer], settings: dict[str, Any]) -> None:
        super().__init__(layers)
        self.settings = settings
        for name, layer in self.named_layers():
            layer.name = name
        for name, tensor in self.named_parameters():
            tensor.name = name


def build_network(
    net: str,
    *,
    depth: int | None = None,
    L: int | None = None,
    M: int | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    fusion: str = "learned",
    growth: str | None = None,
) -> Network:
    """Return a network with the authors' initial weights.

    Args:
        net: one of NETWORKS.
        depth: number of layers with weights, an interleaved unit counting as one; 20 by default,
            18 for the ImageNet networks. plain and plain_igc take 2 + 3·n, resnet and resnet_igc
            even numbers from 8.
        L: number of primary partitions; by default 24, in regular networks 16 (ImageNet: 100,
            64). Regular networks have the width L·M.
        M: channels of a partition in the first stage; by default 2, in regular networks 1.
        num_classes: outputs of the classifier; by default 10, ImageNet 1000.
        seed: of the initial weights.
        dtype: float32 or float64.
        fusion: secondary convolution of plain_igc: "learned", or one of the special cases
            "summation", "identity", "four_branch" (networks/plain_igc.py).
        growth: what doubles from stage to stage in resnet_igc_imgnet_d18, "L" or "M"; by default
            as published, "L" for M = 2 and "M" otherwise.

    Raises:
        ConfigError: there is no such network.
    """
    if net not in NETWORKS:
        near = difflib.get_close_matches(net, NETWORKS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"unknown network {net!r}: {hint}choose one of {', '.join(NETWORKS)}")
    interleaved, imagenet = "igc" in net, "imgnet" in net
    depth = (18 if imagenet else 20) if depth is None else depth
    if L is None:
        L = (100 if imagenet else 24) if interleaved else (64 if imagenet else 16)
    M = (2 if interleaved else 1) if M is None else M
    num_classes = (1000 if imagenet else 10) if num_classes is None else num_classes
    for name, value in (("depth", depth), ("L", L), ("M", M), ("num_classes", num_classes)):
        if value < 1:
            raise ConfigError(f"{net}: {name} must be at least 1, not {value}")
    if dtype not in ("float32", "float64"):
        raise ConfigError(f"{net}: dtype must be float32 or float64, not {dtype}")
    if fusion not in plain_igc.FUSIONS or (fusion != "learned" and net != "plain_igc"):
        raise ConfigError(
            f"{net}: fusion {fusion!r} is not available; plain_igc takes one of "
            f"{', '.join(plain_igc.FUSIONS)}, the other networks learned"
        )
    if growth not in (None, "L", "M") or (growth and net != "resnet_igc_imgnet_d18"):
        raise ConfigError(
            f"{net}: growth {growth!r} is not available; resnet_igc_imgnet_d18 takes L or M"
        )
    settings: dict[str, Any] = {
        "net": net,
        "depth": depth,
        "L": L,
        "M": M,
        "num_classes": num_classes,
    }
    momentum = plain.MOMENTUM if net in ("plain", "plain_igc") else resnet.MOMENTUM
    units = Units(momentum, np.random.default_rng(seed), dtype)
    size = depth, L, M, num_classes, units
    match net:
        case "plain":
            layers = plain.plain_layers(*size)
        case "resnet":
            layers = resnet.resnet_layers(*size)
        case "plain_igc":
            layers = plain_igc.plain_igc_layers(*size, fusion)
            settings["fusion"] = fusion
        case "resnet_igc":
            layers = resnet_igc.resnet_igc_layers(*size)
        case "resnet_imgnet_d18":
            layers = imagenet18.resnet_imagenet_layers(*size)
        case _:
            growth = growth or ("L" if M == 2 else "M")
            layers = imagenet18.resnet_igc_imagenet_layers(*size, growth)
            settings["growth"] = growth
    return Network(layers, settings)
