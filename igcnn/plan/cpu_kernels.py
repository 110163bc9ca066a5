"""The launches of one operation on a CPU: graph and arrays in, calls of kernels/*.cpp out.

An activation is (blocks, H, C, W, lanes): the innermost axis holds one pixel of as many images as
a vector register has lanes. A job is a block, or a slice of its rows; what jobs sum they leave
each for itself, and the next launch adds it in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..kernels.augment import Resident
from ..kernels.compiled import launch
from .graph import (
    AveragePool,
    BatchNormSpec,
    Convolution,
    Graph,
    Head,
    InterleavedGroupConvolution,
    MaxPool,
    Permutation,
    Shape,
    UnaryOperation,
)

Array = np.ndarray
Call = Callable[[], None]
Fields = dict[str, Any]
Unit = Convolution | InterleavedGroupConvolution

REGISTER_BYTES = 64  # of the widest vector; narrower ones take two or four instructions
LEAST_LANES = 4
JOBS = 4  # of a launch, at least, where the rows allow it; fixed, so that the bits are too
LEAST_ROWS = 4  # of a job: what its neighbours need of them is computed twice
BAND_PIXELS = 64  # of a channel that a job works on at a time
CHUNK = 1 << 14  # elements of a flat array, for one job
STORED, RECTIFIED, SCALED = range(3)  # kinds of Input in common.hpp
IGC = "interleaved_group_convolution"


class Norm(NamedTuple):
    """One batch norm: its settings, and arrays of shape (C,).

    Attributes:
        momentum: share of the running statistics that an update keeps.
        eps: ε.
        gamma: γ.
        beta: β.
        running_mean: moved towards the batch's by every update.
        running_var: likewise.
        ggamma: receives the gradient of γ, None for a constant.
        gbeta: likewise.
        mean: of the batch.
        variance: of the batch.
        scale: with shift, of the normalised tensor: scale·z + shift.
        shift: see scale.
        gz_scale: with slope and shift, of the gradient: gz = scale·gy + slope·z + shift.
        gz_slope: see gz_scale.
        gz_shift: see gz_scale.
    """

    momentum: float
    eps: float
    gamma: Array
    beta: Array
    running_mean: Array
    running_var: Array
    ggamma: Array | None
    gbeta: Array | None
    mean: Array
    variance: Array
    scale: Array
    shift: Array
    gz_scale: Array
    gz_slope: Array
    gz_shift: Array

    def fields(self, names: str) -> Fields:
        """Return the attributes of these names."""
        return {name: getattr(self, name) for name in names.split()}

    def activation(self, z: Array) -> Fields:
        """Return max(0, scale·z + shift) as an Input."""
        return {"kind": RECTIFIED, "x": z} | self.fields("scale shift")

    def normalised(self, z: Array) -> Fields:
        """Return scale·z + shift as an Input."""
        return {"kind": SCALED, "x": z} | self.fields("scale shift")

    def gradient(self, gy: Array, z: Array) -> Fields:
        """Return the gradient of z as a Gradient, from that of the normalised tensor."""
        coefficients = {"scale": self.gz_scale, "slope": self.gz_slope, "shift": self.gz_shift}
        return {"kind": 1, "g": gy, "z": z} | coefficients


class Packed(NamedTuple):
    """The weights of a unit in the order in which its kernels read them."""

    forward: Array
    backward: Array
    forward2: Array | None = None  # of the secondary convolution
    backward2: Array | None = None


def stored(x: Array) -> Fields:
    """Return a tensor as it is in memory as an Input."""
    return {"kind": STORED, "x": x, "scale": None, "shift": None}


def stored_gradient(g: Array) -> Fields:
    """Return a gradient as it is in memory as a Gradient."""
    return {"kind": STORED, "g": g, "z": None, "scale": None, "slope": None, "shift": None}


def complete(ending: Fields, unread: Array) -> Fields:
    """Return an Ending with all fields: those that are missing do nothing."""
    nothing = {"other": None, "relu": 0, "value": stored(unread), "norms": 0, "norm": []}
    return nothing | ending


def lanes_for(batch_size: int, dtype: str) -> int:
    """Return how many images lie side by side: fewer where most lanes would be empty."""
    lanes = REGISTER_BYTES // np.dtype(dtype).itemsize
    while lanes > LEAST_LANES and batch_size <= lanes // 2:
        lanes //= 2
    return lanes


class CpuKernels:
    """Makes calls of compiled kernels for one graph and batches of one size.

    Args:
        graph: the network.
        batch_size: N.
    """

    def __init__(self, graph: Graph, batch_size: int) -> None:
        self.graph = graph
        self.batch_size = batch_size
        self.lanes = lanes_for(batch_size, graph.dtype)
        self.blocks = -(-batch_size // self.lanes)
        self._launch = partial(launch, lanes=self.lanes, dtype=graph.dtype)

    def layout(self, shape: Shape) -> Shape:
        """Return (blocks, H, C, W, lanes) for (C, H, W), (blocks, K, lanes) for (K,)."""
        if len(shape) == 1:
            return self.blocks, *shape, self.lanes
        C, H, W = shape
        return self.blocks, H, C, W, self.lanes

    def jobs(self, value: int) -> int:
        """Return how many jobs share a launch that is cut by the rows of a tensor."""
        return self.blocks * self._slices(value)

    def partial_shapes(self, unit: Unit) -> list[Shape]:
        """Return the shapes of what jobs leave of the gradients of a unit's weights."""
        return [(self.jobs(unit.y), *self.graph.weights[i]) for i in unit.weights]

    # -- convolutions

    def pack(
        self, unit: Unit, weights: list[Array], packed: Packed, scale: Array | None, wait: bool
    ) -> Call:
        """Order weights for the kernels, times a factor for each output channel, (D,)."""
        fields = self._geometry(unit) | {"scale": scale, "wait": wait}
        if isinstance(unit, Convolution):
            fields |= {"w": weights[0], "forward": packed.forward, "backward": packed.backward}
            return self._call("convolution", "convolution_pack", unit.groups, **fields)
        fields |= {"w1": weights[0], "forward1": packed.forward, "backward1": packed.backward}
        fields |= {"w2": weights[1], "forward2": packed.forward2, "backward2": packed.backward2}
        return self._call(IGC, "igc_pack", 1, **fields)

    def convolve(
        self,
        unit: Unit,
        x: Fields,
        packed: Packed,
        z: Array,
        sums: Array | None = None,
        bias: Array | None = None,
        skip: Array | None = None,
        relu: bool = False,
    ) -> Call:
        """Write z = unit(x), plus bias and skip, rectified; leave sums for a batch norm."""
        fields = self._geometry(unit) | self._band(unit.y)
        fields |= {"x": x, "z": z, "sums": sums, "bias": bias, "skip": skip, "relu": int(relu)}
        if isinstance(unit, Convolution):
            names = "convolution", "convolution_forward"
            return self._call(*names, self.jobs(unit.y), w=packed.forward, **fields)
        weights = {"w1": packed.forward, "w2": packed.forward2}
        return self._call(IGC, "igc_forward", self.jobs(unit.y), **weights, **fields)

    def convolve_backward(
        self,
        unit: Unit,
        gz: Fields,
        x: Fields,
        packed: Packed,
        gx: Array | None,
        ending: Fields,
        partials: list[Array | None],
    ) -> Call:
        """Write the gradient of x, and for each job those of the weights."""
        fields = self._geometry(unit) | self._band(unit.y)
        fields |= {"gz": gz, "x": x, "gx": gx, "end": complete(ending, gz["g"])}
        jobs = self.jobs(unit.y)
        if isinstance(unit, Convolution):
            fields |= {"w": packed.backward, "gw": partials[0]}
            return self._call("convolution", "convolution_backward", jobs, **fields)
        fields |= {"w1f": packed.forward, "w1": packed.backward, "w2": packed.backward2}
        return self._call(IGC, "igc_backward", jobs, gw1=partials[0], gw2=partials[1], **fields)

    def add_partials(self, partials: Array, total: Array, wait: bool) -> Call:
        """Write what jobs have left, added in their order."""
        jobs = -(-total.size // CHUNK)
        fields = {"partial": partials, "total": total, "count": total.size, "jobs": jobs}
        kernel = "convolution", "sum_partials"
        return self._call(*kernel, jobs, parts=len(partials), wait=wait, **fields)

    # -- batch norm, sums

    def sums(self, value: int, x: Array, sums: Array) -> Call:
        """Leave the sums of a tensor that no convolution gave."""
        fields = self._image(value) | self._batch(value)
        jobs = self.jobs(value)
        return self._call("batch_norm", "batch_norm_sums", jobs, x=x, sums=sums, **fields)

    def statistics(self, value: int, norm: Norm, sums: Array) -> Call:
        """Write mean, variance, scale and shift of a batch; move the running statistics."""
        names = "momentum eps gamma beta running_mean running_var mean variance scale shift"
        fields = norm.fields(names) | self._image(value) | self._batch(value)
        return self._call("batch_norm", "batch_norm_statistics", 1, sums=sums, **fields)

    def inference(self, norm: Norm, wait: bool) -> Call:
        """Write scale and shift of the running statistics."""
        fields = norm.fields("eps gamma beta running_mean running_var scale shift")
        names = "batch_norm", "batch_norm_inference"
        return self._call(*names, 1, C=norm.gamma.size, wait=wait, **fields)

    def norm_gradient(self, value: int, norm: Norm, sums: Array, wait: bool) -> Call:
        """Write the gradients of γ and β, and what the gradient of the input is made of."""
        C, H, W = self.graph.shapes[value]
        fields = norm.fields("eps gamma mean variance ggamma gbeta")
        fields |= {"scale": norm.gz_scale, "slope": norm.gz_slope, "shift": norm.gz_shift}
        fields |= {"C": C, "count": float(self.batch_size * H * W)}
        fields |= {"sums": sums, "jobs": len(sums), "wait": wait}
        return self._call("batch_norm", "batch_norm_gradient", 1, **fields)

    def add(self, value: int, terms: list[Fields], y: Array, relu: bool) -> Call:
        """Write y = Σ terms, rectified."""
        fields = {"term": terms, "terms": len(terms), "y": y, "relu": int(relu)}
        fields |= self._image(value) | self._batch(value)
        return self._call("combine", "combine_forward", self.jobs(value), **fields)

    def end(self, value: int, gradient: Fields, gx: Array, ending: Fields) -> Call:
        """Write a gradient with its ending."""
        fields = {"from": gradient, "g": gx, "end": complete(ending, gx)}
        fields |= self._image(value) | self._batch(value)
        return self._call("combine", "combine_backward", self.jobs(value), **fields)

    # -- pooling, permutation

    def transform(self, operation: UnaryOperation, x: Fields, y: Array) -> Call:
        """Write y, of a pooling or a permutation."""
        module, kernel, fields = self._transform(operation)
        jobs = self.jobs(operation.y)
        return self._call(module, f"{kernel}_forward", jobs, x=x, y=y, **fields)

    def transform_backward(
        self,
        operation: UnaryOperation,
        gy: Array,
        x: Fields,
        y: Array,
        gx: Array,
        ending: Fields,
    ) -> Call:
        """Write the gradient of a pooling's or a permutation's input."""
        module, kernel, fields = self._transform(operation)
        if isinstance(operation, MaxPool):  # to find the maximum again
            fields |= {"x": x, "y": y}
        fields |= {"gy": gy, "gx": gx, "end": complete(ending, gx)} | self._batch(operation.x)
        return self._call(module, f"{kernel}_backward", self.jobs(operation.x), **fields)

    def _transform(self, operation: UnaryOperation) -> tuple[str, str, Fields]:
        fields = self._image(operation.x) | self._batch(operation.y)
        if isinstance(operation, Permutation):
            return "permutation", "permutation", fields | {"branches": operation.branches}
        assert isinstance(operation, MaxPool | AveragePool)
        _, OH, OW = self.graph.shapes[operation.y]
        fields |= {"OH": OH, "OW": OW} | dict.fromkeys(("KH", "KW"), operation.kernel)
        fields |= dict.fromkeys(("SH", "SW"), operation.stride)
        fields |= dict.fromkeys(("PH", "PW"), operation.padding)
        return "pooling", operation.name, fields

    # -- the ends of the network

    def augment(self, source: Resident, x: Array, labels: Array) -> Call:
        """Write the next batch of resident images, augmented and normalised, and its labels."""
        fields = source._asdict() | {"mirror": int(source.mirror), "count": len(source.images)}
        _, _, H, W = source.images.shape
        fields |= {"x": x, "batch_labels": labels, "N": self.batch_size, "H": H, "W": W}
        return self._call("augment", "augment", self.blocks, **fields, **self._whole())

    def logits(
        self, head: Head, x: Fields, w: Array, b: Array | None, mean: Array, z: Array
    ) -> list[Call]:
        """Write the mean over the pixels, and the logits."""
        K, C = self.graph.weights[head.w]
        pooling = "pooling", "global_average_pool_forward", self.blocks
        image = self._image(head.x) | self._whole()
        fields = {"x": mean, "w": w, "b": b, "z": z, "C": C, "K": K} | self._whole()
        return [
            self._call(*pooling, x=x, pooled=mean, **image),
            self._call("linear", "linear_forward", self.blocks, **fields),
        ]

    def loss(self, z: Array, labels: Array, gz: Array, losses: Array, correct: Array) -> Call:
        """Write the loss of each image, whether it is classified correctly, and gz."""
        fields = {"z": z, "labels": labels, "gz": gz, "losses": losses, "right": correct}
        fields |= {"K": z.shape[1], "N": self.batch_size} | self._whole()
        module = "softmax_cross_entropy"
        return self._call(module, module, self.blocks, **fields)

    def logits_backward(
        self,
        head: Head,
        gz: Array,
        mean: Array,
        w: Array,
        gmean: Array,
        partials: list[Array | None],
    ) -> Call:
        """Write the gradient of the mean, and for each block those of the weights."""
        K, C = self.graph.weights[head.w]
        gw, gb = (*partials, None)[:2]
        fields = {"gz": gz, "x": mean, "w": w, "gx": gmean, "gw": gw, "gb": gb, "C": C, "K": K}
        return self._call("linear", "linear_backward", self.blocks, **fields, **self._whole())

    def mean_backward(self, head: Head, gmean: Array, gx: Array, ending: Fields) -> Call:
        """Write the gradient of what the mean was taken of."""
        fields = {"gpooled": gmean, "gx": gx, "end": complete(ending, gx)} | self._image(head.x)
        names = "pooling", "global_average_pool_backward"
        jobs = self.jobs(head.x)
        return self._call(*names, jobs, **fields, **self._batch(head.x))

    def update(
        self, w: Array, g: Array, v: Array, constants: Array, nesterov: bool
    ) -> Call:
        """Do one step of SGD on all parameters in one array; see sgd_update.py."""
        jobs = -(-w.size // CHUNK)
        fields = {"w": w, "g": g, "v": v, "constants": constants, "nesterov": int(nesterov)}
        return self._call("sgd_update", "sgd_update", jobs, **fields, size=w.size, jobs=jobs)

    def record(self, losses: Array, correct: Array, results: Array, state: Array) -> Call:
        """Write mean loss and correct answers of an update; move the state on."""
        fields = {"losses": losses, "right": correct, "results": results, "state": state}
        fields |= {"N": self.batch_size, "slots": len(results)}
        return self._call("softmax_cross_entropy", "record_result", 1, **fields)

    # -- fields that many kernels take

    def _call(self, module: str, kernel: str, jobs: int, /, **fields: Any) -> Call:
        return partial(self._launch, module, kernel, jobs, **fields)

    def _slices(self, value: int) -> int:
        """Return into how many slices the rows of each block of a tensor are cut."""
        rows = self.graph.shapes[value][1]
        return max(1, min(-(-JOBS // self.blocks), rows // LEAST_ROWS))

    def _batch(self, value: int) -> Fields:
        """Return how a launch is cut by the rows of a tensor."""
        return self._whole(self._slices(value))

    def _whole(self, slices: int = 1) -> Fields:
        last = self.batch_size - self.lanes * (self.blocks - 1)
        return {"batch": {"blocks": self.blocks, "slices": slices, "last": last}}

    def _band(self, value: int) -> Fields:
        _, H, W = self.graph.shapes[value]
        return {"band": max(1, min(H, BAND_PIXELS // W))} | self._batch(value)

    def _image(self, value: int) -> Fields:
        C, H, W = self.graph.shapes[value]
        return {"C": C, "H": H, "W": W}

    def _geometry(self, unit: Unit) -> Fields:
        D, OH, OW = self.graph.shapes[unit.y]
        KH, KW = self.graph.weights[unit.weights[0]][2:]
        fields = self._image(unit.x) | {"D": D, "OH": OH, "OW": OW, "KH": KH, "KW": KW}
        fields |= dict(zip(("SH", "SW", "PH", "PW"), unit.stride + unit.padding, strict=True))
        if isinstance(unit, Convolution):
            return fields | {"G": unit.groups}
        return fields | {"G": unit.L, "S": unit.S}
