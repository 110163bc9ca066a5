"""Parameters and multiply-adds of a network, layer by layer and in total."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad
from ..notebook import html_table
from ..text import table_lines, wrap_line
from .layer import Layer, forward_hook
from .modes import in_mode

RULE = "1 multiply-add = one multiplication and one addition; convolution and fully connected only"
TOTALS = 15  # columns of the labels of the totals
LEAST_TYPE = 10  # columns below which types are left out
HEADS = ("layer", "type", "output", "params", "multiply-adds")
KINDS = ("conv", "bn", "fc")


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes:
        name: full name within the network.
        type: name of the layer's class.
        output: shape of the output for one image, without the batch axis.
        params: number of parameters.
        kind: "conv", "bn" or "fc", the kind that the parameters are counted as, else "".
        macs: multiply-adds for one image.
    """

    name: str
    type: str
    output: tuple[int, ...]
    params: int
    kind: str
    macs: int


@dataclass(frozen=True, repr=False)
class Summary:
    """A network: its layers in the order of execution, and totals.

    Attributes:
        layers: those that have no layers below them.
        image_shape: shape of the image that the multiply-adds are for, (3, H, W).
        params: number of all parameters.
    """

    layers: tuple[LayerSummary, ...]
    image_shape: tuple[int, int, int]
    params: int

    def params_of(self, kind: str) -> int:
        """Return the number of parameters of the layers of a kind: "conv", "bn" or "fc"."""
        return sum(layer.params for layer in self.layers if layer.kind == kind)

    @property
    def macs_conv(self) -> int:
        """Multiply-adds of the convolutions for one image."""
        return sum(layer.macs for layer in self.layers if layer.kind == "conv")

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return sum(layer.macs for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return params, params_conv, params_bn, params_fc, macs_conv, macs and layers."""
        totals = {f"params_{kind}": self.params_of(kind) for kind in KINDS}
        return {
            "params": self.params,
            **totals,
            "macs_conv": self.macs_conv,
            "macs": self.macs,
            "image_shape": list(self.image_shape),
            "layers": [asdict(layer) for layer in self.layers],
        }

    def __repr__(self) -> str:
        image = "×".join(map(str, self.image_shape))
        return (
            f"Summary({len(self.layers)} layers, {self.params:,} parameters, {self.macs:,} "
            f"multiply-adds for one {image} image)"
        )

    def _repr_html_(self) -> str:
        rows = [
            (x.name, x.type, "×".join(map(str, x.output)), x.params, x.macs) for x in self.layers
        ]
        return html_table(repr(self), HEADS, rows)

    def to_text(self, width: int | None = None) -> str:
        """Return a table, the totals and the rule of counting.

        Args:
            width: columns of the terminal, for which types are shortened or left out; None for
                no limit.
        """
        rows = [HEADS]
        for layer in self.layers:
            output = "×".join(map(str, layer.output))
            rows.append((layer.name, layer.type, output, f"{layer.params:,}", f"{layer.macs:,}"))
        lines = _table(rows)
        excess = len(lines[0]) - (width or len(lines[0]))
        if excess > 0:
            room = max(len(row[1]) for row in rows) - excess
            lines = _table([(row[0], *_shortened(row[1], room), *row[2:]) for row in rows])
        conv, bn, fc = (self.params_of(kind) for kind in KINDS)
        image = "×".join(map(str, self.image_shape))
        totals = [
            f"parameters     {self.params:,} (convolution {conv:,}, batch norm {bn:,}, "
            f"fully connected {fc:,})",
            f"multiply-adds  {self.macs:,} for one {image} image (convolution {self.macs_conv:,})",
            f"rule           {RULE}",
        ]
        if width:
            totals = [wrap_line(line, width, TOTALS) for line in totals]
        return "\n".join([*lines, "", *totals])


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return aligned lines, the heading underlined; the last two columns are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [False] * (len(widths) - 2) + [True, True]
    return table_lines([rows[0], ["-" * width for width in widths], *rows[1:]], right)


def _shortened(text: str, room: int) -> tuple[str, ...]:
    """Return a cell cut to the room, or no cell where that is too little to be read."""
    if room < LEAST_TYPE:
        return ()
    return (text if len(text) <= room else f"{text[: room - 1]}…",)


def summarize(network: Layer, image_shape: tuple[int, int, int]) -> Summary:
    """Return what a network is made of, by sending one black image through it.

    The network's mode is restored, its running statistics are not touched, and nothing is
    recorded.

    Args:
        network: takes images, (N, 3, H, W).
        image_shape: (3, H, W).

    Raises:
        ShapeError: the image is too small for the network.
    """
    layers: list[LayerSummary] = []
    counted: set[int] = set()  # parameters are counted where they are used first

    def record(layer: Layer, name: str, x: Tensor, y: Tensor) -> None:
        own = [tensor for tensor in layer.parameters() if id(tensor) not in counted]
        counted.update(map(id, own))
        # a batch of one image: its multiply-adds are the layer's
        layers.append(
            LayerSummary(
                name=name,
                type=type(layer).__name__,
                output=y.shape[1:],
                params=sum(tensor.size for tensor in own),
                kind=layer.kind,
                macs=layer.macs(x.shape, y.shape),
            )
        )

    with in_mode(network, training=False), no_grad(), forward_hook(record):
        network(np.zeros((1, *image_shape), _dtype(network)))
    return Summary(tuple(layers), image_shape, sum(x.size for x in network.parameters()))


def _dtype(network: Layer) -> np.dtype:
    return next((tensor.dtype for tensor in network.parameters()), np.dtype(np.float32))
