"""`igcnn train --dry-run`: settings, network, memory and time of a training that is not begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import click

from igcnn.settings import NETWORK, SETTINGS
from igcnn.text import NONE, duration, table_lines, terminal_width, wrap_line

if TYPE_CHECKING:
    from igcnn.training import Fit
    from igcnn.training.preview import Preview


SHORT = 10.0  # seconds


def show(fit: Fit, sources: Mapping[str, str]) -> None:
    """Print what a training would do and take.

    Args:
        fit: the training.
        sources: name of a setting → where its value is from.
    """
    width = terminal_width()
    for line in _settings_lines(fit, sources):
        click.echo(wrap_line(line, width, len(line) - len(line.lstrip())))
    lines, preview = fit.preview()
    click.echo()
    for line in [*lines, *_preview_lines(preview)]:
        click.echo(wrap_line(line, width))


def _settings_lines(fit: Fit, sources: Mapping[str, str]) -> list[str]:
    """Return a table of all settings: name, value, where it is from."""
    from igcnn.training import Recipe
    from igcnn.training.runs import setting_text

    # what network and recipe leave open means nothing to them
    decided = {field.name for field in fields(Recipe)}
    decided |= {name for name, setting in SETTINGS.items() if setting.group == NETWORK}
    rows = [("setting", "value", "from")]
    for name, value in fit.effective_settings().items():
        text = setting_text(value)
        if value is None and name in SETTINGS and name not in decided:
            text = SETTINGS[name].default_text() or NONE
        rows.append((name, text, sources.get(name, "default")))
    return table_lines(rows, (False, False, False))


def _time(seconds: float) -> str:
    """Return an estimated time, with its unit if it is short."""
    if seconds >= SHORT:
        return duration(seconds)
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _preview_lines(preview: Preview) -> list[str]:
    epoch, total = preview.epoch_seconds, preview.epochs * preview.epoch_seconds
    return [
        f"backend     {preview.backend}",
        f"epoch       about {_time(epoch)}: {preview.updates:,} updates of "
        f"{_time(preview.update_seconds)}, test {_time(preview.test_seconds)}",
        f"run         about {_time(total)} for {preview.epochs} epochs, without checkpoints",
        "dry run     nothing was written; leave out --dry-run to train",
    ]
