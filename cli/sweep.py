"""`igcnn sweep`: the same training with several settings, and what each comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from igcnn.settings import NETWORK, RANKS, RECIPE, RUN

from .choice import say
from .options import (
    DIRECTORY,
    GroupedCommand,
    as_arguments,
    grouped_option,
    layer_options,
    setting_options,
)
from .pool import Task, run_pool
from .ranks import parse_gpus
from .seeds import has_ended, parse_seeds
from .settings import collect

PARTITIONS = ("L", "M")


@click.command("sweep", cls=GroupedCommand)
@setting_options(raw=True)
@grouped_option(
    "--budget",
    group=NETWORK,
    type=click.IntRange(10),
    metavar="N",
    help="Parameter budget of a unit: for each M, train the largest L.",
)
@grouped_option(
    "--grid",
    group=RECIPE,
    multiple=True,
    metavar="KEY=A,B,…",
    help="Values of a setting; repeat for combinations. Also KEY=A;B;….",
)
@grouped_option(
    "--seeds", group=RECIPE, default="0", metavar="N,N,…", help="Random seeds. [default: 0]"
)
@grouped_option(
    "--out", group=RUN, required=True, type=DIRECTORY, metavar="DIR", help="Directory of the runs."
)
@grouped_option(
    "--jobs",
    group=RANKS,
    type=click.IntRange(1),
    metavar="N",
    help="Parallel runs, which share the cores. [default: 1]",
)
@grouped_option(
    "--gpus", group=RANKS, metavar="N,N,…", help="Run one at a time on each of these GPUs."
)
@grouped_option("--overwrite", group=RUN, is_flag=True, help="Replace all runs.")
@layer_options
def sweep_command(
    budget: int | None,
    grid: tuple[str, ...],
    seeds: str,
    out: str,
    jobs: int | None,
    gpus: str | None,
    overwrite: bool,
    config: str | None,
    assignments: tuple[str, ...],
    **flags: Any,
) -> None:
    """Train with several settings and compare them in a table and a picture.

    Each combination is trained with each seed, in OUT/SETTINGS/seedN, by a process of its own:
    one after the other, --jobs at a time, or one on each of --gpus. The same command continues
    a sweep that was interrupted: runs that have ended are kept, others resumed. The table is in
    OUT/sweep.json as well, the picture in OUT/sweep.png (pip install "igcnn[plot]").

    --budget compares the widths of units with equally many parameters (IGCNets, figure 3), in
    plain_igc_equal, all stages of which have L·M channels.

    \b
    igcnn sweep --out a --grid lr=0.2,0.1,0.05 --seeds 0,1,2
    igcnn sweep --out b --net plain_igc_equal --budget 4672
    igcnn sweep --out c --grid L=8,16,24 --gpus 0,1,2,3
    """
    from igcnn.errors import ConfigError
    from igcnn.training import RunDirectory
    from igcnn.training.seeds import seed_directory
    from igcnn.training.sweep import (
        draw_sweep,
        point_directory,
        summarise_sweep,
        sweep_table,
        write_sweep,
    )

    points, drawn = _points(budget, grid, flags["net"])
    numbers = parse_seeds(seeds)
    slots = _slots(jobs, gpus, flags)
    tasks = []
    for point in points:  # refuses all that is wrong before anything is trained
        given = *assignments, *(f"{name}={value}" for name, value in point.items())
        for seed in numbers:
            settings = collect(flags, (*given, f"seed={seed}"), config)
            run = RunDirectory(seed_directory(point_directory(Path(out), point), seed))
            if not overwrite and has_ended(run, settings):
                continue
            arguments = ["train", f"--out={run.path}", *as_arguments(flags)]
            arguments += [f"--set={each}" for each in (*given, f"seed={seed}")]
            arguments += [f"--config={config}"] if config else []
            arguments += ["--overwrite" if overwrite else "--resume=auto"]
            tasks.append(Task(str(run.path.relative_to(out)), arguments))
    if code := run_pool(tasks, slots):
        raise click.exceptions.Exit(code)
    rows = summarise_sweep(Path(out), points, numbers)
    for line in [*sweep_table(rows), f"written to {write_sweep(Path(out), rows)}"]:
        click.echo(line)
    picture = Path(out) / "sweep.png"
    try:
        draw_sweep(rows, drawn, picture)
        click.echo(f"drawn in {picture}")
    except ConfigError as error:
        say(f"igcnn: {error}")


def _slots(jobs: int | None, gpus: str | None, flags: dict[str, Any]) -> list[list[str]]:
    """Return the arguments that runs get which train at the same time.

    Raises:
        ConfigError: the options contradict each other.
    """
    from igcnn.errors import ConfigError
    from igcnn.training.cores import available_cores

    chosen = parse_gpus(gpus) if gpus is not None else []
    if chosen and (jobs or flags["device"]):
        raise ConfigError("--gpus trains one run on each GPU; leave out --jobs and --device")
    count = len(chosen) or jobs or 1
    if count == 1 and not chosen:
        return [[]]
    quiet = [] if flags["progress"] else ["--progress=none"]
    cores = [] if flags["cores"] else [f"--cores={max(1, available_cores() // count)}"]
    devices = [[f"--device=cuda:{gpu}"] for gpu in chosen] or [[]] * count
    return [[*device, *cores, *quiet] for device in devices]


def _points(
    budget: int | None, grid_options: tuple[str, ...], net: str | None
) -> tuple[list[dict[str, str]], str]:
    """Return the settings of every point, and the one that the picture is drawn against.

    Raises:
        ConfigError: nothing is varied, or an option is malformed.
    """
    from igcnn.errors import ConfigError
    from igcnn.inspection.composed import candidates
    from igcnn.training.sweep import grid

    values: dict[str, list[str]] = {}
    for text in grid_options:
        name, equals, listed = text.partition("=")
        name = name.strip().replace("-", "_")
        choices = [v.strip() for v in listed.split(";" if ";" in listed else ",")]
        if not equals or not all(choices) or name == "seed" or name in values:
            raise ConfigError(
                f"--grid takes KEY=A,B,…, each setting once and seeds by --seeds, not {text!r}; "
                "for example --grid lr=0.1,0.05"
            )
        values[name] = choices
    if budget is None and not values:
        raise ConfigError("nothing to vary; pass --grid KEY=A,B,… or --budget N")
    points = grid(values)
    if budget is None:
        return points, next(iter(values))
    if (net or "").lower() != "plain_igc_equal" or set(PARTITIONS) & set(values):
        raise ConfigError("--budget is for --net plain_igc_equal and varies L and M itself")
    # the widest unit of each L
    pairs = {L: M for L, M in candidates(budget)}
    partitions = [{"L": str(L), "M": str(M)} for L, M in sorted(pairs.items())]
    return [pair | point for pair in partitions for point in points], "L"
