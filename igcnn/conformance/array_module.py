"""Asks CuPy. It has no convolution: this one is a product of windows, as users write it.

Every function takes the module of arrays, so that the formula can be tested with NumPy too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .oracles import pair

Array = Any


def results(op: str, inputs: dict[str, np.ndarray], options: dict[str, Any]) -> dict[str, Any]:
    """Return what CuPy computes; see libraries.py."""
    import cupy

    given = {name: cupy.asarray(array) for name, array in inputs.items()}
    return {name: cupy.asnumpy(y) for name, y in compute(cupy, op, given, options).items()}


def compute(xp: Any, op: str, inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Any]:
    """Return the results by a module of arrays, numpy or cupy."""
    match op:
        case "convolution":
            return _convolution(xp, **inputs, **options)
        case "permutation":
            return _permutation(xp, **inputs, **options)
        case "cross_entropy":
            return _cross_entropy(xp, inputs["x"], inputs["labels"])
    raise NotImplementedError(op)


def _convolution(
    xp: Any,
    x: Array,
    w: Array,
    b: Array,
    gy: Array,
    stride: Any,
    padding: Any,
    groups: int,
) -> dict[str, Array]:
    N, C, H, W = x.shape
    D, Cg, KH, KW = w.shape
    (sv, sh), (pv, ph) = pair(stride), pair(padding)
    OH, OW = gy.shape[2:]
    padded = xp.pad(x, ((0, 0), (0, 0), (pv, pv), (ph, ph)))
    windows = xp.lib.stride_tricks.sliding_window_view(padded, (KH, KW), (2, 3))
    # (N, C, OH, OW, KH, KW) → (N, G, Cg, OH, OW, KH, KW)
    windows = windows[:, :, ::sv, ::sh].reshape(N, groups, Cg, OH, OW, KH, KW)
    kernels = w.reshape(groups, D // groups, Cg, KH, KW)
    g = gy.reshape(N, groups, D // groups, OH, OW)
    y = xp.einsum("ngcijab,gocab->ngoij", windows, kernels).reshape(gy.shape)
    gw = xp.einsum("ngcijab,ngoij->gocab", windows, g).reshape(w.shape)
    taps = xp.einsum("ngoij,gocab->ngcijab", g, kernels).reshape(N, C, OH, OW, KH, KW)
    gx = xp.zeros_like(padded)
    for a in range(KH):
        for c in range(KW):
            rows, columns = slice(a, a + sv * OH, sv), slice(c, c + sh * OW, sh)
            gx[:, :, rows, columns] += taps[..., a, c]
    gx = gx[:, :, pv : pv + H, ph : ph + W]
    return {"y": y + b[:, None, None], "gx": gx, "gw": gw, "gb": gy.sum((0, 2, 3))}


def _permutation(xp: Any, x: Array, gy: Array, branches: int) -> dict[str, Array]:
    N, C, H, W = x.shape

    def dealt(array: Array, piles: int) -> Array:
        return array.reshape(N, piles, C // piles, H, W).swapaxes(1, 2).reshape(x.shape)

    return {"y": dealt(x, branches), "gx": dealt(gy, C // branches)}


def _cross_entropy(xp: Any, x: Array, labels: Array) -> dict[str, Array]:
    N = len(x)
    shifted = x - x.max(1, keepdims=True)
    rows = xp.arange(N)
    exponentials = xp.exp(shifted)
    total = exponentials.sum(1, keepdims=True)
    loss = (xp.log(total)[:, 0] - shifted[rows, labels]).mean()
    gx = exponentials / total
    gx[rows, labels] -= 1
    return {"y": loss, "gx": gx / N}
