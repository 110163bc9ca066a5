"""A training run from its settings: `Fit` for `igcnn train`, `fit` for scripts and notebooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import keep_memory, resolve_device
from ..datasets import Dataset, load_dataset
from ..distributed import Communicator, for_device
from ..errors import ConfigError
from ..layers.batch_norm import synchronise
from ..layers.summary import Summary, summarize
from ..networks import Network
from ..notebook import address
from ..settings import SETTINGS
from ..text import terminal_width, wrap_line
from .callback import Callback
from .checkpoint import Checkpoint, load_checkpoint
from .combine import combine, network_settings
from .cores import available_cores
from .describe import closing_lines, describe_best, describe_network, opening_lines
from .engine import check_precision, make_engine
from .preview import Preview, preview
from .progress import make_progress
from .result import Result
from .run_directory import RunDirectory
from .setup import (
    choose_run,
    load_to_resume,
    make_network,
    make_recipe,
    settings_to_resume,
)
from .tensorboard import TensorBoard, check_tensorboard
from .trainer import Trainer
from .transfer import initialise_from

Say = Callable[[str], None]


class Fit:
    """A training run: its parts, and how it went.

    Args:
        settings: every setting; see combine.combine.
        run: the run directory.
        open_dataset: returns the data set; called when the settings have been checked.
        network: what to train; None for the network that the settings describe.
        checkpoint: to resume from.
        communicator: connects the ranks that train together; None for one process.
        say: called with what a reader has to know before and after the training.

    Attributes:
        settings: as given.
        run: the run directory.
        dataset: the data set.
        network: the network, with the present weights.
        result: how the run ended; None if it did not come to its end.

    Raises:
        ConfigError: a setting that cannot be carried out.
        DataError: the data set is missing or damaged.
        DeviceError: the device is not there.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        run: RunDirectory,
        open_dataset: Callable[[], Dataset],
        *,
        network: Network | None = None,
        checkpoint: Checkpoint | None = None,
        communicator: Communicator | None = None,
        say: Say = print,
    ) -> None:
        communicator = communicator or Communicator()
        device = resolve_device(settings["device"], communicator.local_rank)
        communicator = for_device(communicator, device, settings["reduce"])
        communicator.timeout = settings["rank_timeout"] or communicator.timeout
        check_precision(settings["precision"], device, settings["eager"])
        if settings["tensorboard"]:
            check_tensorboard()
        progress = make_progress(_display(settings["progress"], communicator))
        make_recipe(settings)  # before images are opened: it may be wrong
        self.settings = settings
        self.run = run
        self.dataset = open_dataset()
        recipe = make_recipe(settings, len(self.dataset.train))
        self.network = network or make_network(settings, len(self.dataset.classes))
        self.result: Result | None = None
        self._origin: list[str] = []
        # rank 0 alone reads files, and gives its weights to the others
        if settings["init_from"] and checkpoint is None and communicator.rank == 0:
            origin = load_checkpoint(settings["init_from"])
            self._origin = initialise_from(self.network, origin, self.dataset.classes)
        if settings["sync_bn"]:
            synchronise(self.network, communicator)
        keep_memory()
        self._device = device
        self._communicator = communicator
        self._checkpoint = checkpoint
        self._say_line = say
        self._trainer = Trainer(
            self.network,
            self.dataset,
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

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of metrics.csv: one an epoch, with loss and accuracy."""
        return self.run.read_epochs()

    def train(self, callbacks: Sequence[Callback] = (), replace: bool = False) -> Result:
        """Train to the end of the recipe and return how it went; see Trainer.run for its errors.

        Args:
            callbacks: called after log steps and epochs.
            replace: delete the files of an earlier run in the run directory.
        """
        with self.run.held():
            self.run.create(replace)
            if self._checkpoint:
                self._trainer.resume(self._checkpoint)
            self._write_run()
            summary = self._summarize()
            self.run.write_summary(summary.to_text())
            for line in self._opening_lines(summary):
                self._say(line)
            self.result = self._run(callbacks)
        for line in closing_lines(self._trainer, self.result):
            self._say(line)
        return self.result

    def preview(self) -> tuple[list[str], Preview]:
        """Return the lines that come before a training, and what it will take.

        A few updates are timed, which changes the weights; nothing is written.
        """
        lines = self._opening_lines(self._summarize())
        how = self._make_engine()
        try:
            return lines, preview(self._trainer, how)
        finally:
            self._trainer.engine.close()

    def _summarize(self) -> Summary:
        return summarize(self.network, self.dataset.train.image_shape)

    def _opening_lines(self, summary: Summary) -> list[str]:
        lines = opening_lines(self._trainer, summary, self._checkpoint)
        return [*lines, *(f"init from   {line}" for line in self._origin)]

    def _make_engine(self) -> str:
        """Make what computes: a plan, or the tape if that is wanted or there is no plan."""
        trainer, settings = self._trainer, self.settings
        trainer.engine, how = make_engine(
            self.network,
            self.dataset.train.image_shape,
            trainer.loader.local_batch_size,
            device=self._device,
            cores=settings["cores"],
            eager=settings["eager"],
            precision=settings["precision"],
            label_smoothing=trainer.recipe.label_smoothing,
            communicator=self._communicator,
        )
        return how

    def _run(self, callbacks: Sequence[Callback]) -> Result:
        trainer, settings = self._trainer, self.settings
        self._say(f"backend     {self._make_engine()}")
        if self._communicator.size > 1:
            self._say(f"parallel    {self._communicator}")
        try:
            with contextlib.ExitStack() as stack:
                trainer.callbacks.extend(callbacks)
                if settings["tensorboard"] and self._communicator.rank == 0:
                    board = TensorBoard(self.run.path / "tensorboard", trainer.state.step)
                    stack.callback(board.close)
                    trainer.callbacks.append(board)
                return trainer.run()
        finally:
            trainer.engine.close()

    def effective_settings(self) -> dict[str, Any]:
        """Return every setting as it is in force, defaults of network and recipe included."""
        described = dict(self.network.settings)
        del described["num_classes"]
        return {**self.settings, **described, **asdict(self._trainer.recipe)}

    def _write_run(self) -> None:
        """Write config.toml with every setting as it is in force, and env.json."""
        effective = {
            name: x
            for name, x in self.effective_settings().items()
            if name not in SETTINGS or SETTINGS[name].recorded
        }
        for name in ("data_dir", "init_from"):
            if self.settings[name]:
                effective[name] = str(Path(self.settings[name]).absolute())
        self.run.write_config(effective)
        self.run.write_environment(self._device)

    def _say(self, line: str) -> None:
        """Log a line and say it, on one rank."""
        if not self.run.silent:
            self.run.log(line)
            self._say_line(wrap_line(line, terminal_width()))

    def __repr__(self) -> str:
        parts = [
            f"{describe_network(self.network.settings)} on {self.dataset.name}",
            f"run={str(self.run.path)!r}",
        ]
        if self.result is None:
            parts.append(f"not finished: {len(self.history)} epochs done")
        else:
            best = describe_best(self.result) if self.result.best_epoch else ""
            parts.append(best or f"test top-1 {self.result.evaluation.top1:.2f} %")
        return f"Fit({', '.join(parts)})"

    def _repr_html_(self) -> str:
        curves = self.run.path / "curves.svg"
        if not curves.is_file():
            return f"<p>{escape(repr(self))}</p>"
        # as an image it keeps its styles to itself
        picture = address(curves.read_bytes(), "image/svg+xml")
        return f'<p>{escape(repr(self))}</p><img alt="loss and accuracy" src="{picture}">'


def fit(
    net: str | Network | None = None,
    dataset: str | Dataset | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Fit:
    """Train a network on a data set, as `igcnn train` does, and return how it went.

        run = igcnn.fit(net="resnet_igc", L=24, M=2, dataset="digits", epochs=4)
        run.result.best_top1, run.network, run.history

    Ctrl-C (or the stop button of a notebook) ends the run after the update that is under way and
    saves it; what there is by then is returned.

    Args:
        net: name of a network, by default resnet_igc; or a network, which is trained from the
            weights that it has.
        dataset: name of a data set, by default digits; or a data set.
        out: the run directory; by default, as for `igcnn train`, a new one in the present folder,
            runs/DATASET/NET/TIME. It is printed.
        overwrite: whether to replace a run that is in `out`.
        resume: a run directory, or a checkpoint in one, to go on from; its settings are kept
            unless others are given. "auto" is the newest run of this network, or that in `out`.
        callbacks: called after every log step and epoch, and can end the run.
        settings: any other option of `igcnn train`, with underscores: depth, L, M, epochs,
            batch_size, lr, seed, device, … and the keywords of a network of one's own.

    Raises:
        ConfigError: an unknown setting, or one that cannot be carried out.
        DataError: the data set is missing or damaged.
        DivergedError: the loss became NaN or infinite.
        CheckpointError: a checkpoint cannot be read or written.
        DeviceError: no such device, or not enough memory on it.
    """
    network = net if isinstance(net, Network) else None
    data = dataset if isinstance(dataset, Dataset) else None
    names = {"net": None if network else net, "dataset": None if data else dataset}
    asked = [
        ("the network", _described(network, settings) if network else {}),
        ("fit()", names | settings),
    ]
    unnamed = data.name if data else None
    chosen = combine(asked, unnamed)
    run, source = choose_run(chosen, network, out, resume, overwrite, print)
    checkpoint = None
    if source:
        checkpoint = load_to_resume(run, source, print)
        before = ("config.toml of the run", settings_to_resume(run))
        chosen = combine([before, *asked], unnamed)
    if network:
        chosen["net"] = network.settings.get("net")

    def opened() -> Dataset:
        return data or load_dataset(
            chosen["dataset"],
            chosen["data_dir"],
            image_size=chosen["image_size"],
            workers=available_cores() if chosen["workers"] is None else chosen["workers"],
            skip_broken=chosen["on_bad_image"] == "skip",
            say=print,
        )

    training = Fit(chosen, run, opened, network=network, checkpoint=checkpoint)
    try:
        training.train(callbacks, replace=overwrite or bool(resume and not source))
    except KeyboardInterrupt:
        print(f"interrupted; to resume: igcnn.fit(resume={str(run.path)!r})")
    return training


def _described(network: Network, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the settings of a run say about an existing network.

    Raises:
        ConfigError: other settings say something of it too.
    """
    net = network.settings.get("net")
    contradicting = set(given) & (set(network_settings(net or SETTINGS["net"].default)))
    if contradicting:
        raise ConfigError(
            f"the network is already built; leave out {', '.join(sorted(contradicting))}, or "
            "pass its name"
        )
    own = "fp64" if network.parameters()[0].dtype == np.float64 else "fp32"
    if given.get("precision", own) not in (own, "bf16"):
        raise ConfigError(
            f"the network is built for precision {own}, not {given['precision']}; use "
            "network.to_dtype"
        )
    settings = dict(network.settings) if net else {}
    settings.pop("num_classes", None)
    return settings | {"precision": own}


def _display(mode: str, communicator: Communicator) -> str:
    """Return the progress display of a rank: rank 0 has plain lines, the others nothing."""
    if communicator.rank:
        return "none"
    # what mpiexec gives a rank for a terminal has no width
    return "plain" if mode == "auto" and communicator.size > 1 else mode
