"""Fully connected layer.

    y = x · wᵀ + b
    gx = gy · w        gw = (gy)ᵀ · x        gb = Σ_n gy[n]

For backward x and w are kept.
"""

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from ..errors import ShapeError
from .arguments import Arguments
from .checks import check_arrays
from .lanes import Lanes
from .launch import launch_each, launch_warps

Array = np.ndarray


def linear_forward(x: Array, w: Array, b: Array | None = None) -> Array:
    """Return y, (N, O), of x, (N, I), w, (O, I), and b, (O,).

    Raises:
        ShapeError: the sizes do not fit.
        DtypeError: the arrays are not all float32 or all float64.
    """
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ShapeError(f"linear: x must be (N, I) and w (O, I), not {x.shape} and {w.shape}")
    if b is not None and b.shape != (w.shape[0],):
        raise ShapeError(f"linear: bias must be ({w.shape[0]},) for w {w.shape}, not {b.shape}")
    check_arrays("linear", x, w, *([] if b is None else [b]))
    if not is_on_cpu(x):
        y = empty((x.shape[0], w.shape[0]), x.dtype, x)
        launch_linear_forward(contiguous(x), w, b, y)
        return y
    y = x @ w.T
    if b is not None:
        y += b
    return y


def linear_backward_input(gy: Array, w: Array) -> Array:
    """Return gx = gy · w, (N, I)."""
    if not is_on_cpu(gy):
        gx = empty((gy.shape[0], w.shape[1]), gy.dtype, gy)
        launch_linear_backward_input(contiguous(gy), w, gx)
        return gx
    return gy @ w


def linear_backward_weight(gy: Array, x: Array) -> Array:
    """Return gw = gyᵀ · x, (O, I)."""
    if not is_on_cpu(gy):
        gw = empty((gy.shape[1], x.shape[1]), gy.dtype, gy)
        launch_linear_backward_weight(contiguous(gy), contiguous(x), gw)
        return gw
    return gy.T @ x


def linear_backward_bias(gy: Array) -> Array:
    """Return gb = Σ_n gy, (O,)."""
    if not is_on_cpu(gy):
        gb = empty(gy.shape[1:], gy.dtype, gy)
        launch_linear_backward_bias(contiguous(gy), gb)
        return gb
    return gy.sum(axis=0)


def launch_linear_forward(x: Array, w: Array, b: Array | None, y: Array) -> None:
    """Write linear_forward(x, w, b) into y, on their device."""
    arguments = {"x": x, "w": w, "b": b, "y": y, "has_bias": b is not None}
    launch_warps("linear", "linear_forward", y.size, **arguments, **_sizes(x, w))


def launch_linear_backward_input(gy: Array, w: Array, gx: Array) -> None:
    """Write linear_backward_input(gy, w) into gx, on their device."""
    sizes = _sizes(gx, w)
    launch_each("linear", "linear_backward_input", gx.size, gy=gy, w=w, gx=gx, **sizes)


def launch_linear_backward_weight(gy: Array, x: Array, gw: Array) -> None:
    """Write linear_backward_weight(gy, x) into gw, on their device."""
    sizes = _sizes(x, gw)
    launch_each("linear", "linear_backward_weight", gw.size, gy=gy, x=x, gw=gw, **sizes)


def launch_linear_backward_bias(gy: Array, gb: Array) -> None:
    """Write linear_backward_bias(gy) into gb, on their device."""
    sizes = {"N": gy.shape[0], "O": gy.shape[1]}
    launch_warps("linear", "linear_backward_bias", gb.size, gy=gy, gb=gb, **sizes)


def _sizes(x: Array, w: Array) -> Arguments:
    """Return the sizes that the CUDA kernels take, by name."""
    return {"N": x.shape[0], "I": x.shape[1], "O": w.shape[0]}


def compiled_linear_forward(lanes: Lanes, x: Array, w: Array, b: Array | None, z: Array) -> None:
    """Write z, (blocks, K, lanes), of x, (blocks, C, lanes)."""
    K, C = w.shape
    fields = {"x": x, "w": w, "b": b, "z": z, "C": C, "K": K, "batch": lanes.batch()}
    lanes.launch("linear", "linear_forward", lanes.blocks, **fields)


def compiled_linear_backward(
    lanes: Lanes,
    gz: Array,
    x: Array,
    w: Array,
    gx: Array,
    gw: Array | None,
    gb: Array | None,
) -> None:
    """Write gx, and for each block the gradients of w and b, (blocks, K, C) and (blocks, K)."""
    K, C = w.shape
    fields = {"gz": gz, "x": x, "w": w, "gx": gx, "gw": gw, "gb": gb, "C": C, "K": K}
    lanes.launch("linear", "linear_backward", lanes.blocks, batch=lanes.batch(), **fields)
