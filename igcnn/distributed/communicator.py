"""Ranks: the processes that train one network together, on one computer or many.

A sum is begun and waited for separately, so that the computation can go on in between. Nobody
waits for ever: a rank that died or hangs is an error on the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

Array = np.ndarray

TIMEOUT = 6.0  # seconds


class Communicator:
    """A process alone: sums are what they are; the base of those that connect several.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        local_rank: number of this process among those on this computer.
        local_size: how many there are on this computer.
        stopping: says whether this process was asked to end.
        timeout: seconds after which a rank that does not answer is lost.
        broken: whether a rank was lost; nothing can be summed any more.
    """

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    timeout = TIMEOUT

    def __init__(self) -> None:
        self.stopping: Callable[[], bool] = lambda: False
        self.broken = False

    def __str__(self) -> str:
        return "one process"

    def start_sum(self, array: Array) -> Callable[[], None]:
        """Begin to replace an array, contiguous, by its sum over all ranks.

        All ranks get the same bits, and all begin their sums in the same order.

        Returns:
            What waits for the sum; until then the array is not to be touched.

        Raises:
            RankError: a rank was lost, here or in the function returned.
        """
        return lambda: None

    def start_mean(self, array: Array, share: float) -> Callable[[], None]:
        """Begin to replace an array by its mean over all ranks, as start_sum does by its sum.

        Args:
            array: of this rank.
            share: weight of this rank; those of all ranks add up to 1.
        """
        array *= share
        return self.start_sum(array)

    def sum(self, array: Array) -> None:
        """Replace an array by its sum over all ranks."""
        self.start_sum(array)()

    def gather(self, data: bytes) -> list[bytes]:
        """Return what each rank gave, by rank."""
        return [data]

    def broadcast(self, data: bytes) -> bytes:
        """Return what rank 0 gave."""
        return self.gather(data if self.rank == 0 else b"")[0]

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """Context in which ranks may be late: a first step compiles, a save takes its time."""
        yield

    def abort(self, code: int) -> None:
        """End all ranks at once with an exit code; does nothing for a process alone."""
