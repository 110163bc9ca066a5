"""A diagram in SVG of the wiring of an interleaved product of any length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

HUES = 12  # classes h0, h1, … of the page's colours
MOST_CHANNELS = 256  # that are drawn one by one
EDGE, FACTOR, PERMUTATION = 30, 130, 200  # widths, in pixels
TOP, GAP = 44, 0.8  # of a column; between partitions, in distances of channels


def draw_product(product: dict[str, Any]) -> str:
    """Return the diagram of a product: partitions as boxes, channels as dots, wires between.

    Above 256 channels boxes are bundles of partitions, and the width of a line tells how many
    wires it stands for.

    Args:
        product: of ProductWiring.to_json().
    """
    bundles, K = product["bundles"], len(product["groups"])
    bundled = max(product["channels"]) > MOST_CHANNELS
    if bundled:
        boxes = [len(matrix) for matrix in bundles["wires"]]
        # for each factor the dots at its left and right
        counts = [(n, n) for n in boxes]
        result = len(bundles["wires"][-1][0]), len(bundles["wires"][-1][0])
    else:
        boxes = product["groups"]
        counts = list(zip(product["channels"], product["channels"][1:], strict=False))
        result = product["channels"][-1], boxes[0]
    most = max(max(pair) for pair in [*counts, result[:1]])
    height = min(860, max(200, 22 * most))
    parts, x = [], EDGE
    for k, (boxed, (left, right)) in enumerate(zip(boxes, counts, strict=True)):
        ys = _places(left, boxed, height), _places(right, boxed, height)
        next_dots, next_boxes = (counts[k + 1][0], boxes[k + 1]) if k + 1 < K else result
        after = _places(next_dots, next_boxes, height)
        names = [
            _name(product, k, g, bundles["partitions"][k] if bundled else 1) for g in range(boxed)
        ]
        parts.append(_boxes(x, ys, names))
        matrix, permutation = bundles["wires"][k], product["permutations"][k]
        drawn = _thick(matrix) if bundled else _thin(permutation, right // boxed)
        parts.append(_wires(x + FACTOR, ys[1], after, drawn, k))
        parts += [_dots(x, ys[0]), _dots(x + FACTOR, ys[1])]
        parts.append(_head(x + FACTOR / 2, f"W<tspan dy='4' font-size='9'>{k + 1}</tspan>"))
        middle = x + FACTOR + PERMUTATION / 2
        parts.append(_head(middle, f"P<tspan dy='4' font-size='9'>{k + 1}</tspan>"))
        x += FACTOR + PERMUTATION
    parts.append(_dots(x, after))
    groups = ", ".join(map(str, product["groups"]))
    label = f"Wiring of a product of {K} factors with {groups} partitions"
    return (
        f'<svg class="wiring product" viewBox="0 0 {x + EDGE} {height}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _name(product: dict[str, Any], k: int, box: int, size: int) -> str:
    """Return which partitions of factor k + 1 a box is, and their channels."""
    G = product["groups"][k]
    first, end = box * size, min(G, (box + 1) * size)
    C_in, C = product["channels"][k : k + 2]
    which = f"partition {first}" if end == first + 1 else f"partitions {first} to {end - 1}"
    return (
        f"factor {k + 1}, {which}: inputs {first * C_in // G} to {end * C_in // G - 1}, outputs "
        f"{first * C // G} to {end * C // G - 1}"
    )


def _places(dots: int, boxes: int, height: float) -> list[float]:
    """Return a height for each dot of a column, with gaps between boxes."""
    starts = [k + GAP * (k * boxes // dots) for k in range(dots)]
    step = (height - TOP - 16) / (starts[-1] or 1)
    return [TOP + step * start for start in starts]


def _boxes(x: float, ys: tuple[list[float], list[float]], names: Sequence[str]) -> str:
    """Return a box for each partition between its dots on the left and on the right."""
    left, right = ys
    n, shapes = len(names), []
    margin = min([6.0] + [(column[1] - column[0]) / 2 for column in ys if len(column) > 1])
    for g, name in enumerate(names):
        a, b = (column[g * len(column) // n :][: len(column) // n] for column in (left, right))
        shapes.append(
            f'<path class="h{g % HUES}" d="M{x} {a[0] - margin:.1f}L{x + FACTOR} '
            f'{b[0] - margin:.1f}V{b[-1] + margin:.1f}L{x} {a[-1] + margin:.1f}z">'
            f"<title>{name}</title></path>"
        )
    return f'<g class="boxes">{"".join(shapes)}</g>'


Wire = tuple[int, int, int, str]  # left dot, right dot, partition, attributes and title


def _thin(permutation: Sequence[int], size: int) -> Iterator[Wire]:
    for channel, output in enumerate(permutation):
        yield output, channel, output // size, f"><title>{output} to {channel}</title></path>"


def _thick(matrix: Sequence[Sequence[int]]) -> Iterator[Wire]:
    most = max(max(row) for row in matrix)
    for i, row in enumerate(matrix):
        for k, n in enumerate(row):
            if n:
                width = f' stroke-width="{0.5 + 2.5 * n / most:.1f}"'
                yield i, k, i, f"{width}><title>{n} wires</title></path>"


def _wires(
    x: float, left: Sequence[float], right: Sequence[float], wires: Iterator[Wire], k: int
) -> str:
    paths = "".join(
        f'<path class="h{g % HUES}" d="M{x} {left[i]:.1f}L{x + PERMUTATION} {right[j]:.1f}"{rest}'
        for i, j, g, rest in wires
    )
    return f'<g class="wires" data-stage="{k + 1}">{paths}</g>'


def _dots(x: float, ys: Sequence[float]) -> str:
    return f'<path class="dots" d="{"".join(f"M{x} {y:.1f}h0" for y in ys)}"/>'


def _head(x: float, text: str) -> str:
    return f'<text class="stage" x="{x}" y="24" text-anchor="middle">{text}</text>'
