"""Diagrams of the page in SVG: distributions, error curves, widths, composed kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from .pictures import tiles


def bars(distribution: dict[str, Any], label: str) -> Markup:
    """Return how values are distributed, as bars over 31 bins."""
    bins = distribution["bins"]
    most = max(bins) or 1
    width, height = 4, 36
    shapes = "".join(
        f"M{width * k + 2} {height}v-{max(1, round(height * n / most))}"
        for k, n in enumerate(bins)
        if n
    )
    low, high = distribution["min"], distribution["max"]
    zero = ""
    if low < 0 < high:
        x = width * len(bins) * -low / (high - low)
        zero = f'<path class="zero" d="M{x:.1f} 0V{height}"/>'
    return Markup(
        f'<svg class="bars" viewBox="0 0 {width * len(bins)} {height}" role="img" '
        f'aria-label="{label}: {len(bins)} bins from {low:.3g} to {high:.3g}">'
        f'<path class="bar" d="{shapes}"/>{zero}</svg>'
    )


def _axis(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """Return the function from numbers to places in the picture."""
    return lambda value: start + (stop - start) * (value - low) / (high - low)


STEPS = _axis(-12, 0, 34, 250)  # of error curves, across
ERRORS = _axis(-16, 1, 140, 8)  # and up


def shared() -> Markup:
    """Return what all error curves have in common, invisible by itself."""
    lines = "".join(
        f'<path class="grid" d="M34 {ERRORS(k):.1f}H250"/>'
        f'<text class="tick" x="30" y="{ERRORS(k) + 3:.1f}" text-anchor="end">{_power(k)}</text>'
        for k in (-15, -10, -5, 0)
    )
    labels = "".join(
        f'<text class="tick" x="{STEPS(k):.1f}" y="155" text-anchor="middle">{_power(k)}</text>'
        for k in (-10, -5, -1)
    )
    return Markup(
        f'<svg class="shared" aria-hidden="true"><defs><g id="curve-grid">{lines}{labels}'
        f'<text class="tick" x="142" y="169" text-anchor="middle">step h</text></g></defs></svg>'
    )


def error_curve(gradient: dict[str, Any]) -> Markup:
    """Return the error at the worst element against the step, both logarithmic."""
    points = [
        (math.log10(step), math.log10(max(error, 1e-16)))
        for step, error in zip(gradient["steps"], gradient["errors"], strict=True)
        if math.isfinite(error)
    ]
    x, y = STEPS, ERRORS
    limit = y(math.log10(gradient["tolerance"]))
    line = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
    dots = "".join(f"M{x(a):.1f} {y(b):.1f}h0" for a, b in points)
    state = "passed" if gradient["passed"] else "failed"
    return Markup(
        f'<svg class="curve {state}" viewBox="0 0 258 172" role="img" aria-label="Error against '
        f'step: smallest {min(gradient["errors"]):.1e}"><use href="#curve-grid"/>'
        f'<path class="limit" d="M34 {limit:.1f}H250"/>'
        f'<path class="line" d="M{line}"/><path class="points" d="{dots}"/></svg>'
    )


def _power(exponent: int) -> str:
    return f'10<tspan dy="-4" font-size="8">{str(exponent).replace("-", "−")}</tspan>'


def widths(width: dict[str, Any]) -> Markup:
    """Return the width that a budget buys against M, with L = 9M and the network marked."""
    curve = width["curve"]
    this, bound, area = width["this"], width["bound"], width["kernel_area"]
    most_m = max([each["M"] for each in curve] + [this["M"]])
    x = _axis(math.log2(0.9), math.log2(most_m * 1.15), 60, 660)
    top = 1.12 * max([bound, this["width"]] + [each["width"] for each in curve])
    y = _axis(0, top, 280, 16)
    ticks = [2**k for k in range(12) if 2**k <= most_m]
    step = 10 ** math.floor(math.log10(top)) / 2
    step *= max(1, round(top / step / 6))
    levels = np.arange(0, top, step).tolist()
    grid = "".join(
        f'<path class="grid" d="M60 {y(v):.1f}H660"/><text x="54" y="{y(v) + 4:.1f}" '
        f'text-anchor="end">{v:g}</text>'
        for v in levels
    )
    grid += "".join(
        f'<text x="{x(math.log2(m)):.1f}" y="298" text-anchor="middle">{m}</text>' for m in ticks
    )
    best_m = (bound / area) ** 0.5  # where L = S·M: G = S·M²
    place = x(math.log2(max(best_m, 0.95)))
    line = "L".join(f"{x(math.log2(p['M'])):.1f} {y(p['width']):.1f}" for p in curve)
    dots = "".join(
        f'<circle cx="{x(math.log2(p["M"])):.1f}" cy="{y(p["width"]):.1f}" r="4"><title>L = '
        f"{p['L']}, M = {p['M']}: {p['width']} channels</title></circle>"
        for p in curve
    )
    at = x(math.log2(this["M"])), y(this["width"])
    label = (
        f"Width against M for {width['budget']} parameters: at most {bound:.1f}, where L = "
        f"{area}M; a regular convolution has {width['regular']:.1f}; this network {this['width']}"
    )
    return Markup(
        f'<svg class="widths" viewBox="0 0 680 322" role="img" aria-label="{label}">{grid}'
        f'<path class="limit" d="M60 {y(bound):.1f}H660"/>'
        f'<text x="656" y="{y(bound) - 6:.1f}" text-anchor="end">bound {bound:.1f}</text>'
        f'<path class="limit" d="M{place:.1f} 280V{y(bound):.1f}"/>'
        f'<text x="{place + 5:.1f}" y="274">L = {area}M</text>'
        f'<path class="regular" d="M60 {y(width["regular"]):.1f}H660"/>'
        f'<text x="656" y="{y(width["regular"]) - 6:.1f}" text-anchor="end">regular '
        f"convolution {width['regular']:.1f}</text>"
        f'<path class="line" d="M{line}"/><g class="points">{dots}</g>'
        f'<path class="this" d="M{at[0]:.1f} {at[1] - 9:.1f}l9 9l-9 9l-9-9z"/>'
        f'<text class="this" x="{at[0]:.1f}" y="{at[1] + 32:.1f}" text-anchor="middle">here: '
        f"L = {this['L']}, M = {this['M']}</text>"
        f'<text x="360" y="316" text-anchor="middle">M, channels of a primary partition</text>'
        f'<text x="14" y="150" transform="rotate(-90 14 150)" text-anchor="middle">channels'
        f"</text></svg>"
    )


def kernel(unit: dict[str, Any]) -> Markup:
    """Return the composed kernel as a picture: rows are outputs, columns inputs."""
    values = np.array(unit["kernel"], float)
    address, columns, rows = tiles(values[None], 0.0, float(values.max()))
    partitions = unit["groups"][0]
    step = unit["C_in"] / partitions / unit["columns"]
    meet = "all" if unit["fewest_paths"] else "not all"
    lines = ""
    if step >= 2 and unit["columns"] == 1:
        lines += "".join(f"M{step * k:.2f} 0v{rows}" for k in range(1, partitions))
    if len(unit["outputs"]) == unit["C_out"]:
        height = unit["C_out"] / partitions
        lines += "".join(f"M0 {height * k:.2f}h{columns}" for k in range(1, partitions))
    return Markup(
        f'<svg class="kernel" viewBox="0 0 {columns} {rows}" role="img" aria-label="Length of the '
        f"kernel from each of {unit['C_in']} input channels to each of {len(unit['outputs'])} "
        f'output channels; {meet} of them are connected">'
        f'<image href="{address}" width="{columns}" height="{rows}"/>'
        f'<path class="blocks" d="{lines}"/></svg>'
    )


def matrix(values: Sequence[Sequence[float]], label: str) -> Markup:
    """Return a small matrix as a picture with its numbers in titles."""
    array = np.array(values, float)
    address, columns, rows = tiles(array[None], min(0.0, float(array.min())), float(array.max()))
    titles = "".join(
        f'<rect x="{k}" y="{i}" width="1" height="1"><title>{label}[{i}, {k}] = '
        f"{array[i, k]:.3g}</title></rect>"
        for i, k in np.ndindex(array.shape)
    )
    return Markup(
        f'<svg class="matrix" viewBox="0 0 {columns} {rows}" role="img" aria-label="{label}, '
        f'{rows} × {columns}"><image href="{address}" width="{columns}" height="{rows}"/>'
        f"{titles}</svg>"
    )
