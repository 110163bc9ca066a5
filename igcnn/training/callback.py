"""Callbacks: what a caller can do after log steps and epochs of a run."""

from __future__ import annotations

from collections.abc import Mapping


class Callback:
    """Is told of log steps and epochs: the base, whose methods do nothing.

    A method that returns True ends the run early: its weights are saved and evaluated as at the
    end of the recipe.
    """

    def on_step(self, row: Mapping[str, float]) -> bool | None:
        """Take a row of metrics.jsonl, the means over the updates since the last one.

        After True the run ends with the next update.
        """
        return None

    def on_epoch(self, row: Mapping[str, float]) -> bool | None:
        """Take a row of metrics.csv, after every epoch."""
        return None
