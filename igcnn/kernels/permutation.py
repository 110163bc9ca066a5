"""Channel permutation Reorder(b) (the authors' operator; the P of the paper's section 3).

The C channels are read as b branches of C/b, and written as C/b branches of b:

    y[n, c] = x[n, (c mod b)·C/b + c div b]
    gx = Reorder(C/b) · gy

Its inverse, and so its gradient, is Reorder(C/b). Nothing is kept for backward.
"""

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from ..errors import ShapeError
from .checks import check_arrays
from .geometry import count
from .lanes import Fields, Lanes, complete, image
from .launch import launch_each

Array = np.ndarray


def permutation_forward(x: Array, branches: int) -> Array:
    """Return the channels of x, (N, C, H, W), in the order of Reorder(branches).

    Raises:
        ShapeError: x has not four axes, or C is not a multiple of `branches`.
        DtypeError: x is neither float32 nor float64.
    """
    if x.ndim != 4:
        raise ShapeError(
            f"permutation: x must be (N, C, H, W), not {x.shape}; give features (N, C) as "
            "x.reshape(N, C, 1, 1)"
        )
    branches = check_branches(x.shape[1], branches)
    check_arrays("permutation", x)
    N, C, H, W = x.shape
    if not is_on_cpu(x):
        y = empty(x.shape, x.dtype, x)
        launch_permutation(contiguous(x), y, branches)
        return y
    planes = x.transpose(1, 2, 3, 0).reshape(branches, C // branches, H, W, N)
    # (b, C/b, H, W, N) → (C/b, b, H, W, N) → (C, H, W, N)
    planes = np.ascontiguousarray(planes.transpose(1, 0, 2, 3, 4)).reshape(C, H, W, N)
    return planes.transpose(3, 0, 1, 2)


def permutation_backward(gy: Array, branches: int) -> Array:
    """Return the gradient of x: Reorder(C/branches) of gy."""
    branches = check_branches(gy.shape[1], branches)
    return permutation_forward(gy, gy.shape[1] // branches)


def launch_permutation(x: Array, y: Array, branches: int) -> None:
    """Write Reorder(branches) of x into y, on their device."""
    N, C, H, W = x.shape
    sizes = {"N": N, "C": C, "pixels": H * W, "branches": branches}
    launch_each("permutation", "permutation_forward", x.size, x=x, y=y, **sizes)


def permutation_index(channels: int, branches: int) -> Array:
    """Return the index with y[:, c] = x[:, index[c]] for Reorder(branches)."""
    branches = check_branches(channels, branches)
    c = np.arange(channels)
    return c % branches * (channels // branches) + c // branches


def check_branches(channels: int, branches: int) -> int:
    """Return `branches`, an integer that divides `channels`.

    Raises:
        ShapeError: it is none, or does not.
    """
    branches = count("permutation", "branches", branches)
    if channels % branches:
        raise ShapeError(
            f"permutation: {channels} channels do not divide into {branches} branches; "
            f"choose a divisor of {channels}"
        )
    return branches


def compiled_permutation_forward(lanes: Lanes, x: Fields, y: Array, branches: int) -> None:
    """Write Reorder(branches) of an Input into y."""
    fields = {"x": x, "y": y, "branches": branches} | image(y)
    rows = y.shape[1]
    jobs = lanes.jobs(rows)
    lanes.launch("permutation", "permutation_forward", jobs, batch=lanes.batch(rows), **fields)


def compiled_permutation_backward(
    lanes: Lanes, gy: Array, gx: Array, ending: Fields, branches: int
) -> None:
    """Write the gradient of what was permuted, with its Ending."""
    fields = {"gy": gy, "gx": gx, "branches": branches, "end": complete(ending, gx)} | image(gx)
    rows = gx.shape[1]
    jobs = lanes.jobs(rows)
    lanes.launch("permutation", "permutation_backward", jobs, batch=lanes.batch(rows), **fields)
