"""Evaluation: loss and accuracy of a network on a set of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..autograd import no_grad
from ..backend import single_threaded_blas
from ..datasets import Split, evaluation_batches
from ..functional import cross_entropy
from ..layers import Layer
from .metrics import Evaluation, Sums, count_hits

BATCH_SIZE = 200


def evaluate(
    network: Layer,
    split: Split,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    batch_size: int = BATCH_SIZE,
    check: Callable[[], None] | None = None,
) -> Evaluation:
    """Return the loss and accuracy of a network on every image of a split, once each.

    Batch norm uses its running statistics and nothing is recorded; the mode that the network
    was in is restored.

    Args:
        network: gives logits, (N, K), for images, (N, 3, H, W).
        split: images and labels.
        mean: for each colour, in pixel values.
        std: likewise.
        batch_size: images at a time; the result does not depend on it beyond rounding.
        check: called before every batch; may raise to break off.

    Raises:
        ShapeError: a label is beyond the network's classes.
    """
    training = network.training
    network.eval()
    sums = Sums()
    top5 = 0
    batches = evaluation_batches(split, batch_size=batch_size, mean=mean, std=std)
    try:
        with no_grad(), single_threaded_blas(), np.errstate(over="ignore", invalid="ignore"):
            for x, labels in batches:
                if check is not None:
                    check()
                logits = network(x)
                loss = cross_entropy(logits, labels).item()
                sums.add(len(labels), loss, count_hits(logits.data, labels), 0.0)
                top5 += count_hits(logits.data, labels, 5)
    finally:
        network.train(training)
    return Evaluation(sums.top1, 100 * top5 / sums.images, sums.mean_loss, sums.images)
