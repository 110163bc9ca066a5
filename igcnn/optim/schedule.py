"""The learning rate in steps, by the authors' rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ConfigError
from .number import number


@dataclass(frozen=True)
class StepSchedule:
    """lr · factor^k, where k is the number of boundaries that have been passed.

    A boundary is passed when the number of the update exceeds it: updates 1 … b still use the
    old rate. The authors' boundaries are epoch · floor(N/B) for N images in batches of B, which
    is a fraction of an epoch early, because their epochs complete the last batch.

    Attributes:
        lr: rate of the first update.
        boundaries: in updates, in rising order.
        factor: what a boundary multiplies the rate by.

    Raises:
        ConfigError: a negative or infinite rate or factor, or boundaries out of order.
    """

    lr: float
    boundaries: tuple[int, ...] = ()
    factor: float = 0.1

    def __post_init__(self) -> None:
        for name in ("lr", "factor"):
            object.__setattr__(self, name, number("schedule", name, getattr(self, name)))
        if not isinstance(self.boundaries, Iterable):
            raise ConfigError(f"schedule: boundaries must be a list, not {self.boundaries!r}")
        boundaries = tuple(self.boundaries)
        steps = [number("schedule", "a boundary", boundary) for boundary in boundaries]
        if steps != sorted(set(steps)):
            raise ConfigError(f"schedule: boundaries must rise, not {list(boundaries)}; sort them")
        object.__setattr__(self, "boundaries", boundaries)

    def lr_at(self, update: int) -> float:
        """Return the learning rate of an update; the first update has the number 1."""
        passed = sum(update > boundary for boundary in self.boundaries)
        return self.lr * self.factor**passed
