"""One number of a layer's output, written out as the sum that it is, with its real terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch

import numpy as np

from ..kernels.geometry import Pair
from ..kernels.permutation import permutation_index
from ..layers import (
    BatchNorm,
    Convolution,
    GlobalAveragePool,
    InterleavedGroupConvolution,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    ReLU6,
)
from .activations import Seen

Array = np.ndarray
Term = tuple[str, float, str, float]

SHOWN = 9  # terms of a long sum, those of the largest size


@dataclass
class Step:
    """One line of the calculation.

    Attributes:
        result: name of what it computes.
        rule: how, in words of the formula.
        value: what comes out in float64.
        terms: (name, number, name, number) of the products shown, largest first.
        count: how many products the sum has in all.
        rest: sum of those not shown.
        inputs: name → number, for a line that is not a sum of products.
    """

    result: str
    rule: str
    value: float
    terms: list[Term] = field(default_factory=list)
    count: int = 0
    rest: float = 0.0
    inputs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PixelSum:
    """The calculation of one number.

    Attributes:
        index: of the number in y, without the image.
        steps: the lines; the last gives the number.
        value: what the network has there.
    """

    index: tuple[int, ...]
    steps: list[Step]
    value: float


def write_out(seen: Seen, image: int = 0) -> PixelSum | None:
    """Return how the largest number of a layer's output comes about; None if not written out."""
    y = seen.y[image]
    index = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(y)), y.shape))
    steps = _steps(seen.layer, seen.x[image].astype(np.float64), index)
    return PixelSum(index, steps, float(y[index])) if steps else None


@singledispatch
def _steps(layer: Layer, x: Array, index: tuple[int, ...]) -> list[Step]:
    return []


@_steps.register
def _(layer: Convolution, x: Array, index: tuple[int, ...]) -> list[Step]:
    products = _window(layer.weight.data, x, index, layer.stride, layer.padding, layer.groups)
    rule = "Σ w[o, c, a, b] · x[c, i·s + a − p, j·s + b − p]"
    return [_sum(f"y{list(index)}", rule, products)]


@_steps.register
def _(layer: InterleavedGroupConvolution, x: Array, index: tuple[int, ...]) -> list[Step]:
    c, i, j = index
    C_out = len(layer.primary.data)
    K = C_out // layer.secondary_groups
    t = int(permutation_index(C_out, layer.secondary_groups)[c])
    interleave = permutation_index(C_out, layer.L)
    primary, products = [], []
    for k in range(K):
        q = int(interleave[t // K * K + k])
        window = _window(
            layer.primary.data, x, (q, i, j), layer.stride, layer.padding, layer.L, "Wᵖ"
        )
        line = _sum(f"p{[q, i, j]}", "Σ Wᵖ[q, c, a, b] · x[c, i·s + a − p, j·s + b − p]", window)
        primary.append(line)
        factor = float(layer.secondary.data[t, k, 0, 0])
        products.append((f"Wᵈ{[t, k]}", factor, f"p{[q, i, j]}", line.value))
    last = _sum(f"y{list(index)}", "Σ Wᵈ[t, k] · p[q(k), i, j]", products)
    # of the primary outputs the one that matters most is written out too
    sizes = [abs(factor * value) for _, factor, _, value in products]
    return [primary[int(np.argmax(sizes))], last]


@_steps.register
def _(layer: BatchNorm, x: Array, index: tuple[int, ...]) -> list[Step]:
    c = index[0]
    values = {
        "x": x[index],
        "μ": layer.moving_mean[c],
        "σ²": layer.moving_var[c],
        "γ": layer.gamma.data[c],
        "β": layer.beta.data[c],
        "ε": layer.eps,
    }
    numbers = {name: float(value) for name, value in values.items()}
    mean, variance = numbers["μ"], numbers["σ²"]
    y = numbers["γ"] * (numbers["x"] - mean) / np.sqrt(variance + layer.eps) + numbers["β"]
    rule = "γ · (x − μ) / √(σ² + ε) + β"
    return [Step(f"y{list(index)}", rule, float(y), inputs=numbers)]


@_steps.register
def _(layer: ReLU, x: Array, index: tuple[int, ...]) -> list[Step]:
    value = float(x[index])
    return [Step(f"y{list(index)}", "max(x, 0)", max(value, 0.0), inputs={"x": value})]


@_steps.register
def _(layer: ReLU6, x: Array, index: tuple[int, ...]) -> list[Step]:
    value = float(x[index])
    clipped = min(max(value, 0.0), 6.0)
    return [Step(f"y{list(index)}", "min(max(x, 0), 6)", clipped, inputs={"x": value})]


@_steps.register
def _(layer: MaxPool, x: Array, index: tuple[int, ...]) -> list[Step]:
    c, i, j = index
    (KH, KW), (sy, sx), (py, px) = layer.window
    top, left = i * sy - py, j * sx - px
    inside = {
        f"x{[c, row, column]}": float(x[c, row, column])
        for row in range(max(top, 0), min(top + KH, x.shape[1]))
        for column in range(max(left, 0), min(left + KW, x.shape[2]))
    }
    rule = "max of the window"
    return [Step(f"y{list(index)}", rule, max(inside.values()), inputs=inside)]


@_steps.register
def _(layer: GlobalAveragePool, x: Array, index: tuple[int, ...]) -> list[Step]:
    c = index[0]
    _, H, W = x.shape
    products: list[Term] = [
        (f"x{[c, i, j]}", float(x[c, i, j]), "1/(H·W)", 1 / (H * W)) for i, j in np.ndindex(H, W)
    ]
    return [_sum(f"y{list(index)}", "Σ x[c, i, j] / (H·W)", products)]


@_steps.register
def _(layer: Linear, x: Array, index: tuple[int, ...]) -> list[Step]:
    k = index[0]
    w = layer.weight.data[k].astype(np.float64)
    products: list[Term] = [
        (f"w{[k, i]}", float(w[i]), f"x[{i}]", float(x[i])) for i in range(len(x))
    ]
    products.append((f"b[{k}]", float(layer.bias.data[k]), "1", 1.0))
    return [_sum(f"y[{k}]", "Σ w[k, i] · x[i] + b[k]", products)]


def _window(
    w: Array,
    x: Array,
    index: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    groups: int,
    letter: str = "w",
) -> list[Term]:
    """Return the products of one output pixel of a convolution; those with the border are 0."""
    o, i, j = index
    C_out, Cg, KH, KW = w.shape
    first = o // (C_out // groups) * Cg
    (sy, sx), (py, px) = stride, padding
    products: list[Term] = []
    for c, a, b in np.ndindex(Cg, KH, KW):
        row, column = i * sy + a - py, j * sx + b - px
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            where = [first + c, row, column]
            value = float(x[tuple(where)])
            products.append((f"{letter}{[o, c, a, b]}", float(w[o, c, a, b]), f"x{where}", value))
    return products


def _sum(result: str, rule: str, products: list[Term]) -> Step:
    values = np.array([left * right for _, left, _, right in products])
    order = np.argsort(-np.abs(values), kind="stable")
    shown, rest = order[:SHOWN], order[SHOWN:]
    return Step(
        result,
        rule,
        float(values.sum()),
        terms=[products[k] for k in shown],
        count=len(products),
        rest=float(values[rest].sum()),
    )
