"""A network's passes on a GPU or the emulator: which launches the operations become.

What is computed on load is said by gpu_fusion.py; what is not fused takes the general kernels.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ..backend import copy_to, to_host
from ..errors import PlanError
from ..kernels.augment import Resident, launch_augment
from ..kernels.batch_norm import slices
from ..kernels.combine import (
    NO_RELU,
    WHERE_NORMED,
    WHERE_Y,
    DeviceNorm,
    launch_combine_backward,
    launch_combine_forward,
    launch_combine_sums,
    launch_norm,
    launch_skip_backward,
)
from ..kernels.convolution import (
    launch_convolution_backward_input,
    launch_convolution_backward_weight,
    launch_convolution_forward,
    weight_slices,
)
from ..kernels.geometry import Pair
from ..kernels.head import launch_head
from ..kernels.interleaved_group_convolution import (
    Incoming,
    device_mix,
    launch_igc_backward_input,
    launch_igc_backward_weight,
    launch_igc_forward,
)
from ..kernels.linear import (
    launch_linear_backward_bias,
    launch_linear_backward_weight,
    launch_linear_forward,
)
from ..kernels.permutation import launch_permutation
from ..kernels.pooling import (
    launch_average_pool_backward,
    launch_average_pool_forward,
    launch_global_average_pool_forward,
    launch_max_pool_backward,
    launch_max_pool_forward,
)
from ..kernels.sgd_update import launch_sgd_update
from ..kernels.softmax_cross_entropy import launch_record_result
from ..kernels.stem import launch_stem, stem_blocks
from .arena import Arena
from .gpu_fusion import fuse
from .graph import (
    AveragePool,
    Convolution,
    Graph,
    Head,
    InterleavedGroupConvolution,
    MaxPool,
    NormAddReLU,
    Operation,
    Permutation,
    SecondaryConvolution,
    Shape,
    UnaryOperation,
)
from .program import Call, Program, Running

Array = np.ndarray
Incomings = dict[int, Incoming]


class GpuProgram(Program):
    """The passes of a network on a GPU or the emulator; see Program.

    Args:
        graph: the network.
        batch_size: N.
        arena: the source of all memory.
        weights: parameters on the device, in the order of the graph.
        gradients: gradient buffers, None for constants.
        running: running mean and variance of each batch norm.
        stored: element type of activations.
        shared_bytes: memory that a block of the device may share, for the fused kernels.
        training: whether updates are wanted.
    """

    def __init__(
        self,
        graph: Graph,
        batch_size: int,
        arena: Arena,
        weights: list[Array],
        gradients: list[Array | None],
        running: Running,
        stored: str,
        shared_bytes: int,
        training: bool = True,
    ) -> None:
        self.fusion = fuse(graph, shared_bytes)
        arrays = weights, gradients, running
        super().__init__(self.fusion.graph, batch_size, arena, *arrays, stored)
        nothing = np.empty(0, stored)  # in place of what is never in memory
        self.values = {0: self.x} | {
            i: nothing if i in self.fusion.recomputed else self._activation(i)
            for i in range(1, len(self.graph.shapes))
        }
        self.logits = self.values[self.graph.logits]
        self.argmax: dict[int, Array] = {}  # of max pooling, by output
        channels = [self.weights[norm.gamma].size for norm in graph.norms]
        self.tickets = arena.take((max(channels, default=1),), "uint32")
        classes = self.graph.shapes[self.graph.logits]
        self.no_bias = arena.take(classes, self.real)  # of a classifier without one
        self.zeros = [self.tickets, self.no_bias]
        self.pooled: list[Array] = []  # mean over the pixels, gradient of the logits
        self._take_partials()
        self.norms = [self._take_norm(i) for i in range(len(graph.norms))]
        self.after_stem: list[Call] = []
        self.incoming: Incomings = {}
        for operation in self.graph.operations:
            self._add_forward(operation, self.evaluation, training=False)
        if training:
            for operation in self.graph.operations:
                if operation is not self.fusion.stem:
                    self._add_forward(operation, self.after_stem, training=True, begun=True)
                self._add_forward(operation, self.forward, training=True)
            self.add_backward()

    def layout(self, shape: Shape) -> Shape:
        """Return (N, C, H, W) or (N, K)."""
        return self.batch_size, *shape

    def begin(self, source: Resident) -> list[Call]:
        """Return the calls of a training pass on the next batch of resident images."""
        stem = self.fusion.stem
        if stem is None:
            return [partial(launch_augment, source, self.x, self.labels), *self.forward]
        number = self.graph.norm_of(stem.y)
        assert number is not None
        arrays = self.weights[stem.w], self.running[number][0], self.x, self.labels
        results = self.values[stem.y], self._partial(self._stem_shape(stem))
        return [partial(launch_stem, source, *arrays, *results), *self.after_stem]

    def finish(
        self,
        parameters: Array,
        gradients: Array,
        velocity: Array,
        rates: Array,
        nesterov: bool,
        results: Array,
        state: Array,
    ) -> list[Call]:
        """Return the calls that end an update."""
        arrays = parameters, gradients, velocity, rates
        return [
            partial(launch_sgd_update, *arrays, nesterov),
            partial(launch_record_result, self.losses, self.correct, results, state),
        ]

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
            raise PlanError("a batch norm with constant γ or β has no planned form on a device")
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

    # -- partial sums: what blocks leave for one to add up; all launches take the memory in turn

    def _take_partials(self) -> None:
        """Take the memory: two pieces, as the two weights of a unit are summed together."""
        sizes, second = [1], [1]
        for value, takers in self.graph.consumers.items():
            if any(isinstance(taker, NormAddReLU) for taker in takers):
                sizes.append(math.prod(self._norm_shape(value)))
        for operation in self.graph.operations:
            if isinstance(operation, InterleavedGroupConvolution):
                unit = self.fusion.units[operation.y]
                first, other = unit.partial_shapes(self.batch_size)
                sizes += [math.prod(first), math.prod(self._unit_shape(operation.y))]
                second.append(math.prod(other))
            elif isinstance(operation, Convolution | SecondaryConvolution):
                sizes.append(math.prod(self._weight_shape(operation)))
        stem = self.fusion.stem
        if stem is not None:
            sizes.append(math.prod(self._stem_shape(stem)))
        self._first = self.arena.take((max(sizes),), self.real)
        self._second = self.arena.take((max(second),), self.real)

    def _norm_shape(self, value: int) -> Shape:
        C, H, W = self.graph.shapes[value]
        return C, slices(self.batch_size, C, H * W), 2

    def _unit_shape(self, z: int) -> Shape:
        return self.graph.shapes[z][0], self.fusion.units[z].blocks(self.batch_size), 2

    def _stem_shape(self, stem: Convolution) -> Shape:
        C, H, _ = self.graph.shapes[stem.y]
        return C, stem_blocks(self.batch_size, H), 2

    def _weight_shape(self, operation: Convolution | SecondaryConvolution) -> Shape:
        shape = self.graph.weights[operation.w]
        _, OH, OW = self.graph.shapes[operation.y]
        return weight_slices(self.batch_size, OH * OW, shape), *shape

    def _partial(self, shape: Shape, second: bool = False) -> Array:
        memory = self._second if second else self._first
        return memory[: math.prod(shape)].reshape(shape)

    # -- forward

    def _add_forward(
        self, operation: Operation, calls: list[Call], training: bool, begun: bool = False
    ) -> None:
        values, y = self.values, operation.y
        if isinstance(operation, NormAddReLU):
            self._add_sum(operation, calls, training, begun)
            return
        assert isinstance(operation, UnaryOperation)
        x = values[operation.x]
        match operation:
            case InterleavedGroupConvolution(w1=w1, w2=w2):
                weights = self.weights[w1], self.weights[w2]
                norm = self._norm_of(y)
                partial_sums = self._partial(self._unit_shape(y))
                arrays = *self._loaded(operation.x), *weights, norm, values[y], partial_sums
                calls.append(partial(launch_igc_forward, self.fusion.units[y], *arrays))
                calls.append(
                    partial(launch_norm, values[y], norm, partial_sums, training, summed=True)
                )
            case Convolution(w=w) | SecondaryConvolution(w=w):
                arrays = x, self.weights[w], values[y]
                geometry = self._geometry(operation)
                calls.append(partial(launch_convolution_forward, *arrays, *geometry))
            case MaxPool(kernel=kernel, stride=stride, padding=padding):
                if y not in self.argmax:
                    self.argmax[y] = self.arena.take(values[y].shape, "int32")
                arrays = x, values[y], self.argmax[y]
                calls.append(partial(launch_max_pool_forward, *arrays, kernel, stride, padding))
            case AveragePool(kernel=kernel, stride=stride, padding=padding):
                window = kernel, stride, padding
                calls.append(partial(launch_average_pool_forward, x, values[y], *window))
            case Permutation(branches=branches):
                calls.append(partial(launch_permutation, x, values[y], branches))
            case Head() if training:
                self._add_training_head(operation, calls)
            case Head():
                w, b = (*(self.weights[i] for i in operation.weights), None)[:2]
                mean = self.arena.take(self.layout((x.shape[1],)), self.stored)
                calls.append(partial(launch_global_average_pool_forward, x, mean))
                calls.append(partial(launch_linear_forward, mean, w, b, values[y]))
            case _:
                raise PlanError(f"{operation.name} has no planned form on a GPU")

    def _norm_of(self, value: int) -> DeviceNorm:
        number = self.graph.norm_of(value)
        assert number is not None
        return self.norms[number]

    def _add_sum(
        self, operation: NormAddReLU, calls: list[Call], training: bool, begun: bool
    ) -> None:
        if len(operation.terms) > 2:
            raise PlanError("a sum of more than two tensors has no planned form on a GPU")
        terms: list[tuple[Array, DeviceNorm | None]] = []
        for term in operation.terms:
            x = self.values[term.value]
            norm = None if term.norm is None else self.norms[term.norm]
            stem = self.fusion.stem if begun else None
            if norm and stem and term.value == stem.y:
                sums = self._partial(self._stem_shape(stem))
                calls.append(partial(launch_norm, x, norm, sums, training, summed=True))
            elif norm and term.value not in self.fusion.units:
                sums = self._partial(self._norm_shape(term.value))
                calls.append(partial(launch_norm, x, norm, sums, training))
            terms.append((x, norm))
        if operation.y not in self.fusion.recomputed:
            y = self.values[operation.y]
            calls.append(partial(launch_combine_forward, terms, y, operation.relu, self.losses))

    def _add_training_head(self, head: Head, calls: list[Call]) -> None:
        """Add one launch from the last unit to the gradient of that."""
        y, K = self.values[head.x], self.logits.shape[1]
        if not self.pooled:
            self.pooled = [self.arena.take(self.layout((n,)), self.real) for n in (y.shape[1], K)]
            self.target(head.x)
        w, b = (*(self.weights[i] for i in head.weights), self.no_bias)[:2]
        results = *self.pooled, self.losses, self.correct, self.gradient_of[head.x]
        calls.append(partial(launch_head, y, w, b, self.labels, *results))

    def _loaded(self, value: int) -> tuple[Array, DeviceNorm | None]:
        """Return what a unit loads for a tensor, and the batch norm that it applies to it."""
        z = self.fusion.recomputed.get(value)
        return (self.values[value], None) if z is None else (self.values[z], self._norm_of(z))

    def _geometry(
        self, operation: Convolution | SecondaryConvolution
    ) -> tuple[Pair, Pair, int, Pair]:
        """Return stride, padding, groups and branches of a convolution."""
        if isinstance(operation, SecondaryConvolution):
            return device_mix(self.graph.shapes[operation.y][0], operation.L, operation.S)
        return operation.stride, operation.padding, operation.groups, (1, 1)

    # -- backward

    def backward_head(self, head: Head) -> None:
        """Add the calls for the gradients of the classifier; the rest is done in forward."""
        mean, glogits = self.pooled
        gw, gb = (*(self.gradients[i] for i in head.weights), None)[:2]
        if gw is not None:
            self.backward.append(partial(launch_linear_backward_weight, glogits, mean, gw))
        if gb is not None:
            self.backward.append(partial(launch_linear_backward_bias, glogits, gb))

    def backward_of(self, operation: Operation) -> None:
        """Add the calls that write the gradients of an operation's weights and input."""
        assert isinstance(operation, UnaryOperation)
        if operation.y in self.fusion.units:
            assert isinstance(operation, InterleavedGroupConvolution)
            self._backward_unit(operation)
            return
        x, gy = self.values[operation.x], self.gradient_of.pop(operation.y)
        calls = self.backward
        if isinstance(operation, Convolution | SecondaryConvolution):
            geometry = self._geometry(operation)
            gw = self.gradients[operation.w]
            if gw is not None:
                arrays = gy, x, gw, self._partial(self._weight_shape(operation))
                calls.append(partial(launch_convolution_backward_weight, *arrays, *geometry))
        if operation.x != 0:
            gx, other = self.target(operation.x)
            match operation:
                case Convolution(w=w) | SecondaryConvolution(w=w):
                    arrays = gy, self.weights[w], gx
                    added = other is not None
                    call = partial(launch_convolution_backward_input, *arrays, *geometry, added)
                case MaxPool(kernel=kernel, stride=stride, padding=padding):
                    arrays = gy, self.argmax[operation.y], gx
                    call = partial(launch_max_pool_backward, *arrays, kernel, stride, padding)
                case AveragePool(kernel=kernel, stride=stride, padding=padding):
                    window = kernel, stride, padding
                    call = partial(launch_average_pool_backward, gy, gx, *window)
                case Permutation(branches=branches):
                    inverse = x.shape[1] // branches
                    call = partial(launch_permutation, gy, gx, inverse)
                case _:
                    raise PlanError(f"{operation.name} has no planned form on a GPU")
            if other is not None and not isinstance(operation, Convolution | SecondaryConvolution):
                name = operation.name
                raise PlanError(f"the gradient of {name} cannot be added to another on a GPU")
            calls.append(call)
        self.release(gy)

    def backward_sum(self, operation: NormAddReLU) -> None:
        """Add the calls that pass a gradient on to the terms of a sum."""
        gy = self.gradient_of.pop(operation.y)
        y = self.values[operation.y]
        if operation.y in self.fusion.recomputed:
            y = self.values[operation.inputs[0]]  # not read
        for term in operation.terms:
            x = self.values[term.value]
            norm = None if term.norm is None else self.norms[term.norm]
            if norm:
                single = operation.relu and len(operation.terms) == 1
                mask = WHERE_NORMED if single else WHERE_Y if operation.relu else NO_RELU
                sums = self._partial(self._norm_shape(term.value))
                self.backward.append(partial(launch_combine_sums, gy, y, x, norm, sums, mask))
                if term.value in self.fusion.units:
                    self.incoming[term.value] = Incoming(gy, y, x, norm, mask)
                    self.hold(gy)
                    continue
            if term.value == 0:
                continue
            gx, other = self.target(term.value)
            flags = operation.relu, other is not None
            if norm:
                call = partial(launch_combine_backward, gy, y, x, norm, gx, *flags)
            else:
                call = partial(launch_skip_backward, gy, y, gx, *flags)
            self.backward.append(call)
        self.release(gy)

    def _backward_unit(self, operation: InterleavedGroupConvolution) -> None:
        unit = self.fusion.units[operation.y]
        incoming = self.incoming.pop(operation.y)
        weights = self.weights[operation.w1], self.weights[operation.w2]
        gw1, gw2 = self.gradients[operation.w1], self.gradients[operation.w2]
        assert gw1 is not None
        assert gw2 is not None  # fuse takes none with constant weights
        first, second = unit.partial_shapes(self.batch_size)
        partials = self._partial(first), self._partial(second, second=True)
        arrays = incoming, *self._loaded(operation.x), weights, (gw1, gw2), partials
        self.backward.append(partial(launch_igc_backward_weight, unit, *arrays))
        gx, other = self.target(operation.x)
        call = partial(launch_igc_backward_input, unit, incoming, *weights, gx, other is not None)
        self.backward.append(call)
        self.release(incoming.gy)
