"""Evaluation: loss and accuracy of a network on a set of images."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from ..datasets import Images, evaluation_batches
from ..distributed import Communicator
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
    communicator: Communicator | None = None,
) -> Evaluation:
    """Return the loss and accuracy of a network on every image of a split, once each.

    Batch norm uses its running statistics; nothing of the network changes. Several ranks share
    the batches, and all get the result.

    Args:
        engine: gives logits, (n, K), for images, (n, 3, H, W).
        split: images and labels.
        mean: for each colour, in pixel values.
        std: likewise.
        batch_size: images at a time, at most what the engine was made for; the result does not
            depend on it beyond rounding.
        check: called before every batch, equally often on all ranks; may raise to break off.
        communicator: connects the ranks; None for one process.

    Raises:
        ShapeError: a label is beyond the network's classes.
    """
    communicator = communicator or Communicator()
    rank, ranks = communicator.rank, communicator.size
    sums = Sums()
    top5 = 0
    confusion = np.zeros((0, 0), np.int64)
    engine.refresh()
    batches = evaluation_batches(
        split, batch_size=batch_size, mean=mean, std=std, rank=rank, ranks=ranks
    )
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(0, len(split), ranks * batch_size):
            if check is not None:
                check()
            for x, labels in itertools.islice(batches, 1):
                logits = engine.logits(x)
                loss, _ = softmax_cross_entropy_forward(logits, labels)
                sums.add(len(labels), float(loss), count_hits(logits, labels), 0.0)
                top5 += count_hits(logits, labels, 5)
                if not confusion.size:
                    confusion = np.zeros((logits.shape[1],) * 2, np.int64)
                np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    # a rank may have had no images; rank 0 had some
    K = int(communicator.broadcast(str(len(confusion)).encode()))
    totals = np.zeros(4 + K * K)
    totals[:4] = sums.images, sums.loss, sums.correct, top5
    totals[4:] += confusion.ravel() if confusion.size else 0
    communicator.sum(totals)
    images, sum_of_losses, correct, top5 = totals[:4].tolist()
    confusion = totals[4:].reshape(K, K).astype(np.int64)
    return Evaluation(
        100 * correct / images, 100 * top5 / images, sum_of_losses / images, int(images), confusion
    )
