"""Metrics for TensorBoard, in the folder tensorboard of a run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError
from .callback import Callback


def check_tensorboard() -> None:
    """Raise ConfigError unless tensorboardX is there."""
    if find_spec("tensorboardX") is None:
        raise ConfigError('--tensorboard needs tensorboardX: pip install "igcnn[tensorboard]"')


class TensorBoard(Callback):
    """Writes rows of metrics as scalars.

    Args:
        folder: of the events.
        step: updates done so far; what an earlier session wrote of later ones is void.

    Raises:
        ConfigError: tensorboardX is not there.
    """

    def __init__(self, folder: Path, step: int) -> None:
        check_tensorboard()
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step)

    def on_step(self, row: Mapping[str, float]) -> None:
        """Write the row of a log step."""
        self._write(row)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Write the row of an epoch, whose names tell train and test."""
        self._write(row)

    def _write(self, row: Mapping[str, float]) -> None:
        step = int(row["step"])
        for name, value in row.items():
            if name not in ("step", "epoch"):
                self._writer.add_scalar(name.replace("_", "/", 1), value, step)
        self._writer.flush()

    def close(self) -> None:
        """Bring everything to the disk."""
        self._writer.close()
