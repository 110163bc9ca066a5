"""The beginning of a network in training as one kernel: from stored bytes to the first sums.

    z = w ∗ x        μ = Σ z / m        s = Σ (z − μ)²

with x the augmented, normalised images, and m, μ and s of a channel of a block of z.

augment.py, convolution.py (3×3, stride 1, from 3 colours) and the first half of batch_norm.py
explain the operations. x is kept for the gradient of w. Only devices have this kernel.
"""

from __future__ import annotations

import numpy as np

from .arguments import Arguments
from .augment import Resident, resident_arguments
from .combine import launch_statistics
from .launch import THREADS, WARP, launch, launch_each

Array = np.ndarray

ROWS = 8  # of an image, for one block; as in stem.cu
CHANNELS = 8  # of a thread at a time; likewise
TAPS = 27


def launch_stem(
    source: Resident,
    w: Array,
    x: Array,
    labels: Array,
    z: Array,
    partial: Array,
) -> None:
    """Write a batch, its labels, what the first convolution gives, and the moments of that.

    Args:
        source: what the batch is taken from.
        w: (C, 3, 3, 3).
        x: receives the batch, (N, 3, H, W).
        labels: receives its labels, int32, (N,).
        z: receives w ∗ x, (N, C, H, W).
        partial: receives count, mean and Σ(z − mean)² by channel and block, (C, S, 3), with
            S = stem_blocks(N, H).
    """
    N, C, H, W = z.shape
    arguments = _arguments(source, w, x, labels, z) | {"partial": partial}
    shared_bytes = stem_bytes(C, W, w.dtype)
    blocks = stem_blocks(N, H)
    launch("stem", "stem_v2", blocks, THREADS, shared_bytes=shared_bytes, **arguments)


def launch_stem_formula(
    source: Resident,
    w: Array,
    x: Array,
    labels: Array,
    z: Array,
    partial: Array,
) -> None:
    """Like launch_stem, with the reference kernel; partial: sums of slices of z."""
    launch_each("stem", "stem_v1", z.size, N=len(z), **_arguments(source, w, x, labels, z))
    launch_statistics(z, partial)


def _arguments(source: Resident, w: Array, x: Array, labels: Array, z: Array) -> Arguments:
    """Return what both versions of the kernel take, by name."""
    arrays = {"w": w, "x": x, "labels": labels, "z": z}
    return resident_arguments(source) | arrays | {"C": len(w)}


def stem_blocks(N: int, H: int) -> int:
    """Return how many blocks share a batch of N images of H rows."""
    return N * -(-H // ROWS)


def stem_bytes(C: int, W: int, dtype: np.dtype | str) -> int:
    """Return what a block shares: rows with their halo, the weights, sums of each warp."""
    channels, quads = -(-C // CHANNELS) * CHANNELS, -(-W // 4)
    batches = -(-ROWS * quads // WARP)
    numbers = 3 * (ROWS + 2) * (4 * quads + 2) + TAPS * channels + channels * batches * 3
    return numbers * np.dtype(dtype).itemsize
