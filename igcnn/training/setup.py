"""What the settings of a training run stand for: folder, checkpoint, network, recipe, batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..datasets import Dataset, Loader
from ..distributed import Communicator
from ..errors import CheckpointError, ConfigError
from ..networks import Network, build_network
from .checkpoint import Checkpoint, load_checkpoint, load_newest
from .combine import network_settings
from .recipe import OF_ONE_SCHEDULE, Recipe, preset_settings
from .run_directory import RunDirectory
from .run_folders import dataset_label, default_folder, new_run, newest_run

Settings = Mapping[str, Any]


def make_network(settings: Settings, num_classes: int | None) -> Network:
    """Return the network that the settings describe; None for its own number of classes.

    Raises:
        ConfigError: there is no such network.
    """
    given = {name: settings.get(name) for name in network_settings(settings["net"])}
    dtype = "float64" if settings["precision"] == "fp64" else "float32"
    return build_network(
        settings["net"], **given, seed=settings["seed"], num_classes=num_classes, dtype=dtype
    )


def make_recipe(settings: Settings, images: int = 1) -> Recipe:
    """Return the recipe that the settings describe.

    Args:
        settings: of the run.
        images: how many there are for training, on which a preset may depend.

    Raises:
        ConfigError: a constant out of range.
    """
    preset = preset_settings(settings["preset"], settings["dataset"], images)
    if settings["schedule"] not in (None, Recipe.schedule):
        preset = {name: x for name, x in preset.items() if name not in OF_ONE_SCHEDULE}
    names = [field.name for field in fields(Recipe)]
    given = {name: settings[name] for name in names if settings[name] is not None}
    return Recipe(**(preset | given))


def make_loader(
    dataset: Dataset, batch_size: int, seed: int, communicator: Communicator
) -> Loader:
    """Return the training batches, of which each rank has its part.

    Raises:
        ConfigError: see Loader.
    """
    return Loader(
        dataset.train,
        batch_size=batch_size,
        mean=dataset.mean,
        std=dataset.std,
        augmentation=dataset.augmentation,
        seed=seed,
        rank=communicator.rank,
        ranks=communicator.size,
    )


def choose_run(
    settings: Settings,
    network: Network | None,
    out: str | Path | None,
    resume: str | Path | None,
    overwrite: bool,
    say: Callable[[str], None],
) -> tuple[RunDirectory, Path | None]:
    """Return the run directory and the checkpoint to resume from, None for a new run.

    Args:
        settings: of the run.
        network: its network, after which the run directory is named without `out`; None for the
            one that the settings describe.
        out: the run directory; None for a new one below runs/.
        resume: a run directory, a checkpoint in one, or "auto" for the newest run of the network.
        overwrite: whether a run in `out` may be replaced.
        say: called if there is nothing to resume.

    Raises:
        ConfigError: the choices contradict each other, or `out` is not empty.
        CheckpointError: there is no checkpoint `resume`.
    """
    if resume and overwrite:
        raise ConfigError("--resume continues a run and --overwrite deletes it; give one of them")
    if resume not in (None, "auto"):
        if out:
            raise ConfigError(
                "--resume PATH continues in the directory of the run; leave out --out"
            )
        return _run_of(Path(resume))
    if out:
        run = RunDirectory(out)
        if resume and run.last.is_file():
            return run, run.last
        if not overwrite and not (resume and run.is_run()):
            run.refuse_if_used()
        return run, None
    described = (network or make_network(settings, None)).settings
    label = dataset_label(settings["dataset"], settings["data_dir"])
    folder = default_folder(Path("runs"), label, described)
    newest = newest_run(folder) if resume else None
    if newest:
        return newest, newest.last
    if resume:
        say(f"igcnn: no run to resume in {folder}; starting a new one")
    return new_run(folder), None


def _run_of(path: Path) -> tuple[RunDirectory, Path]:
    """Return the run that a run directory or a checkpoint belongs to, and the checkpoint."""
    if path.is_dir():
        run = RunDirectory(path)
        return run, run.last
    if path.is_file() and path.absolute().parent.name != "checkpoints":
        raise ConfigError(
            f"{path} is not in the checkpoints directory of a run, where --resume finds the "
            "settings; pass the run directory"
        )
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; pass one, or a run directory")
    return RunDirectory(path.parent.parent), path


def settings_to_resume(run: RunDirectory) -> dict[str, Any]:
    """Return the settings of a run that one resumes.

    Raises:
        ConfigError: its config.toml is missing or damaged.
    """
    # max_steps ended the session before; this one has its own
    return {name: value for name, value in run.read_config().items() if name != "max_steps"}


def load_to_resume(run: RunDirectory, source: Path, say: Callable[[str], None]) -> Checkpoint:
    """Return the checkpoint to resume from: if the newest is damaged, the one before.

    Raises:
        CheckpointError: neither can be read, or its network is not registered.
    """
    if source != run.last:
        checkpoint = load_checkpoint(source)
    else:
        checkpoint, note = load_newest(run.last, run.previous)
        if note:
            say(f"igcnn: {note}")
            run.log(note)
    if "net" in checkpoint.network:
        checkpoint.check_registered()
    return checkpoint
