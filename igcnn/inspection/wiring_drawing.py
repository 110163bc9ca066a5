"""A diagram in SVG of the wiring of an interleaved product of any length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

HUES = 12  # classes h0, h1, … of the page's colours
MOST_CHANNELS = 256  # that are drawn one by one
EDGE, FACTOR, PERMUTATION = 30, 150, 190  # widths, in pixels
TOP, GAP = 50, 0.8  # of a column; between partitions, in distances of channels
# what an interleaved group convolution calls its factors, permutations and columns
PAPERS = ("Wᵖ", "Pᵀ"), ("Wᵈ", "P")
HEADS = "input", "primary outputs", "secondary inputs", "secondary outputs", "output"


def draw(wiring: dict[str, Any]) -> str:
    """Return the diagram of a product: partitions as boxes, channels as dots, wires between.

    Above 256 channels boxes are bundles of partitions, and the width of a line tells how many
    wires it stands for.

    Args:
        wiring: of Wiring.to_json().
    """
    bundles, channels, K = wiring["bundles"], wiring["channels"], len(wiring["groups"])
    bundled = max(channels) > MOST_CHANNELS
    # the last column is the input of a unit of the same kind: it has the boxes of the first
    boxes = [*wiring["groups"], wiring["groups"][0]]
    if bundled:
        boxes = [*map(len, bundles["wires"]), len(bundles["wires"][-1][0])]
    inputs, outputs = (boxes, boxes) if bundled else (channels, channels[1:])
    height = min(860, max(200, 22 * max([*inputs, *outputs])))
    columns = [_places(inputs[0], boxes[0], height)]
    xs, parts = [EDGE], []
    for k, name in enumerate(PAPERS if K == 2 else map(_numbered, range(K))):
        x, size = xs[-1], bundles["partitions"][k] if bundled else 1
        left, right = columns[-1], _places(outputs[k], boxes[k], height)
        after = _places(inputs[k + 1], boxes[k + 1], height)
        names = [_name(wiring, k, g, size) for g in range(boxes[k])]
        parts.append(_boxes(x, (left, right), names))
        matrix, permutation = bundles["wires"][k], wiring["permutations"][k]
        drawn = _thick(matrix) if bundled else _thin(permutation, outputs[k] // boxes[k])
        parts.append(_wires(x + FACTOR, right, after, drawn, k, bundled))
        parts.append(_text("stage", x + FACTOR / 2, 34, name[0]))
        parts.append(_text("stage", x + FACTOR + PERMUTATION / 2, 34, name[1]))
        columns += [right, after]
        xs += [x + FACTOR, x + FACTOR + PERMUTATION]
    parts += map(_dots, xs, columns)
    heads = HEADS if K == 2 else ("input", *[""] * (2 * K - 1), "output")
    anchors = "start", *["middle"] * (2 * K - 1), "end"
    ends = zip(xs, heads, anchors, strict=True)
    parts += [_text("head", x, 16, head, anchor) for x, head, anchor in ends if head]
    groups = ", ".join(map(str, wiring["groups"]))
    ys = "|".join(" ".join(f"{y:.1f}" for y in column) for column in columns)
    return (
        f'<svg class="wiring" viewBox="0 0 {xs[-1] + EDGE} {height}" role="img" '
        f'aria-label="Wiring of a product of {K} factors with {groups} partitions" '
        f'data-xs="{" ".join(map(str, xs))}" data-ys="{ys}">'
        f'{"".join(parts)}<g class="lit"></g></svg>'
    )


def _numbered(k: int) -> tuple[str, str]:
    """Return the names of factor and permutation k + 1."""
    number = f'<tspan dy="4" font-size="9">{k + 1}</tspan>'
    return f"W{number}", f"P{number}"


def _name(wiring: dict[str, Any], k: int, box: int, size: int) -> str:
    """Return which partitions of factor k + 1 a box is, and their channels."""
    G = wiring["groups"][k]
    first, end = box * size, min(G, (box + 1) * size)
    C_in, C = wiring["channels"][k : k + 2]
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
                ends = f' data-from="{i}" data-to="{k}"'
                width = f' stroke-width="{0.5 + 2.5 * n / most:.1f}"'
                yield i, k, i, f"{ends}{width}><title>{n} wires</title></path>"


def _wires(
    x: float,
    left: Sequence[float],
    right: Sequence[float],
    wires: Iterator[Wire],
    k: int,
    bundled: bool,
) -> str:
    paths = "".join(
        f'<path class="h{g % HUES}" d="M{x} {left[i]:.1f}L{x + PERMUTATION} {right[j]:.1f}"{rest}'
        for i, j, g, rest in wires
    )
    kind = "wires bundled" if bundled else "wires"
    return f'<g class="{kind}" data-stage="{k + 1}">{paths}</g>'


def _dots(x: float, ys: Sequence[float]) -> str:
    return f'<path class="dots" d="{"".join(f"M{x} {y:.1f}h0" for y in ys)}"/>'


def _text(kind: str, x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
