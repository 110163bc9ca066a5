"""Plans: a network as a list of calls on memory that is laid out once."""

from .device import DevicePlan
from .plan import Plan

__all__ = ["DevicePlan", "Plan"]
