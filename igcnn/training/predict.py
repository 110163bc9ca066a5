"""Classes of single images, prepared as those that the network was trained on."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..datasets.photographs import evaluation_view, square_view
from ..datasets.stores import ENDINGS
from ..errors import DataError
from ..kernels.augment import normalise
from ..kernels.softmax_cross_entropy import softmax_cross_entropy_forward
from ..networks import Network
from .checkpoint import Preprocessing
from .engine import make_engine

Array = np.ndarray


def read_image(path: Path, prepared: Preprocessing) -> Array:
    """Return the pixels that the network sees, uint8, (3, side, side).

    Raises:
        DataError: the file cannot be read or is not an image.
    """
    try:
        data = path.read_bytes()
        if prepared.view == "center":
            return evaluation_view(data, prepared.side, upright=True)
        return square_view(data, prepared.side)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except DataError as error:
        raise DataError(f"{path} {error}") from error


def top_classes(
    network: Network, images: Iterable[Array], prepared: Preprocessing, top: int, batch: int
) -> Iterator[list[tuple[str, float]]]:
    """Yield for each image its most probable classes, best first, with their probabilities.

    Images are taken as they are computed, `batch` at a time.
    """
    shape = 3, prepared.side, prepared.side
    engine, _ = make_engine(network, shape, batch, training=False)
    try:
        engine.refresh()
        mean, std = (np.array(values, np.float32) for values in (prepared.mean, prepared.std))
        source = iter(images)
        while pixels := list(itertools.islice(source, batch)):
            logits = engine.logits(normalise(np.stack(pixels), mean, std))
            labels = np.zeros(len(pixels), np.int64)
            _, probabilities = softmax_cross_entropy_forward(logits, labels)
            order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
            for row, chosen in zip(probabilities, order, strict=True):
                yield [(prepared.classes[k], float(row[k])) for k in chosen]
    finally:
        engine.close()


def expanded(paths: Iterable[str]) -> list[Path]:
    """Return the images that paths mean: files, all images below folders, patterns like *.jpg.

    Raises:
        DataError: a path means nothing.
    """
    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            files = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in ENDINGS]
        else:
            files = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(text))]
        if not files:
            raise DataError(f"{text}: no images found; pass files, directories or patterns")
        found += files
    return found
