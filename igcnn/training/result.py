"""How a training run ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .metrics import Evaluation


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        evaluation: of the last weights on the test images; of their average if there is one.
        best_top1: best accuracy after a whole epoch on the held-out images, the validation
            images or, without any, the test images; in percent, negative if there was none.
        best_epoch: the epoch (from 1) after which it was reached.
        step: updates done.
        seconds: duration, earlier sessions included.
        best_evaluation: of the weights in best.h5 on the test images if they were chosen on
            validation images; else None.
        stopped_early: whether patience ended the run.
    """

    evaluation: Evaluation
    best_top1: float
    best_epoch: int
    step: int
    seconds: float
    best_evaluation: Evaluation | None = None
    stopped_early: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what result.json says; accuracies are in percent and on the test images.

        Without a whole epoch best_epoch is 0, and best_top1 is last_top1.
        """
        best = self.best_evaluation
        own = self.best_top1 if self.best_epoch else self.evaluation.top1
        return {
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "stopped_early": self.stopped_early,
            "best_epoch": self.best_epoch,
            "best_val_top1": None if best is None else self.best_top1,
            "best_top1": own if best is None else best.top1,
            "last_top1": self.evaluation.top1,
            "last_top5": self.evaluation.top5,
            "last_loss": self.evaluation.loss,
        }
