"""The page of `igcnn inspect`: one HTML file that needs no network, and its part for notebooks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from ...training.describe import describe_network
from ..live import Live, make_live
from ..subject import Subject
from ..wiring import Wiring
from ..wiring_drawing import draw as draw_wiring
from . import drawing, structure
from .operations import (
    OPERATIONS,
    Operation,
    colours,
    cuda_sources,
    formula,
    numpy_sources,
    operation_of,
)
from .pictures import DIVERGING, SEQUENTIAL, photograph, tiles

HERE = Path(__file__).parent
ENGINE = "convolution", "operations", "engine"  # of the page and its worker
PAGE = "wiring", "contents", "table"  # of every page
LIVE = "state", "colors", "image", "answers", "sums", "editing", "maps", "carried"


def render_page(report: dict[str, Any], live: Live) -> str:
    """Return the page for a report of `make_report`, and for what the page computes by itself.

    Every number on the page is an element whose `data-k` is its path in the report and whose
    `data-f` is the Python format that made its text. A path that begins with a dot goes on from
    the `data-at` of the element around it.
    """

    def number(path: str, form: str = ",", at: str = "") -> Markup:
        text = formatted(look_up(report, at + path), form)
        return Markup(
            f'<span data-k="{escape(path)}" data-f="{escape(form)}">{escape(text)}</span>'
        )

    return _template("page.html.j2").render(
        _shared(live, report["checkpoint"]),
        report=report,
        n=number,
        m=lambda at, path, form=",": number(path, form, at),
        draw=drawing,
        draw_wiring=draw_wiring,
        units={unit["name"]: unit for unit in report["units"]},
        maps=_maps,
        operations=_operations(report, live),
        operation_of=operation_of,
        formula=formula,
        numpy_sources=numpy_sources,
        cuda_sources=cuda_sources,
        stages=structure.stages(report["layers"]),
        largest_share=max(layer["share"] for layer in report["layers"]),
        title=describe_network(report["network"]),
        photograph=photograph(np.array(report["image"]["pixels"], np.uint8)),
        syntax=Markup(colours()),
    )


def render_wiring(wiring: Wiring) -> str:
    """Return the drawing of a wiring as an SVG file of its own, in the colours of the page."""
    begin = '<svg xmlns="http://www.w3.org/2000/svg" width="760" '
    svg = draw_wiring(wiring.to_json()).replace("<svg ", begin, 1)
    return svg.replace(">", f">\n<style>\n{_style('palette', 'wiring')}</style>\n", 1) + "\n"


def _style(*names: str) -> str:
    return "".join((HERE / f"{name}.css").read_text(encoding="utf-8") for name in names)


def render_view(subject: Subject, height: int) -> str:
    """Return the part of the page that computes, in a frame for a notebook.

    Args:
        subject: network and image.
        height: of the frame, in pixels.
    """
    live = make_live(subject)
    if live.data is None or live.steps is None:
        return f"<p>Not computed in this notebook: {escape(live.reason)}.</p>"
    layers = {step["layer"]: live.steps.shapes[step["output"]] for step in live.steps.steps}
    layers.pop("", None)
    page = _template("view.html.j2").render(
        _shared(live, subject.checkpoint),
        layers=layers,
        title=describe_network(subject.network.settings),
        syntax="",
    )
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{escape(page)}" title="igcnn" '
        f'style="width: 100%; height: {height}px; border: 1px solid #8884"></iframe>'
    )


def _template(name: str) -> Template:
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def _shared(live: Live, checkpoint: str) -> dict[str, Any]:
    """Return what the templates of the page and of the notebook's frame both take."""
    return {
        "live": live,
        "live_data": _data(live),
        "trained": bool(checkpoint),
        "shape": live.steps.shapes[0] if live.steps else (),
        "drawing": structure.network(live.steps) if live.steps else "",
        "explain": structure.explain,
        "style": Markup(_style("palette", "style", "wiring")),
        "engine": script(ENGINE),
        "script": script((*PAGE, *(LIVE if live.data else ()))),
    }


def script(stems: Sequence[str]) -> Markup:
    """Return the scripts of these names as one."""
    texts = [(HERE / "js" / f"{stem}.js").read_text(encoding="utf-8") for stem in stems]
    return Markup("\n".join(['"use strict";', *texts]))


def _data(live: Live) -> Markup:
    """Return the data of a live page as JSON that cannot end its script element."""
    colors = {"sequential": SEQUENTIAL, "diverging": DIVERGING}
    return Markup(json.dumps((live.data or {}) | {"colors": colors}).replace("<", "\\u003c"))


def look_up(report: dict[str, Any], path: str) -> Any:
    """Return the value at a path like "layers.3.macs"."""
    value: Any = report
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list | tuple) else value[key]
    return value


def formatted(value: Any, form: str) -> str:
    """Return a value in a format; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return "×".join(map(str, value)) if form == "×" else ", ".join(map(str, value))
    text = format(value, form)
    return text if isinstance(value, str) else text.replace("-", "−")


def _maps(layer: dict[str, Any]) -> dict[str, Any]:
    """Return the picture of a layer's maps and its size."""
    values = np.array(layer["maps"]["values"], float)
    activation = layer["activation"]
    address, width, height = tiles(values, activation["min"], activation["max"])
    return {"address": address, "width": width, "height": height}


def _operations(report: dict[str, Any], live: Live) -> list[Operation]:
    """Return the operations that the network and its loss consist of, by its layers and tape."""
    types = {layer["type"] for layer in report["layers"]} | {"loss"}
    if types & {"InterleavedGroupConvolution", "InterleavedProduct"}:
        types |= {"Permutation", "Convolution"}
    if live.steps and any(step["op"] == "add" for step in live.steps.steps):
        types.add("Add")
    return [each for each in OPERATIONS if types & set(each.layers)]
