"""Arrays as small PNG pictures inside the page."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from ...notebook import picture_address

Array = np.ndarray

# from small to large: dark violet over green to yellow, as many see apart
SEQUENTIAL = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
# negative blue, zero white, positive red
DIVERGING = ((5, 48, 97), (67, 147, 195), (247, 247, 247), (214, 96, 77), (103, 0, 31))
GAP = 0  # the palette's first entry is transparent
LEVELS = 63  # the others; more are hardly seen, and make files larger


def photograph(pixels: Array) -> str:
    """Return an image of uint8, (3, H, W), as the address of a PNG."""
    return picture_address(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))))


def tiles(maps: Array, low: float, high: float) -> tuple[str, int, int]:
    """Return maps, (n, H, W), side by side with gaps of a pixel, and the picture's size.

    Where low is negative, zero is white and the scale runs equally far to both sides.
    """
    n, H, W = maps.shape
    columns = min(n, max(1, round(math.sqrt(3 * n))))
    rows = -(-n // columns)
    canvas = np.full((rows, H + 1, columns, W + 1), GAP, np.uint8)
    indices = levels(maps, low, high)
    for k in range(n):
        canvas[k // columns, :H, k % columns, :W] = indices[k]
    # (rows, H + 1, columns, W + 1) → one picture, without the last gap
    flat = canvas.reshape(rows * (H + 1), columns * (W + 1))[:-1, :-1]
    return _palette(flat, DIVERGING if low < 0 else SEQUENTIAL), flat.shape[1], flat.shape[0]


def levels(values: Array, low: float, high: float) -> Array:
    """Return the place of values on the scale, from 1 to 63."""
    if low < 0:
        largest = max(-low, high)
        low, high = -largest, largest
    share = (np.nan_to_num(values) - low) / (high - low or 1.0)
    return (1 + np.clip(np.round(share * (LEVELS - 1)), 0, LEVELS - 1)).astype(np.uint8)


def _palette(indices: Array, anchors: tuple[tuple[int, int, int], ...]) -> str:
    places = np.linspace(0, LEVELS - 1, len(anchors))
    channels = zip(*anchors, strict=True)
    table = [np.interp(np.arange(LEVELS), places, channel) for channel in channels]
    image = Image.fromarray(indices)
    image.putpalette([0, 0, 0, *np.stack(table, axis=1).round().astype(int).ravel().tolist()])
    return picture_address(image, transparency=GAP)
