"""Evaluation: loss and accuracy of a network on a set of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..datasets import Images, evaluation_batches
from ..kernels.softmax_cross_entropy import softmax_cross_entropy_forward
from .engine import Engine
from .metrics import Evaluation, Sums, count_hits

BATCH_SIZE = 128


def evaluate(
    engine: Engine,
    split: Images,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    batch_size: int = BATCH_SIZE,
    check: Callable[[], None] | None = None,
) -> Evaluation:
    """Return the loss and accuracy of a network on every image of a split, once each.

    Batch norm uses its running statistics; nothing of the network changes.

    Args:
        engine: gives logits, (n, K), for images, (n, 3, H, W).
        split: images and labels.
        mean: for each colour, in pixel values.
        std: likewise.
        batch_size: images at a time, at most what the engine was made for; the result does not
            depend on it beyond rounding.
        check: called before every batch; may raise to break off.

    Raises:
        ShapeError: a label is beyond the network's classes.
    """
    sums = Sums()
    top5 = 0
    confusion: np.ndarray | None = None
    engine.refresh()
    batches = evaluation_batches(split, batch_size=batch_size, mean=mean, std=std)
    with np.errstate(over="ignore", invalid="ignore"):
        for x, labels in batches:
            if check is not None:
                check()
            logits = engine.logits(x)
            loss, _ = softmax_cross_entropy_forward(logits, labels)
            sums.add(len(labels), float(loss), count_hits(logits, labels), 0.0)
            top5 += count_hits(logits, labels, 5)
            if confusion is None:
                confusion = np.zeros((logits.shape[1],) * 2, np.int64)
            np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    assert confusion is not None  # a split has images
    return Evaluation(sums.top1, 100 * top5 / sums.images, sums.mean_loss, sums.images, confusion)
