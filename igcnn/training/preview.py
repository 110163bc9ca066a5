"""How long an epoch will take, by a few updates whose results are thrown away."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import numpy as np

from ..backend import single_threaded_blas
from ..datasets import evaluation_batches
from .trainer import Trainer

WARM_UP = 2  # updates that are not timed: the first one compiles
UPDATES = 20  # at most, of those that are timed
SECONDS = 3.0  # after which no further update is timed


@dataclass(frozen=True)
class Preview:
    """What a run will take.

    Attributes:
        backend: what computes, in words, with the memory of a plan.
        updates: of an epoch.
        epochs: of the run.
        update_seconds: time of an update.
        test_seconds: time of the test after an epoch.
    """

    backend: str
    updates: int
    epochs: int
    update_seconds: float
    test_seconds: float

    @property
    def epoch_seconds(self) -> float:
        """Time of an epoch, test included, checkpoints not."""
        return self.updates * self.update_seconds + self.test_seconds


def preview(trainer: Trainer, backend: str) -> Preview:
    """Time a few updates and a batch of the test; nothing is saved, but the weights change.

    Args:
        trainer: with its engine; of one process.
        backend: what the engine is, in words.
    """
    engine = trainer.engine
    trainer.network.train()
    with single_threaded_blas(), np.errstate(all="ignore"):
        engine.prepare(trainer.optimizer, trainer.loader)
        update_seconds = _time_updates(trainer)
        engine.refresh()
        test_seconds = _time_test(trainer)
    updates = trainer.updates_per_epoch
    epochs = -(-trainer.total // updates)
    return Preview(backend, updates, epochs, update_seconds, test_seconds)


def _time_updates(trainer: Trainer) -> float:
    """Return the mean seconds of an update."""
    engine = trainer.engine
    times = [time.perf_counter()]
    for batch in engine.batches(0, 0):
        engine.update(batch)
        engine.collect(True)
        times.append(time.perf_counter())
        timed = len(times) - 1 - WARM_UP
        if timed == UPDATES or (timed > 0 and times[-1] - times[WARM_UP] > SECONDS):
            break
    # an epoch of one or two updates has no others
    first = min(WARM_UP, len(times) - 2)
    return (times[-1] - times[first]) / (len(times) - 1 - first)


def _time_test(trainer: Trainer) -> float:
    """Return the seconds of a test by its second batch, or its only one."""
    dataset, size = trainer.dataset, trainer.recipe.batch_size
    batches = evaluation_batches(dataset.test, batch_size=size, mean=dataset.mean, std=dataset.std)
    times = [time.perf_counter()]
    for x, _ in itertools.islice(batches, 2):
        trainer.engine.logits(x)
        times.append(time.perf_counter())
    return (times[-1] - times[-2]) * -(-len(dataset.test) // size)
