"""The end of a network in training as one kernel: mean, classifier, softmax, loss, and back.

    p[n, c] = 1/(H·W) · Σ_{i, j} y[n, c, i, j]        z = p · wᵀ + b
    loss_n = −Σ_k q[n, k] · log softmax(z)[n, k]
    gz = (softmax(z) − q) / N        gy[n, c, i, j] = 1/(H·W) · (gz · w)[n, c]

The operations are explained in pooling.py, linear.py and softmax_cross_entropy.py, which
defines q. p and gz are kept for the gradients of w and b. Only devices have this kernel.
"""

from __future__ import annotations

import numpy as np

from .arguments import Arguments
from .launch import launch, launch_each

Array = np.ndarray

HEAD_THREADS = 512  # of a block, which has an image
ARRAYS = "y", "w", "b", "labels", "pooled", "glogits", "losses", "right", "gy"


def launch_head(
    y: Array,
    w: Array,
    b: Array,
    labels: Array,
    pooled: Array,
    glogits: Array,
    losses: Array,
    right: Array,
    gy: Array,
    smoothing: float = 0.0,
) -> None:
    """Write what a batch comes to and the gradient of y, (N, C, H, W), of its mean loss.

    Args:
        y: what the last unit gave.
        w: (K, C).
        b: (K,).
        labels: int32, (N,), not checked.
        pooled: receives p, (N, C).
        glogits: receives gz, (N, K).
        losses: receives the loss of each image, (N,).
        right: receives 1 where the label has the largest logit, else 0, (N,).
        gy: receives the gradient of y.
        smoothing: ε of label smoothing.
    """
    arguments = _arguments(y, w, b, labels, pooled, glogits, losses, right, gy)
    shared_bytes = head_bytes(w.shape, w.dtype)
    blocks = len(y), HEAD_THREADS
    launch("head", "head_v2", *blocks, shared_bytes=shared_bytes, smoothing=smoothing, **arguments)


def launch_head_formula(*arrays: Array, smoothing: float = 0.0) -> None:
    """Like launch_head, with the reference kernel."""
    launch_each("head", "head_v1", len(arrays[0]), smoothing=smoothing, **_arguments(*arrays))


def _arguments(*arrays: Array) -> Arguments:
    """Return the arrays of launch_head and their sizes, by name."""
    arguments: Arguments = dict(zip(ARRAYS, arrays, strict=True))
    N, C, H, W = arguments["y"].shape
    return arguments | {"N": N, "C": C, "K": len(arguments["w"]), "pixels": H * W}


def head_bytes(w_shape: tuple[int, ...], dtype: np.dtype | str) -> int:
    """Return what a block shares: the mean of each channel and the logit of each class."""
    return sum(w_shape) * np.dtype(dtype).itemsize
