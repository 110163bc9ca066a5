"""The page of `igcnn inspect`: one HTML file that needs no network, from a report's numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ...training.describe import describe_network
from ..wiring_drawing import draw_product
from . import drawing
from .operations import (
    OPERATIONS,
    Operation,
    colours,
    cuda_sources,
    formula,
    numpy_sources,
    operation_of,
)
from .pictures import photograph, tiles

HERE = Path(__file__).parent


def render_page(report: dict[str, Any]) -> str:
    """Return the page for a report of `make_report`.

    Every number on the page is an element whose `data-k` is its path in the report and whose
    `data-f` is the Python format that made its text. A path that begins with a dot goes on from
    the `data-at` of the element around it.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def number(path: str, form: str = ",", at: str = "") -> Markup:
        text = formatted(look_up(report, at + path), form)
        return Markup(
            f'<span data-k="{escape(path)}" data-f="{escape(form)}">{escape(text)}</span>'
        )

    return environment.get_template("page.html.j2").render(
        report=report,
        n=number,
        m=lambda at, path, form=",": number(path, form, at),
        draw=drawing,
        draw_product=draw_product,
        units={unit["name"]: unit for unit in report["units"]},
        maps=_maps,
        operations=_operations(report),
        operation_of=operation_of,
        formula=formula,
        numpy_sources=numpy_sources,
        cuda_sources=cuda_sources,
        title=describe_network(report["network"]),
        photograph=photograph(np.array(report["image"]["pixels"], np.uint8)),
        style=Markup((HERE / "style.css").read_text(encoding="utf-8") + colours()),
        script=Markup((HERE / "script.js").read_text(encoding="utf-8")),
    )


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


def _operations(report: dict[str, Any]) -> list[Operation]:
    """Return the operations that the network and its loss consist of."""
    types = {layer["type"] for layer in report["layers"]} | {"loss"}
    if types & {"InterleavedGroupConvolution", "InterleavedProduct"}:
        types |= {"Permutation", "Convolution"}
    if any(word in report["network"]["net"] for word in ("resnet", "igcv3", "mobilenet", "merge")):
        types.add("Add")
    return [each for each in OPERATIONS if types & set(each.layers)]
