"""Where a run is: all that has to survive a kill beside the weights and the velocity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import CheckpointError
from .metrics import Sums


@dataclass
class TrainingState:
    """Position and running sums. Everything random follows from the seed and the position.

    Attributes:
        step: updates done.
        epochs: epochs done, evaluation included.
        best_top1: best accuracy on the held-out images after an epoch, in percent; negative
            before the first.
        best_epoch: the epoch (from 1) after which it was reached.
        seconds: duration of the run so far, earlier sessions included.
        interval: sums since the last log step.
        epoch: sums of the epoch that is under way.
    """

    step: int = 0
    epochs: int = 0
    best_top1: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    interval: Sums = field(default_factory=Sums)
    epoch: Sums = field(default_factory=Sums)

    def to_json(self) -> dict[str, Any]:
        """Return the values as a checkpoint keeps them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingState:
        """Return the state that to_json described.

        Raises:
            CheckpointError: these are not the values of a state.
        """
        try:
            sums = {name: Sums(**values[name]) for name in ("interval", "epoch")}
            return cls(**{**values, **sums})
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                "the checkpoint does not hold the position of a training run; resume from the "
                "checkpoints/last.h5 of a run"
            ) from error
