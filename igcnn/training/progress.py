"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from ..errors import ConfigError
from ..text import duration, terminal_width
from .epoch_table import EpochTable

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
        self.epochs = -(-total // updates_per_epoch)
        self.table = EpochTable(self.epochs)
        self.began = time.perf_counter()

    def update(self, row: Mapping[str, float]) -> None:
        """Show an update; called after each with the mean values since the last log step."""

    def log(self, row: Mapping[str, float]) -> None:
        """Show a log step: a row of metrics.jsonl."""

    def epoch(self, row: Mapping[str, float], best: bool) -> None:
        """Show an epoch: a row of metrics.csv.

        Args:
            row: its values.
            best: whether its test accuracy is the best so far.
        """

    def message(self, text: str) -> None:
        """Show a line of text."""

    def close(self) -> None:
        """End."""

    def describe(self, row: Mapping[str, float], width: int) -> str:
        """Return a row as text that fits a width, with the time left of the epoch and the run."""
        step = int(row["step"])
        pace = (time.perf_counter() - self.began) / max(1, step - self.first)
        in_epoch = min(int(row["epoch"]) * self.updates_per_epoch, self.total) - step
        left, left_of_epoch = duration(pace * (self.total - step)), duration(pace * in_epoch)
        epoch = f"epoch {int(row['epoch'])}/{self.epochs}  "
        steps = f"step {step}/{self.total}  "
        means = f"loss {row['loss']:.4f}  top-1 {row['top1']:.2f} %  "
        speed = f"{row['images_per_second']:.0f} img/s  "
        texts = (
            f"{epoch}{steps}{means}{speed}left {left_of_epoch} of epoch, {left} of run",
            f"{epoch}{steps}{means}{speed}left {left}",
            f"{epoch}{steps}{means}left {left}",
            f"{epoch}{means}left {left}",
        )
        return next((text for text in texts if len(text) <= width), texts[-1])


class PlainProgress(Progress):
    """One line a log step, without control characters.

    When nobody reads the stream any more (a closed pipe or terminal) it falls silent: that is
    no reason to end a run, which has its train.log.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream: TextIO | None = stream

    def log(self, row: Mapping[str, float]) -> None:
        """Print the row."""
        self.message(self.describe(row, terminal_width()))

    def epoch(self, row: Mapping[str, float], best: bool) -> None:
        """Print the row of the table."""
        self._print("\n".join(self.table.lines(row, best, terminal_width())))

    def message(self, text: str) -> None:
        """Print the text."""
        self._print(text)
        self.table.count(1)

    def _print(self, text: str) -> None:
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
        lines.add_row(Text(self.describe(row, self.live.console.width)))
        self.live.update(lines)

    def epoch(self, row: Mapping[str, float], best: bool) -> None:
        """Print the row of the table above the bar, in colour if it is the best so far."""
        *heading, line = self.table.lines(row, best, self.live.console.width)
        for text in heading:
            self._print(text, "bold")
        self._print(line, "bold green" if best else "")

    def message(self, text: str) -> None:
        """Print the text above the bar."""
        self._print(text)
        self.table.count(1)

    def _print(self, text: str, style: str = "") -> None:
        self.live.console.print(text, style=style, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.live.stop()
