"""`igcnn train`: train a network."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from igcnn.settings import RANKS, RUN, SETTINGS

from .choice import build, decide_together, load, make_recipe
from .dataset import open_dataset
from .options import DIRECTORY, FILE, GroupedCommand, grouped_option, setting_options
from .ranks import ending_together, parse_gpus, start_ranks

if TYPE_CHECKING:
    from igcnn.communicator import Communicator
    from igcnn.datasets import Dataset
    from igcnn.networks import Network
    from igcnn.training import Checkpoint, Recipe, Result, RunDirectory, Trainer

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
@setting_options()
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
    help="Run directory. [default: runs/DATASET/NET/TIME]",
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
    "--config",
    group=RUN,
    type=FILE,
    metavar="FILE",
    help="TOML file of settings, such as a run's config.toml.",
)
@grouped_option(
    "--set",
    "assignments",
    group=RUN,
    metavar="KEY=VALUE",
    multiple=True,
    help="Any setting, over all others.",
)
@click.option("--primary-partition", "authors_L", hidden=True)
@click.option("--secondary-partition", "authors_M", hidden=True)
def train_command(
    out: str | None,
    resume: str | None,
    overwrite: bool,
    config: str | None,
    assignments: tuple[str, ...],
    ranks: int | None,
    gpus: str | None,
    authors_L: str | None,
    authors_M: str | None,
    **flags: Any,
) -> None:
    """Train a network and keep everything in a run directory.

    The imgnet networks are for 224×224 images, the others for 32×32.

    \b
    igcnn train --net resnet_igc --L 24 --M 2
    igcnn train --net plain_igc --depth 38 --dataset cifar10
    igcnn train --dataset folder --data-dir flowers --lr 0.05
    igcnn train --out try --set fusion=summation
    igcnn train --resume try
    igcnn train --ranks 2 --dataset cifar10
    mpiexec -n 16 --hostfile hosts igcnn train --config big.toml

    A setting is taken from the first of: --set, flags, environment (IGCNN_LR=0.05), --config,
    preset, default. Ctrl-C finishes the step and saves; --resume continues from there to the
    same weights as a run without the stop.
    """
    from igcnn.communicator import connect, is_one_of_several

    flags |= _authors_partitions(flags, authors_L, authors_M)
    chosen = parse_gpus(gpus) if gpus is not None else []
    if chosen:
        flags["device"] = flags["device"] or "cuda"
    if not is_one_of_several():
        count = len(chosen) or ranks or 1
        if count > 1:
            arguments = click.get_current_context().obj
            raise click.exceptions.Exit(start_ranks(count, arguments, chosen))
        if chosen:
            flags["device"] = f"cuda:{chosen[0]}"
    communicator = connect()
    with ending_together(communicator):
        _train(communicator, flags, assignments, config, out, resume, overwrite)


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


def _train(
    communicator: Communicator,
    flags: dict[str, Any],
    assignments: tuple[str, ...],
    config: str | None,
    out: str | None,
    resume: str | None,
    overwrite: bool,
) -> None:
    from igcnn.backend import keep_memory, resolve_device
    from igcnn.communicator import for_device
    from igcnn.layers.batch_norm import synchronise
    from igcnn.training import Trainer
    from igcnn.training.engine import check_precision
    from igcnn.training.progress import make_progress
    from igcnn.training.tensorboard import check_tensorboard

    choices = flags, assignments, config, out, resume, overwrite
    settings, run, source = decide_together(communicator, *choices)
    device = resolve_device(settings["device"], communicator.local_rank)
    communicator = for_device(communicator, device, settings["reduce"])
    communicator.timeout = settings["rank_timeout"] or communicator.timeout
    check_precision(settings["precision"], device, settings["eager"])
    if settings["tensorboard"]:
        check_tensorboard()
    progress = make_progress(_display(settings["progress"], communicator))
    recipe = make_recipe(settings)
    checkpoint = load(run, source) if source else None
    dataset = open_dataset(
        settings["dataset"],
        settings["data_dir"],
        image_size=settings["image_size"],
        workers=settings["workers"],
        on_bad_image=settings["on_bad_image"],
        communicator=communicator,
    )
    network = build(settings, len(dataset.classes))
    if settings["sync_bn"]:
        synchronise(network, communicator)
    keep_memory()
    trainer = Trainer(
        network,
        dataset,
        recipe,
        run,
        seed=settings["seed"],
        log_interval=settings["log_interval"],
        checkpoint_epochs=settings["checkpoint_epochs"],
        checkpoint_steps=settings["checkpoint_steps"],
        max_steps=settings["max_steps"],
        progress=progress,
        communicator=communicator,
    )
    with run.held():
        # a run that was killed before its first checkpoint has nothing to go on from
        run.create(overwrite or (resume is not None and source is None))
        if checkpoint:
            trainer.resume(checkpoint)
        _write_run(run, settings, network, recipe, device)
        for line in _describe(network, dataset, recipe, run, checkpoint):
            _say(run, line)
        result = _run(trainer, settings, device)
    for line in _report(result, run, settings):
        _say(run, line)


def _run(trainer: Trainer, settings: dict[str, Any], device: str) -> Result:
    """Train by a plan, or by the tape where that is wanted or there is no plan."""
    from igcnn.training import make_engine
    from igcnn.training.tensorboard import TensorBoard

    run = trainer.run_directory
    trainer.engine, how = make_engine(
        trainer.network,
        trainer.dataset.train.image_shape,
        trainer.loader.local_batch_size,
        device=device,
        cores=settings["cores"],
        eager=settings["eager"],
        precision=settings["precision"],
        communicator=trainer.communicator,
    )
    _say(run, f"computed by {how}")
    if trainer.communicator.size > 1:
        _say(run, f"shared by   {trainer.communicator}")
    try:
        with contextlib.ExitStack() as stack:
            if settings["tensorboard"] and trainer.communicator.rank == 0:
                board = TensorBoard(run.path / "tensorboard", trainer.state.step)
                stack.callback(board.close)
                run.mirrors.append(board)
            return trainer.run()
    except KeyboardInterrupt:
        if trainer.communicator.rank == 0:
            click.echo(f"go on with: igcnn train --resume {run.path}", err=True)
        raise
    finally:
        trainer.engine.close()


def _display(mode: str, communicator: Communicator) -> str:
    """Return the progress display of a rank: rank 0 has plain lines, the others nothing."""
    if communicator.rank:
        return "none"
    # what mpiexec gives a rank for a terminal has no width
    return "plain" if mode == "auto" and communicator.size > 1 else mode


def _write_run(
    run: RunDirectory,
    settings: dict[str, Any],
    network: Network,
    recipe: Recipe,
    device: str,
) -> None:
    """Write config.toml with every setting as it is in force, and env.json."""
    from dataclasses import asdict

    effective = settings | {k: v for k, v in network.settings.items() if k in SETTINGS}
    effective |= asdict(recipe)
    effective = {k: v for k, v in effective.items() if SETTINGS[k].recorded}
    if settings["data_dir"]:
        effective["data_dir"] = str(Path(settings["data_dir"]).absolute())
    run.write_config(effective)
    run.write_environment(device)


def _describe(
    network: Network,
    dataset: Dataset,
    recipe: Recipe,
    run: RunDirectory,
    checkpoint: Checkpoint | None,
) -> list[str]:
    """Write summary.txt and return what there is to say before the first step."""
    from igcnn.inspection import summarize

    _, height, width = dataset.train.image_shape
    summary = summarize(network, (3, height, width))
    run.write_summary(summary.to_text())
    s = network.settings
    lines = [
        f"network     {s['net']}, depth {s['depth']}, L {s['L']}, M {s['M']}: "
        f"{summary.params:,} parameters, {summary.macs:,} multiply-adds an image",
        f"data set    {dataset.name}: {len(dataset.train.labels):,} training and "
        f"{len(dataset.test.labels):,} test images of {height}×{width} in "
        f"{len(dataset.classes)} classes",
        f"recipe      {recipe.describe()}",
        f"run folder  {run.path}",
    ]
    if checkpoint:
        lines.append(f"resumed     after step {checkpoint.progress['step']}")
    return lines


def _report(result: Result, run: RunDirectory, settings: dict[str, Any]) -> list[str]:
    """Return what there is to say after the last step."""
    from igcnn.training.progress import duration

    last = result.evaluation
    lines = [
        f"last        test top-1 {last.top1:.2f} %, top-5 {last.top5:.2f} %, loss "
        f"{last.loss:.4f} after step {result.step}, {duration(result.seconds)}"
    ]
    checkpoint = run.last
    if result.best_epoch:
        checkpoint = run.best
        lines.insert(
            0, f"best        test top-1 {result.best_top1:.2f} % after epoch {result.best_epoch}"
        )
    data_dir = f" --data-dir {settings['data_dir']}" if settings["data_dir"] else ""
    # the first two are written when an epoch ends
    names = [n for n in ("metrics.csv", "curves.svg") if (run.path / n).exists()]
    return [
        *lines,
        f"files       {run.path}: {', '.join([*names, 'checkpoints/'])}",
        f"next        igcnn eval {checkpoint} --dataset {settings['dataset']}{data_dir}",
    ]


def _say(run: RunDirectory, line: str) -> None:
    """Log a line and print it; a reader of stdout who went away does not end a run."""
    from igcnn.training.progress import terminal_width, wrap_line
    from igcnn.training.silent_run import SilentRun

    if isinstance(run, SilentRun):
        return
    run.log(line)
    try:
        click.echo(wrap_line(line, terminal_width()))
    except OSError:
        return
