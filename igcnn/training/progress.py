"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from ..errors import ConfigError

MODES = ("auto", "rich", "plain", "none")


def make_progress(mode: str = "auto", stream: TextIO | None = None) -> Progress:
    """Return the progress display of a mode: auto is rich on a terminal, else plain.

    Args:
        mode: one of MODES.
        stream: where to write, by default stdout.

    Raises:
        ConfigError: there is no such mode.
    """
    stream = sys.stdout if stream is None else stream
    if mode == "auto":
        mode = "rich" if stream.isatty() else "plain"
    if mode == "rich":
        return RichProgress(stream)
    if mode == "plain":
        return PlainProgress(stream)
    if mode == "none":
        return Progress()
    raise ConfigError(f"unknown progress {mode!r}; choose one of {', '.join(MODES)}")


class Progress:
    """Shows nothing; the base of those that show something."""

    def start(self, step: int, total: int, updates_per_epoch: int) -> None:
        """Begin.

        Args:
            step: updates done before.
            total: update after which the run ends.
            updates_per_epoch: updates of an epoch.
        """
        self.first = step
        self.total = total
        self.updates_per_epoch = updates_per_epoch
        self.began = time.perf_counter()

    def update(self, row: Mapping[str, float]) -> None:
        """Show an update; called after each with the mean values since the last log step."""

    def log(self, row: Mapping[str, float]) -> None:
        """Show a log step: a row of metrics.jsonl."""

    def message(self, text: str) -> None:
        """Show a line of text."""

    def close(self) -> None:
        """End."""

    def describe(self, row: Mapping[str, float]) -> str:
        """Return a row as text, with the time left of the epoch and of the run."""
        step = int(row["step"])
        pace = (time.perf_counter() - self.began) / max(1, step - self.first)
        epochs = -(-self.total // self.updates_per_epoch)
        in_epoch = min(int(row["epoch"]) * self.updates_per_epoch, self.total) - step
        return (
            f"epoch {row['epoch']}/{epochs}  step {step}/{self.total}  "
            f"loss {row['loss']:.4f}  top-1 {row['top1']:.2f} %  "
            f"{row['images_per_second']:.0f} img/s  "
            f"left {duration(pace * in_epoch)} of epoch, {duration(pace * (self.total - step))} "
            "of run"
        )


class PlainProgress(Progress):
    """One line a log step, without control characters.

    When nobody reads the stream any more (a closed pipe or terminal) it falls silent: that is
    no reason to end a run, which has its train.log.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO | None = stream

    def log(self, row: Mapping[str, float]) -> None:
        """Print the row."""
        self.message(self.describe(row))

    def message(self, text: str) -> None:
        """Print the text."""
        if self.stream is None:
            return
        try:
            print(text, file=self.stream, flush=True)
        except OSError:
            self.stream = None


class RichProgress(Progress):
    """A bar for the run with the figures below it; messages scroll above."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def start(self, step: int, total: int, updates_per_epoch: int) -> None:
        """Make room for the bar."""
        from rich.console import Console
        from rich.live import Live

        super().start(step, total, updates_per_epoch)
        console = Console(file=self.stream, highlight=False)
        self.live = Live(console=console, refresh_per_second=5)
        self.live.start()

    def update(self, row: Mapping[str, float]) -> None:
        """Move the bar."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        lines = Table.grid(expand=True)
        lines.add_row(ProgressBar(total=self.total, completed=row["step"]))
        lines.add_row(Text(self.describe(row)))
        self.live.update(lines)

    def message(self, text: str) -> None:
        """Print the text above the bar."""
        self.live.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.live.stop()


def duration(seconds: float) -> str:
    """Return a time as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
