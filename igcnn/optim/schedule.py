"""The learning rate as a function of the number of the update, and of nothing else.

Every schedule can begin with a linear warm-up (P. Goyal et al., Accurate, Large Minibatch SGD,
2017, section 2.2): update u of the W first has the rate η·u/W.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .number import number


@dataclass(frozen=True)
class Schedule:
    """A constant learning rate; the base of those that fall.

    Attributes:
        lr: initial learning rate η, the one that the warm-up reaches.
        warmup: W, updates of the linear warm-up; 0 for none.

    Raises:
        ConfigError: a number is negative or infinite.
    """

    lr: float
    warmup: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        self._check_numbers("lr", "warmup")

    def lr_at(self, update: int) -> float:
        """Return the learning rate of an update; the first update has the number 1."""
        if update <= self.warmup:
            return self.lr * update / self.warmup
        return self.after_warmup(update)

    def after_warmup(self, update: int) -> float:
        """Return the learning rate of an update after the warm-up."""
        return self.lr

    def _check_numbers(self, *names: str) -> None:
        for name in names:
            self._set(name, number("schedule", name, getattr(self, name)))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class StepSchedule(Schedule):
    """lr · factor^k, where k is the number of boundaries that have been passed.

    A boundary is passed when the number of the update exceeds it: updates 1 … b still use the
    old rate. The authors' boundaries are epoch · floor(N/B) for N images in batches of B, which
    is a fraction of an epoch early, because their epochs complete the last batch.

    Attributes:
        boundaries: in updates from the start of the run, in rising order.
        factor: what a boundary multiplies the rate by.

    Raises:
        ConfigError: a negative or infinite rate or factor, or boundaries out of order.
    """

    boundaries: tuple[int, ...] = ()
    factor: float = 0.1

    def __post_init__(self) -> None:
        self._check_numbers("lr", "warmup", "factor")
        if not isinstance(self.boundaries, Iterable):
            raise ConfigError(f"schedule: boundaries must be a list, not {self.boundaries!r}")
        boundaries = tuple(self.boundaries)
        steps = [number("schedule", "a boundary", boundary) for boundary in boundaries]
        if steps != sorted(set(steps)):
            raise ConfigError(f"schedule: boundaries must rise, not {list(boundaries)}; sort them")
        self._set("boundaries", boundaries)

    def after_warmup(self, update: int) -> float:
        """Return the learning rate of an update after the warm-up."""
        passed = sum(update > boundary for boundary in self.boundaries)
        return self.lr * self.factor**passed


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Half a period of the cosine, from lr down to lr_min (without restarts).

    .. math:: η_u = η_min + ½·(η − η_min)·(1 + cos(π·t/T))

    is the rate of update u, with t = u − 1 − W after W updates of warm-up and T = total − W.

    I. Loshchilov and F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017,
    equation 5. The first update after the warm-up has lr, the one after the last would have
    lr_min.

    Attributes:
        total: updates of the whole run, warm-up included.
        lr_min: η_min.

    Raises:
        ConfigError: a number is negative or infinite, lr_min is above lr, or the warm-up takes
            the whole run.
    """

    total: int
    lr_min: float = 0.0

    def __post_init__(self) -> None:
        self._check_numbers("lr", "warmup", "total", "lr_min")
        if self.lr_min > self.lr:
            raise ConfigError(f"lr_min must be at most lr = {self.lr:g}, not {self.lr_min:g}")
        if self.warmup >= self.total:
            raise ConfigError(
                f"the warm-up takes {self.warmup:g} updates of a run of {self.total:g}; "
                "choose fewer warmup_epochs"
            )

    def after_warmup(self, update: int) -> float:
        """Return the learning rate of an update after the warm-up; lr_min beyond the end."""
        done = min(1.0, (update - 1 - self.warmup) / (self.total - self.warmup))
        return self.lr_min + (self.lr - self.lr_min) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class ExponentialSchedule(Schedule):
    """lr · factor^k after k whole epochs since the warm-up.

    Attributes:
        epoch: updates of an epoch.
        factor: what an epoch multiplies the rate by.
        lr_min: the rate never falls below this.

    Raises:
        ConfigError: a number is negative or infinite, or an epoch has no updates.
    """

    epoch: int
    factor: float
    lr_min: float = 0.0

    def __post_init__(self) -> None:
        self._check_numbers("lr", "warmup", "epoch", "factor", "lr_min")
        if self.epoch < 1:
            raise ConfigError(f"schedule: an epoch has at least 1 update, not {self.epoch:g}")

    def after_warmup(self, update: int) -> float:
        """Return the learning rate of an update after the warm-up."""
        epochs = (update - 1 - self.warmup) // self.epoch
        return max(self.lr_min, self.lr * self.factor**epochs)
