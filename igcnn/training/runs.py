"""Runs on disk: found, told apart, drawn."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .run_directory import RunDirectory


@dataclass(frozen=True)
class RunSummary:
    """How a run went.

    Attributes:
        path: its folder.
        state: "done", "running" or "stopped".
        epoch: epochs done.
        epochs: epochs wanted.
        best_top1: best test accuracy in percent, None before the first epoch.
        last_top1: that after the last epoch.
        seconds: duration.
    """

    path: Path
    state: str
    epoch: int
    epochs: int
    best_top1: float | None
    last_top1: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return asdict(self) | {"path": str(self.path)}


def find_runs(folder: Path) -> list[RunSummary]:
    """Return the runs below a folder by name; what cannot be read is left out."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        if "config.toml" in files and "checkpoints" in folders:
            folders.clear()
            try:
                found.append(_summary(RunDirectory(parent)))
            except (ConfigError, ValueError, KeyError, TypeError):
                continue
    return found


def _summary(run: RunDirectory) -> RunSummary:
    epochs = int(run.read_config()["epochs"])
    rows, steps = run.read_epochs(), run.read_steps()
    accuracies = [row["test_top1"] for row in rows]
    done = int(rows[-1]["epoch"]) if rows else 0
    running = "running" if run.is_running() else "stopped"
    return RunSummary(
        run.path,
        "done" if done >= epochs else running,
        done,
        epochs,
        max(accuracies, default=None),
        accuracies[-1] if rows else None,
        max((row["seconds"] for row in [*rows[-1:], *steps[-1:]]), default=0.0),
    )


def draw_runs(paths: list[Path], output: Path) -> None:
    """Draw training loss and test accuracy of runs over the epochs.

    Raises:
        ConfigError: matplotlib is not there, a path is no run, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError('igcnn plot needs matplotlib: pip install "igcnn[plot]"') from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for path in paths:
        run = RunDirectory(path)
        if not run.is_run():
            raise ConfigError(f"{path} is no folder of a run; give one that has a config.toml")
        rows = run.read_epochs()
        epochs = [row["epoch"] for row in rows]
        (line,) = losses.plot(epochs, [row["train_loss"] for row in rows], label=str(path))
        losses.plot(epochs, [row["test_loss"] for row in rows], "--", color=line.get_color())
        accuracies.plot(epochs, [row["test_top1"] for row in rows], label=str(path))
    for axes, title in ((losses, "loss: training –, test - -"), (accuracies, "test top-1, %")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    losses.set_yscale("log")
    accuracies.legend(fontsize="small")
    try:
        figure.savefig(output, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {output}: {error}; choose another -o") from error
