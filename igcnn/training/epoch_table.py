"""The table of epochs that a run prints: one row per epoch, as wide as the terminal allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..text import GAP, duration
from .metrics import held_out

BEST = "best"  # stands behind a row
LINES_PER_HEADING = 20


class Column(NamedTuple):
    """One column.

    Attributes:
        key: of a row of metrics.csv; {on} stands for what was evaluated on, test or val.
        titles: in the widest, the usual and the narrowest table; "" leaves it out of that one.
        width: of its values at least.
        text: returns a value as text.
    """

    key: str
    titles: tuple[str, str, str]
    width: int
    text: Callable[[float], str]


def _loss(value: float) -> str:
    return f"{value:.4f}" if value < 100 else f"{value:.1e}"


def _percent(value: float) -> str:
    return f"{value:.2f}"


COLUMNS = (
    Column("train_loss", ("training loss", "train loss", "train"), 7, _loss),
    Column("train_top1", ("train top-1", "top-1", "top-1"), 6, _percent),
    Column("{on}_loss", ("{on} loss", "{on} loss", "{on}"), 7, _loss),
    Column("{on}_top1", ("{on} top-1", "top-1", "top-1"), 6, _percent),
    Column("{on}_top5", ("{on} top-5", "top-5", ""), 6, _percent),
    Column("lr", ("learning rate", "lr", ""), 7, "{:.4g}".format),
    Column("seconds", ("time", "time", "time"), 8, duration),
)


class EpochTable:
    """Turns rows of metrics.csv into lines of a table.

    Args:
        epochs: how many the run has.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._size = -1
        self._since_heading = 0

    def count(self, lines: int) -> None:
        """Take note of lines that were printed below the last heading."""
        self._since_heading += lines

    def lines(self, row: Mapping[str, float], best: bool, width: int) -> list[str]:
        """Return the heading, where it is due, and the row.

        Args:
            row: of metrics.csv.
            best: whether its accuracy is the best so far.
            width: columns of the terminal.
        """
        on = held_out(row)
        first = max(len("epoch"), len(f"{self.epochs}/{self.epochs}"))
        size = _widest(first, width)
        heads = ["epoch".rjust(first)]
        cells = [f"{int(row['epoch'])}/{self.epochs}".rjust(first)]
        for column in COLUMNS:
            if title := column.titles[size].format(on=on):
                wide = max(column.width, len(title))
                heads.append(title.rjust(wide))
                cells.append(column.text(row[column.key.format(on=on)]).rjust(wide))
        line = GAP.join([*cells, *([BEST] if best else [])])
        if size == self._size and self._since_heading < LINES_PER_HEADING:
            self.count(1)
            return [line]
        self._size, self._since_heading = size, 1
        return [GAP.join(heads), line]


def _widest(first: int, width: int) -> int:
    """Return the index of the titles of the widest table that fits, or of the narrowest."""
    for size in (0, 1):
        widths = [
            max(column.width, len(column.titles[size].format(on="test"))) for column in COLUMNS
        ]
        if first + sum(widths) + len(GAP) * (len(widths) + 1) + len(BEST) <= width:
            return size
    return 2
