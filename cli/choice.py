"""Which run `igcnn train` works on: a new one, or one to go on with; rank 0 decides for all."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igcnn.settings import NETWORK, SETTINGS

from . import settings as layers

if TYPE_CHECKING:
    from igcnn.communicator import Communicator
    from igcnn.networks import Network
    from igcnn.training import Checkpoint, Recipe, RunDirectory


def decide_together(
    communicator: Communicator, *choices: Any
) -> tuple[dict[str, Any], RunDirectory, Path | None]:
    """Return what rank 0 decides; the checkpoint to go on from is its own matter."""
    from igcnn.training.silent_run import SilentRun

    decided = b""
    if communicator.rank == 0:
        settings, run, source = _decide(*choices)
        decided = json.dumps([settings, str(run.path)]).encode()
    with communicator.patience():
        decided = communicator.broadcast(decided)
    if communicator.rank:
        settings, path = json.loads(decided)
        run, source = SilentRun(path), None
    return settings, run, source


def _decide(
    flags: dict[str, Any],
    assignments: tuple[str, ...],
    config: str | None,
    out: str | None,
    resume: str | None,
    overwrite: bool,
) -> tuple[dict[str, Any], RunDirectory, Path | None]:
    """Return the settings, the run directory, and the checkpoint to go on from, if any."""
    for line in layers.unused():
        click.echo(line, err=True)
    settings = layers.collect(flags, assignments, config)
    run, source = _choose_run(settings, out, resume, overwrite)
    if source is not None:
        # max_steps ended the session before; this one has its own
        before = {k: v for k, v in run.read_config().items() if k != "max_steps"}
        settings = layers.collect(flags, assignments, config, before)
    return settings, run, source


def load(run: RunDirectory, source: Path) -> Checkpoint:
    """Return the checkpoint to go on from: if the newest is damaged, the one before."""
    from igcnn.training import load_checkpoint, load_newest

    if source != run.last:
        return load_checkpoint(source)
    checkpoint, note = load_newest(run.last, run.previous)
    if note:
        click.echo(f"igcnn: {note}", err=True)
        run.log(note)
    return checkpoint


def _choose_run(
    settings: dict[str, Any], out: str | None, resume: str | None, overwrite: bool
) -> tuple[RunDirectory, Path | None]:
    """Return the run directory and the checkpoint to go on from, None for a new run."""
    from igcnn.errors import CheckpointError, ConfigError
    from igcnn.training import RunDirectory
    from igcnn.training.run_directory import default_folder, new_run, newest_run

    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite deletes it; give one")
    if resume not in (None, "auto"):
        if out:
            raise ConfigError("--resume PATH goes on in the run's own folder; leave out --out")
        path = Path(resume)
        if path.is_dir():
            run = RunDirectory(path)
            return run, run.last
        if path.is_file() and path.absolute().parent.name != "checkpoints":
            raise ConfigError(
                f"{path} does not lie in the checkpoints folder of a run, where --resume finds "
                "its settings; give the folder of the run"
            )
        if not path.is_file():
            raise CheckpointError(f"there is no checkpoint {path}; give one, or a run's folder")
        return RunDirectory(path.parent.parent), path
    if out:
        run = RunDirectory(out)
        if resume and run.last.is_file():
            return run, run.last
        if not overwrite and not (resume and run.is_run()):
            run.refuse_if_used()
        return run, None
    network = build(settings, None)
    folder = default_folder(Path("runs"), settings["dataset"], network.settings)
    newest = newest_run(folder) if resume else None
    if newest:
        return newest, newest.last
    if resume:
        click.echo(f"igcnn: no run to resume in {folder}; starting a new one", err=True)
    return new_run(folder), None


def build(settings: dict[str, Any], num_classes: int | None) -> Network:
    """Return the network that the settings describe; None for its own number of classes."""
    from igcnn.networks import build_network

    given = {
        name: settings[name]
        for name, setting in SETTINGS.items()
        if setting.group == NETWORK and settings[name] is not None
    }
    dtype = "float64" if settings["precision"] == "fp64" else "float32"
    return build_network(**given, seed=settings["seed"], num_classes=num_classes, dtype=dtype)


def make_recipe(settings: dict[str, Any]) -> Recipe:
    """Return the recipe that the settings describe."""
    from igcnn.training import Recipe

    names = [field.name for field in fields(Recipe)]
    return Recipe(**{name: settings[name] for name in names if settings[name] is not None})
