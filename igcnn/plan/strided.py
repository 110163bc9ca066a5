"""Any convolution of a plan as unit-stride ones: stride s splits an image into s × s phases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..errors import PlanError
from ..kernels.geometry import phases
from .convolution import Correlation, End
from .memory import Call, Scratch
from .planes import Array, Halo, Images, aligned, copy
from .source import Deferred, Norm, Source, Stored


@dataclass(frozen=True)
class Phase:
    """Every s-th pixel of the image, and the taps of the kernel that meet them.

    Attributes:
        rows: which rows of the image.
        columns: which columns.
        taps: which taps of the kernel, vertical and horizontal.
        size: taps, (A, B).
        offset: pixel of the phase that output pixel (0, 0) begins at, never positive.
        height: rows of the phase.
        width: columns.
        forward: its share of the output.
        backward: its share of the gradient of the image.
    """

    rows: slice
    columns: slice
    taps: tuple[slice, slice]
    size: tuple[int, int]
    offset: tuple[int, int]
    height: int
    width: int
    forward: Correlation
    backward: Correlation | None


class StridedConvolution:
    """A convolution, dense or grouped, for shards of any number of images.

    Args:
        weight: (C_out, C/groups, KH, KW), read at every `refresh`.
        image: (C, H, W).
        stride: vertical and horizontal.
        padding: likewise.
        groups: G.

    Attributes:
        refresh: calls that bring the matrices up to date with the weight.
        layout: groups and border of an image that it reads where it lies; None for a stride,
            whose phases are copies.
    """

    def __init__(
        self,
        weight: Array,
        image: tuple[int, ...],
        stride: tuple[int, int],
        padding: tuple[int, int],
        groups: int,
    ) -> None:
        _, H, W = image
        C_out, Cg, KH, KW = weight.shape
        if padding[0] >= KH or padding[1] >= KW:
            raise PlanError(f"padding {padding} reaches beyond the kernel {KH}×{KW}")
        self.G, self.Og, self.Cg = groups, C_out // groups, Cg
        self.image = image
        self.padding = padding
        self.OH = (H + 2 * padding[0] - KH) // stride[0] + 1
        self.OW = (W + 2 * padding[1] - KW) // stride[1] + 1
        self.stride = stride
        self.refresh: list[Call] = []
        grouped = weight.reshape(groups, self.Og, Cg, KH, KW)
        assert np.shares_memory(grouped, weight)
        self.phases = [
            self._phase(grouped, phase) for phase in phases(weight.shape, stride, padding)
        ]
        self.layout: tuple[int, tuple[int, int, int, int]] | None = None
        if tuple(stride) == (1, 1):
            self.layout = groups, self._input_border(self.phases[0])
        self._gradients: dict[tuple[int, str], Halo] = {}

    def _phase(self, weight: Array, phase: tuple) -> Phase:
        (u, v), (a, b), offset = phase
        _, H, W = self.image
        rows, columns = slice(u, None, self.stride[0]), slice(v, None, self.stride[1])
        taps = slice(a, None, self.stride[0]), slice(b, None, self.stride[1])
        part = weight[..., taps[0], taps[1]]
        height, width = len(range(H)[rows]), len(range(W)[columns])
        forward = Correlation(part)
        backward = None
        self.refresh += forward.refresh
        if height and width:
            backward = Correlation(exchanged(part))
            self.refresh += backward.refresh
        size = part.shape[3:]
        return Phase(rows, columns, taps, size, offset, height, width, forward, backward)

    def new_input(self, N: int, dtype: str) -> Halo:
        """Return memory for an image that the convolution reads in place."""
        (phase,) = self.phases
        _, H, W = self.image
        return Halo(self.G, self.Cg, H, W, N, self._input_border(phase), dtype)

    def _input_border(self, phase: Phase) -> tuple[int, int, int, int]:
        top, left = phase.offset
        below = max(0, top + self.OH + phase.size[0] - 1 - phase.height)
        right = max(0, left + self.OW + phase.size[1] - 1 - phase.width)
        return -top, below, -left, right

    def inputs(self, x: Array, halo: Halo | None) -> tuple[list[Halo], list[Call]]:
        """Return what each phase reads, and the calls that copy it there.

        Args:
            x: the image, (A, B, H, W, N).
            halo: its storage, if that is of this convolution's `layout`.
        """
        if halo is not None:
            return [halo], []
        result: list[Halo] = []
        calls: list[Call] = []
        for phase in self.phases:
            sizes = phase.height, phase.width, x.shape[-1]
            border = self._input_border(phase)
            result.append(Halo(self.G, self.Cg, *sizes, border, str(x.dtype)))
            target, source = aligned(result[-1].view, x[:, :, phase.rows, phase.columns])
            calls.append(copy(target, source))
        return result, calls

    def defer(self, z: Array, norm: Norm) -> Deferred:
        """Return an input for `forward` and `backward` that is batch norm and ReLU of z."""
        (phase,) = self.phases
        return Deferred(z, norm, self.G, self._input_border(phase), phase.size)

    def _source(self, phase: Phase, x: Halo | Deferred) -> Source:
        """Return the part of a phase's input that outputs are computed from."""
        if isinstance(x, Deferred):
            return x
        A, B = phase.size
        window = x.window(*phase.offset, self.OH + A - 1, self.OW + B - 1)
        return Stored(window, self.OH, self.OW)

    def forward(self, inputs: list[Halo | Deferred], y: Array, scratch: Scratch) -> Iterator[Call]:
        """Yield the calls that write y, (G, Og, OH, OW, N)."""
        for index, (phase, x) in enumerate(zip(self.phases, inputs, strict=True)):
            yield from phase.forward.calls(self._source(phase, x), scratch, y, index > 0)

    def rows_of_a_part(self, N: int) -> int:
        """Return how many rows of gx `end` is given at a time, of a convolution with a layout."""
        (phase,) = self.phases
        assert phase.backward is not None
        (_, rows), *_ = phase.backward.blocks(phase.height, phase.width * N)
        return rows.stop

    def new_output_gradient(self, N: int, dtype: str) -> Halo:
        """Return memory for gy, the same at every call: it is used up at once."""
        key = N, dtype
        if key not in self._gradients:
            above = left = below = right = 0
            for phase in self.phases:
                top, first = phase.offset
                A, B = phase.size
                above, left = max(above, A - 1 + top), max(left, B - 1 + first)
                below = max(below, phase.height - top - self.OH)
                right = max(right, phase.width - first - self.OW)
            border = above, below, left, right
            self._gradients[key] = Halo(self.G, self.Og, self.OH, self.OW, N, border, dtype)
        return self._gradients[key]

    def backward(
        self,
        inputs: list[Halo | Deferred],
        gy: Images,
        gx: Array | None,
        accumulate: bool,
        gw: Array | None,
        scratch: Scratch,
        end: End | None = None,
    ) -> Iterator[Call]:
        """Yield the calls that write the gradients of image and weight.

        Args:
            inputs: what the phases read.
            gy: the gradient of the output, in memory of new_output_gradient.
            gx: (G, Cg, H, W, N); None for nothing.
            accumulate: add to gx.
            gw: (C_out, Cg, KH, KW); None for nothing.
            scratch: gives the memory of what is between.
            end: yields what is to be done with each part of gx, for a convolution with a layout.
        """
        assert isinstance(gy, Halo)
        if gx is not None and not accumulate and len(self.phases) < math.prod(self.stride):
            yield partial(np.copyto, gx, 0)  # pixels that no tap reaches
            accumulate = True
        for phase, x in zip(self.phases, inputs, strict=True):
            part = None
            if gw is not None:
                grouped = gw.reshape(self.G, self.Og, self.Cg, *gw.shape[2:])
                part = grouped[..., phase.taps[0], phase.taps[1]]
            if gx is not None and phase.backward is not None:
                yield from self._backward(phase, x, gy, gx, accumulate, part, scratch, end)
            elif part is not None:
                rows = Stored(gy.window(0, 0, self.OH, self.OW), self.OH, self.OW)
                source = self._source(phase, x)
                yield from phase.forward.calls(source, scratch, rows=rows, gw=part)

    def _backward(
        self,
        phase: Phase,
        x: Halo | Deferred,
        gy: Halo,
        gx: Array,
        accumulate: bool,
        gw: Array | None,
        scratch: Scratch,
        end: End | None,
    ) -> Iterator[Call]:
        """Yield the calls of a phase: gx and gw from one copy of gy."""
        assert phase.backward is not None
        A, B = phase.size
        row, column = 1 - A - phase.offset[0], 1 - B - phase.offset[1]
        height, width = phase.height, phase.width
        window = gy.window(row, column, height + A - 1, width + B - 1)
        source = Stored(window, height, width)
        rows: Source | None = None
        if isinstance(x, Deferred):
            rows = x
        elif gw is not None or end is not None:
            rows = Stored(x.view.swapaxes(1, 2), height, width)
        gradient = None if gw is None else exchanged(gw)
        part = gx[:, :, phase.rows, phase.columns]
        if self.layout is not None:
            yield from phase.backward.calls(source, scratch, part, accumulate, rows, gradient, end)
            return
        # a phase is computed where its rows are runs, and put between the others at the end
        whole = scratch.take(part.shape, part.dtype, slot=2)
        if accumulate:
            yield copy(whole, part)
        yield from phase.backward.calls(source, scratch, whole, accumulate, rows, gradient)
        yield copy(part, whole)


def exchanged(weight: Array) -> Array:
    """View (G, Og, Cg, KH, KW) with its channels exchanged and the kernel flipped."""
    return weight.swapaxes(1, 2)[..., ::-1, ::-1]
