"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..backend import single_threaded_blas
from ..datasets import Dataset, Images, hold_out
from ..distributed import Agreement, Communicator
from ..errors import (
    ConfigError,
    DataError,
    DivergedError,
    PreemptedError,
    RankError,
)
from ..networks import Network
from ..settings import SETTINGS
from .average import WeightAverage
from .callback import Callback
from .checkpoint import Checkpoint
from .engine import Engine, TapeEngine
from .epoch import NAMES, epoch_line, epoch_row, step_row
from .evaluator import Evaluator
from .interrupt import NOTICES, Interrupt, StopRequested
from .metrics import Evaluation, Sums
from .progress import Progress
from .recipe import Recipe
from .result import Result
from .resume import check_same_run, training_settings
from .run_directory import RunDirectory
from .saver import Saver
from .setup import make_loader
from .state import TrainingState
from .transfer import trained_parameters

Array = np.ndarray


class Trainer:
    """Trains a network on a data set and keeps the record in a run directory.

    The weights after a number of steps depend on the network's initial weights, the recipe and
    the seed alone: not on the threads of BLAS, nor on whether the run was stopped and resumed.

    Args:
        network: what to train; its number of classes must be the data set's.
        dataset: training and test images.
        recipe: how to train.
        run: where checkpoints, metrics and log go; must have been created.
        seed: of the order and augmentation of the images.
        log_interval: updates from one row of metrics.jsonl to the next.
        checkpoint_epochs: epochs from one last.h5 to the next; the end of the run counts too.
        checkpoint_steps: updates from one last.h5 to the next, beside those; None for none.
        max_steps: updates after which to stop, earlier sessions included; None for no limit.
        progress: what to show; nothing by default.
        engine: what computes loss, gradients and logits; by default the tape.
        communicator: connects the ranks that train together, each with its part of every batch;
            None for one process. Rank 0 alone saves.

    Attributes:
        callbacks: called after every log step and epoch.

    Raises:
        ConfigError: an interval or max_steps below 1, classes that do not match, or patterns
            of names to freeze that match none or all.
        DataError: no image can be held out for validation.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        recipe: Recipe,
        run: RunDirectory,
        *,
        seed: int = 0,
        log_interval: int = SETTINGS["log_interval"].default,
        checkpoint_epochs: int = SETTINGS["checkpoint_epochs"].default,
        checkpoint_steps: int | None = None,
        max_steps: int | None = None,
        progress: Progress | None = None,
        engine: Engine | None = None,
        communicator: Communicator | None = None,
    ) -> None:
        for name, value in (
            ("log_interval", log_interval),
            ("checkpoint_epochs", checkpoint_epochs),
            ("checkpoint_steps", checkpoint_steps),
            ("max_steps", max_steps),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if network.settings["num_classes"] != len(dataset.classes):
            raise ConfigError(
                f"the network has {network.settings['num_classes']} classes, but {dataset.name} "
                f"{len(dataset.classes)}; build it with num_classes = {len(dataset.classes)}"
            )
        if recipe.validation:
            dataset = hold_out(dataset, recipe.validation, seed)
        self.network = network
        self.dataset = dataset
        self.recipe = recipe
        self.run_directory = run
        self.seed = seed
        self.log_interval = log_interval
        self.checkpoint_epochs = checkpoint_epochs
        self.checkpoint_steps = checkpoint_steps
        self.progress = progress or Progress()
        self.callbacks: list[Callback] = []
        communicator = communicator or Communicator()
        self.engine = engine or TapeEngine(network, communicator, recipe.label_smoothing)
        self.state = TrainingState()
        self.loader = make_loader(dataset, recipe.batch_size, seed, communicator)
        self.updates_per_epoch = len(self.loader)
        self.total = recipe.epochs * self.updates_per_epoch
        if max_steps is not None:
            self.total = min(self.total, max_steps)
        self.schedule = recipe.make_schedule(len(dataset.train.labels))
        trained = trained_parameters(network, recipe.freeze)
        self.optimizer = recipe.make_optimizer(trained)
        batch = recipe.batch_size
        self.evaluator = Evaluator(network, dataset, batch, communicator, self._check)
        self._saved_average: Mapping[str, Array] | None = None  # of the checkpoint to resume
        self.settings = training_settings(dataset, seed, recipe)
        self.saver = Saver(run, network, self.optimizer, dataset, self.settings, communicator)
        self._interrupt = Interrupt(silent=run.silent)
        self.agreement = Agreement(
            communicator,
            network,
            self.optimizer,
            dataset.train.labels,
            list(NOTICES),
            lambda: self._interrupt.requested,
        )
        self._signal: str | None = None  # by which the ranks have agreed to stop
        self._fresh = True  # no update yet: the first one compiles
        self._began = self._counted = time.perf_counter()
        self._evaluation: Evaluation | None = None  # of the present weights, on held_out

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint: the run then ends as if it had never stopped.

        Rows of the metrics that are newer than the checkpoint are removed.

        Raises:
            CheckpointError: it is of another network, or not of a training run.
            ConfigError: it was trained on other images, in other batches or with another seed.
        """
        check_same_run(checkpoint, self.network, self.settings)
        state = TrainingState.from_json(checkpoint.progress)
        self.network.load_state_dict(checkpoint.training_state)
        self._saved_average = checkpoint.state if checkpoint.raw else None
        checkpoint.restore(self.optimizer)
        self.state = state
        self.run_directory.cut_after(state.step)

    def stop(self) -> None:
        """Let the run end with the next update, or with the epoch that has just ended."""
        self.total = self.state.step

    def run(self) -> Result:
        """Train to the end of the recipe, or to max_steps.

        Raises:
            DivergedError: the loss became NaN or infinite; last.h5 is from before.
            KeyboardInterrupt: Ctrl-C; last.h5 is of the step that was under way.
            CheckpointError: a checkpoint cannot be written.
            PreemptedError: SIGTERM, SIGUSR1 or SIGHUP; likewise.
            RankError: a rank was lost; last.h5 is of the last whole step.
            DataError: an image cannot be read; likewise.
            RankMismatchError: ranks have different weights; last.h5 is from before.
        """
        self._began = time.perf_counter() - self.state.seconds
        self.network.train()
        with self.agreement.patience():
            position, average = self.agreement.follow_rank_0(
                self.state.to_json(), self._saved_average
            )
            self.state = TrainingState.from_json(position)
            self.engine.prepare(self.optimizer, self.loader)
            if self.recipe.average:
                arguments = self.network, self.engine, self.recipe.average, average
                self.evaluator.average = WeightAverage(*arguments)
            self.agreement.compare("before the first step")
        overflow = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        self.progress.start(self.state.step, self.total, self.updates_per_epoch)
        try:
            with single_threaded_blas(), overflow, self._interrupt:
                if self.state.step == 0:
                    # shows that there is room, and is there if step 2 diverges
                    self._save(needed=True)
                return self._run()
        except (RankError, DataError) as error:
            self.agreement.give_up()
            self._count(wait=True)  # what is in the weights is in the state that is saved
            if self._interrupt.requested:  # the signal was for all processes of the job
                self._signal = self._interrupt.requested
                self._stop_if_asked()
            self._save(needed=True)
            saved = "" if self.run_directory.silent else f"step {self.state.step} is saved, "
            message = f"{error}; {saved}to resume: igcnn train --resume {self.run_directory.path}"
            self._say(message)
            raise type(error)(message) from None
        finally:
            self.progress.close()

    def _run(self) -> Result:
        state = self.state
        while True:
            if state.step // self.updates_per_epoch > state.epochs:
                self._finish_epoch()
            if self._is_done():
                break
            self._train_epoch()
        if state.step % self.updates_per_epoch:
            self._save(needed=True)
        result = self._result()
        self.run_directory.write_result(result.to_json())
        return result

    def _is_done(self) -> bool:
        return self.state.step >= self.total or self._is_stalled()

    def _is_stalled(self) -> bool:
        """Return whether patience has run out: decided by the state alone, so on resume too."""
        patience = self.recipe.patience
        stalled = self.state.epochs - self.state.best_epoch
        return patience is not None and stalled >= patience

    def _train_epoch(self) -> None:
        """Train to the end of the epoch, or of the run if that is earlier."""
        epoch, position = divmod(self.state.step, self.updates_per_epoch)
        self._counted = time.perf_counter()
        done = self.state.step
        for batch in self.engine.batches(epoch, position):
            done += 1
            self.optimizer.lr = self.schedule.lr_at(done)
            with self.agreement.patience(self._fresh):
                self.engine.update(batch)
            self._fresh = False
            self._evaluation = None
            if self.evaluator.average:
                self.evaluator.average.update(done)
            save = bool(self.checkpoint_steps and done % self.checkpoint_steps == 0)
            last = done >= self.total or done % self.updates_per_epoch == 0
            self._signal = self.agreement.signal()
            self._count(wait=save or last or bool(self._signal) or done % self.log_interval == 0)
            if save:
                self._save()
            self._stop_if_asked()
            if last:
                break
            if save:
                self._counted = time.perf_counter()

    def _count(self, wait: bool) -> None:
        """Add up the results of the updates that the engine tells of."""
        state = self.state
        results = self.engine.collect(wait)
        now = time.perf_counter()
        for loss, correct in results:
            if not math.isfinite(loss):
                raise self._diverged("training loss", loss)
            state.step += 1
            seconds = (now - self._counted) / len(results)
            for sums in (state.interval, state.epoch):
                sums.add(self.recipe.batch_size, loss, correct, seconds)
        if results:
            self._counted = now
            progress = state.step, self.updates_per_epoch, state.interval
            row = step_row(*progress, self.optimizer.lr, self._seconds())
            self.progress.update(row)
            if state.step % self.log_interval == 0:
                self.run_directory.append_step(row)
                if any([callback.on_step(row) for callback in self.callbacks]):
                    self.stop()
                self.progress.log(row)
                state.interval = Sums()

    def _finish_epoch(self) -> None:
        """Evaluate, record the epoch, save."""
        state = self.state
        evaluation = self._evaluation = self._evaluate(self.evaluator.held_out)
        if not math.isfinite(evaluation.loss):
            raise self._diverged(f"{NAMES[self.evaluator.on]} loss", evaluation.loss)
        self.agreement.compare(f"after epoch {state.epochs + 1}")
        state.epochs += 1
        measured = state.epoch, evaluation, self.evaluator.on
        times = self.schedule.lr_at(state.step), self._seconds()
        row = epoch_row(state.epochs, state.step, *measured, *times)
        self.run_directory.append_epoch(row)
        if any([callback.on_epoch(row) for callback in self.callbacks]):
            self.stop()
        improved = evaluation.top1 > state.best_top1
        if improved:
            state.best_top1, state.best_epoch = evaluation.top1, state.epochs
        epochs = -(-self.total // self.updates_per_epoch)
        best = " (best)" if improved else ""
        self.run_directory.log(epoch_line(state.epochs, epochs, *measured) + best)
        self.progress.epoch(row, improved)
        state.epoch = Sums()
        if improved:
            self._save(path=self.run_directory.best)
        if state.epochs % self.checkpoint_epochs == 0 or self._is_done():
            self._save(needed=self._is_done())

    def _result(self) -> Result:
        """Evaluate on the test images."""
        state, test = self.state, self.dataset.test
        chosen_on_test = self.evaluator.held_out is test
        last = (self._evaluation if chosen_on_test else None) or self._evaluate(test)
        best = None if chosen_on_test else self._evaluate_best(last)
        progress = state.best_top1, state.best_epoch, state.step, self._seconds()
        return Result(last, *progress, best, self._is_stalled())

    def _evaluate_best(self, last: Evaluation) -> Evaluation | None:
        """Evaluate best.h5, which rank 0 reads, on the test images; None if it is damaged.

        Args:
            last: of the present weights, which may be the best.
        """
        if self.state.best_epoch * self.updates_per_epoch == self.state.step:
            return last
        weights = self.agreement.spread_weights(self.saver.best_weights())
        if weights is None:
            self._say(f"{self.run_directory.best} cannot be read and was not evaluated")
            return None
        return self._evaluate(self.dataset.test, weights)

    def _evaluate(self, split: Images, weights: Mapping[str, Array] | None = None) -> Evaluation:
        try:
            return self.evaluator.evaluate(self.engine, split, weights)
        except StopRequested:
            assert self._signal is not None
            self._stop(self._signal)

    def _check(self) -> None:
        """Raise StopRequested if any rank is asked to stop."""
        self._signal = self.agreement.signal()
        if self._signal:
            raise StopRequested

    def _stop_if_asked(self) -> None:
        if self._signal:
            self._stop(self._signal)

    def _stop(self, name: str) -> NoReturn:
        """Save and end because of a signal."""
        self._count(wait=True)
        self._save(needed=True)
        self._say(f"{name}: step {self.state.step} is saved in {self.run_directory.last}")
        if name == "SIGINT":
            raise KeyboardInterrupt
        raise PreemptedError(
            f"{name}: step {self.state.step} is saved, to resume: igcnn train --resume "
            f"{self.run_directory.path}"
        )

    def _diverged(self, what: str, value: float) -> DivergedError:
        step = self.state.step
        error = DivergedError(
            f"the {what} became {value} after step {step} (lr {self.optimizer.lr:g}); "
            f"{self.run_directory.last} holds the last good weights; try a lower --lr"
        )
        self.run_directory.log(f"diverged: {error}")
        return error

    def _save(self, needed: bool = False, path: Path | None = None) -> None:
        """Write a checkpoint, last.h5 by default; see Saver.save."""
        self.state.seconds = self._seconds()
        averages = self.evaluator.averages()
        failure = self.saver.save(path or self.run_directory.last, self.state, needed, averages)
        if failure:
            self._say(failure)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _say(self, text: str) -> None:
        self.run_directory.log(text)
        self.progress.message(text)
