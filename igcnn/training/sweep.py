"""Several settings trained alike: which combinations there are, and what they come to."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import write_atomically
from ..networks import build_network
from ..text import table_lines
from .checkpoint import load_checkpoint
from .run_directory import RunDirectory
from .seeds import SUMMARISED, mean_text, seed_directory, summarise_seeds

Point = dict[str, str]  # name → text of the settings that are varied


def grid(values: Mapping[str, Sequence[str]]) -> list[Point]:
    """Return every combination of values, the last name varying fastest."""
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def point_directory(folder: Path, point: Point) -> Path:
    """Return the directory of a point: its settings, such as L24-M2."""
    name = "-".join(f"{key}{value}" for key, value in point.items())
    return folder / re.sub(r"[^\w.,+-]", "_", name)


def summarise_sweep(
    folder: Path, points: Sequence[Point], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Return for each point its settings, parameters, and what its runs came to.

    Args:
        folder: has a directory for each point, which has a run for each seed.
        points: all must have ended.
        seeds: of the runs.

    Raises:
        CheckpointError: the result or the checkpoint of a run cannot be read.
    """
    rows = []
    for point in points:
        own = point_directory(folder, point)
        run = RunDirectory(seed_directory(own, seeds[0]))
        network = build_network(**load_checkpoint(run.last).network)
        parameters = sum(tensor.size for tensor in network.parameters())
        summary = summarise_seeds(own, seeds)
        rows.append({"settings": point, "parameters": parameters, **summary})
    return rows


def write_sweep(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows to sweep.json in the folder and return its path."""
    path = folder / "sweep.json"
    write_atomically(path, f"{json.dumps(rows, indent=2)}\n".encode())
    return path


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table: a row a point."""
    names = list(rows[0]["settings"])
    table: list[tuple[str, ...]] = [(*names, "parameters", "best top-1, %", "last top-1, %")]
    for row in rows:
        means = (mean_text(row[name]) for name in SUMMARISED)
        table.append((*row["settings"].values(), f"{row['parameters']:,}", *means))
    return table_lines(table, [True] * len(table[0]))


def draw_sweep(rows: Sequence[Mapping[str, Any]], name: str, output: Path) -> None:
    """Draw accuracy after the last epoch against a setting, with the deviation over the seeds.

    Args:
        rows: of summarise_sweep.
        name: of the setting; numbers are drawn to scale. Points that differ in others are other
            lines.
        output: .png, .svg or .pdf.

    Raises:
        ConfigError: matplotlib is not there, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError('a picture needs matplotlib: pip install "igcnn[plot]"') from error
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        others = {k: v for k, v in row["settings"].items() if k != name}
        # with a budget each L has its M: that is one line
        label = "" if len(rows) == len({r["settings"][name] for r in rows}) else _label(others)
        lines.setdefault(label, []).append(row)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for label, own in lines.items():
        x = [_number(row["settings"][name]) for row in own]
        mean = [row["last_top1"]["mean"] for row in own]
        spread = [row["last_top1"]["std"] or 0.0 for row in own]
        axes.errorbar(x, mean, spread, marker="o", capsize=3, label=label or None)
        for place, y, row in zip(x, mean, own, strict=True):
            if not label:
                others = {k: v for k, v in row["settings"].items() if k != name}
                axes.annotate(
                    _label(others),
                    (place, y),
                    xytext=(5, 5),
                    textcoords="offset points",
                    fontsize="x-small",
                )
    axes.set_xlabel(name)
    axes.set_ylabel("test top-1 after the last epoch, %")
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend(fontsize="small")
    try:
        figure.savefig(output, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {output}: {error}") from error


def _label(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
