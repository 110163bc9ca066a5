"""A network's forward pass on a GPU or the emulator: memory, and the launches of each operation.

What is computed on load is said by gpu_fusion.py; what is not fused takes the general kernels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from ..backend import copy_to, to_host
from ..errors import PlanError
from ..kernels import augment, combine, convolution, linear, permutation, pooling
from ..kernels import interleaved_group_convolution as igc
from ..kernels.augment import Resident
from ..kernels.batch_norm import slices
from ..kernels.combine import DeviceNorm
from ..kernels.convolution import weight_slices
from ..kernels.geometry import Pair
from ..kernels.head import launch_head
from ..kernels.interleaved_group_convolution import device_mix
from ..kernels.stem import launch_stem, stem_blocks
from . import graph as op
from .gpu_fusion import fuse
from .program import Call, Program, Setup

Array = np.ndarray

PARTS_AT_ONCE = 1 << 23  # numbers that one launch adds up: what a cache still has


class GpuForward(Program):
    """Memory, forward pass and evaluation on a GPU or the emulator; see Program.

    Args:
        setup: the network and its arrays.
        stored: element type of activations.
        shared_bytes: memory that a block of the device may share, for the fused kernels.
    """

    def __init__(self, setup: Setup, stored: str, shared_bytes: int) -> None:
        self.fusion = fuse(setup.graph, shared_bytes)
        self.flat_gradient = setup.flat_gradient
        super().__init__(replace(setup, graph=self.fusion.graph), stored)
        nothing = np.empty(0, stored)  # in place of what is never in memory
        self.values = {0: self.x} | {
            i: nothing if i in self.fusion.recomputed else self._activation(i)
            for i in range(1, len(self.graph.shapes))
        }
        self.logits = self.values[self.graph.logits]
        self.argmax: dict[int, Array] = {}  # of max pooling, by output
        channels = [self.weights[norm.gamma].size for norm in self.graph.norms]
        self.tickets = self.arena.take((max(channels, default=1),), "uint32")
        classes = self.graph.shapes[self.graph.logits]
        self.no_bias = self.arena.take(classes, self.real)  # of a classifier without one
        self.zeros = [self.tickets, self.no_bias]
        self.pooled: list[Array] = []  # mean over the pixels, gradient of the logits
        self._take_partials()
        self.norms = [self._take_norm(i) for i in range(len(self.graph.norms))]
        self.after_stem: list[Call] = []

    def layout(self, shape: op.Shape) -> op.Shape:
        """Return (N, C, H, W) or (N, K)."""
        return self.batch_size, *shape

    def begin(self, source: Resident) -> list[Call]:
        """Return the calls of a training pass on the next batch of resident images."""
        stem = self.fusion.stem
        if stem is None:
            return [partial(augment.launch_augment, source, self.x, self.labels), *self.forward]
        arrays = self.weights[stem.w], self.x, self.labels
        results = self.values[stem.y], self.partial_sums(self._stem_shape(stem))
        return [partial(launch_stem, source, *arrays, *results), *self.after_stem]

    def load(self, x: Array) -> None:
        """Bring images of the host, (n, C, H, W), to x."""
        x = np.ascontiguousarray(x)
        if self.stored == "uint16":
            bits = x.astype(np.float32).view(np.uint32)
            x = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        copy_to(self.x[: len(x)], x.astype(self.stored, copy=False))

    def read_logits(self, n: int) -> Array:
        """Return the logits of the first n images on the host, (n, K)."""
        logits = to_host(self.logits)[:n]
        if self.stored == "uint16":
            return (logits.astype(np.uint32) << 16).view(np.float32)
        return logits.copy()

    def _activation(self, value: int) -> Array:
        return self.arena.take(self.layout(self.graph.shapes[value]), self.stored)

    def _take_norm(self, number: int) -> DeviceNorm:
        norm = self.graph.norms[number]
        C = self.weights[norm.gamma].size
        running_mean, running_var = self.running[number]
        ggamma, gbeta = self.gradients[norm.gamma], self.gradients[norm.beta]
        if ggamma is None or gbeta is None:
            raise PlanError("GPU plans do not support a batch norm with constant γ or β")
        return DeviceNorm(
            gamma=self.weights[norm.gamma],
            beta=self.weights[norm.beta],
            running_mean=running_mean,
            running_var=running_var,
            mean=self.arena.take((C,), self.real),
            variance=self.arena.take((C,), self.real),
            scale=self.arena.take((C,), self.real),
            shift=self.arena.take((C,), self.real),
            ggamma=ggamma,
            gbeta=gbeta,
            coefficients=self.arena.take((C, 3), self.real),
            tickets=self.tickets[:C],
            momentum=norm.momentum,
            eps=norm.eps,
        )

    # -- partial sums: what blocks leave for one to add up

    def _take_partials(self) -> None:
        """Take the memory: of batch norms, which have it in turn, and of weights' gradients."""
        norms, weights = [1], [1]
        for value, takers in self.graph.consumers.items():
            if any(isinstance(taker, op.NormAddReLU) for taker in takers):
                shapes = self.norm_shape(value), self.sums_shape(value)
                norms += [math.prod(shape) for shape in shapes]
        for operation in self.graph.operations:
            if isinstance(operation, op.InterleavedGroupConvolution):
                unit = self.fusion.units[operation.y]
                norms.append(math.prod(self._unit_shape(operation.y)))
                weights.append(sum(map(math.prod, unit.partial_shapes(self.batch_size))))
            elif isinstance(operation, op.Convolution | op.SecondaryConvolution):
                weights.append(math.prod(self.weight_shape(operation)))
        stem = self.fusion.stem
        if stem is not None:
            norms.append(math.prod(self._stem_shape(stem)))
        self._sums = self.arena.take((max(norms),), self.real)
        size = max(*weights, min(sum(weights), PARTS_AT_ONCE))
        self.parts = self.arena.take((size,), self.real)

    def norm_shape(self, value: int) -> op.Shape:
        """Return the shape of the sums of a tensor for its batch norm."""
        C, H, W = self.graph.shapes[value]
        return C, slices(self.batch_size, C, H * W), 3

    def sums_shape(self, value: int) -> op.Shape:
        """Return the shape of the sums for the gradient of a tensor's batch norm."""
        C, H, W = self.graph.shapes[value]
        return C, combine.sum_slices(self.batch_size, C, H * W), 2

    def _unit_shape(self, z: int) -> op.Shape:
        return self.graph.shapes[z][0], self.fusion.units[z].blocks(self.batch_size), 3

    def _stem_shape(self, stem: op.Convolution) -> op.Shape:
        C, H, _ = self.graph.shapes[stem.y]
        return C, stem_blocks(self.batch_size, H), 3

    def weight_shape(self, operation: op.Convolution | op.SecondaryConvolution) -> op.Shape:
        """Return the shape of the parts of a weight's gradient."""
        shape = self.graph.weights[operation.w]
        _, OH, OW = self.graph.shapes[operation.y]
        groups = self.geometry(operation)[2]
        return weight_slices(self.batch_size, OH * OW, shape, groups), *shape

    def partial_sums(self, shape: op.Shape) -> Array:
        """Return memory for sums that the next launch adds up."""
        return self._sums[: math.prod(shape)].reshape(shape)

    # -- forward

    def add_forward(self) -> None:
        """Add the calls of the forward pass in training."""
        for operation in self.graph.operations:
            if operation is not self.fusion.stem:
                self._add(operation, self.after_stem, training=True, begun=True)
            self._add(operation, self.forward, training=True)

    def add_evaluation(self) -> None:
        """Add the calls of the pass by the running statistics."""
        for operation in self.graph.operations:
            self._add(operation, self.evaluation, training=False)

    def _add(
        self, operation: op.Operation, calls: list[Call], training: bool, begun: bool = False
    ) -> None:
        values, y = self.values, operation.y
        if isinstance(operation, op.NormAddReLU):
            self._add_sum(operation, calls, training, begun)
            return
        assert isinstance(operation, op.UnaryOperation)
        x = values[operation.x]
        match operation:
            case op.InterleavedGroupConvolution(w1=w1, w2=w2):
                weights = self.weights[w1], self.weights[w2]
                norm = self._norm_of(y)
                partial_sums = self.partial_sums(self._unit_shape(y))
                loaded = self.loaded(operation.x)
                unit = partial(igc.launch_igc_forward, self.fusion.units[y], *loaded)
                calls.append(partial(unit, *weights, values[y], partial_sums))
                calls.append(
                    partial(
                        combine.launch_norm, values[y], norm, partial_sums, training, summed=True
                    )
                )
            case op.Convolution(w=w) | op.SecondaryConvolution(w=w):
                geometry = self.geometry(operation)
                launch = partial(convolution.launch_convolution_forward, x, self.weights[w])
                calls.append(partial(launch, values[y], *geometry))
            case op.MaxPool(window=window):
                if y not in self.argmax:
                    self.argmax[y] = self.arena.take(values[y].shape, "int32")
                pool = partial(pooling.launch_max_pool_forward, x, values[y], self.argmax[y])
                calls.append(partial(pool, *window))
            case op.AveragePool(window=window):
                calls.append(partial(pooling.launch_average_pool_forward, x, values[y], *window))
            case op.Permutation(branches=branches):
                calls.append(partial(permutation.launch_permutation, x, values[y], branches))
            case op.Head() if training:
                self._add_training_head(operation, calls)
            case op.Head():
                parameters = op.with_bias([self.weights[i] for i in operation.weights])
                mean = self.arena.take(self.layout((x.shape[1],)), self.stored)
                calls.append(partial(pooling.launch_global_average_pool_forward, x, mean))
                calls.append(partial(linear.launch_linear_forward, mean, *parameters, values[y]))
            case _:
                raise PlanError(f"GPU plans do not support {operation.name}")

    def _norm_of(self, value: int) -> DeviceNorm:
        number = self.graph.norm_of(value)
        assert number is not None
        return self.norms[number]

    def _add_sum(
        self, operation: op.NormAddReLU, calls: list[Call], training: bool, begun: bool
    ) -> None:
        if len(operation.terms) > 2:
            raise PlanError("GPU plans do not support a sum of more than two tensors")
        terms: list[tuple[Array, DeviceNorm | None]] = []
        for term in operation.terms:
            x = self.values[term.value]
            norm = None if term.norm is None else self.norms[term.norm]
            stem = self.fusion.stem if begun else None
            if norm and stem and term.value == stem.y:
                sums = self.partial_sums(self._stem_shape(stem))
                calls.append(partial(combine.launch_norm, x, norm, sums, training, summed=True))
            elif norm and term.value not in self.fusion.units:
                sums = self.partial_sums(self.norm_shape(term.value))
                calls.append(partial(combine.launch_norm, x, norm, sums, training))
            terms.append((x, norm))
        if operation.y not in self.fusion.recomputed:
            y = self.values[operation.y]
            calls.append(partial(combine.launch_combine_forward, terms, y, operation.relu))

    def _add_training_head(self, head: op.Head, calls: list[Call]) -> None:
        """Add one launch from the last unit to the gradient of that."""
        y, K = self.values[head.x], self.logits.shape[1]
        if not self.pooled:
            self.pooled = [self.arena.take(self.layout((n,)), self.real) for n in (y.shape[1], K)]
            self.target(head.x)
        w, b = op.with_bias([self.weights[i] for i in head.weights])
        mean, glogits = self.pooled
        results = mean, glogits, self.losses, self.correct, self.gradient_of[head.x]
        bias = self.no_bias if b is None else b
        arrays = y, w, bias, self.labels, *results
        calls.append(partial(launch_head, *arrays, self.label_smoothing))

    def loaded(self, value: int) -> tuple[Array, DeviceNorm | None]:
        """Return what a unit loads for a tensor, and the batch norm that it applies to it."""
        z = self.fusion.recomputed.get(value)
        return (self.values[value], None) if z is None else (self.values[z], self._norm_of(z))

    def geometry(
        self, operation: op.Convolution | op.SecondaryConvolution
    ) -> tuple[Pair, Pair, int, Pair]:
        """Return stride, padding, groups and branches of a convolution."""
        if isinstance(operation, op.SecondaryConvolution):
            return device_mix(self.graph.shapes[operation.y][0], operation.L, operation.S)
        return operation.stride, operation.padding, operation.groups, (1, 1)
