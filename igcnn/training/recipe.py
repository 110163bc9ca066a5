"""Recipes: how long, how fast, in which batches and on what to train."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..autograd import Tensor
from ..errors import ConfigError
from ..optim import SGD, CosineSchedule, ExponentialSchedule, Schedule, StepSchedule

SCHEDULES = ("steps", "cosine", "exponential", "constant")
OF_ONE_SCHEDULE = ("lr_steps", "lr_factor", "lr_min")  # what not all of them have
STEP_FACTOR = 0.1
FALL = 1e-3  # of the learning rate over a whole run, exponential by default; as by three steps


@dataclass(frozen=True)
class Recipe:
    """The constants of a training run. The defaults beyond the paper's recipe are "off".

    Attributes:
        epochs: passes over the training images.
        batch_size: images of one update.
        lr: initial learning rate.
        lr_steps: of the schedule "steps": epochs after which the rate is multiplied by lr_factor;
            None stands for 1/2, 3/4 and 7/8 of the epochs, rounded down, as in the authors' code.
        lr_factor: what a step multiplies the rate by (None: 0.1), or each epoch of the schedule
            "exponential" (None: so that all epochs together multiply it by 0.001).
        momentum: of SGD.
        plain_momentum: use plain instead of Nesterov momentum.
        weight_decay: of SGD, on every parameter that is trained.
        schedule: of the learning rate: "steps", "cosine", "exponential" or "constant".
        lr_min: where "cosine" ends, and below which "exponential" does not fall.
        warmup_epochs: epochs, or a fraction of one, in which the rate rises linearly to lr.
        label_smoothing: share of the target that all classes have alike.
        average: decay of the exponential moving average of the weights, 0 for none; see
            training/average.py.
        validation: fraction of the training images that is held out to select best.h5 on,
            0 for none; see datasets.hold_out.
        patience: epochs without improvement on the held-out images after which training stops;
            None for never.
        freeze: patterns of names of parameters that are not trained, such as "g1_*".

    Raises:
        ConfigError: a constant is out of range, or belongs to another schedule.
    """

    epochs: int
    batch_size: int = 64
    lr: float = 0.1
    lr_steps: tuple[int, ...] | None = None
    lr_factor: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "steps"
    lr_min: float = 0.0
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    average: float = 0.0
    validation: float = 0.0
    patience: int | None = None
    freeze: tuple[str, ...] = ()
    plain_momentum: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        for name in ("lr", "lr_factor", "lr_min", "warmup_epochs", "momentum", "weight_decay"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} must be a number of at least 0, not {value}")
        for name in ("momentum", "label_smoothing", "average", "validation"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"{name} must be from 0 to below 1, not {value}")
        if self.patience and not self.validation:
            raise ConfigError(
                "patience needs validation images: stopping by the accuracy on the test images "
                "would tune the run on them; hold some out, for example --validation 0.1"
            )
        object.__setattr__(self, "freeze", tuple(self.freeze))
        self._check_schedule()

    def _check_schedule(self) -> None:
        """Replace what stands for a default by its value, and check the rest."""
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                f"unknown schedule {self.schedule!r}; choose one of {', '.join(SCHEDULES)}"
            )
        if self.schedule != "steps" and self.lr_steps:
            raise ConfigError(
                f"lr_steps belong to the schedule steps, not to {self.schedule}; leave them out"
            )
        if self.schedule in ("cosine", "constant") and self.lr_factor is not None:
            raise ConfigError(f"the schedule {self.schedule} has no lr_factor; leave it out")
        if self.schedule in ("steps", "constant") and self.lr_min:
            raise ConfigError(f"the schedule {self.schedule} has no lr_min; leave it out")
        if self.lr_min > self.lr:
            raise ConfigError(f"lr_min must be at most lr = {self.lr:g}, not {self.lr_min:g}")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise ConfigError(
                f"warmup_epochs must be below epochs = {self.epochs}, not {self.warmup_epochs:g}"
            )
        if self.schedule == "steps" and self.lr_steps is None:
            n = self.epochs
            # a run of less than 8 epochs has fewer steps, not several at once
            steps = {n // 2, 3 * n // 4, 7 * n // 8} - {0}
            object.__setattr__(self, "lr_steps", tuple(sorted(steps)))
        if self.lr_factor is None and self.schedule == "steps":
            object.__setattr__(self, "lr_factor", STEP_FACTOR)
        if self.lr_factor is None and self.schedule == "exponential":
            object.__setattr__(self, "lr_factor", FALL ** (1 / self.epochs))
        steps_given = list(self.lr_steps or ())
        if steps_given != sorted(set(steps_given)) or any(step < 1 for step in steps_given):
            raise ConfigError(
                f"lr_steps must be rising epochs from 1 up, not {steps_given}; for example "
                "200,300,350"
            )

    def describe(self) -> str:
        """Return the recipe in a line; what is off is left out."""
        match self.schedule:
            case "steps":
                steps = ", ".join(map(str, self.lr_steps or ())) or "none"
                falls = f"×{self.lr_factor:g} after epochs: {steps}"
            case "exponential":
                falls = f"×{self.lr_factor:.4g} per epoch, at least {self.lr_min:g}"
            case "cosine":
                falls = f"cosine to {self.lr_min:g}"
            case _:
                falls = self.schedule
        beyond = (
            ("warm-up epochs", self.warmup_epochs),
            ("label smoothing", self.label_smoothing),
            ("average of the weights", self.average),
            ("validation", self.validation),
            ("patience", self.patience or 0),
        )
        return ", ".join(
            [
                f"epochs {self.epochs}",
                f"batch size {self.batch_size}",
                f"lr {self.lr:g} ({falls})",
                f"momentum {self.momentum:g}{' (plain)' if self.plain_momentum else ''}",
                f"weight decay {self.weight_decay:g}",
                *(f"{name} {value:g}" for name, value in beyond if value),
                *([f"frozen {', '.join(self.freeze)}"] if self.freeze else []),
            ]
        )

    def make_optimizer(self, parameters: Iterable[tuple[str, Tensor]]) -> SGD:
        """Return the optimizer of some parameters, given with their names."""
        constants = self.lr, self.momentum, self.weight_decay
        return SGD(parameters, *constants, nesterov=not self.plain_momentum)

    def make_schedule(self, images: int) -> Schedule:
        """Return the learning rate by updates for a training set of so many images."""
        epoch = -(-images // self.batch_size)  # the last batch of an epoch is completed
        warmup = round(self.warmup_epochs * epoch)
        match self.schedule:
            case "cosine":
                total = self.epochs * epoch
                return CosineSchedule(self.lr, total, self.lr_min, warmup=warmup)
            case "exponential":
                assert self.lr_factor is not None
                factor = self.lr_factor
                return ExponentialSchedule(self.lr, epoch, factor, self.lr_min, warmup=warmup)
            case "constant":
                return Schedule(self.lr, warmup=warmup)
        updates = max(1, images // self.batch_size)
        boundaries = tuple(step * updates for step in self.lr_steps or ())
        assert self.lr_factor is not None
        return StepSchedule(self.lr, boundaries, self.lr_factor, warmup=warmup)


PRESETS = ("paper", "igcv3", "digits", "photos")

# of the preset photos
PHOTO_UPDATES = 3000
PHOTO_EPOCHS = 20, 200  # at least, at most
PHOTO_BATCH = 8, 64


def preset_settings(preset: str | None, dataset: str, images: int | None = None) -> dict[str, Any]:
    """Return the constants of a preset: arguments of Recipe that differ from its defaults.

    "paper" is the recipe of the authors' code (400 epochs for CIFAR, 40 for SVHN, 120 for
    ImageNet), "igcv3" that of IGCV3's authors (480 epochs for ImageNet; otherwise 400, as
    "paper", but with plain momentum), "digits" a short one for the small images of the data set
    of that name, "photos" one for a folder of one's own images: about 3,000 updates, but from 20
    to 200 epochs, and smaller batches where there are less than 512 images, so that an epoch has
    at least 8.

    Args:
        preset: one of PRESETS; None for the one that the data set has by default.
        dataset: name of the data set.
        images: how many there are for training; None if that is not known yet: what depends on
            it is then left out.

    Raises:
        ConfigError: there is no such preset.
    """
    if preset is None:
        preset = {"digits": "digits", "folder": "photos"}.get(dataset, "paper")
    if preset == "digits":
        return {"epochs": 32, "lr": 0.05, "weight_decay": 1e-3}
    if preset == "photos":
        return {} if images is None else _photo_settings(images)
    if preset == "paper" and dataset == "imagenet":
        return {"epochs": 120, "batch_size": 256, "lr_steps": (30, 60, 90)}
    if preset == "igcv3" and dataset == "imagenet":
        return {
            "epochs": 480,
            "batch_size": 96,
            "lr": 0.045,
            "schedule": "exponential",
            "lr_factor": 0.98,
            "weight_decay": 4e-5,
            "plain_momentum": True,
        }
    if preset == "igcv3":
        return {"epochs": 400, "plain_momentum": True}
    if preset == "paper":
        return {"epochs": 40 if dataset == "svhn" else 400}
    raise ConfigError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")


def _photo_settings(images: int) -> dict[str, Any]:
    """Return epochs and batch size for so many training images."""
    least, most = PHOTO_BATCH
    batch_size = least
    while batch_size < most and 2 * batch_size <= images // 8:
        batch_size *= 2
    epochs = round(PHOTO_UPDATES / -(-images // batch_size))
    fewest, greatest = PHOTO_EPOCHS
    return {"epochs": min(greatest, max(fewest, epochs)), "batch_size": batch_size}
