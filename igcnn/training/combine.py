"""Every setting of a run with its value, from all the places where it may be given."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..kinds import BY_TYPE
from ..networks import NETWORKS
from ..settings import NETWORK, SETTINGS, Setting
from .recipe import OF_ONE_SCHEDULE, Recipe, preset_settings


def network_settings(net: str) -> dict[str, Setting]:
    """Return the settings that may describe a network: those in SETTINGS, and its own.

    Its own are the keywords of its builder, if it was registered; see register_network.

    Raises:
        ConfigError: there is no such network, or one of its own settings is one of training.
    """
    settings = {name: x for name, x in SETTINGS.items() if x.group == NETWORK and name != "net"}
    for name, default in NETWORKS[net].defaults.items():
        if name in SETTINGS and name not in settings:
            raise ConfigError(
                f"the network {net} has a setting {name}, which training has too; rename that "
                "keyword of its builder"
            )
        if name != "num_classes" and name not in settings:
            kind = BY_TYPE[type(default)]
            settings[name] = Setting(name, kind, NETWORK, f"Setting of {net}.")
    return settings


def find_setting(name: str, source: str, net: str | None = None) -> Setting:
    """Return the setting of a name.

    Args:
        name: with underscores.
        source: where it was given, for the error.
        net: the network, whose own settings count too; None for none.

    Raises:
        ConfigError: there is no such setting.
    """
    if name in SETTINGS:
        return SETTINGS[name]
    known = SETTINGS | network_settings(net) if net else SETTINGS
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(
        f"unknown setting {name!r} ({source}): {hint}choose one of {', '.join(known)}"
    )


def combine(
    layers: Sequence[tuple[str, Mapping[str, Any]]], dataset: str | None = None
) -> dict[str, Any]:
    """Return every setting with its value; see combine_with_sources."""
    return {name: value for name, (value, _) in combine_with_sources(layers, dataset).items()}


def combine_with_sources(
    layers: Sequence[tuple[str, Mapping[str, Any]]], dataset: str | None = None
) -> dict[str, tuple[Any, str]]:
    """Return every setting with its value and where that is from.

    A value comes from the last layer that has one, or else the preset's or the default.

    Args:
        layers: (source, name → value) in rising precedence; None stands for no value.
        dataset: name of an existing data set, instead of what the layers say.

    Raises:
        ConfigError: an unknown name, or a value of the wrong kind.
    """
    net = SETTINGS["net"].default
    for source, layer in layers:
        net = _network_of(layer, source, net)
    given: dict[str, tuple[Any, str]] = {}
    for source, layer in layers:
        if layer.get("schedule") is not None:
            schedule = SETTINGS["schedule"].convert(layer["schedule"], source)
            _drop_constants_of_another_schedule(given, (schedule, source))
        foreign = _foreign(_network_of(layer, source, net), net)
        if dataset is not None:  # whose name need not be registered
            foreign.add("dataset")
        for name, value in layer.items():
            if value is not None and name not in foreign:
                given[name] = find_setting(name, source, net).convert(value, source), source
    defaults = {name: (setting.default, "default") for name, setting in SETTINGS.items()}
    if dataset is not None:
        given["dataset"] = dataset, "the data set"
    chosen = defaults | given
    preset = {
        name: (value, "preset")
        for name, value in preset_settings(chosen["preset"][0], chosen["dataset"][0]).items()
    }
    _drop_constants_of_another_schedule(preset, given.get("schedule"))
    return defaults | preset | given


def _drop_constants_of_another_schedule(
    below: dict[str, tuple[Any, str]], chosen: tuple[Any, str] | None
) -> None:
    """Remove what only the schedule below has if another is chosen above."""
    before, _ = below.get("schedule", (Recipe.schedule, ""))
    if chosen is not None and chosen[0] != before:
        for name in OF_ONE_SCHEDULE:
            below.pop(name, None)


def _network_of(layer: Mapping[str, Any], source: str, otherwise: str) -> str:
    given = layer.get("net")
    return otherwise if given is None else str(SETTINGS["net"].convert(given, source))


def _foreign(other: str, net: str) -> set[str]:
    """Return the settings of another network that mean nothing to this one."""
    return set() if other == net else set(NETWORKS[other].defaults) - set(NETWORKS[net].defaults)
