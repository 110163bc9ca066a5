"""The whole network in one drawing, its layers by stage, and what their names mean."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from ..steps import Steps

WORDS = (
    (r"g(\d+)", "stage {}"),
    (r"seq(\d+)", "stage {}"),
    (r"b(\d+)|block(\d+)", "block {}"),
    (r"p0|line", "projection of the shortcut"),
    (r"p2", "residual branch"),
    (r"d(\d+)", "branch {}"),
    (r"two1|conv1", "first convolution of the block"),
    (r"two2|conv2", "second convolution of the block"),
    (r"conv", "convolution"),
    (r"bn", "batch normalization"),
    (r"relu", "activation"),
    (r"exp", "expansion"),
    (r"depthwise", "depthwise convolution"),
    (r"linear", "linear bottleneck"),
    (r"proj", "projection of the shortcut"),
    (r"pool", "pooling"),
    (r"fc", "classifier"),
    (r"first", "stem"),
)
LEFT = 24  # pixels before the middle of the first node
STEP, WRAP = 44, 25  # pixels from one node to the next, nodes in a row
ROW, BASE = 92, 62  # pixels from one row to the next, and down to its line
KINDS = {"convolution": "h0", "add": "h5", "linear": "h4", "batch_norm": "h6"}


def explain(name: str) -> str:
    """Return what the parts of a layer's name mean, "" where none is known."""
    told = []
    for part in name.split("_"):
        for pattern, words in WORDS:
            if match := re.fullmatch(pattern, part):
                number = next((group for group in match.groups() if group), "")
                told.append(words.format(number))
    return ", ".join(dict.fromkeys(told))


def stage_of(name: str) -> str:
    """Return the heading under which a layer stands."""
    match = re.match(r"(?:g|seq)(\d+)(?:_|$)", name)
    if not match:
        return "Other layers"
    return "Stem" if match[1] == "0" else f"Stage {match[1]}"


def stages(layers: list[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    """Return heading and indices of the layers of each stage, in the order of execution."""
    runs = itertools.groupby(range(len(layers)), lambda k: stage_of(layers[k]["name"]))
    return [(stage, list(indices)) for stage, indices in runs]


@dataclass
class Node:
    """A unit of the drawing: a convolution with what follows it, a sum, a pooling.

    Attributes:
        name: the layer that it links to.
        kind: the operation that it begins with.
        unit: whether it is an interleaved group convolution.
        shape: of its output.
        inputs: tensors that it reads.
        outputs: tensors that it makes.
    """

    name: str
    kind: str
    unit: bool
    shape: tuple[int, ...]
    inputs: set[int]
    outputs: set[int]


def nodes(steps: Steps) -> list[Node]:
    """Return the units of a network: norms and activations belong to what they follow."""
    found: list[Node] = []
    for step in steps.steps:
        last = found[-1] if found else None
        follows = step["op"] in ("batch_norm", "relu", "relu6", "permutation", "scale")
        same = last and step["layer"] and step["layer"] == last.name
        if last and set(step["inputs"]) <= last.outputs and (follows or same):
            last.outputs.add(step["output"])
            last.shape = steps.shapes[step["output"]]
            last.name = last.name or step["layer"]
            last.unit |= step["op"] == "convolution"
        else:
            shape = steps.shapes[step["output"]]
            read = set(step["inputs"])
            found.append(Node(step["layer"], step["op"], False, shape, read, {step["output"]}))
    return found


def network(steps: Steps) -> Markup:
    """Return the drawing: a row of units for each stage, arcs for shortcuts, each unit a link."""
    all_nodes = nodes(steps)
    maker = {tensor: k for k, node in enumerate(all_nodes) for tensor in node.outputs}
    places, heads = _places(all_nodes)
    wires, boxes = [], []
    for k, node in enumerate(all_nodes):
        for tensor in node.inputs:
            if tensor in maker:
                wires.append(_wire(places[maker[tensor]], places[k], maker[tensor] == k - 1))
        boxes.append(_box(node, *places[k]))
    labels = "".join(
        f'<text x="{LEFT - 13 + STEP * column}" y="{row * ROW + 14}">{escape(stage)}</text>'
        for row, column, stage in heads
    )
    width = max(x for x, _ in places) + STEP + LEFT
    height = max(y for _, y in places) + ROW - BASE
    sums = sum(node.kind == "add" for node in all_nodes)
    label = f"The network: {len(all_nodes) - sums} units and {sums} sums, each a link"
    return Markup(
        f'<svg class="network" viewBox="0 0 {width} {height}" style="width: {width}px" '
        f'role="group" aria-label="{label}"><g class="wire">{"".join(wires)}</g>'
        f"{''.join(boxes)}{labels}</svg>"
    )


def _places(all_nodes: list[Node]) -> tuple[list[tuple[float, float]], list[tuple[int, int, str]]]:
    """Return the middle of each node, and (row, column, stage) of the first node of each stage.

    A stage that does not fit into its row begins the next one.
    """
    places: list[tuple[float, float]] = []
    heads: list[tuple[int, int, str]] = []
    row, column, stage = 0, 0, ""
    names = [stage_of(node.name) if node.name else "" for node in all_nodes]
    for k, own in enumerate(names):
        if own and own != stage:
            others = (n for n, name in enumerate(names[k:]) if name not in (own, ""))
            if column and column + next(others, len(names) - k) > WRAP:
                row, column = row + 1, 0
            stage = own
            heads.append((row, column, stage))
        elif column == WRAP:
            row, column = row + 1, 0
        places.append((LEFT + STEP * column, ROW * row + BASE))
        column += 1
    return places, heads


def _wire(start: tuple[float, float], end: tuple[float, float], following: bool) -> str:
    (x0, y0), (x1, y1) = start, end
    if y0 != y1:
        middle = (y0 + y1) / 2 + 4
        return f'<path d="M{x0} {y0}V{middle}H{x1}V{y1}"/>'
    if following:
        return f'<path d="M{x0} {y0}H{x1}"/>'
    return f'<path class="shortcut" d="M{x0} {y0}C{x0} {y0 - 46} {x1} {y0 - 46} {x1} {y1}"/>'


def _box(node: Node, x: float, y: float) -> str:
    shape = "×".join(map(str, node.shape))
    what = "interleaved unit" if node.unit else node.kind.replace("_", " ")
    told = explain(node.name)
    title = f"{node.name or 'sum'}: {what}, {shape}{f' ({told})' if told else ''}"
    half = 7 + min(15.0, 1.6 * math.log2(node.shape[0] + 1))
    kind = "h2" if node.unit else KINDS.get(node.kind, "h6")
    if node.kind == "add":
        shown = f'<circle class="{kind}" cx="{x}" cy="{y}" r="9"/><path class="plus" d="M{x - 5} '
        shown += f'{y}h10M{x} {y - 5}v10"/>'
    else:
        shown = (
            f'<rect class="{kind}" x="{x - 13}" y="{y - half:.1f}" width="26" '
            f'height="{2 * half:.1f}" rx="4"/>'
        )
    text = f"<title>{escape(title)}</title>{shown}"
    if not node.name:
        return f"<g>{text}</g>"
    return f'<a href="#layer-{escape(node.name)}" aria-label="{escape(title)}">{text}</a>'
