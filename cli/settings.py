"""Where the settings of a training run come from, in order of precedence.

default < preset < --config FILE.toml < environment IGCNN_* < flags < --set
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from igcnn.errors import ConfigError
from igcnn.settings import SETTINGS

# read elsewhere, or by the programs in benchmarks/
OTHER_VARIABLES = {
    f"IGCNN_{name}"
    for name in ("COMPILED", "CUBINS", "DATA_SOURCES", "DEBUG", "OFFLINE", "SANITIZE")
}


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
    from igcnn.training.combine import combine

    return combine(given_settings(flags, assignments, config, resumed, environment))


def given_settings(
    flags: Mapping[str, Any],
    assignments: Iterable[str] = (),
    config: str | None = None,
    resumed: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return (source, name → value) in rising precedence; see collect.

    Raises:
        ConfigError: --config cannot be read, or an assignment has no equals sign.
    """
    return [
        ("config.toml of the run", resumed or {}),
        (config or "", _read(config) if config else {}),
        ("environment", _of_environment(environment)),
        ("flags", flags),
        ("--set", dict(map(split_assignment, assignments))),
    ]


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read --config {path}: {error.strerror}; give a TOML file"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"cannot parse --config {path}: {error}; expected TOML such as lr = 0.1"
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
            lines.append(f"igcnn: {name} is not a setting and has no effect{hint}")
    return lines


def split_assignment(assignment: str) -> tuple[str, str]:
    """Return name and value of a text such as batch-size=64.

    Raises:
        ConfigError: it has no equals sign.
    """
    name, equals, value = assignment.partition("=")
    if not equals:
        raise ConfigError(f"--set takes key=value, not {assignment!r}; for example --set lr=0.05")
    return name.strip().replace("-", "_"), value.strip()
