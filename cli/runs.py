"""`igcnn runs` and `igcnn plot`: what was trained, and how it went."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("runs")
@click.argument("folder", default="runs")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def runs_command(folder: str, as_json: bool) -> None:
    """List the runs below a folder: state, epoch, best test accuracy, time.

    A run is done, running (a process trains in it now), or stopped; what was stopped goes on by
    igcnn train --resume.
    """
    from igcnn.errors import ConfigError
    from igcnn.text import duration
    from igcnn.training.runs import find_runs

    if not Path(folder).is_dir():
        raise ConfigError(f"there is no folder {folder}; give the one that holds runs")
    found = find_runs(Path(folder))
    if as_json:
        click.echo(json.dumps([run.to_json() for run in found]))
        return
    if not found:
        click.echo(f"no runs in {folder}")
        return
    width = max(len(str(run.path)) for run in found)
    click.echo(f"{'run':{width}}  state    epoch      best top-1   last top-1  time")
    for run in found:
        best, last = (
            "–" if value is None else f"{value:.2f} %" for value in (run.best_top1, run.last_top1)
        )
        epoch = f"{run.epoch}/{run.epochs}"
        click.echo(
            f"{run.path!s:{width}}  {run.state:8} {epoch:9} {best:>11} {last:>12}  "
            f"{duration(run.seconds)}"
        )


@click.command("plot")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…")
@click.option("-o", "--output", default="curves.png", show_default=True, metavar="FILE")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def plot_command(runs: tuple[str, ...], output: str, overwrite: bool) -> None:
    """Draw loss and accuracy of runs into one picture, .png, .svg or .pdf.

    \b
    pip install "igcnn[plot]"
    igcnn plot runs/cifar10/*/*
    """
    from igcnn.errors import ConfigError
    from igcnn.training.runs import draw_runs

    path = Path(output)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; choose another -o, or --overwrite it")
    draw_runs([Path(run) for run in runs], path)
    click.echo(path)
