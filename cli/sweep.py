"""`igcnn sweep`: the same training with several settings, and what each comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from igcnn.settings import NETWORK, RECIPE, RUN

from .choice import say
from .options import DIRECTORY, FILE, GroupedCommand, grouped_option, setting_options
from .seeds import parse_seeds, train_seeds
from .settings import collect
from .train import train_once

PARTITIONS = ("L", "M")


@click.command("sweep", cls=GroupedCommand)
@setting_options(raw=True)
@grouped_option(
    "--budget",
    group=NETWORK,
    type=click.IntRange(10),
    metavar="N",
    help="Parameters of a unit: trains every L with the M that they pay for.",
)
@grouped_option(
    "--grid",
    group=RECIPE,
    multiple=True,
    metavar="KEY=A,B,…",
    help="Values of a setting; several options: every combination. Or KEY=A;B;….",
)
@grouped_option(
    "--seeds", group=RECIPE, default="0", metavar="N,N,…", help="Seeds of each. [default: 0]"
)
@grouped_option(
    "--out", group=RUN, required=True, type=DIRECTORY, metavar="DIR", help="Where the runs go."
)
@grouped_option("--overwrite", group=RUN, is_flag=True, help="Train all of them again.")
@grouped_option("--config", group=RUN, type=FILE, metavar="FILE", help="TOML file of settings.")
@grouped_option(
    "--set",
    "assignments",
    group=RUN,
    metavar="KEY=VALUE",
    multiple=True,
    help="Any setting, over all others.",
)
def sweep_command(
    budget: int | None,
    grid: tuple[str, ...],
    seeds: str,
    out: str,
    overwrite: bool,
    config: str | None,
    assignments: tuple[str, ...],
    **flags: Any,
) -> None:
    """Train with several settings and compare them in a table and a picture.

    Each combination is trained with each seed, in OUT/SETTINGS/seedN. The same command continues
    a sweep that was interrupted: runs that have ended are kept. The table is in OUT/sweep.json as
    well, the picture in OUT/sweep.png (pip install "igcnn[plot]").

    --budget compares the widths of units with equally many parameters (IGCNets, figure 3), in
    plain_igc_equal, all stages of which have L·M channels.

    \b
    igcnn sweep --out a --grid lr=0.2,0.1,0.05 --seeds 0,1,2
    igcnn sweep --out b --net plain_igc_equal --budget 4672
    """
    from igcnn.errors import ConfigError
    from igcnn.training.sweep import (
        draw_sweep,
        point_directory,
        summarise_sweep,
        sweep_table,
        write_sweep,
    )

    points, drawn = _points(budget, grid, flags["net"])
    numbers = parse_seeds(seeds)
    places = assignments, config
    for given in points:  # refuses all that is wrong before anything is trained
        collect(flags | given, *places)
    for i, given in enumerate(points, 1):
        folder = point_directory(Path(out), given)
        say(f"igcnn: {i} of {len(points)}: {folder.name}")
        _train_point(flags | given, places, seeds, folder, overwrite)
    rows = summarise_sweep(Path(out), points, numbers)
    for line in [*sweep_table(rows), f"written to {write_sweep(Path(out), rows)}"]:
        click.echo(line)
    picture = Path(out) / "sweep.png"
    try:
        draw_sweep(rows, drawn, picture)
        click.echo(f"drawn in {picture}")
    except ConfigError as error:
        say(f"igcnn: {error}")


def _train_point(
    flags: dict[str, Any],
    places: tuple[tuple[str, ...], str | None],
    seeds: str,
    folder: Path,
    overwrite: bool,
) -> None:
    """Train with each seed in FOLDER/seedN what has not ended there."""
    from igcnn.communicator import Communicator

    again = None if overwrite else "auto"

    def settings(seed: int) -> dict[str, Any]:
        return collect(flags | {"seed": str(seed)}, *places)

    def train(seed: int, path: str) -> None:
        own = flags | {"seed": str(seed)}
        train_once(Communicator(), own, *places, path, again, overwrite, False)

    train_seeds(Communicator(), seeds, str(folder), None, overwrite, settings, train)


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
        raise ConfigError("a sweep varies something: give --grid KEY=A,B,… or --budget N")
    points = grid(values)
    if budget is None:
        return points, next(iter(values))
    if (net or "").lower() != "plain_igc_equal" or set(PARTITIONS) & set(values):
        raise ConfigError("--budget is for --net plain_igc_equal and varies L and M itself")
    # the widest unit of each L
    pairs = {L: M for L, M in candidates(budget)}
    partitions = [{"L": str(L), "M": str(M)} for L, M in sorted(pairs.items())]
    return [pair | point for pair in partitions for point in points], "L"
