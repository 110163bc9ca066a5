"""Which run `igcnn train` works on: a new one, or one to resume; rank 0 decides for all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from . import settings as layers

if TYPE_CHECKING:
    from igcnn.distributed import Communicator
    from igcnn.training import Checkpoint, RunDirectory


def decide_together(
    communicator: Communicator, *choices: Any
) -> tuple[dict[str, Any], RunDirectory, Checkpoint | None]:
    """Return what rank 0 decides; the checkpoint to resume from is its own matter."""
    from igcnn.training.silent_run import SilentRun

    decided = b""
    if communicator.rank == 0:
        settings, run, checkpoint = _decide(*choices)
        decided = json.dumps([settings, str(run.path)]).encode()
    with communicator.patience():
        decided = communicator.broadcast(decided)
    if communicator.rank:
        settings, path = json.loads(decided)
        run, checkpoint = SilentRun(path), None
    return settings, run, checkpoint


def _decide(
    flags: dict[str, Any],
    assignments: tuple[str, ...],
    config: str | None,
    out: str | None,
    resume: str | None,
    overwrite: bool,
    dry_run: bool,
) -> tuple[dict[str, Any], RunDirectory, Checkpoint | None]:
    """Return the settings, the run directory, and the checkpoint to resume from, if any."""
    from igcnn.training.setup import choose_run, load_to_resume, settings_to_resume
    from igcnn.training.silent_run import SilentRun

    for line in layers.unused():
        say(line)
    settings = layers.collect(flags, assignments, config)
    run, source = choose_run(settings, None, out, resume, overwrite, say)
    if dry_run:  # which writes nothing, not even a line of a log
        run = SilentRun(run.path)
    if source is None:
        return settings, run, None
    checkpoint = load_to_resume(run, source, say)
    return layers.collect(flags, assignments, config, settings_to_resume(run)), run, checkpoint


def say(line: str) -> None:
    """Print a line beside the output."""
    click.echo(line, err=True)
