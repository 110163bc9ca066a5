"""Where a plan keeps images: memory order, halo, and views that fit each other.

All images of a shard are innermost, (…, W, N): a shift by one pixel is an offset of N elements,
a row of pixels one run of W·N, and a matrix product sees the whole row. The input of a
convolution is stored as (G, top + H + bottom, Cg, left + W + right, N): in group g the rows
(dy, c) that an output row needs lie at one constant distance, an ordinary matrix, and the halo
of zeros around the image, never written, stands for the padding.

Views have the axes (A, B, H, W, N), channel c = a·B + b, whatever the order in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..errors import PlanError

Array = np.ndarray

WIDE = {8: np.dtype(np.uint64), 16: np.dtype(np.complex128)}  # numbers of so many bytes


class Images:
    """Memory of the images of a shard.

    Args:
        view: (A, B, H, W, N).
    """

    def __init__(self, view: Array) -> None:
        self.view = view


class Halo(Images):
    """Images with a border of zeros, group by group.

    Args:
        G: groups.
        Cg: channels of a group.
        H: height.
        W: width.
        N: images.
        border: rows above and below, columns left and right.
        dtype: float32 or float64.

    Attributes:
        array: (G, top + H + bottom, Cg, left + W + right, N).
        view: the images, (G, Cg, H, W, N).
    """

    def __init__(
        self,
        G: int,
        Cg: int,
        H: int,
        W: int,
        N: int,
        border: tuple[int, int, int, int],
        dtype: str,
    ) -> None:
        top, bottom, left, right = border
        self.origin = top, left
        self.array = np.zeros((G, top + H + bottom, Cg, left + W + right, N), dtype)
        inner = self.array[:, top : top + H, :, left : left + W]
        super().__init__(inner.transpose(0, 2, 1, 3, 4))

    def rows(self) -> Array:
        """View the images as rows of pixels, (G, H, Cg, W·N)."""
        _, Cg, H, W, N = self.view.shape
        part = self.window(0, 0, H, W)
        strides = (*part.strides[:3], part.strides[4])
        return as_strided(part, (part.shape[0], H, Cg, W * N), strides)

    def window(self, row: int, column: int, rows: int, columns: int) -> Array:
        """Return the part (G, rows, Cg, columns, N) that begins at pixel (row, column)."""
        top, left = self.origin[0] + row, self.origin[1] + column
        part = self.array[:, top : top + rows, :, left : left + columns]
        assert part.shape[1] == rows
        assert part.shape[3] == columns
        return part


def aligned(*views: Array) -> list[Array]:
    """Return views (A, B, H, W, N) of one shape with their channel axes split alike.

    Raises:
        PlanError: their partitions do not nest, such as 2·3 and 3·2 channels.
    """
    C = views[0].shape[0] * views[0].shape[1]
    runs = sorted({view.shape[1] for view in views} | {1, C}, reverse=True)
    for large, small in pairwise(runs):
        if large % small:
            raise PlanError(f"partitions of {large} and of {small} channels do not nest")
    # channel = Σ index_i · runs[i + 1]
    factors = tuple(large // small for large, small in pairwise(runs))
    result = []
    for view in views:
        split = runs.index(view.shape[1])
        shape = (*factors[:split], *factors[split:], *view.shape[2:])
        result.append(_reshaped(view, shape))
    return result


def channel_range(view: Array, first: int, last: int) -> Array:
    """View channels first … last − 1 of a view (A, B, H, W, N), as such a view.

    They are whole parts of B channels or within one: multiples of `granularity`.
    """
    B = view.shape[1]
    if first % B == 0 and last % B == 0:
        return view[first // B : last // B]
    a = first // B
    assert last <= (a + 1) * B
    return view[a : a + 1, first - a * B : last - a * B]


def granularity(*views: Array) -> int:
    """Return of what number the ends of a channel_range of all of these views are multiples."""
    return max((view.shape[1] for view in views if view.shape[0] > 1), default=1)


def per_channel(values: Array, like: Array) -> Array:
    """View values, (C,), so that they broadcast over an aligned view."""
    return _reshaped(values, (*like.shape[:-3], 1, 1, 1))


def copy(target: Array, source: Array) -> Callable[[], object]:
    """Return the call that copies pixels, (…, N), those of a few images as one number.

    Where every second pixel is taken, runs are N long: two or four at a time are slow.
    """
    wide = WIDE.get(target.shape[-1] * target.itemsize)
    runs = all(view.strides[-1] == view.itemsize for view in (target, source))
    if wide is not None and runs:
        return partial(np.copyto, target.view(wide), source.view(wide))
    return partial(np.copyto, target, source)


def pixels(view: Array) -> int:
    """Return how many numbers a channel of a view holds, H·W·N."""
    return view.shape[-3] * view.shape[-2] * view.shape[-1]


def _reshaped(array: Array, shape: tuple[int, ...]) -> Array:
    result = array.reshape(shape)
    assert np.shares_memory(result, array)
    return result
