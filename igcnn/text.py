"""Texts for people: times, lines that fit a terminal, aligned tables."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

LABEL = 12  # columns of the labels of lines such as "run folder  runs/a"
CONTINUED = " \\"  # at the end of a line of a shell command
GAP = "  "  # between columns
NONE = "–"  # in a table, for what there is not
NO_BREAK = "\N{NO-BREAK SPACE}"


def duration(seconds: float) -> str:
    """Return a time as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def terminal_width() -> int:
    """Return the columns of the terminal, or COLUMNS; 80 where there is neither."""
    return shutil.get_terminal_size().columns


def wrap_line(line: str, width: int, indent: int = LABEL) -> str:
    """Return a labelled line broken between words to fit a width; a command can be copied.

    At NO_BREAK it stays together.

    Args:
        line: one line.
        width: columns of the terminal.
        indent: of all lines but the first; where the text after the label begins.
    """
    command = line[indent:].startswith("igcnn ")
    broken = textwrap.wrap(
        line,
        width - len(CONTINUED) if command else width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return (f"{CONTINUED}\n" if command else "\n").join(broken).replace(NO_BREAK, " ")


def table_lines(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Return rows of cells as aligned lines.

    Args:
        rows: of equal length; the first is the heading.
        right: of each column, whether it is aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, right, strict=True)
        lines.append(GAP.join(c.rjust(w) if r else c.ljust(w) for c, w, r in cells).rstrip())
    return lines
