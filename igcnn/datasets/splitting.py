"""Images held out from a split: class by class, and by the seed alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import DataError
from .dataset import HOLD_OUT_STREAM, Dataset, Draw

Array = np.ndarray


def stratified(labels: Array, fraction: float, seed: int) -> Array:
    """Return which of some images to hold out, bool, (N,).

    Of the n images of a class, fraction·n are held out, rounded, but at least one and never
    all; of a class with one image none. Which ones depends on the seed and the labels alone.

    Args:
        labels: class of each image, (N,).
        fraction: above 0 and below 1.
        seed: from 0 to 2⁶⁴ − 1.
    """
    draw = Draw(seed, 0, (0, 0, 0), None)
    high, low, _, _ = draw.words(np.arange(len(labels)), HOLD_OUT_STREAM)
    order = np.argsort(high << np.uint64(32) | low, kind="stable")
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        count = int(fraction * len(members) + 0.5)
        held_out[members[: min(len(members) - 1, max(1, count))]] = True
    return held_out


def hold_out(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Return a data set whose `validation` images are held out of its training images.

    The constants that pixels are normalized by stay those of the data set.

    Args:
        dataset: has no validation images yet.
        fraction: of the training images, above 0 and below 1; see stratified.
        seed: from 0 to 2⁶⁴ − 1.

    Raises:
        DataError: no class has two images.
    """
    held_out = stratified(dataset.train.labels, fraction, seed)
    if not held_out.any():
        raise DataError(
            f"{dataset.name}: no training image can be held out for validation, as no class has "
            "two; leave out --validation"
        )
    train, validation = (
        dataset.train.take(np.flatnonzero(chosen)) for chosen in (~held_out, held_out)
    )
    return replace(dataset, train=train, validation=validation)
