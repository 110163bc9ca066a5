"""The same training with several seeds: what it comes to on average, and how much it varies."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import write_atomically
from ..text import table_lines
from .run_directory import RunDirectory

SUMMARISED = ("best_top1", "last_top1")


def seed_directory(folder: Path, seed: int) -> Path:
    """Return the run directory of a seed."""
    return folder / f"seed{seed}"


def summarise_seeds(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Return what the finished runs of some seeds came to, in percent on the test images.

    The standard deviation of the sample has the square Σ(x − mean)²/(n − 1). It is None
    for one seed.

    Args:
        folder: has a run directory for each seed.
        seeds: of the runs; all must have ended.

    Raises:
        CheckpointError: the result of a run cannot be read.
    """
    runs = []
    for seed in seeds:
        path = RunDirectory(seed_directory(folder, seed)).result
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            runs.append({"seed": seed} | {name: float(result[name]) for name in SUMMARISED})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"cannot read {path}: {error}; delete the run and train it again"
            ) from error
    summary: dict[str, Any] = {"seeds": runs}
    for name in SUMMARISED:
        values = [run[name] for run in runs]
        std = statistics.stdev(values) if len(values) > 1 else None
        summary[name] = {"mean": statistics.fmean(values), "std": std}
    return summary


def write_summary(folder: Path, summary: dict[str, Any]) -> Path:
    """Write the summary to seeds.json in the folder and return its path."""
    path = folder / "seeds.json"
    write_atomically(path, f"{json.dumps(summary, indent=2)}\n".encode())
    return path


def seed_table(summary: dict[str, Any]) -> list[str]:
    """Return the lines of a table: one row per seed, then mean ± standard deviation."""
    rows: list[tuple[str, ...]] = [("seed", "best top-1", "last top-1")]
    for run in summary["seeds"]:
        rows.append((str(run["seed"]), *(f"{run[name]:.2f} %" for name in SUMMARISED)))
    rows.append(("mean", *(f"{mean_text(summary[name])} %" for name in SUMMARISED)))
    return table_lines(rows, [True] * len(rows[0]))


def mean_text(value: Mapping[str, float | None]) -> str:
    """Return a mean of a summary, with its standard deviation if it has one."""
    mean, std = value["mean"], value["std"]
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"
