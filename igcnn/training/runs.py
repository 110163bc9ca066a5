"""Runs on disk: found, compared, drawn.

`draw_runs` compares runs in one picture and needs matplotlib. The curves.svg in each run's
directory (curves.py) is drawn without it, after every epoch, on computers that only train.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..settings import SETTINGS
from ..text import NONE
from .epoch import NAMES
from .metrics import held_out
from .recipe import Recipe
from .run_directory import RunDirectory
from .run_folders import dataset_label

Settings = dict[str, Any]


@dataclass(frozen=True)
class RunSummary:
    """How a run went.

    Attributes:
        path: its folder.
        state: "done", "running" or "stopped"; a run that --max-steps or --patience ended is
            done.
        epoch: epochs done.
        epochs: epochs wanted.
        best_top1: best accuracy on the test images or, where a run has them, the validation
            images, in percent; None before the first epoch.
        last_top1: that after the last epoch.
        seconds: duration.
        settings: recorded in config.toml, without what follows from the others.
        rows: of metrics.csv, one an epoch.
    """

    path: Path
    state: str
    epoch: int
    epochs: int
    best_top1: float | None
    last_top1: float | None
    seconds: float
    settings: Settings
    rows: list[dict[str, float]] = field(repr=False)

    def epochs_to(self, top1: float) -> int | None:
        """Return the first epoch after which that accuracy was at least `top1` percent."""
        reached = (int(row["epoch"]) for row in self.rows if _top1(row) >= top1)
        return next(reached, None)

    def to_json(self) -> dict[str, Any]:
        """Return the values for JSON."""
        values = asdict(self) | {"path": str(self.path)}
        del values["rows"]
        return values


def find_runs(folder: Path) -> list[RunSummary]:
    """Return the runs below a folder by name; what cannot be read is left out."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        if "config.toml" in files and "checkpoints" in folders:
            folders.clear()
            try:
                found.append(read_run(Path(parent)))
            except ConfigError:
                continue
    return found


def read_run(path: Path) -> RunSummary:
    """Return how the run in a folder went.

    Raises:
        ConfigError: there is no run, or its files are damaged.
    """
    run = RunDirectory(path)
    if not run.is_run():
        raise ConfigError(f"{path} is not a run directory; give one that has a config.toml")
    config = run.read_config()
    try:
        epochs = int(config["epochs"])
        rows, steps = run.read_epochs(), run.read_steps()
        accuracies = [_top1(row) for row in rows]
        done = int(rows[-1]["epoch"]) if rows else 0
        seconds = max((row["seconds"] for row in [*rows[-1:], *steps[-1:]]), default=0.0)
        settings = _telling(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the files of the run in {path} are damaged: {error!r}") from error
    return RunSummary(
        path,
        _state(run, done >= epochs),
        done,
        epochs,
        max(accuracies, default=None),
        accuracies[-1] if rows else None,
        seconds,
        settings,
        rows,
    )


def _top1(row: Mapping[str, float]) -> float:
    return row[f"{held_out(row)}_top1"]


def _state(run: RunDirectory, finished: bool) -> str:
    if finished or run.result.is_file():
        return "done"
    return "running" if run.is_running() else "stopped"


def _telling(config: Settings) -> Settings:
    """Return the settings of a run by name, without those that follow from others."""
    values = {name: setting.default for name, setting in SETTINGS.items() if setting.recorded}
    values |= config
    usual = Recipe(config["epochs"], schedule=config.get("schedule", Recipe.schedule))
    if tuple(config.get("lr_steps", ())) == usual.lr_steps:
        values["lr_steps"] = None  # as by default for these epochs
    if config.get("lr_factor") == usual.lr_factor:
        values["lr_factor"] = None
    values["dataset"] = dataset_label(values["dataset"], values["data_dir"])
    return values


def differing(runs: Sequence[RunSummary]) -> list[str]:
    """Return the names of the settings that are not the same in all runs."""
    names = [*SETTINGS, *sorted({name for run in runs for name in run.settings} - set(SETTINGS))]
    return [name for name in names if len({_comparable(run, name) for run in runs}) > 1]


def _comparable(run: RunSummary, name: str) -> str:
    """Return a setting's value as text that is the same for the same value."""
    value = run.settings.get(name)
    if value is None and name in SETTINGS:
        return SETTINGS[name].default_text()
    return setting_text(value)


def setting_text(value: object) -> str:
    """Return the value of a setting in a table; NONE stands for the default."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def labels(runs: Sequence[RunSummary]) -> list[str]:
    """Return a name for each run: what its settings differ in, and its folder where needed."""
    texts = []
    for run in runs:
        values = {name: run.settings.get(name) for name in differing(runs)}
        given = {name: value for name, value in values.items() if value is not None}
        texts.append(", ".join(f"{name} {setting_text(value)}" for name, value in given.items()))
    result = []
    for run, text in zip(runs, texts, strict=True):
        if texts.count(text) > 1 or not text:
            text = f"{text} ({run.path.name})" if text else run.path.name
        result.append(text)
    return result


def common_folder(runs: Iterable[RunSummary]) -> Path:
    """Return the folder that all runs lie in."""
    return Path(os.path.commonpath([run.path.parent for run in runs]))


def draw_runs(paths: Sequence[Path], output: Path) -> list[Path]:
    """Draw training loss and test accuracy of runs over the epochs.

    Returns:
        The runs that are not in the picture, because no epoch of theirs is done.

    Raises:
        ConfigError: matplotlib is not there, a path is not a run, no run has an epoch that is
            done, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogFormatter
    except ImportError as error:
        raise ConfigError('igcnn plot needs matplotlib: pip install "igcnn[plot]"') from error
    given = [read_run(path) for path in paths]
    runs = [run for run in given if run.rows]
    if not runs:
        raise ConfigError(
            f"nothing to plot: no epoch is complete in {', '.join(map(str, paths))}; wait for the "
            "end of an epoch"
        )
    figure = Figure(figsize=(11, 4.5 + 0.2 * len(runs)), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for run, label in zip(runs, labels(runs), strict=True):
        curves = {key: [row[key] for row in run.rows] for key in run.rows[0]}
        epochs = curves["epoch"]
        marker = "o" if len(epochs) == 1 else ""  # a line of one point is invisible
        (line,) = losses.plot(epochs, curves["train_loss"], marker=marker)
        style = {"color": line.get_color(), "marker": marker}
        on = held_out(run.rows[0])
        losses.plot(epochs, curves[f"{on}_loss"], "--", fillstyle="none", **style)
        accuracies.plot(epochs, curves[f"{on}_top1"], label=label, **style)
    name = " or ".join(sorted({NAMES[held_out(run.rows[0])] for run in runs}))
    for axes, title in (
        (losses, f"loss: training –, {name} - -"),
        (accuracies, f"{name} top-1, %"),
    ):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    losses.set_yscale("log")
    losses.yaxis.set_major_formatter(LogFormatter())
    losses.yaxis.set_minor_formatter(LogFormatter())
    figure.legend(loc="outside lower center", fontsize="small")
    try:
        figure.savefig(output, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {output}: {error}; choose another -o") from error
    return [run.path for run in given if not run.rows]
