"""The run directory that is not written to: of a dry run, and of every rank but rank 0."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from .run_directory import RunDirectory


class SilentRun(RunDirectory):
    """Knows where a run is and touches nothing in it."""

    silent = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Context without effect."""
        yield

    def create(self, overwrite: bool = False) -> None:
        """Do nothing."""

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Do nothing."""

    def write_environment(self, device: str) -> None:
        """Do nothing."""

    def write_summary(self, text: str) -> None:
        """Do nothing."""

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log(self, line: str) -> None:
        """Do nothing."""

    def append_step(self, row: Mapping[str, float]) -> None:
        """Do nothing."""

    def append_epoch(self, row: Mapping[str, float]) -> None:
        """Do nothing."""

    def cut_after(self, step: int) -> None:
        """Do nothing."""
