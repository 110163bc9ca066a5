"""`igcnn runs`, `igcnn compare` and `igcnn plot`: what was trained, and how it went."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igcnn.settings import SETTINGS
from igcnn.text import NO_BREAK, NONE, duration, table_lines, terminal_width, wrap_line

from .options import DIRECTORY, FILE, GroupedCommand, Value

if TYPE_CHECKING:
    from igcnn.training.runs import RunSummary

Key = Callable[["RunSummary"], Any]

# orders of igcnn runs: the best, the shortest and the first in the alphabet come first
SORTS: dict[str, Key] = {
    "best": lambda run: _descending(run.best_top1),
    "last": lambda run: _descending(run.last_top1),
    "time": lambda run: run.seconds,
    "name": lambda run: str(run.path),
}


@click.command("runs", cls=GroupedCommand)
@click.argument("folder", default="runs", type=DIRECTORY)
@click.option(
    "--sort",
    default="name",
    show_default=True,
    metavar="KEY",
    type=Value(lambda: (*SORTS, *SETTINGS)),
    help="best, last, time, name or a setting.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with all settings.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def runs_command(folder: str, sort: str, as_json: bool, as_csv: bool) -> None:
    """List runs and how their settings differ.

    FOLDER holds the runs, at any depth. Best and last are test accuracies in percent.

    A run is done, running (a process trains in it now), or stopped; igcnn train --resume
    continues a run that was stopped.

    \b
    igcnn runs --sort best
    igcnn runs runs/cifar10 --sort lr --csv > runs.csv
    """
    from igcnn.errors import ConfigError
    from igcnn.training.runs import differing, find_runs

    if as_json and as_csv:
        raise ConfigError("--json and --csv cannot be combined; pass one of them")
    if not Path(folder).is_dir():
        raise ConfigError(f"{folder} is not a directory; pass one that contains runs")
    found = find_runs(Path(folder))
    found.sort(key=_sort_key(sort, found))
    names = differing(found)
    if as_json:
        click.echo(json.dumps([run.to_json() for run in found]))
    elif as_csv:
        _print_csv(found, names)
    elif found:
        # the column of epochs tells how many are wanted
        _print_runs(found, [name for name in names if name != "epochs"])
    else:
        click.echo(f"no runs in {folder}")


def _descending(value: float | None) -> tuple[bool, float]:
    """Return a sort key: large values first, None last."""
    return value is None, -(value or 0.0)


def _sort_key(name: str, runs: Sequence[RunSummary]) -> Key:
    """Return the order that --sort names; case is ignored.

    Raises:
        ConfigError: there is no such order and no such setting.
    """
    from igcnn.training.combine import find_setting

    own = {setting for run in runs for setting in run.settings}  # those of networks too
    known = {key.lower(): key for key in (*SORTS, *SETTINGS, *own)}
    name = known.get(name.lower().replace("-", "_"), name)
    if name in SORTS:
        return SORTS[name]
    if name not in own:
        find_setting(name, "--sort")

    def key(run: RunSummary) -> Any:
        value = run.settings.get(name)
        # None last, numbers by value, the rest as text
        number = isinstance(value, int | float)
        return value is None, value if number else 0, "" if number else str(value)

    return key


FIGURES = ("state", "epoch", "best", "last", "time")


def _figures(run: RunSummary) -> list[str]:
    return [
        run.state,
        f"{run.epoch}/{run.epochs}",
        _percent(run.best_top1),
        _percent(run.last_top1),
        duration(run.seconds),
    ]


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _print_runs(runs: Sequence[RunSummary], names: Sequence[str]) -> None:
    """Print a table if it fits the terminal, otherwise a block of lines for each run."""
    from igcnn.training.runs import common_folder, setting_text

    heads = [*FIGURES, *names]
    cells = [
        [*_figures(run), *(setting_text(run.settings.get(name)) for name in names)] for run in runs
    ]
    right = [False, False, *[True] * (len(heads) - 1)]
    width = terminal_width()
    parent = common_folder(runs)
    shorter = [str(run.path.relative_to(parent)) for run in runs]
    for note, paths in (("", [str(run.path) for run in runs]), (f"in {parent}:", shorter)):
        rows = [["run", *heads], *([path, *row] for path, row in zip(paths, cells, strict=True))]
        lines = table_lines(rows, right)
        if max(map(len, lines)) <= width:
            click.echo("\n".join([*([note] if note else []), *lines]))
            return
    for run, row in zip(runs, cells, strict=True):
        click.echo(run.path)
        texts = [f"{head} {cell}" for head, cell in zip(heads, row, strict=True) if cell != NONE]
        line = "  ".join(text.replace(" ", NO_BREAK) for text in texts)
        click.echo(wrap_line(f"  {line}", width, indent=2))


def _print_csv(runs: Sequence[RunSummary], names: Sequence[str]) -> None:
    fields = ("path", "state", "epoch", "epochs", "best_top1", "last_top1", "seconds")
    names = [name for name in names if name not in fields]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*fields, *names])
    for run in runs:
        settings = [run.settings.get(name) for name in names]
        writer.writerow([*(getattr(run, name) for name in fields), *settings])


@click.command("compare", cls=GroupedCommand)
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN…", type=FILE)
@click.option(
    "--reach",
    type=float,
    multiple=True,
    metavar="PERCENT",
    help="Accuracy to reach. [default: what all reached]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compare_command(runs: tuple[str, ...], reach: tuple[float, ...], as_json: bool) -> None:
    """Compare runs side by side.

    Shows the settings that differ, accuracy, time, and the epochs to reach an accuracy.

    \b
    igcnn compare runs/digits/resnet_igc-L24M2-d20/*
    igcnn compare first second --reach 90 --reach 95
    """
    from igcnn.errors import ConfigError
    from igcnn.training.runs import differing, read_run

    if len(runs) < 2:
        raise ConfigError(f"only {runs[0]} was given; pass two or more runs")
    found = [read_run(Path(run)) for run in runs]
    names = differing(found)
    bests = [run.best_top1 for run in found]
    if not reach:
        reach = (min(best or 0.0 for best in bests),) if any(bests) else ()
    if as_json:
        content = [
            run.to_json()
            | {"epochs_to": [{"top1": top1, "epoch": run.epochs_to(top1)} for top1 in reach]}
            for run in found
        ]
        click.echo(json.dumps({"differing": names, "runs": content}))
        return
    _print_comparison(found, names, reach)


def _print_comparison(
    runs: Sequence[RunSummary], names: Sequence[str], reach: Sequence[float]
) -> None:
    """Print a table with a column for each run, in parts where the terminal is too narrow."""
    from igcnn.training.runs import setting_text

    heads = ["", *names, *FIGURES, *(f"epochs to {round(top1, 2):g} %" for top1 in reach)]
    columns = [
        [
            f"[{number}]",
            *(setting_text(run.settings.get(name)) for name in names),
            *_figures(run),
            *(str(run.epochs_to(top1) or NONE) for top1 in reach),
        ]
        for number, run in enumerate(runs, 1)
    ]
    for column, run in zip(columns, runs, strict=True):
        click.echo(f"{column[0]} {run.path}")
    width = terminal_width()
    while columns:
        count = len(columns)
        while True:
            rows = list(zip(heads, *columns[:count], strict=True))
            lines = table_lines(rows, [False, *[True] * count])
            if max(map(len, lines)) <= width or count == 1:
                break
            count -= 1
        click.echo("\n" + "\n".join(lines))
        columns = columns[count:]


@click.command("plot", cls=GroupedCommand)
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", type=FILE)
@click.option("-o", "--output", default="curves.png", show_default=True, metavar="FILE", type=FILE)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def plot_command(runs: tuple[str, ...], output: str, overwrite: bool) -> None:
    """Draw loss and accuracy of runs.

    Writes one picture, .png, .svg or .pdf. The legend names each run by the settings in which
    it differs from the others.

    \b
    pip install "igcnn[plot]"
    igcnn plot runs/cifar10/*/*
    """
    from igcnn.errors import ConfigError
    from igcnn.training.runs import draw_runs

    path = Path(output)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; choose another -o, or --overwrite it")
    for run in draw_runs([Path(run) for run in runs], path):
        click.echo(f"igcnn: {run} is skipped: no epoch is complete", err=True)
    click.echo(path)
