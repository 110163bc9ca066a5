"""`igcnn train`: train a network."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from igcnn.settings import RANKS, RECIPE, RUN, SETTINGS

from .choice import decide_together, say
from .dataset import open_dataset
from .dry_run import show
from .options import (
    DIRECTORY,
    FILE,
    GroupedCommand,
    grouped_option,
    layer_options,
    setting_options,
)
from .ranks import ending_together, parse_gpus, start_ranks
from .seeds import train_seeds
from .settings import collect, given_settings

if TYPE_CHECKING:
    from igcnn.datasets import Dataset
    from igcnn.distributed import Communicator

# the spellings of the authors' code
AUTHORS = {
    "network": "net",
    "num-epochs": "epochs",
    "rand-seed": "seed",
    "log-dir": "out",
}


def authors_spelling(name: str) -> str:
    """Return the name of an option for a name in the authors' code."""
    return AUTHORS.get(name, name)


@click.command(
    "train", cls=GroupedCommand, context_settings={"token_normalize_func": authors_spelling}
)
@setting_options(raw=True)
@grouped_option(
    "--seeds",
    group=RECIPE,
    metavar="N,N,…",
    help="Train once with each seed, in OUT/seedN, and report mean and deviation.",
)
@grouped_option(
    "--ranks",
    group=RANKS,
    type=click.IntRange(1),
    metavar="N",
    help="Start N processes that share each batch.",
)
@grouped_option("--gpus", group=RANKS, metavar="N,N,…", help="Start a rank on each of these GPUs.")
@grouped_option(
    "--out",
    group=RUN,
    type=DIRECTORY,
    metavar="DIR",
    help="Run directory. [default: runs/DATA/NET/TIME]",
)
@grouped_option(
    "--resume",
    group=RUN,
    is_flag=False,
    flag_value="auto",
    type=FILE,
    metavar="[auto|PATH]",
    help="Resume a run: its directory or a checkpoint; auto: the newest of this network.",
)
@grouped_option("--overwrite", group=RUN, is_flag=True, help="Replace the run in --out.")
@grouped_option(
    "--dry-run",
    group=RUN,
    is_flag=True,
    help="Show settings, network, memory and the time of an epoch; train nothing.",
)
@layer_options
@click.option("--primary-partition", "authors_L", hidden=True)
@click.option("--secondary-partition", "authors_M", hidden=True)
def train_command(
    out: str | None,
    resume: str | None,
    overwrite: bool,
    dry_run: bool,
    config: str | None,
    assignments: tuple[str, ...],
    seeds: str | None,
    ranks: int | None,
    gpus: str | None,
    authors_L: str | None,
    authors_M: str | None,
    **flags: Any,
) -> None:
    """Train a network.

    Keeps settings, metrics and checkpoints in a run directory. The imgnet networks are for
    224×224 images, the others for 32×32.

    \b
    igcnn train --net resnet_igc --L 24 --M 2
    igcnn train --net plain_igc --depth 38 --dataset cifar10
    igcnn train --dataset folder --data-dir flowers --lr 0.05
    igcnn train --out try --set log_interval=5
    igcnn train --out tries --seeds 0,1,2
    igcnn train --resume try
    igcnn train --config try/config.toml --dry-run
    igcnn train --ranks 2 --dataset cifar10
    mpiexec -n 16 igcnn train --config big.toml

    A setting is taken from the first of: --set, flags, environment (IGCNN_LR=0.05), --config,
    preset, default. Ctrl-C finishes the step and saves; --resume continues from there to the
    same weights as a run without the stop.
    """
    from igcnn.distributed import connect, is_one_of_several
    from igcnn.errors import ConfigError

    flags |= _authors_partitions(flags, authors_L, authors_M)
    chosen = parse_gpus(gpus) if gpus is not None else []
    if chosen:
        flags["device"] = flags["device"] or "cuda"
    count = len(chosen) or ranks or 1
    if dry_run and (seeds or count > 1 or is_one_of_several()):
        raise ConfigError(
            "--dry-run takes a single process; leave out --seeds, --ranks, --gpus, mpiexec"
        )
    if not is_one_of_several():
        if count > 1:
            arguments = click.get_current_context().obj
            raise click.exceptions.Exit(start_ranks(count, arguments, chosen))
        if chosen:
            flags["device"] = f"cuda:{chosen[0]}"
    communicator = connect()
    places = assignments, config
    with ending_together(communicator):
        if seeds is None:
            train_once(communicator, flags, *places, out, resume, overwrite, dry_run)
            return
        if dry_run:
            raise ConfigError("--dry-run shows one run; leave out --seeds")
        again = None if overwrite else "auto"
        train_seeds(
            communicator,
            seeds,
            out,
            resume,
            overwrite,
            lambda seed: collect(flags | {"seed": str(seed)}, *places),
            lambda seed, path: train_once(
                communicator, flags | {"seed": str(seed)}, *places, path, again, overwrite, False
            ),
        )


def _authors_partitions(flags: dict[str, Any], L: str | None, M: str | None) -> dict[str, Any]:
    """Return L and M for the authors' options, which mean something else in one network."""
    from igcnn.errors import ConfigError

    given = {name: value for name, value in (("L", L), ("M", M)) if value is not None}
    if not given or flags["net"] != "resnet_igc_imgnet_d18":
        return given
    # there the second is half of M, and 4 by default
    half = SETTINGS["M"].convert(M or "4", "--secondary-partition")
    if half < 1:
        raise ConfigError(f"--secondary-partition must be at least 1, not {half}")
    partitions = given.get("L", "100")
    if half != 1:
        click.echo(
            f"igcnn: --primary-partition {partitions} and --secondary-partition {half} are L "
            f"{partitions}, M {2 * half} here, as in the authors' code; the published network is "
            "--L 100 --M 2",
            err=True,
        )
    return {"L": partitions, "M": str(2 * half), "growth": "L"}


def train_once(
    communicator: Communicator,
    flags: dict[str, Any],
    assignments: tuple[str, ...],
    config: str | None,
    out: str | None,
    resume: str | None,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Train one run.

    Args:
        communicator: connects the ranks.
        flags: name → text of each setting's option, None where it was not given.
        assignments: key=value texts of --set.
        config: path of a TOML file, None for none.
        out: run directory, None for a new one below runs/.
        resume: what --resume said.
        overwrite: replace the run in `out`.
        dry_run: only show what would be trained.
    """
    from igcnn.training import Fit
    from igcnn.training.combine import combine_with_sources
    from igcnn.training.setup import settings_to_resume

    choices = flags, assignments, config, out, resume, overwrite, dry_run
    settings, run, checkpoint = decide_together(communicator, *choices)

    def opened() -> Dataset:
        return open_dataset(
            settings["dataset"],
            settings["data_dir"],
            image_size=settings["image_size"],
            workers=settings["workers"],
            on_bad_image=settings["on_bad_image"],
            communicator=communicator,
            download=not dry_run,
        )

    fit = Fit(settings, run, opened, checkpoint=checkpoint, communicator=communicator, say=_print)
    if dry_run:
        resumed = settings_to_resume(run) if checkpoint else None
        layers = given_settings(flags, assignments, config, resumed)
        show(fit, {name: source for name, (_, source) in combine_with_sources(layers).items()})
        return
    try:
        # a run that was killed before its first checkpoint has nothing to go on from
        fit.train(replace=overwrite or (resume is not None and checkpoint is None))
    except KeyboardInterrupt:
        if communicator.rank == 0:
            say(f"to resume: igcnn train --resume {run.path}")
        raise


def _print(line: str) -> None:
    """Print a line; a reader of stdout who went away does not end a run."""
    with contextlib.suppress(OSError):
        click.echo(line)
