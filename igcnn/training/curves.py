"""curves.svg: loss and accuracy of one run over the epochs, legible in light and dark.

It is written after every epoch, also on computers without matplotlib, which `igcnn plot` needs
to compare runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .epoch import NAMES
from .metrics import held_out

Row = dict[str, float]
Points = list[tuple[float, float]]

WIDTH, HEIGHT = 860, 330
PANEL_WIDTH, PANEL_HEIGHT = 330, 220
TOP = 52
LEFTS = (70, 500)

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 15px; }
.background { fill: #ffffff; }
.grid { stroke: #d0d7de; stroke-width: 1; }
.train { stroke: #0969da; } .test { stroke: #bc4c00; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.fine { stroke-width: 1; opacity: 0.45; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .background { fill: #0d1117; }
  .grid { stroke: #30363d; }
  .train { stroke: #58a6ff; } .test { stroke: #f0883e; }
}
"""


@dataclass(frozen=True)
class Curve:
    """One line in a panel: its points, its CSS classes and, for the legend, its name."""

    points: Points
    style: str
    name: str = ""


def draw_curves(steps: Sequence[Row], epochs: Sequence[Row]) -> str:
    """Return the text of an SVG picture.

    Args:
        steps: rows of metrics.jsonl.
        epochs: rows of metrics.csv, at least one.
    """
    on = held_out(epochs[0])
    updates = epochs[0]["step"] / epochs[0]["epoch"]
    fine = [(row["step"] / updates, row["loss"]) for row in steps]
    loss = [
        Curve(fine, "train fine"),
        Curve(_column(epochs, "train_loss"), "train", "training"),
        Curve(_column(epochs, f"{on}_loss"), "test", NAMES[on]),
    ]
    accuracy = [
        Curve(_column(epochs, "train_top1"), "train", "training"),
        Curve(_column(epochs, f"{on}_top1"), "test", NAMES[on]),
    ]
    last = epochs[-1]["epoch"]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img" '
            'aria-label="Loss and top-1 accuracy over the epochs">',
            f"<style>{STYLE}</style>",
            f'<rect class="background" width="{WIDTH}" height="{HEIGHT}"/>',
            *_panel(LEFTS[0], "Loss", "cross-entropy", loss, last),
            *_panel(LEFTS[1], "Accuracy", "top-1, %", accuracy, last),
            "</svg>\n",
        ]
    )


def _column(epochs: Sequence[Row], key: str) -> Points:
    return [(row["epoch"], row[key]) for row in epochs]


def _panel(left: int, title: str, unit: str, curves: list[Curve], last: float) -> list[str]:
    """Return the elements of one diagram: title, axes with numbers, curves, legend."""
    values = [y for curve in curves for _, y in curve.points]
    ys = ticks(min(values), max(values))
    xs = [x for x in ticks(0, last) if x == int(x)]
    low, high = ys[0], ys[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + PANEL_WIDTH * x / xs[-1]
        return across, TOP + PANEL_HEIGHT * (high - y) / (high - low)

    bottom, middle = TOP + PANEL_HEIGHT, left + PANEL_WIDTH / 2
    parts = [f'<text class="title" x="{left}" y="24">{escape(title)}</text>']
    for y in ys:
        _, down = place(0, y)
        parts.append(
            f'<line class="grid" x1="{left}" x2="{left + PANEL_WIDTH}" '
            f'y1="{down:.1f}" y2="{down:.1f}"/>'
        )
        parts.append(
            f'<text x="{left - 8}" y="{down + 4:.1f}" text-anchor="end">{number(y)}</text>'
        )
    for x in xs:
        across, _ = place(x, low)
        parts.append(
            f'<text x="{across:.1f}" y="{bottom + 20}" text-anchor="middle">{number(x)}</text>'
        )
    parts.append(f'<text x="{middle}" y="{bottom + 42}" text-anchor="middle">epoch</text>')
    centre = TOP + PANEL_HEIGHT / 2
    parts.append(
        f'<text transform="translate({left - 48} {centre}) rotate(-90)" '
        f'text-anchor="middle">{escape(unit)}</text>'
    )
    for curve in curves:
        parts.append(_line(curve, [place(x, y) for x, y in curve.points]))
    return parts + _legend(left + PANEL_WIDTH - 170, curves)


def _line(curve: Curve, points: Points) -> str:
    if len(points) == 1:  # a line of one point is invisible
        (x, y) = points[0]
        return f'<circle class="{curve.style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="none"/>'
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="curve {curve.style}" points="{text}"/>'


def _legend(left: int, curves: list[Curve]) -> list[str]:
    parts = []
    for i, curve in enumerate(curve for curve in curves if curve.name):
        x = left + 95 * i
        parts.append(
            f'<line class="curve {curve.style}" x1="{x}" x2="{x + 22}" y1="20" y2="20"/>'
            f'<text x="{x + 28}" y="24">{escape(curve.name)}</text>'
        )
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers, evenly spaced, that enclose low … high."""
    span = high - low or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / 4))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= span / 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    if first == last:
        last += 1
    return [step * i for i in range(first, last + 1)]


def number(value: float) -> str:
    """Return a tick's value without needless digits."""
    return f"{value:.6g}"
