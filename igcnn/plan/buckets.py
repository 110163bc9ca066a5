"""The backward pass in pieces, so that ranks sum what is complete while the rest is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Call = Callable[[], None]

BUCKET_BYTES = 1 << 20  # of gradients that are summed at once, at least


class GradientBucket(NamedTuple):
    """Some launches, and the gradients that are complete after them.

    Attributes:
        calls: the launches.
        start: where the gradients begin in the array of all.
        stop: where they end.
    """

    calls: list[Call]
    start: int
    stop: int


def split_into_buckets(
    calls: list[Call], gradients: list[Array], starts: list[int], size: int
) -> list[GradientBucket]:
    """Return the calls of a backward pass in pieces, each with the gradients that it completes.

    Args:
        calls: partial objects, in their order.
        gradients: of the parameters, in the order of computation.
        starts: where each begins in the array of all.
        size: of that array, in elements.
    """
    writers = {id(array): place for place, call in enumerate(calls) for array in _arrays(call)}
    buckets = []
    first, stop, last = 0, size, 0
    for gradient, start in zip(reversed(gradients), reversed(starts), strict=True):
        last = max(last, writers[id(gradient)] + 1)
        if (stop - start) * gradient.itemsize >= BUCKET_BYTES or start == 0:
            buckets.append(GradientBucket(calls[first:last], start, stop))
            first, stop = last, start
    buckets[-1].calls.extend(calls[first:])
    return buckets


def _arrays(value: Any) -> Iterator[Any]:
    """Yield the arrays among the arguments of a call, also those in containers and records."""
    if isinstance(value, partial):
        for argument in (value.func, *value.args, *value.keywords.values()):
            yield from _arrays(argument)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _arrays(item)
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _arrays(getattr(value, field.name))
    elif hasattr(value, "dtype"):
        yield value
