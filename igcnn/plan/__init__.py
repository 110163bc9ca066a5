"""Plans: a network as a list of calls on memory that is laid out once."""

from .plan import Plan

__all__ = ["Plan"]
