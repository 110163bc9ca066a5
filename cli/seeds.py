"""`igcnn train --seeds 0,1,2`: one run after the other, and what they come to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igcnn.errors import ConfigError
from igcnn.settings import DATA, NETWORK, RECIPE, SETTINGS

from .choice import say

if TYPE_CHECKING:
    from igcnn.distributed import Communicator
    from igcnn.training import RunDirectory

GROUPS = NETWORK, DATA, RECIPE
PATHS = "data_dir", "init_from"  # which config.toml has in full


def parse_seeds(text: str) -> list[int]:
    """Return the seeds in "0,1,2".

    Raises:
        ConfigError: these are not integers from 0 up, each once.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds takes integers from 0 up, each once, not {text!r}; like 0,1,2")
    return seeds


def train_seeds(
    communicator: Communicator,
    text: str,
    out: str | None,
    resume: str | None,
    overwrite: bool,
    collect: Callable[[int], dict[str, Any]],
    train: Callable[[int, str], None],
) -> None:
    """Train with each seed in OUT/seedN and print what the runs come to.

    A run that has ended is left as it is, one that was interrupted is resumed.

    Args:
        communicator: connects the ranks.
        text: the seeds.
        out: OUT.
        resume: what --resume said.
        overwrite: train all of them again.
        collect: returns the settings for a seed.
        train: trains with a seed in a run directory, resuming an existing run.

    Raises:
        ConfigError: the options contradict each other, or a run that has ended has other
            settings.
    """
    from igcnn.training import RunDirectory
    from igcnn.training.seeds import seed_directory, seed_table, summarise_seeds, write_summary

    seeds = parse_seeds(text)
    if out is None or resume is not None:
        raise ConfigError(
            "--seeds needs --out for the directory of its runs and does not take --resume; run "
            "the same command again to resume them"
        )
    for seed in seeds:
        run = RunDirectory(seed_directory(Path(out), seed))
        ended = b""
        if communicator.rank == 0 and not overwrite and has_ended(run, collect(seed)):
            ended = b"ended"
        if not communicator.broadcast(ended):
            train(seed, str(run.path))
    if communicator.rank == 0:
        summary = summarise_seeds(Path(out), seeds)
        path = write_summary(Path(out), summary)
        for line in [*seed_table(summary), f"written to {path}; ±: sample deviation (n − 1)"]:
            click.echo(line)


def has_ended(run: RunDirectory, settings: dict[str, Any]) -> bool:
    """Return whether a run has ended, and say so.

    Raises:
        ConfigError: it was trained with other settings.
    """
    if not run.result.is_file():
        return False
    before = run.read_config()
    for name, value in settings.items():
        relevant = name in SETTINGS and SETTINGS[name].group in GROUPS and name not in PATHS
        if relevant and SETTINGS[name].recorded and value is not None:
            own = before.get(name)
            if own != value:
                raise ConfigError(
                    f"{run.path} was trained with {name} = {own}, not {value}; choose another "
                    "--out, or --overwrite"
                )
    say(f"igcnn: {run.path} is complete and kept")
    return True
