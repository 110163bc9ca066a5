"""What the layers of a network make of images: values, maps, dead channels, statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad
from ..layers import Layer, forward_hook, undisturbed

Array = np.ndarray

BINS = 31
MAP_SIDE = 32  # larger maps are averaged down
DIGITS = 4  # significant, of the values in a map


@dataclass(frozen=True)
class Seen:
    """What one layer got and gave.

    Attributes:
        name: full name within the network.
        layer: the layer.
        x: its input.
        y: its output.
    """

    name: str
    layer: Layer
    x: Array
    y: Array


def observe(network: Layer, x: Array) -> tuple[list[Seen], Array]:
    """Return what every layer saw in evaluation, in the order of execution, and the logits."""
    seen: list[Seen] = []

    def record(layer: Layer, name: str, x: Tensor, y: Tensor) -> None:
        seen.append(Seen(name, layer, x.data, y.data))

    with undisturbed(network, training=False), no_grad(), forward_hook(record):
        logits = network(x).numpy()
    return seen, logits


def dead_channels(network: Layer, x: Array) -> dict[str, list[int]]:
    """Return, by layer, the channels that are zero in every pixel of every image.

    Only layers whose output is nowhere negative are listed: those are the ReLUs and what keeps
    their sign.
    """
    seen, _ = observe(network, x)
    result = {}
    for one in seen:
        if one.y.ndim == 4 and one.y.min() >= 0:
            result[one.name] = np.flatnonzero(~one.y.any(axis=(0, 2, 3))).tolist()
    return result


def distribution(values: Array) -> dict[str, Any]:
    """Return count, min, max, mean and std of values, and how many lie in each of 31 bins.

    The bins are of equal width from min to max.
    """
    values = np.asarray(values, np.float64).ravel()
    low, high = float(values.min()), float(values.max())
    finite = np.isfinite(low) and np.isfinite(high)
    bins = np.histogram(values, BINS, (low, high))[0].tolist() if finite else [0] * BINS
    return {
        "count": int(values.size),
        "min": low,
        "max": high,
        "mean": float(values.mean()),
        "std": float(values.std()),
        "bins": bins,
    }


def maps(y: Array, most: int) -> dict[str, Any]:
    """Return the maps of one image, (C, H, W), for at most so many channels, evenly spread.

    Maps with sides above 32 are averaged over squares. Keys: "channels", "values" (one (H, W)
    list each, to four significant digits) and "averaged", the side of the squares.
    """
    chosen = np.unique(np.linspace(0, len(y) - 1, min(len(y), most)).round().astype(int))
    square = -(-max(y.shape[1:]) // MAP_SIDE)
    shrunk = _averaged(y[chosen].astype(np.float64), square)
    return {"channels": chosen.tolist(), "averaged": square, "values": significant(shrunk)}


def _averaged(y: Array, square: int) -> Array:
    """Return the means over squares; rows and columns that do not fill one are left out."""
    C, H, W = y.shape
    h, w = H // square, W // square
    # (C, h·s, w·s) → (C, h, s, w, s)
    squares = y[:, : h * square, : w * square].reshape(C, h, square, w, square)
    return squares.mean(axis=(2, 4))


def significant(values: Array) -> Any:
    """Return values to four significant digits, as nested lists."""
    with np.errstate(divide="ignore", invalid="ignore"):
        digits = DIGITS - 1 - np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** np.where(np.isfinite(digits), digits, 0)
    return (np.round(values * scale) / scale).tolist()
