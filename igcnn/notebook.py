"""HTML that notebooks show instead of a repr: tables and pictures, all text escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image


def html_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; numbers have thousands separated and stand to the right.

    Args:
        caption: above the table.
        heads: of the columns.
        rows: cells, texts or integers.
    """
    lines = [f"<table><caption>{escape(caption)}</caption>", _row("th", heads)]
    return "\n".join([*lines, *(_row("td", row) for row in rows), "</table>"])


def _row(tag: str, cells: Sequence[Any]) -> str:
    return f"<tr>{''.join(_cell(tag, cell) for cell in cells)}</tr>"


def _cell(tag: str, cell: Any) -> str:
    if isinstance(cell, int):
        return f'<{tag} style="text-align: right">{cell:,}</{tag}>'
    return f'<{tag} style="text-align: left">{escape(str(cell))}</{tag}>'


def picture_address(image: Image.Image, **options: Any) -> str:
    """Return an image as the address of a PNG that is part of the page.

    Args:
        image: of Pillow.
        options: of its PNG writer.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, **options)
    return address(buffer.getvalue(), "image/png")


def address(content: bytes, kind: str) -> str:
    """Return content as an address that is part of the page.

    Args:
        content: of a file.
        kind: its media type, such as image/png.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
