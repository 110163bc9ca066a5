"""Options that describe a network, for the commands that look at one without training it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from igcnn.settings import NETWORK, SETTINGS

from .options import setting_options

if TYPE_CHECKING:
    from igcnn.networks import Network

CIFAR_SIZE, IMAGENET_SIZE = 32, 224

NAMES = tuple(name for name, setting in SETTINGS.items() if setting.group == NETWORK)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `make_network` takes to a command."""
    for option in (
        click.option(
            "--image-size", type=int, help="Side in pixels. [default: 32; ImageNet: 224]"
        ),
        click.option("--classes", type=int, help="Classes. [default: 10; ImageNet: 1000]"),
        setting_options(*NAMES),
    ):
        command = option(command)
    return command


def make_network(
    classes: int | None, image_size: int | None, dtype: str = "float32", **options: str | None
) -> tuple[Network, tuple[int, int, int]]:
    """Return the network that the options describe, and the shape of its images.

    Raises:
        ConfigError: there is no such network, or image_size is below 1.
    """
    from igcnn.errors import ConfigError
    from igcnn.networks import build_network

    given = {
        name: SETTINGS[name].convert(value, SETTINGS[name].flag)
        for name, value in options.items()
        if value is not None
    }
    given.setdefault("net", SETTINGS["net"].default)
    network = build_network(**given, num_classes=classes, dtype=dtype)
    side = image_size
    if side is None:
        side = IMAGENET_SIZE if "imgnet" in given["net"] else CIFAR_SIZE
    if side < 1:
        raise ConfigError(f"--image-size must be at least 1, not {side}")
    return network, (3, side, side)


def settings_line(network: Network) -> str:
    """Return the network's settings in a line."""
    return "  ".join(f"{name} {value}" for name, value in network.settings.items())
