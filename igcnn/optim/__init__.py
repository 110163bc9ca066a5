"""What changes the parameters: the optimizer and the schedule of its learning rate."""

from .schedule import CosineSchedule, ExponentialSchedule, Schedule, StepSchedule
from .sgd import SGD

__all__ = ["SGD", "CosineSchedule", "ExponentialSchedule", "Schedule", "StepSchedule"]
