"""From stored bytes to the network's input: pad, crop, mirror, normalise.

    x[n, c, i, j] = (pixel − mean[c]) / std[c]

where the pixel is taken from the image padded with the rounded mean colour (so that the border is
nearly 0 afterwards), at (i + top[n], j + left[n]), columns reversed where mirror[n].
"""

from typing import NamedTuple

import numpy as np

from ..backend import is_on_cpu
from .arguments import Arguments
from .lanes import Lanes
from .launch import THREADS, launch

Array = np.ndarray


def crop_and_mirror(images: Array, pad: int, fill: Array, offsets: Array, mirror: Array) -> Array:
    """Return the augmented images as bytes, (N, C, H, W).

    Args:
        images: uint8, (N, C, H, W).
        pad: pixels added on each side.
        fill: their colour, uint8, (C,).
        offsets: top and left of each crop in the padded image, from 0 to 2·pad, (N, 2).
        mirror: which images to mirror, bool, (N,).
    """
    N, C, H, W = images.shape
    padded = np.empty((N, C, H + 2 * pad, W + 2 * pad), np.uint8)
    padded[...] = fill[:, None, None]
    padded[:, :, pad : pad + H, pad : pad + W] = images
    # (N, C, 2·pad + 1, 2·pad + 1, H, W): every crop of every image, without a copy
    crops = np.lib.stride_tricks.sliding_window_view(padded, (H, W), axis=(2, 3))
    chosen = crops[np.arange(N), :, offsets[:, 0], offsets[:, 1]]
    chosen[mirror] = chosen[mirror, :, :, ::-1]
    return chosen


def normalise(images: Array, mean: Array, std: Array) -> Array:
    """Return (pixel − mean)/std, float32, (N, C, H, W), the batch innermost in memory.

    Args:
        images: uint8, (N, C, H, W).
        mean: float32, (C,), in units of the pixels, 0 to 255.
        std: likewise.
    """
    planes = np.ascontiguousarray(images.transpose(1, 2, 3, 0))  # (C, H, W, N)
    x = np.subtract(planes, mean[:, None, None, None], dtype=np.float32)
    x /= std[:, None, None, None]
    return x.transpose(3, 0, 1, 2)


class Resident(NamedTuple):
    """A data set on a device, and what decides which of it is a batch and how it is augmented.

    Attributes:
        images: uint8, (count, 3, H, W).
        labels: int32, (count,).
        order: of the samples in the epoch, int32, (count,).
        state: uint32, (5,): position of the batch in the order, low and high word of the seed,
            epoch, updates so far.
        mean: as in normalise.
        std: likewise.
        pad: as in crop_and_mirror, filled with the rounded mean.
        mirror: whether half of the images are mirrored.
        stream: third word of Philox' counter.
    """

    images: Array
    labels: Array
    order: Array
    state: Array
    mean: Array
    std: Array
    pad: int
    mirror: bool
    stream: int


def launch_augment(source: Resident, x: Array, labels: Array) -> None:
    """Write a batch, augmented and normalised, and its labels, int32, (N,).

    On the GPU x is (N, 3, H, W), for the compiled kernels an activation (lanes.py).
    """
    count, _, H, W = source.images.shape
    if is_on_cpu(x):
        lanes = Lanes(len(labels), str(x.dtype))
        fields = source._asdict() | {"mirror": int(source.mirror), "x": x, "batch_labels": labels}
        fields |= {"N": len(labels), "count": count, "H": H, "W": W, "batch": lanes.batch()}
        lanes.launch("augment", "augment", lanes.blocks, **fields)
        return
    arguments = resident_arguments(source) | {"x": x, "labels": labels, "N": len(x)}
    launch("augment", "augment", len(x), THREADS, **arguments)


def resident_arguments(source: Resident) -> Arguments:
    """Return what every CUDA kernel takes of a data set, by name."""
    arguments = source._asdict()
    arguments["all_labels"] = arguments.pop("labels")
    count, _, H, W = source.images.shape
    return arguments | {"count": count, "H": H, "W": W}
