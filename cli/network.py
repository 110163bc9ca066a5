"""Options that describe a network, for the commands that look at one without training it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from igcnn.settings import NETWORK, SETTINGS
from igcnn.text import NO_BREAK, terminal_width, wrap_line

from .options import setting_options
from .settings import split_assignment

if TYPE_CHECKING:
    from igcnn.networks import Network

NAMES = tuple(name for name, setting in SETTINGS.items() if setting.group == NETWORK)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `make_network` takes to a command."""
    for option in (
        click.option(
            "--image-size", type=int, help="Side in pixels. [default: 32; ImageNet: 224]"
        ),
        click.option("--classes", type=int, help="Classes. [default: 10; ImageNet: 1000]"),
        click.option(
            "--set",
            metavar="KEY=VALUE",
            multiple=True,
            help="Setting of a network of your own.",
        ),
        setting_options(*NAMES, net=str(SETTINGS["net"].default)),
    ):
        command = option(command)
    return command


def make_network(
    classes: int | None, image_size: int | None, dtype: str = "float32", **options: Any
) -> tuple[Network, tuple[int, int, int]]:
    """Return the network that the options describe, and the shape of its images.

    Raises:
        ConfigError: there is no such network or setting, or image_size is below 1.
    """
    from igcnn.errors import ConfigError
    from igcnn.networks import NETWORKS, build_network

    assignments = options.pop("set", ())
    given = {name: value for name, value in options.items() if value is not None}
    net = given.pop("net", SETTINGS["net"].default)
    for name, text in map(split_assignment, assignments):
        given[name] = NETWORKS[net].convert(name, text)
    network = build_network(net, **{"num_classes": classes, **given}, dtype=dtype)
    side = network.image_size if image_size is None else image_size
    if side < 1:
        raise ConfigError(f"--image-size must be at least 1, not {side}")
    return network, (3, side, side)


def refuse_options(checkpoint: str, options: dict[str, Any]) -> None:
    """Raise ConfigError if an option of a network is given beside a checkpoint."""
    from igcnn.errors import ConfigError

    given = [f"--{n.replace('_', '-')}" for n, x in options.items() if x not in (None, ())]
    if given:
        raise ConfigError(
            f"{checkpoint} already determines the network; leave out {', '.join(given)}"
        )


def settings_line(network: Network) -> str:
    """Return the network's settings in a line, or more where the terminal is narrow."""
    pairs = (f"{name}{NO_BREAK}{value}" for name, value in network.settings.items())
    return wrap_line("  ".join(pairs), terminal_width(), indent=0)
