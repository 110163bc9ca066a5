"""The launches of a network's passes on a device, on memory that is laid out once.

Every node of the graph becomes calls of the kernels' launch functions with the arrays bound; a
pass is a list of such calls. Nothing is decided and nothing is allocated while it runs, so the
whole of it can be captured as one CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from ..errors import PlanError
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
    Pair,
    launch_convolution_backward_input,
    launch_convolution_backward_weight,
    launch_convolution_forward,
    weight_slices,
)
from ..kernels.interleaved_group_convolution import (
    Incoming,
    device_mix,
    launch_igc_backward_input,
    launch_igc_backward_weight,
    launch_igc_forward,
)
from ..kernels.linear import (
    launch_linear_backward_bias,
    launch_linear_backward_input,
    launch_linear_backward_weight,
    launch_linear_forward,
)
from ..kernels.permutation import launch_permutation
from ..kernels.pooling import (
    launch_average_pool_backward,
    launch_average_pool_forward,
    launch_global_average_pool_backward,
    launch_global_average_pool_forward,
    launch_max_pool_backward,
    launch_max_pool_forward,
)
from ..kernels.softmax_cross_entropy import (
    launch_softmax_cross_entropy_backward,
    launch_softmax_cross_entropy_forward,
)
from .arena import Arena
from .device_units import fuse
from .graph import Graph, Node

Array = np.ndarray
Call = Callable[[], None]

# nodes whose gradient can be added to what another node left
ADDING = {"convolution", "mix", "combine"}


class DeviceProgram:
    """The passes of a network for batches of one size.

    Args:
        graph: the network.
        batch_size: N.
        arena: what the memory is taken from.
        weights: parameters on the device, in the order of the graph.
        gradients: what receives their gradients, None for constants.
        running: running mean and variance of each batch norm.
        stored: element type of activations.
        shared_bytes: memory that a block of the device may share, for the fused kernels.

    Attributes:
        x: images, (N, C, H, W), to be filled before a pass.
        labels: int32, (N,), likewise.
        logits: (N, K).
        losses: of each image, (N,).
        forward: the calls of a pass in training, up to loss and probabilities.
        backward: the calls that write the gradients.
        evaluation: the calls of a pass by the running statistics, up to the logits.

    Raises:
        PlanError: the graph contains something that has no place here.
    """

    def __init__(
        self,
        graph: Graph,
        batch_size: int,
        arena: Arena,
        weights: list[Array],
        gradients: list[Array | None],
        running: list[tuple[Array, Array]],
        stored: str,
        shared_bytes: int,
    ) -> None:
        self.graph = graph
        self.batch_size = batch_size
        self.arena = arena
        self.weights = weights
        self.gradients = gradients
        self.running = running
        self.real = graph.dtype
        self.stored = stored
        self.fusion = fuse(graph, shared_bytes)
        self.nothing = np.empty(0, stored)  # in place of what is never in memory
        N, K = batch_size, graph.shapes[graph.logits][0]
        absent = self.fusion.primaries | set(self.fusion.rectified)
        self.values = [
            self.nothing if i in absent else arena.take((N, *shape), stored)
            for i, shape in enumerate(graph.shapes)
        ]
        self.extras: dict[int, Array] = {}  # the winners of max pooling, by output
        self.x = self.values[0]
        self.labels = arena.take((N,), "int32")
        self.logits = self.values[graph.logits]
        self.losses = arena.take((N,), self.real)
        self.loss = arena.take((), self.real)
        self.gloss = arena.take((), self.real)
        self.probabilities = arena.take((N, K), self.real)
        self.norms: dict[int, DeviceNorm] = {}
        self.partial, self.second = self._partials()
        self.incoming: dict[int, Incoming] = {}
        self.holders: dict[int, int] = {}  # how many gradients are computed from one, by its id
        self.forward: list[Call] = []
        self.backward: list[Call] = []
        self.evaluation: list[Call] = []
        for node in graph.nodes:
            self._add_forward(node, self.forward, training=True)
            self._add_forward(node, self.evaluation, training=False)
        self._add_loss()
        self.gradient_of: dict[int, Array] = {graph.logits: self.glogits}
        for node in reversed(graph.nodes):
            self._add_backward(node)

    def _partials(self) -> tuple[dict[tuple[int, ...], Array], dict[tuple[int, ...], Array]]:
        """Take memory for the partial sums of any node, twice, and view it as each needs."""
        shapes: set[tuple[int, ...]] = set()
        second: set[tuple[int, ...]] = {(1,)}
        for z, fused in self.fusion.nodes.items():
            shapes.add(self._unit_sums_shape(z))
            first, other = fused.unit.partial_shapes(self.batch_size)
            shapes.add(first)
            second.add(other)
        for node in self.graph.nodes:
            for term in node.terms:
                shapes.add(self._sums_shape(term.value))
            if node.op in ("convolution", "mix") and not self._is_fused(node):
                shape = self.graph.weights[node.weights[0]]
                shapes.add(self._weight_sums_shape(node, shape))
        return self._views(shapes), self._views(second)

    def _views(self, shapes: set[tuple[int, ...]]) -> dict[tuple[int, ...], Array]:
        """Return arrays of several shapes in one piece of memory."""
        sizes = {shape: math.prod(shape) for shape in shapes}
        memory = self.arena.take((max(sizes.values(), default=1),), self.real)
        return {shape: memory[:size].reshape(shape) for shape, size in sizes.items()}

    def _is_fused(self, node: Node) -> bool:
        return node.output in self.fusion.primaries or node.output in self.fusion.nodes

    def _norm(self, number: int) -> DeviceNorm:
        if number in self.norms:
            return self.norms[number]
        norm = self.graph.norms[number]
        C = self.graph.weights[norm.gamma][0]
        running_mean, running_var = self.running[number]
        ggamma, gbeta = self.gradients[norm.gamma], self.gradients[norm.beta]
        if ggamma is None or gbeta is None:
            raise PlanError("a batch norm with constant γ or β has no planned form on a device")
        self.norms[number] = DeviceNorm(
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
            momentum=norm.momentum,
            eps=norm.eps,
        )
        return self.norms[number]

    def _add_forward(self, node: Node, calls: list[Call], training: bool) -> None:
        if self._is_fused(node):
            self._add_fused(node, calls, training)
            return
        values, weights = self.values, [self.weights[i] for i in node.weights]
        x, y = values[node.inputs[0]], values[node.output]
        match node.op:
            case "convolution" | "mix":
                geometry = self._geometry(node)
                calls.append(partial(launch_convolution_forward, x, weights[0], y, *geometry))
            case "combine":
                self._add_combine(node, calls, training)
            case "max_pool":
                if node.output not in self.extras:
                    self.extras[node.output] = self.arena.take(y.shape, "int32")
                argmax = self.extras[node.output]
                calls.append(partial(launch_max_pool_forward, x, y, argmax, *node.arguments))
            case "global_average_pool":
                calls.append(partial(launch_global_average_pool_forward, x, y))
            case "linear":
                bias = weights[1] if len(weights) > 1 else None
                calls.append(partial(launch_linear_forward, x, weights[0], bias, y))
            case _ if node.function == "permutation":
                calls.append(partial(launch_permutation, x, y, *node.arguments))
            case _:
                calls.append(partial(launch_average_pool_forward, x, y, *node.arguments))

    def _add_combine(self, node: Node, calls: list[Call], training: bool) -> None:
        if len(node.terms) > 2:
            raise PlanError("a sum of more than two tensors has no planned form on a device")
        terms: list[tuple[Array, DeviceNorm | None]] = []
        for term in node.terms:
            x = self.values[term.value]
            norm = None if term.norm is None else self._norm(term.norm)
            if norm and term.value not in self.fusion.nodes:
                sums = self.partial[self._sums_shape(term.value)]
                calls.append(partial(launch_norm, x, norm, sums, training))
            terms.append((x, norm))
        if node.output not in self.fusion.rectified:
            y = self.values[node.output]
            calls.append(partial(launch_combine_forward, terms, y, node.relu, self.loss))

    def _add_fused(self, node: Node, calls: list[Call], training: bool) -> None:
        if node.output in self.fusion.primaries:
            return
        fused = self.fusion.nodes[node.output]
        norm, z = self._norm(fused.norm), self.values[node.output]
        sums = self.partial[self._unit_sums_shape(node.output)]
        weights = self.weights[fused.w1], self.weights[fused.w2]
        arrays = *self._loaded(fused.x), *weights, norm, z, sums
        calls.append(partial(launch_igc_forward, fused.unit, *arrays))
        calls.append(partial(launch_norm, z, norm, sums, training, summed=True))

    def _loaded(self, value: int) -> tuple[Array, DeviceNorm | None]:
        """Return what a unit loads for a tensor, and the batch norm that it applies to it."""
        z = self.fusion.rectified.get(value)
        if z is None:
            return self.values[value], None
        return self.values[z], self._norm(self.fusion.nodes[z].norm)

    def _add_loss(self) -> None:
        self.glogits = self.arena.take(self.logits.shape, self.stored)
        results = self.probabilities, self.losses, self.loss
        self.forward.append(
            partial(launch_softmax_cross_entropy_forward, self.logits, self.labels, *results)
        )
        start = self.gloss, self.probabilities, self.labels, self.glogits
        self.backward.append(partial(launch_softmax_cross_entropy_backward, *start))

    def _add_backward(self, node: Node) -> None:
        """Add the calls that write the gradients of a node's weights and inputs."""
        if self._is_fused(node):
            self._add_fused_backward(node)
            return
        gy = self.gradient_of.pop(node.output)
        x = self.values[node.inputs[0]]
        calls = self.backward
        gradients = [self.gradients[i] for i in node.weights]
        weights = [self.weights[i] for i in node.weights]
        if node.op == "combine":
            self._add_combine_backward(node, gy)
            return
        if node.op in ("convolution", "mix"):
            shape = self.graph.weights[node.weights[0]]
            sums = self.partial[self._weight_sums_shape(node, shape)]
            geometry = self._geometry(node)
            kernel = launch_convolution_backward_weight
            if gradients[0] is not None:
                calls.append(partial(kernel, gy, x, gradients[0], sums, *geometry))
        elif node.op == "linear":
            weight, *bias = gradients
            if weight is not None:
                calls.append(partial(launch_linear_backward_weight, gy, x, weight))
            if bias and bias[0] is not None:
                calls.append(partial(launch_linear_backward_bias, gy, bias[0]))
        if node.inputs[0] != 0:
            gx, accumulate = self._gradient(node, node.inputs[0])
            match node.op:
                case "convolution" | "mix":
                    kernel_input = partial(launch_convolution_backward_input, gy, weights[0])
                    calls.append(partial(kernel_input, gx, *geometry, accumulate))
                case "linear":
                    calls.append(partial(launch_linear_backward_input, gy, weights[0], gx))
                case "global_average_pool":
                    calls.append(partial(launch_global_average_pool_backward, gy, gx))
                case "max_pool":
                    argmax = self.extras[node.output]
                    calls.append(
                        partial(launch_max_pool_backward, gy, argmax, gx, *node.arguments)
                    )
                case _ if node.function == "permutation":
                    inverse = x.shape[1] // node.arguments[0]
                    calls.append(partial(launch_permutation, gy, gx, inverse))
                case _:
                    calls.append(partial(launch_average_pool_backward, gy, gx, *node.arguments))
        self.arena.give(gy)

    def _add_combine_backward(self, node: Node, gy: Array) -> None:
        y = self.values[node.output]
        if node.output in self.fusion.rectified:
            y = self.values[node.inputs[0]]  # not read
        held = 0
        for term in node.terms:
            x = self.values[term.value]
            norm = None if term.norm is None else self._norm(term.norm)
            if norm:
                single = node.relu and len(node.terms) == 1
                mask = WHERE_NORMED if single else WHERE_Y if node.relu else NO_RELU
                sums = self.partial[self._sums_shape(term.value)]
                self.backward.append(partial(launch_combine_sums, gy, y, x, norm, sums, mask))
                if term.value in self.fusion.nodes:
                    self.incoming[term.value] = Incoming(gy, y, x, norm, mask)
                    held += 1
                    continue
            if term.value == 0:
                continue
            gx, accumulate = self._gradient(node, term.value)
            if norm:
                arrays = gy, y, x, norm, gx
                call = partial(launch_combine_backward, *arrays, node.relu, accumulate)
            else:
                call = partial(launch_skip_backward, gy, y, gx, node.relu, accumulate)
            self.backward.append(call)
        self.holders[id(gy)] = held
        if not held:
            self.arena.give(gy)

    def _add_fused_backward(self, node: Node) -> None:
        if node.output in self.fusion.primaries:
            return
        fused = self.fusion.nodes[node.output]
        incoming = self.incoming.pop(node.output)
        weights = self.weights[fused.w1], self.weights[fused.w2]
        gw1, gw2 = self.gradients[fused.w1], self.gradients[fused.w2]
        assert gw1 is not None
        assert gw2 is not None  # fuse takes none with constant weights
        first, second = fused.unit.partial_shapes(self.batch_size)
        partials = self.partial[first], self.second[second]
        arrays = incoming, *self._loaded(fused.x), weights, (gw1, gw2), partials
        self.backward.append(partial(launch_igc_backward_weight, fused.unit, *arrays))
        gx, accumulate = self._gradient(node, fused.x)
        arrays_input = incoming, *weights, gx, accumulate
        self.backward.append(partial(launch_igc_backward_input, fused.unit, *arrays_input))
        self.holders[id(incoming.gy)] -= 1
        if not self.holders[id(incoming.gy)]:
            self.arena.give(incoming.gy)

    def _gradient(self, node: Node, value: int) -> tuple[Array, bool]:
        """Return what receives the gradient of a tensor, and whether something is in it."""
        if value not in self.gradient_of:
            shape = (self.batch_size, *self.graph.shapes[value])
            gradient = self.arena.take(shape, self.stored)
            self.gradient_of[value] = gradient
            return gradient, False
        if node.op not in ADDING:
            raise PlanError(f"the gradient of {node.op} cannot be added to another on a device")
        return self.gradient_of[value], True

    def _sums_shape(self, value: int) -> tuple[int, ...]:
        """Return the shape of the partial sums of a batch norm of a tensor."""
        C, H, W = self.graph.shapes[value]
        return C, slices(self.batch_size, C, H * W), 2

    def _unit_sums_shape(self, z: int) -> tuple[int, ...]:
        """Return the shape of the sums that a fused unit leaves of its output."""
        return self.graph.shapes[z][0], self.fusion.nodes[z].unit.blocks(self.batch_size), 2

    def _weight_sums_shape(self, node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the partial sums of the gradient of a node's weight."""
        _, OH, OW = self.graph.shapes[node.output]
        return weight_slices(self.batch_size, OH * OW, shape), *shape

    def _geometry(self, node: Node) -> tuple[Pair, Pair, int, Pair]:
        """Return stride, padding, groups and branches of a convolution or a mix."""
        if node.op == "mix":
            C = self.graph.shapes[node.output][0]
            return device_mix(C, node.partitions["L"], node.partitions["S"])
        geometry = node.geometry
        return (
            tuple(geometry["stride"]),
            tuple(geometry["padding"]),
            geometry["groups"],
            (1, 1),
        )
