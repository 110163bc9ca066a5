"""Plans: a network as a list of launches on memory that is laid out once, on any device."""

from .plan import Plan

__all__ = ["Plan"]
