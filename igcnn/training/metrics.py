"""What is measured in training and evaluation. Accuracies are in percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray


def held_out(row: Mapping[str, float]) -> str:
    """Return what a row of metrics.csv was evaluated on: "val", validation images, or "test"."""
    return "val" if "val_top1" in row else "test"


@dataclass
class Sums:
    """Running sums over batches.

    Attributes:
        images: how many images were seen.
        loss: sum of their losses.
        correct: how many of them were classified correctly.
        seconds: how long that took.
    """

    images: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0

    def add(self, images: int, mean_loss: float, correct: int, seconds: float) -> None:
        """Add a batch, given its mean loss."""
        self.images += images
        self.loss += mean_loss * images
        self.correct += correct
        self.seconds += seconds

    @property
    def mean_loss(self) -> float:
        """Mean loss of an image."""
        return self.loss / self.images

    @property
    def top1(self) -> float:
        """Accuracy in percent."""
        return 100 * self.correct / self.images

    @property
    def images_per_second(self) -> float:
        """Speed."""
        return self.images / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Evaluation:
    """A network's accuracy on a set of images.

    Attributes:
        top1: share of the images whose label has the largest logit, in percent.
        top5: share of those whose label is among the five largest, in percent.
        loss: mean cross-entropy.
        images: how many there were.
        confusion: how many images of each class, (K, K): row the label, column the prediction.
    """

    top1: float
    top5: float
    loss: float
    images: int
    confusion: Array = field(repr=False, compare=False)

    def class_top1(self) -> Array:
        """Return the accuracy of each class in percent; NaN where it has no images."""
        with np.errstate(invalid="ignore"):
            share: Array = 100 * self.confusion.diagonal() / self.confusion.sum(axis=1)
        return share


def count_hits(logits: Array, labels: Array, k: int = 1) -> int:
    """Return how many labels are among the k largest logits of their row.

    Of equal logits the one of the smaller class counts as larger, and NaN is larger than all:
    a network whose outputs are all alike, or broken, gains nothing by it.

    Args:
        logits: (N, K).
        labels: integers, (N,).
        k: from 1 up.
    """
    N, K = logits.shape
    own = logits[np.arange(N), labels][:, None]  # (N, 1)
    ties = (logits == own) & (np.arange(K) < labels[:, None])
    ahead = ~(logits <= own) | ties
    return int((ahead.sum(axis=1) < k).sum())
