"""Classes of single images, prepared as those that the network was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..datasets.photographs import evaluation_view, square_view
from ..errors import DataError
from ..kernels.augment import normalise
from ..kernels.softmax_cross_entropy import softmax_cross_entropy_forward
from ..networks import Network
from .checkpoint import Preprocessing
from .engine import make_engine

Array = np.ndarray

BATCH = 32


def read_image(path: Path, prepared: Preprocessing) -> Array:
    """Return the pixels that the network sees, uint8, (3, side, side).

    Raises:
        DataError: the file cannot be read or is no image.
    """
    view = evaluation_view if prepared.view == "center" else square_view
    try:
        return view(path.read_bytes(), prepared.side)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DataError as error:
        raise DataError(f"{path} {error}") from error


def top_classes(
    network: Network, images: list[Array], prepared: Preprocessing, top: int
) -> list[list[tuple[str, float]]]:
    """Return for each image its most probable classes, best first, with their probabilities."""
    shape = 3, prepared.side, prepared.side
    batch = max(1, min(BATCH, len(images)))
    engine, _ = make_engine(network, shape, batch, training=False)
    engine.refresh()
    mean, std = (np.array(values, np.float32) for values in (prepared.mean, prepared.std))
    result = []
    for first in range(0, len(images), batch):
        x = normalise(np.stack(images[first : first + batch]), mean, std)
        logits = engine.logits(x)
        _, probabilities = softmax_cross_entropy_forward(logits, np.zeros(len(x), np.int64))
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        for row, chosen in zip(probabilities, order, strict=True):
            result.append([(prepared.classes[k], float(row[k])) for k in chosen])
    engine.close()
    return result
