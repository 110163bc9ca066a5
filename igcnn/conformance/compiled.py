"""Asks the compiled CPU kernels of igcnn directly, as a plan launches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..kernels import batch_norm, combine, convolution, permutation, pooling
from ..kernels import interleaved_group_convolution as igc
from ..kernels.convolution import Packed, Parts
from ..kernels.geometry import convolution_fields, output_size
from ..kernels.lanes import Lanes, stored, stored_gradient
from ..kernels.softmax_cross_entropy import compiled_softmax_cross_entropy
from ..plan.program import Arena
from .oracles import pair
from .problem import EPS

Array = np.ndarray
Arrays = dict[str, Array]


def results(op: str, inputs: Arrays, options: dict[str, Any]) -> Arrays:
    """Return what the kernels compute; see libraries.py. They have no gradient of a bias."""
    x = inputs["x"]
    return OPERATIONS[op](Batch(len(x), str(x.dtype)), inputs, options)


class Batch:
    """A batch of N images as the kernels want it.

    Args:
        N: images.
        dtype: float32 or float64.
    """

    def __init__(self, N: int, dtype: str) -> None:
        self.lanes = Lanes(N, dtype)

    def new(self, *shape: int, dtype: str = "") -> Array:
        """Return zeros, aligned."""
        dtype = dtype or self.lanes.dtype
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        array = Arena("cpu", size).take(shape, dtype)
        array[...] = 0
        return array

    def room(self, *shape: int) -> Array:
        """Return an activation for (C, H, W), or (K,)."""
        return self.new(*self.lanes.layout(shape))

    def put(self, images: Array) -> Array:
        """Return (N, C, H, W), or (N, K), as an activation."""
        target = self.room(*images.shape[1:])
        flat = images[:, :, None, None] if images.ndim == 2 else images
        view = target[:, None, :, None] if images.ndim == 2 else target
        self.lanes.load(flat, view)
        return target

    def get(self, array: Array) -> Array:
        """Return an activation as (N, C, H, W), or (N, K)."""
        folded = array.transpose((0, 4, 2, 1, 3) if array.ndim == 5 else (0, 2, 1))
        return folded.reshape(-1, *folded.shape[2:])[: self.lanes.batch_size]

    def copy(self, values: Array) -> Array:
        """Return an array in C order, aligned."""
        target = self.new(*values.shape)
        target[...] = values
        return target


def _unit(
    batch: Batch,
    inputs: Arrays,
    options: dict[str, Any],
    names: Sequence[str],
    groups: int,
    S: int,
) -> Arrays:
    """A convolution, or with S an interleaved unit."""
    lanes, x, weights = batch.lanes, inputs["x"], [batch.copy(inputs[name]) for name in names]
    stride, padding = pair(options["stride"]), pair(options["padding"])
    OH, OW = output_size(x.shape, weights[0].shape, stride, padding, groups)
    D = len(weights[0])
    kernel = weights[0].shape[2:]
    sizes = convolution_fields(x.shape[1:], (D, OH, OW), kernel, stride, padding, groups)
    jobs = lanes.jobs(OH)
    pack: Callable[..., None]
    if S:
        sizes |= {"S": S}
        pack, forward, backward = (
            igc.compiled_igc_pack,
            igc.compiled_igc_forward,
            igc.compiled_igc_backward,
        )
        parts, lengths = Parts(jobs, jobs, jobs, 1), [w.size for w in weights]
    else:
        pack, forward, backward = (
            convolution.compiled_convolution_pack,
            convolution.compiled_convolution_forward,
            convolution.compiled_convolution_backward,
        )
        parts = convolution.compiled_convolution_parts(lanes, sizes)
        lengths = [convolution.compiled_packed_size(lanes, sizes, weights[0].size)]
    packed = [Packed(batch.new(length), batch.new(length)) for length in lengths]
    pack(lanes, weights, None, packed, sizes, wait=True)
    z, source = batch.room(D, OH, OW), stored(batch.put(x))
    bias = batch.copy(inputs["b"]) if "b" in inputs else None
    forward(lanes, source, packed, z, sizes, bias=bias)
    gx = batch.room(*x.shape[1:])
    partials = [batch.new(parts.gw, *w.shape) for w in weights]
    gz = stored_gradient(batch.put(inputs["gy"]))
    backward(lanes, gz, source, packed, gx, {}, partials, sizes)
    arrays = {"y": batch.get(z), "gx": batch.get(gx)}
    for name, w, partial in zip(names, weights, partials, strict=True):
        total = batch.new(*w.shape)
        convolution.compiled_sum_partials(partial, total, True)
        arrays[f"g{name}"] = total
    return arrays


def _convolution(batch: Batch, inputs: Arrays, options: dict[str, Any]) -> Arrays:
    return _unit(batch, inputs, options, ["w"], options["groups"], 0)


def _igc(batch: Batch, inputs: Arrays, options: dict[str, Any]) -> Arrays:
    return _unit(batch, inputs, options, ["w1", "w2"], options["L"], options["secondary_groups"])


def _permutation(batch: Batch, inputs: Arrays, options: dict[str, Any]) -> Arrays:
    x, gy = batch.put(inputs["x"]), batch.put(inputs["gy"])
    y, gx = batch.room(*inputs["x"].shape[1:]), batch.room(*inputs["x"].shape[1:])
    permutation.compiled_permutation_forward(batch.lanes, stored(x), y, options["branches"])
    permutation.compiled_permutation_backward(batch.lanes, gy, gx, {}, options["branches"])
    return {"y": batch.get(y), "gx": batch.get(gx)}


def _batch_norm(batch: Batch, inputs: Arrays, options: dict[str, Any]) -> Arrays:
    lanes = batch.lanes
    C, H, W = inputs["x"].shape[1:]
    z, gy = batch.put(inputs["x"]), batch.put(inputs["gy"])
    arrays = [batch.copy(inputs["gamma"]), batch.copy(inputs["beta"])]
    arrays += [batch.new(C) for _ in range(11)]
    norm = batch_norm.CompiledNorm(0.0, EPS, *arrays)
    sums = batch.new(lanes.jobs(H), 2, C, dtype="float64")
    batch_norm.compiled_batch_norm_sums(lanes, z, sums)
    batch_norm.compiled_batch_norm_statistics(lanes, norm, z, sums)
    y, ended, gx = (batch.room(C, H, W) for _ in range(3))
    combine.compiled_combine_forward(lanes, [norm.activation(z, 0)], y, 0)
    ending = {"norms": 1, "norm": [{"z": z, "mean": norm.mean, "sums": sums}]}
    combine.compiled_combine_backward(lanes, stored_gradient(gy), ended, ending)
    batch_norm.compiled_batch_norm_gradient(lanes, norm, H * W, sums, True)
    combine.compiled_combine_backward(lanes, norm.gradient(ended, z), gx, {})
    statistics = {"mean": norm.mean, "variance": norm.variance}
    gradients = {"gx": batch.get(gx), "ggamma": arrays[4], "gbeta": arrays[5]}
    return {"y": batch.get(y)} | statistics | gradients


def _pool(batch: Batch, inputs: Arrays, options: dict[str, Any]) -> Arrays:
    name = "average_pool" if "count_include_pad" in options else "max_pool"
    kernel, stride, padding = (pair(options[k]) for k in ("kernel_size", "stride", "padding"))
    window = kernel, stride, padding, options.get("count_include_pad", True)
    x, gy = stored(batch.put(inputs["x"])), batch.put(inputs["gy"])
    y, gx = batch.room(*inputs["gy"].shape[1:]), batch.room(*inputs["x"].shape[1:])
    pooling.compiled_pool_forward(batch.lanes, name, x, y, *window)
    pooling.compiled_pool_backward(batch.lanes, name, gy, x, y, gx, {}, *window)
    return {"y": batch.get(y), "gx": batch.get(gx)}


def _cross_entropy(batch: Batch, inputs: Arrays, options: dict[str, Any]) -> Arrays:
    N, K = inputs["x"].shape
    z, gz, losses, right = batch.put(inputs["x"]), batch.room(K), batch.new(N), batch.new(N)
    labels = inputs["labels"].astype(np.int32)
    compiled_softmax_cross_entropy(batch.lanes, z, labels, gz, losses, right)
    return {"y": losses.mean(dtype=np.float64), "gx": batch.get(gz)}


OPERATIONS = {
    "convolution": _convolution,
    "permutation": _permutation,
    "interleaved_group_convolution": _igc,
    "batch_norm": _batch_norm,
    "max_pool": _pool,
    "average_pool": _pool,
    "cross_entropy": _cross_entropy,
}
