"""The settings of a training run and the places they come from.

default < preset < --config FILE.toml < environment IGCNN_* < flags < --set
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from igcnn.errors import ConfigError


def integer(value: object) -> int:
    """Return a value as an integer."""
    if isinstance(value, str):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def natural(value: object) -> int:
    """Return a value as an integer from 0 up."""
    result = integer(value)
    if result < 0:
        raise ValueError
    return result


def positive(value: object) -> int:
    """Return a value as an integer from 1 up."""
    result = integer(value)
    if result < 1:
        raise ValueError
    return result


def number(value: object) -> float:
    """Return a value as a floating-point number."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError


def positive_number(value: object) -> float:
    """Return a value as a number above 0."""
    result = number(value)
    if not result > 0:
        raise ValueError
    return result


def text(value: object) -> str:
    """Return a text that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise ValueError


def integers(value: object) -> list[int]:
    """Return integers; in one text they are separated by commas, and "none" is the empty list."""
    if isinstance(value, str):
        return [] if value == "none" else [int(part) for part in value.split(",")]
    if isinstance(value, list):
        return [integer(part) for part in value]
    raise ValueError


def boolean(value: object) -> bool:
    """Return a truth value; in text it is "true" or "false"."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError


WHAT = {
    integer: "an integer",
    natural: "an integer from 0 up",
    positive: "an integer from 1 up",
    number: "a number",
    positive_number: "a number above 0",
    text: "a text",
    integers: "integers separated by commas",
    boolean: "true or false",
}

# None: decided elsewhere (by the network, the preset or the recipe) unless it is given
SETTINGS: dict[str, tuple[Callable[[object], Any], Any]] = {
    "net": (text, "resnet_igc"),
    "depth": (integer, None),
    "L": (integer, None),
    "M": (integer, None),
    "fusion": (text, None),
    "growth": (text, None),
    "dataset": (text, "digits"),
    "data_dir": (text, None),
    "image_size": (positive, None),
    "workers": (natural, None),
    "on_bad_image": (text, "fail"),
    "preset": (text, None),
    "epochs": (integer, None),
    "batch_size": (integer, None),
    "lr": (number, None),
    "lr_steps": (integers, None),
    "lr_factor": (number, None),
    "momentum": (number, None),
    "weight_decay": (number, None),
    "seed": (natural, 0),
    "device": (text, "auto"),
    "precision": (text, "fp32"),
    "cores": (positive, None),
    "eager": (boolean, False),
    "sync_bn": (boolean, False),
    "reduce": (text, "auto"),
    "rank_timeout": (positive_number, 6.0),
    "max_steps": (integer, None),
    "log_interval": (integer, 20),
    "checkpoint_epochs": (integer, 1),
    "checkpoint_steps": (integer, None),
    "tensorboard": (boolean, False),
    "progress": (text, "auto"),
}

# read elsewhere, or by the programs in benchmarks/
OTHER_VARIABLES = {
    f"IGCNN_{name}"
    for name in ("COMPILED", "CUBINS", "DATA_SOURCES", "DEBUG", "OFFLINE", "SANITIZE")
}
NETWORK = ("net", "depth", "L", "M", "fusion", "growth", "seed")
RECIPE = ("epochs", "batch_size", "lr", "lr_steps", "lr_factor", "momentum", "weight_decay")


def collect(
    flags: Mapping[str, Any],
    assignments: Iterable[str] = (),
    config: str | None = None,
    resumed: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Return every setting with its value by precedence.

    Args:
        flags: name → text of each flag, None where it was not given.
        assignments: key=value texts of --set.
        config: path of a TOML file, None for none.
        resumed: settings of the run that is resumed; they rank just below the TOML file.
        environment: variables.

    Raises:
        ConfigError: an unknown name or a value of the wrong kind.
    """
    layers = [
        ("config.toml of the run", resumed or {}),
        (config or "", _read(config) if config else {}),
        ("environment", _of_environment(environment)),
        ("flags", {name: value for name, value in flags.items() if value is not None}),
        ("--set", dict(_split(assignment) for assignment in assignments)),
    ]
    given: dict[str, Any] = {}
    for source, layer in layers:
        for name, value in layer.items():
            given[name] = convert(name, value, source)
    defaults = {name: default for name, (_, default) in SETTINGS.items()}
    return defaults | preset(defaults | given) | given


def preset(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the preset that `settings` names, or that its data set has."""
    from igcnn.training import preset_settings

    return preset_settings(settings["preset"], settings["dataset"])


def convert(name: str, value: object, source: str) -> Any:
    """Return a value as the setting's type.

    Raises:
        ConfigError: there is no such setting, or the value is of another kind.
    """
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"unknown setting {name!r} ({source}): {hint}choose one of {', '.join(SETTINGS)}"
        )
    kind, _ = SETTINGS[name]
    try:
        return kind(value)
    except ValueError as error:
        raise ConfigError(f"{name} must be {WHAT[kind]}, not {value!r} ({source})") from error


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read --config {path}: {error.strerror}; give a TOML file"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"--config {path} is no TOML file: {error}; lines are like lr = 0.1"
        ) from error


def _of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    variables = {f"IGCNN_{name.upper()}": name for name in SETTINGS}
    return {name: environment[v] for v, name in variables.items() if environment.get(v)}


def unused(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return a line for each variable IGCNN_… that nothing reads."""
    known = {f"IGCNN_{name.upper()}" for name in SETTINGS} | OTHER_VARIABLES
    lines = []
    for name in sorted(set(environment) - known):
        if name.startswith("IGCNN_"):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            lines.append(f"igcnn: {name} is no setting and changes nothing{hint}")
    return lines


def _split(assignment: str) -> tuple[str, str]:
    name, equals, value = assignment.partition("=")
    if not equals:
        raise ConfigError(f"--set takes key=value, not {assignment!r}; for example --set lr=0.05")
    return name.strip().replace("-", "_"), value.strip()
