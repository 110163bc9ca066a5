"""Options that describe a network, for the commands that look at one without training it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from igcnn.networks import Network

CIFAR_SIZE, IMAGENET_SIZE = 32, 224

OPTIONS = (
    click.option("--net", default="resnet_igc", show_default=True, help="Network family."),
    click.option("--depth", type=int, help="Layers with weights.  [default: 20; ImageNet: 18]"),
    click.option("--L", "L", type=int, help="Primary partitions.  [default: as published]"),
    click.option("--M", "M", type=int, help="Channels of a primary partition."),
    click.option("--fusion", help="Secondary convolution of plain_igc.  [default: learned]"),
    click.option("--growth", help="What stages of resnet_igc_imgnet_d18 double, L or M."),
    click.option("--classes", type=int, help="Number of classes.  [default: 10; ImageNet: 1000]"),
    click.option("--image-size", type=int, help="Side in pixels.  [default: 32; ImageNet: 224]"),
)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `make_network` takes to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def given_options(context: click.Context, options: Iterable[str]) -> list[str]:
    """Return those of the options, as flags, that the command line has."""
    source = click.core.ParameterSource.COMMANDLINE
    given = [name for name in options if context.get_parameter_source(name) is source]
    return [f"--{name.replace('_', '-')}" for name in given]


def make_network(
    net: str,
    depth: int | None,
    L: int | None,
    M: int | None,
    fusion: str | None,
    growth: str | None,
    classes: int | None,
    image_size: int | None,
    dtype: str = "float32",
) -> tuple[Network, tuple[int, int, int]]:
    """Return the network that the options describe, and the shape of its images.

    Raises:
        ConfigError: there is no such network, or image_size is below 1.
    """
    from igcnn.errors import ConfigError
    from igcnn.networks import build_network

    network = build_network(
        net,
        depth=depth,
        L=L,
        M=M,
        num_classes=classes,
        dtype=dtype,
        fusion=fusion or "learned",
        growth=growth,
    )
    side = image_size
    if side is None:
        side = IMAGENET_SIZE if "imgnet" in net else CIFAR_SIZE
    if side < 1:
        raise ConfigError(f"--image-size must be at least 1, not {side}")
    return network, (3, side, side)


def settings_line(network: Network) -> str:
    """Return the network's settings in a line."""
    return "  ".join(f"{name} {value}" for name, value in network.settings.items())
