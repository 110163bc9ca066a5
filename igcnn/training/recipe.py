"""Recipes: how long, how fast and in which batches to train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..optim import StepSchedule


@dataclass(frozen=True)
class Recipe:
    """The constants of a training run.

    Attributes:
        epochs: passes over the training images.
        batch_size: images of one update.
        lr: learning rate of the first update.
        lr_steps: epochs after which the rate is multiplied by lr_factor; None stands for 1/2,
            3/4 and 7/8 of the epochs, rounded down, as in the authors' code.
        lr_factor: see lr_steps.
        momentum: of SGD.
        weight_decay: of SGD, on every parameter.

    Raises:
        ConfigError: a constant out of range.
    """

    epochs: int
    batch_size: int = 64
    lr: float = 0.1
    lr_steps: tuple[int, ...] | None = None
    lr_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("lr", "lr_factor", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be a number from 0 up, not {value}")
        if self.momentum >= 1:
            raise ConfigError(f"momentum must be below 1, not {self.momentum}")
        if self.lr_steps is None:
            n = self.epochs
            # a run of less than 8 epochs has fewer steps, not several at once
            steps = {n // 2, 3 * n // 4, 7 * n // 8} - {0}
            object.__setattr__(self, "lr_steps", tuple(sorted(steps)))
        steps_given = list(self.lr_steps or ())
        if steps_given != sorted(set(steps_given)) or any(step < 1 for step in steps_given):
            raise ConfigError(
                f"lr_steps must be rising epochs from 1 up, not {steps_given}; for example "
                "200,300,350"
            )

    def schedule(self, images: int) -> StepSchedule:
        """Return the learning rate by updates for a training set of so many images."""
        updates = max(1, images // self.batch_size)
        boundaries = tuple(step * updates for step in self.lr_steps or ())
        return StepSchedule(self.lr, boundaries, self.lr_factor)


PRESETS = ("paper", "digits")


def preset_settings(preset: str | None, dataset: str) -> dict[str, Any]:
    """Return the constants of a preset: arguments of Recipe that differ from its defaults.

    "paper" is the recipe of the authors' code (400 epochs for CIFAR, 40 for SVHN, 120 for
    ImageNet), "digits" a short one for the small images of the data set of that name.

    Args:
        preset: one of PRESETS; None for the one that the data set has by default.
        dataset: name of the data set.

    Raises:
        ConfigError: there is no such preset.
    """
    if preset is None:
        preset = "digits" if dataset == "digits" else "paper"
    if preset == "digits":
        return {"epochs": 32, "lr": 0.05, "weight_decay": 1e-3}
    if preset == "paper" and dataset == "imagenet":
        return {"epochs": 120, "batch_size": 256, "lr_steps": (30, 60, 90)}
    if preset == "paper":
        return {"epochs": 40 if dataset == "svhn" else 400}
    raise ConfigError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
