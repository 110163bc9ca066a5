"""Saving a run: what goes into its checkpoints, and what happens when the disk takes none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import Dataset
from ..distributed import Communicator
from ..errors import CheckpointError
from ..networks import Network
from ..optim import SGD
from .checkpoint import Preprocessing, load_checkpoint, save_checkpoint
from .run_directory import RunDirectory
from .state import TrainingState

Array = np.ndarray


class Saver:
    """Writes checkpoints of a run.

    Args:
        run: where they go.
        network: its parameters and statistics.
        optimizer: its velocity.
        dataset: how its pixels were prepared.
        settings: JSON values: what the training depends on.
        communicator: connects the ranks, of which rank 0 writes.
    """

    def __init__(
        self,
        run: RunDirectory,
        network: Network,
        optimizer: SGD,
        dataset: Dataset,
        settings: Mapping[str, Any],
        communicator: Communicator,
    ) -> None:
        self.run = run
        self.network = network
        self.optimizer = optimizer
        self.preprocessing = Preprocessing(
            dataset.name,
            dataset.classes,
            dataset.mean,
            dataset.std,
            dataset.train.image_shape[-1],
            dataset.train.view,
        )
        self.settings = settings
        self.communicator = communicator

    def best_weights(self) -> dict[str, Array] | None:
        """Return the parameters and statistics in best.h5, None if it cannot be read."""
        try:
            return load_checkpoint(self.run.best).state
        except CheckpointError:
            return None

    def save(
        self,
        path: Path,
        state: TrainingState,
        needed: bool,
        average: Mapping[str, Array] | None = None,
    ) -> str | None:
        """Write a checkpoint; if it is last.h5, the one before becomes previous.h5.

        The other ranks wait until it is written: none ends while rank 0 saves.

        Args:
            path: of the file.
            state: where the run is.
            needed: nothing comes after it; otherwise a full disk only costs this checkpoint.
            average: averages of the network's parameters and buffers, None for none.

        Returns:
            A warning if it could not be written, else None.

        Raises:
            CheckpointError: it is needed and cannot be written; what was there stays.
        """
        failure = None
        if self.communicator.rank == 0:
            failure = self._write(path, state, needed, average)
        if not self.communicator.broken:
            # rank 0 takes its time, which is no reason to think that it is lost
            waiting = self.communicator.patience() if self.communicator.rank else nullcontext()
            with waiting:
                self.communicator.gather(b"")
        return failure

    def _write(
        self,
        path: Path,
        state: TrainingState,
        needed: bool,
        average: Mapping[str, Array] | None,
    ) -> str | None:
        try:
            # no checkpoint is newer than its rows: they would be lost
            self.run.flush()
            if path == self.run.last:
                self.run.keep_previous()
            save_checkpoint(
                path,
                self.network,
                self.optimizer,
                preprocessing=self.preprocessing,
                training=self.settings,
                progress=state.to_json(),
                average=average,
            )
        except (CheckpointError, OSError) as error:
            if not needed:
                return f"step {state.step} could not be saved, continuing: {error}"
            if isinstance(error, OSError):
                raise _unsaved(path, error) from error
            raise
        return None


def _unsaved(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"cannot write the checkpoint {path}: {error.strerror or error}; the previous file "
        "is unchanged; free some space and resume with --resume"
    )
