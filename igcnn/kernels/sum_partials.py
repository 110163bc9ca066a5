"""Sums of what the blocks of a GPU leave of gradients: many gradients by one launch.

    sum[k] = Σ_s partial[s, k]

The parts of all gradients lie in one array and the gradients in another; a table says where. The
order of the terms depends on nothing but the number of parts: the same bits every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..backend import device_of, to_device
from .arguments import Arguments, address
from .launch import THREADS, WARP, launch

Array = np.ndarray


@dataclass(frozen=True)
class PartialSums:
    """What one launch adds up.

    Attributes:
        partials: holds the parts of all gradients, flat.
        sums: holds the gradients, flat.
        table: int32, a row (begin in partials, begin in sums, numbers, parts) for each of them.
        gradients: the views of `sums` that are written.
    """

    partials: Array
    sums: Array
    table: Array
    gradients: tuple[Array, ...]


def partial_sums(
    rows: Sequence[tuple[int, int, Array]], partials: Array, sums: Array
) -> PartialSums:
    """Return what launch_sum_partials takes.

    Args:
        rows: of each gradient where its parts begin in `partials`, how many there are, and itself,
            a view of `sums`.
        partials: flat, on the device.
        sums: likewise.
    """
    begin = address(sums)
    table = [
        (start, (address(gradient) - begin) // sums.itemsize, gradient.size, parts)
        for start, parts, gradient in rows
    ]
    on_device = to_device(np.array(table, np.int32), device_of(sums))
    return PartialSums(partials, sums, on_device, tuple(gradient for *_, gradient in rows))


def launch_sum_partials(of: PartialSums) -> None:
    """Write all gradients, on the device."""
    counts = [gradient.size for gradient in of.gradients]
    # each begins at a multiple of 4 if all have one of numbers
    side_by_side = 1 if any(count % 4 for count in counts) else 4
    grid = -(-max(counts) // (WARP * side_by_side)), len(counts)
    arrays: Arguments = {"partials": of.partials, "sums": of.sums, "table": of.table}
    defines = {"VEC": side_by_side}
    launch("sum_partials", "sum_partials", grid, THREADS, defines=defines, **arrays)


def sum_partials(partial: Array, total: Array) -> None:
    """Write Σ_s partial[s] into total, a gradient by itself, on the device."""
    rows = [(0, len(partial), total)]
    launch_sum_partials(partial_sums(rows, partial.reshape(-1), total.reshape(-1)))
