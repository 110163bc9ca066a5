"""How a batch lies in memory for the compiled CPU kernels, and what their launches have in common.

An activation is (blocks, H, C, W, lanes): the innermost axis holds one pixel of as many images as
a vector has lanes. A job is a block, or a slice of its rows; what jobs sum they leave each for
itself, and a later launch adds it in their order: the bits do not depend on the threads.

The functions `compiled_<kernel>` of the other files take such arrays. What they read and write on
the way is described by the structs of common.hpp, which are dicts here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import launch
from .geometry import Pair

Array = np.ndarray
Fields = dict[str, Any]
Shape = tuple[int, ...]

REGISTER_BYTES = 64  # of the widest vector; narrower ones take two or four instructions
LEAST_LANES = 4
JOBS = 4  # of a launch, at least, where the rows allow it; fixed, so that the bits are too
LEAST_ROWS = 3  # of a job: what its neighbours need of them is computed twice
CHUNK = 1 << 14  # elements of a flat array, for one job
STORED, RECTIFIED, SCALED, RECTIFIED6 = range(4)  # kinds of Input


class Lanes:
    """A batch of one size, and how launches on it are cut into jobs.

    Args:
        batch_size: N.
        dtype: float32 or float64.
        least: lanes, however few the images: sums over pixels want some of each. Evaluation does
            without; with one lane registers hold pixels of one image.

    Attributes:
        lanes: images side by side; fewer where most lanes would be empty.
        blocks: of so many images.
    """

    def __init__(self, batch_size: int, dtype: str, least: int = LEAST_LANES) -> None:
        self.batch_size = batch_size
        self.dtype = dtype
        self.lanes = REGISTER_BYTES // np.dtype(dtype).itemsize
        while self.lanes > least and batch_size <= self.lanes // 2:
            self.lanes //= 2
        self.blocks = -(-batch_size // self.lanes)

    def layout(self, shape: Shape) -> Shape:
        """Return (blocks, H, C, W, lanes) for (C, H, W), (blocks, K, lanes) for (K,)."""
        if len(shape) == 1:
            return self.blocks, *shape, self.lanes
        C, H, W = shape
        return self.blocks, H, C, W, self.lanes

    def load(self, x: Array, target: Array) -> None:
        """Copy images, (n, C, H, W), into an activation; its other lanes stay as they are."""
        whole, rest = divmod(len(x), self.lanes)
        if whole:
            # (whole·lanes, C, H, W) → (whole, H, C, W, lanes)
            blocks = x[: whole * self.lanes].reshape(whole, self.lanes, *x.shape[1:])
            target[:whole] = blocks.transpose(0, 3, 2, 4, 1)
        if rest:
            target[whole, ..., :rest] = x[whole * self.lanes :].transpose(2, 1, 3, 0)

    def jobs(self, rows: int) -> int:
        """Return how many jobs share a launch that is cut by so many rows."""
        return self.blocks * self._slices(rows)

    def batch(self, rows: int = 1) -> Fields:
        """Return how a launch is cut by so many rows, as a Batch."""
        last = self.batch_size - self.lanes * (self.blocks - 1)
        return {"blocks": self.blocks, "slices": self._slices(rows), "last": last}

    def launch(self, module: str, kernel: str, jobs: int, /, **fields: Any) -> None:
        """Launch a kernel for these lanes."""
        launch(module, kernel, jobs, lanes=self.lanes, dtype=self.dtype, **fields)

    def _slices(self, rows: int) -> int:
        return max(1, min(-(-JOBS // self.blocks), rows // LEAST_ROWS))


def stored(x: Array) -> Fields:
    """Return a tensor as it is in memory as an Input."""
    return {"kind": STORED, "x": x, "scale": None, "shift": None}


def stored_gradient(g: Array) -> Fields:
    """Return a gradient as it is in memory as a Gradient."""
    return {"kind": STORED, "g": g, "z": None, "scale": None, "slope": None, "shift": None}


def complete(ending: Fields, unread: Array) -> Fields:
    """Return an Ending with all fields: those that are missing do nothing."""
    nothing: Fields = {"other": None, "relu": 0, "value": stored(unread), "norms": 0, "norm": []}
    return nothing | ending


def permutations(branches: Pair) -> Fields:
    """Return the branches of the permutations before and after a convolution as fields."""
    return dict(zip(("x_branches", "y_branches"), branches, strict=True))


def image(x: Array) -> Fields:
    """Return the sizes of an activation."""
    _, H, C, W, _ = x.shape
    return {"C": C, "H": H, "W": W}


def launch_chunks(module: str, kernel: str, size: int, dtype: str, /, **fields: Any) -> None:
    """Launch a kernel on flat arrays, whose jobs share `size` elements."""
    jobs = -(-size // CHUNK)
    launch(module, kernel, jobs, lanes=LEAST_LANES, dtype=dtype, jobs=jobs, **fields)
