"""Splits of encoded images: found where they are, decoded ahead of time by worker processes.

A process gets the numbers of a few images and returns their pixels; what they look like depends
on (seed, epoch, sample) alone, so the number of processes changes nothing.
"""

from __future__ import annotations

import collections
import functools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import DataError
from .dataset import Decoding, Draw, repr_of_split
from .photographs import SIDE, evaluation_view, square_view, training_view

Array = np.ndarray

IMAGES_AT_ONCE = 16
BATCHES_AHEAD = 3


class Store(Protocol):
    """Encoded images by number."""

    def __len__(self) -> int:
        """Return how many."""
        ...

    def read(self, index: int) -> bytes:
        """Return the bytes of one."""
        ...

    def name(self, index: int) -> str:
        """Return what it is called, for messages."""
        ...


@dataclass(frozen=True)
class Chosen:
    """Some of the images of a store, by their numbers there."""

    store: Store
    numbers: Array

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> bytes:
        """Return the bytes of one."""
        return self.store.read(int(self.numbers[index]))

    def name(self, index: int) -> str:
        """Return what it is called, for messages."""
        return self.store.name(int(self.numbers[index]))


class EncodedSplit:
    """A split of encoded images.

    Args:
        store: their bytes.
        labels: int64, (N,).
        decoding: how to decode them.
        side: of what a network sees.
        whole_square: see square_view instead of evaluation_view.

    Attributes:
        broken: numbers of images that were left out, and why.
    """

    view: ClassVar[str] = "center"

    def __init__(
        self,
        store: Store,
        labels: Array,
        decoding: Decoding,
        side: int = SIDE,
        whole_square: bool = False,
    ) -> None:
        self.whole_square = whole_square
        self.store = store
        self.labels = labels
        self.decoding = decoding
        self.side = side
        self.broken: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return repr_of_split(self)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, side, side)."""
        return 3, self.side, self.side

    def take(self, indices: Array) -> EncodedSplit:
        """Return a split of these images alone, in this order."""
        store, labels = Chosen(self.store, indices), self.labels[indices]
        return EncodedSplit(store, labels, self.decoding, self.side, self.whole_square)

    def batches(
        self, batches: Iterable[Array], draw: Draw | None
    ) -> Iterator[tuple[Array, Array]]:
        """Yield (indices, images) for batches of indices; see Images.

        Where broken images are skipped, an evaluation leaves them out; in training the next
        image that can be read stands in.

        Raises:
            DataError: an image cannot be read; the message names it.
        """
        view = functools.partial(_view, draw=draw, side=self.side, whole_square=self.whole_square)
        parts = decode(self.store, batches, view, self.decoding.workers)
        for indices, results in parts:
            chosen, pixels = [], []
            for index, result in zip(indices.tolist(), results, strict=True):
                for number, array in self._readable(index, result, view, draw is not None):
                    chosen.append(number)
                    pixels.append(array)
            if chosen:
                yield np.array(chosen, np.int64), np.stack(pixels)

    def _readable(
        self, index: int, result: Array | str, view: Callable[[bytes, int], Array], stand_in: bool
    ) -> Iterator[tuple[int, Array]]:
        """Yield the image, or what stands in for it."""
        for step in range(len(self)):
            number = (index + step) % len(self)
            if step:
                result = _try(self.store, view, number)
            if not isinstance(result, str):
                yield number, result
                return
            self.note(number, result)
            if not stand_in:
                return
        raise DataError("no image is readable")

    def note(self, index: int, reason: str) -> None:
        """Leave out a broken image.

        Raises:
            DataError: that is not wanted; the message names the image.
        """
        what = f"{self.store.name(index)} {reason}"
        if not self.decoding.skip:
            raise DataError(f"{what}; replace it, or pass --on-bad-image skip")
        if index not in self.broken:
            self.broken[index] = reason
            self.decoding.say(f"skipped: {what} ({len(self.broken)} so far)")


def _view(data: bytes, index: int, draw: Draw | None, side: int, whole_square: bool) -> Array:
    if whole_square:
        return square_view(data, side)
    if draw is None:
        return evaluation_view(data, side)
    return training_view(data, index, draw, side)


def decode(
    store: Store,
    batches: Iterable[Array],
    view: Callable[[bytes, int], Any],
    workers: int,
) -> Iterator[tuple[Array, list[Any]]]:
    """Yield (indices, results) for each batch: of every image its view, or what is wrong with it.

    Args:
        store: bytes by number.
        batches: indices of each batch.
        view: from (bytes, index) to a result; raises DataError.
        workers: processes that work ahead; 0 for none.

    Raises:
        DataError: a process was killed.
    """
    if workers == 0:
        for indices in batches:
            yield indices, [_try(store, view, index) for index in indices.tolist()]
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (store, view, os.getpid()))
    waiting: collections.deque[tuple[Array, list[Future[list[Any]]]]] = collections.deque()
    try:
        for indices in batches:
            numbers = indices.tolist()
            parts = [
                numbers[i : i + IMAGES_AT_ONCE] for i in range(0, len(numbers), IMAGES_AT_ONCE)
            ]
            waiting.append((indices, [pool.submit(_decode_part, part) for part in parts]))
            if len(waiting) > BATCHES_AHEAD:
                yield _results(waiting.popleft())
        while waiting:
            yield _results(waiting.popleft())
    except BrokenProcessPool as error:
        raise DataError(
            "a process that decodes images was killed; is there enough memory? try --workers 1"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _results(batch: tuple[Array, list[Future[list[Any]]]]) -> tuple[Array, list[Any]]:
    indices, futures = batch
    return indices, [result for future in futures for result in future.result()]


_work: tuple[Store, Callable[[bytes, int], Any]]


def _begin(store: Store, view: Callable[[bytes, int], Any], parent: int) -> None:
    """Prepare a process of the pool."""
    global _work
    _work = store, view
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that uses it was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _decode_part(indices: list[int]) -> list[Any]:
    store, view = _work
    return [_try(store, view, index) for index in indices]


def _try(store: Store, view: Callable[[bytes, int], Any], index: int) -> Any:
    """Return the view of an image, or in words what is wrong with it."""
    try:
        return view(store.read(index), index)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
