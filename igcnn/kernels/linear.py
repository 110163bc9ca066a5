"""Fully connected layer, y = x · wᵀ + b. For backward x and w are kept."""

import numpy as np

from ..errors import ShapeError
from .checks import check_dtypes

Array = np.ndarray


def linear_forward(x: Array, w: Array, b: Array | None = None) -> Array:
    """Return y, (N, O), of x, (N, I), w, (O, I), and b, (O,).

    Raises:
        ShapeError: the sizes do not fit.
        DtypeError: the element types differ.
    """
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ShapeError(f"linear: x must be (N, I) and w (O, I), not {x.shape} and {w.shape}")
    if b is not None and b.shape != (w.shape[0],):
        raise ShapeError(f"linear: bias must be ({w.shape[0]},) for w {w.shape}, not {b.shape}")
    check_dtypes("linear", x, w, *([] if b is None else [b]))
    y = x @ w.T
    if b is not None:
        y += b
    return y


def linear_backward_input(gy: Array, w: Array) -> Array:
    """Return gx = gy · w, (N, I)."""
    return gy @ w


def linear_backward_weight(gy: Array, x: Array) -> Array:
    """Return gw = gyᵀ · x, (O, I)."""
    return gy.T @ x


def linear_backward_bias(gy: Array) -> Array:
    """Return gb = Σ_n gy, (O,)."""
    return gy.sum(axis=0)
