"""The beginning of a network in training as one kernel: from stored bytes to the first sums.

    x = augmented, normalised images      z = w ∗ x      count, mean and Σ (z − mean)² of z

augment.py, convolution.py (3×3, stride 1, from 3 colours) and the first half of batch_norm.py
explain the operations. x is kept for the gradient of w. Only devices have this kernel.
"""

from __future__ import annotations

import numpy as np

from .augment import Resident
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
    *images, pad, mirror, stream = source
    N, C, H, W = z.shape
    arrays = *images, w, x, labels, z, partial
    numbers = source.images.shape[0], H, W, C, pad, mirror, stream
    shared_bytes = stem_bytes(C, W, w.dtype)
    blocks = stem_blocks(N, H)
    launch("stem", "stem_v2", blocks, THREADS, *arrays, *numbers, shared_bytes=shared_bytes)


def launch_stem_formula(
    source: Resident,
    w: Array,
    x: Array,
    labels: Array,
    z: Array,
    partial: Array,
) -> None:
    """Like launch_stem, with the reference kernel; partial: sums of slices of z."""
    *images, pad, mirror, stream = source
    N, C, H, W = z.shape
    numbers = N, source.images.shape[0], H, W, C, pad, mirror, stream
    launch_each("stem", "stem_v1", z.size, *images, w, x, labels, z, *numbers)
    launch_statistics(z, partial)


def stem_blocks(N: int, H: int) -> int:
    """Return how many blocks share a batch of N images of H rows."""
    return N * -(-H // ROWS)


def stem_bytes(C: int, W: int, dtype: np.dtype | str) -> int:
    """Return what a block shares: rows with their halo, the weights, sums of each warp."""
    channels, quads = -(-C // CHANNELS) * CHANNELS, -(-W // 4)
    batches = -(-ROWS * quads // WARP)
    numbers = 3 * (ROWS + 2) * (4 * quads + 2) + TAPS * channels + channels * batches * 3
    return numbers * np.dtype(dtype).itemsize
