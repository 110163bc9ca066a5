"""What the ranks of a run agree on: when to stop, and that they have the same weights."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import RankMismatchError
from .communicator import Communicator

Array = np.ndarray


class Stateful(Protocol):
    """A network, or its optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Return its arrays by name; those of an optimizer under "velocity"."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take over what state_dict returned."""
        ...


class Agreement:
    """Keeps the ranks of a run together.

    Args:
        communicator: connects them.
        network: must be the same on all.
        optimizer: likewise its velocity.
        labels: of the training images, (N,); likewise.
        signals: names of the signals that stop a run, the first before the others.
        requested: returns the one that this process got, None for none.
    """

    def __init__(
        self,
        communicator: Communicator,
        network: Stateful,
        optimizer: Stateful,
        labels: Array,
        signals: Sequence[str],
        requested: Callable[[], str | None],
    ) -> None:
        self.communicator = communicator
        self.network = network
        self.optimizer = optimizer
        self.labels = labels
        self.signals = signals
        self.requested = requested
        communicator.stopping = lambda: requested() is not None

    def signal(self) -> str | None:
        """Return the signal that asked any of the ranks to stop, None for none; the same on all.

        Raises:
            RankError: a rank was lost.
        """
        return first_choice(self.communicator, self.signals, self.requested())

    def patience(self, needed: bool = True) -> contextlib.AbstractContextManager[None]:
        """Return a context in which ranks may be late, one without effect unless it is needed."""
        return self.communicator.patience() if needed else contextlib.nullcontext()

    def give_up(self) -> None:
        """Agree on nothing more: the other ranks are elsewhere."""
        self.communicator.broken = self.communicator.size > 1

    def follow_rank_0(
        self, position: Mapping[str, Any], average: Mapping[str, Array] | None
    ) -> tuple[Mapping[str, Any], Mapping[str, Array] | None]:
        """Take over the weights of rank 0, which alone has read a checkpoint.

        Args:
            position: where the run is, JSON values, of this rank.
            average: averages of parameters and buffers, None for none; likewise.

        Returns:
            Both as they are on rank 0.

        Raises:
            RankError: a rank was lost.
        """
        if self.communicator.size == 1:
            return position, average
        described = self.communicator.broadcast(json.dumps(position).encode())
        arrays = spread(self.communicator, self._arrays())
        self.network.load_state_dict({name: arrays[name] for name in self.network.state_dict()})
        state = self.optimizer.state_dict()
        velocity = {name: arrays[f"velocity of {name}"] for name in state["velocity"]}
        self.optimizer.load_state_dict(state | {"velocity": velocity})
        return json.loads(described), self.spread_weights(average)

    def spread_weights(self, weights: Mapping[str, Array] | None) -> Mapping[str, Array] | None:
        """Return the parameters and buffers that rank 0 gave, None if it gave none.

        Raises:
            RankError: a rank was lost.
        """
        if self.communicator.size == 1:
            return weights
        if not self.communicator.broadcast(b"" if weights is None else b"given"):
            return None
        return spread(self.communicator, weights or self.network.state_dict())

    def compare(self, when: str) -> None:
        """Raise unless all ranks have the same weights; see compare_ranks."""
        if self.communicator.size > 1:
            compare_ranks(self.communicator, self._arrays() | {"labels": self.labels}, when)

    def _arrays(self) -> dict[str, Array]:
        """Return copies of what an update changes: parameters, statistics, velocity."""
        velocity = self.optimizer.state_dict()["velocity"]
        named = {f"velocity of {name}": array for name, array in velocity.items()}
        return self.network.state_dict() | named


def first_choice(
    communicator: Communicator, choices: Sequence[str], mine: str | None
) -> str | None:
    """Return the first of some names that any of the ranks chose, None for none.

    Args:
        communicator: connects the ranks.
        choices: the names; the same on all ranks.
        mine: what this rank chose, None for none.

    Raises:
        RankError: a rank was lost.
    """
    if communicator.size == 1:
        return mine
    counts = np.array([name == mine for name in choices], np.int64)
    communicator.sum(counts)
    return next((name for name, count in zip(choices, counts, strict=True) if count), None)


def compare_ranks(communicator: Communicator, arrays: Mapping[str, Array], when: str) -> None:
    """Raise unless all ranks have bit-identical arrays.

    Args:
        communicator: connects the ranks.
        arrays: name → array of the host; the same names on all ranks.
        when: ends the sentence of the error.

    Raises:
        RankMismatchError: an array differs; the first is named.
        RankError: a rank was lost.
    """
    own = b"".join(hashlib.sha256(a.tobytes()).digest() for a in arrays.values())
    first, *others = communicator.gather(own)
    for place, name in enumerate(arrays):
        digest = slice(32 * place, 32 * (place + 1))
        differing = [rank for rank, x in enumerate(others, 1) if x[digest] != first[digest]]
        if differing:
            ranks = ", ".join(map(str, differing))
            raise RankMismatchError(
                f"{name} of rank {ranks} differs from that of rank 0 {when}; last.h5 holds the "
                "last weights that were equal: look for a computer that has other data or "
                "libraries, or computes wrongly, and resume with --resume"
            )


def spread(communicator: Communicator, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays that rank 0 gave; names, shapes and types are the same on all ranks.

    Raises:
        RankError: a rank was lost.
    """
    mine = (
        b"".join(array.tobytes() for array in arrays.values()) if communicator.rank == 0 else b""
    )
    data = communicator.broadcast(mine)
    received: dict[str, Array] = {}
    start = 0
    for name, array in arrays.items():
        values = np.frombuffer(data, array.dtype, array.size, start)
        received[name] = values.reshape(array.shape)
        start += array.nbytes
    return received
