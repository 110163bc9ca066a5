"""What a convolution of a plan reads: images in memory, or batch norm and ReLU computed anew.

A convolution takes a few groups and rows at a time, stacked as `plan/convolution.py` says. Where
it is the only reader of max(0, s·z + β − s·μ), that is stored nowhere: forward it is written
between zeros in the cache, backward once more for the gradient of the weight and ReLU's mask. z
is kept anyway, for batch norm.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .memory import Call, Scratch
from .planes import Array, aligned, channel_range, per_channel


class Norm(Protocol):
    """What the forward pass needs of a batch norm: y = scale·x + shift."""

    @property
    def scale(self) -> Array | None:
        """(C,), or None where it is in the weights before."""
        ...

    @property
    def shift(self) -> Array:
        """(C,)."""
        ...


class Source(Protocol):
    """What a convolution reads.

    Attributes:
        OH: output rows.
        J: numbers of an output row, OW·N.
    """

    OH: int
    J: int

    def stack(
        self, groups: slice, part: slice, KH: int, KW: int, scratch: Scratch
    ) -> tuple[list[Call], Array]:
        """Return calls and what they write: the rows that some output rows need.

        As from each column tap on, (groups, rows + KH − 1, KW, Cg, J).
        """
        ...

    def rows(self, groups: slice, part: slice, scratch: Scratch) -> tuple[list[Call], Array]:
        """Return calls and some rows without what is around them, (groups, rows, C, W, N)."""
        ...


class Stored:
    """Images in memory.

    Args:
        array: (G, rows, C, W, N), a window of a Halo.
        OH: output rows.
        OW: output columns.
    """

    def __init__(self, array: Array, OH: int, OW: int) -> None:
        self.array = array
        self.OH, self.J = OH, OW * array.shape[4]

    def stack(
        self, groups: slice, part: slice, KH: int, KW: int, scratch: Scratch
    ) -> tuple[list[Call], Array]:
        """Return the copy, which is not made for a single tap."""
        window = self.array[groups, part.start : part.stop + KH - 1]
        view = shifted(window, KW, self.J)
        if KW == 1:
            return [], view
        copied = scratch.take(view.shape, view.dtype)
        return [partial(np.copyto, copied, view)], copied

    def rows(self, groups: slice, part: slice, scratch: Scratch) -> tuple[list[Call], Array]:
        """Return the rows where they lie."""
        del scratch
        return [], self.array[groups, part]


class Deferred:
    """Batch norm and ReLU of z, stored nowhere: computed wherever a convolution reads it.

    Args:
        z: (A, B, H, W, N).
        norm: s and β − s·μ of each channel.
        G: groups of the convolution.
        border: rows above and below, columns left and right of zeros.
        kernel: KH, KW.
    """

    def __init__(
        self,
        z: Array,
        norm: Norm,
        G: int,
        border: tuple[int, int, int, int],
        kernel: tuple[int, int],
    ) -> None:
        self.z, self.norm = z, norm
        _, _, H, W, N = z.shape
        self.Cg = z.shape[0] * z.shape[1] // G
        above, below, self.left, self.right = border
        self.above = above
        self.OH = H + above + below - kernel[0] + 1
        self.OW = W + self.left + self.right - kernel[1] + 1
        self.J = self.OW * N

    def stack(
        self, groups: slice, part: slice, KH: int, KW: int, scratch: Scratch
    ) -> tuple[list[Call], Array]:
        """Return ReLU written as often as there are column taps, between zeros."""
        _, _, H, W, N = self.z.shape
        first, last = part.start - self.above, part.stop + KH - 1 - self.above
        inner = slice(max(first, 0), min(last, H))
        calls, normed = self._normed(groups, inner, scratch)
        G = groups.stop - groups.start
        shape = G, last - first, self.Cg, self.left + W + self.right, N
        rows = slice(inner.start - first, inner.stop - first)
        place = slice(0, G), rows, slice(0, self.Cg), slice(self.left, self.left + W)
        padded, target = scratch.bordered(shape, place, normed.dtype)
        zeros = np.zeros((W, N), normed.dtype)
        calls.append(partial(np.maximum, normed.swapaxes(1, 2), zeros, out=target))
        view = shifted(padded, KW, self.J)
        if KW == 1:
            return calls, view
        stack = scratch.take(view.shape, view.dtype)
        return [*calls, partial(np.copyto, stack, view)], stack

    def rows(self, groups: slice, part: slice, scratch: Scratch) -> tuple[list[Call], Array]:
        """Return rows of the image."""
        calls, normed = self._normed(groups, part, scratch)
        zeros = np.zeros(normed.shape[3:], normed.dtype)
        calls.append(partial(np.maximum, normed, zeros, out=normed))
        return calls, normed.swapaxes(1, 2)

    def _normed(self, groups: slice, rows: slice, scratch: Scratch) -> tuple[list[Call], Array]:
        """Return s·z + β − s·μ, (groups, Cg, rows, W, N)."""
        first, last = groups.start * self.Cg, groups.stop * self.Cg
        z = channel_range(self.z, first, last)[..., rows, :, :]
        shape = groups.stop - groups.start, self.Cg, *z.shape[2:]
        normed = scratch.take(shape, z.dtype, slot=5)
        out, z = aligned(normed, z)
        calls: list[Call] = []
        if self.norm.scale is not None:
            scale = per_channel(self.norm.scale[first:last], z)
            calls.append(partial(np.multiply, z, scale, out=out))
            z = out
        shift = per_channel(self.norm.shift[first:last], z)
        return [*calls, partial(np.add, z, shift, out=out)], normed


def shifted(window: Array, KW: int, J: int) -> Array:
    """View (G, H, Cg, W, N) as rows from each column tap on, (G, H, KW, Cg, J)."""
    G, H, Cg, _, N = window.shape
    group, row, channel, pixel, item = window.strides
    assert pixel == N * item
    return as_strided(window, (G, H, KW, Cg, J), (group, row, pixel, channel, item))
