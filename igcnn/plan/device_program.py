"""The launches of a network's passes on a device, on memory that is laid out once.

Every node of the graph becomes calls of the kernels' launch functions with the arrays bound; a
pass is a list of such calls. Nothing is decided and nothing is allocated while it runs, so the
whole of it can be captured as one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ..errors import PlanError
from ..kernels.augment import Resident, launch_augment
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
    launch_right_answers,
    launch_softmax_cross_entropy_backward,
    launch_softmax_cross_entropy_forward,
)
from ..kernels.stem import launch_stem
from .arena import Arena
from .device_units import fuse
from .graph import Graph, Node
from .partial_sums import PartialSums

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
        tickets: to be filled with zeros once, as gloss with 1.
        losses: of each image, (N,).
        right: 1 for an image whose label has the largest logit, else 0, (N,).
        forward: the calls of a pass in training, up to loss and probabilities.
        after_stem: those that are left when the fused stem is done.
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
        self.right = arena.take((N,), self.real)
        self.loss = arena.take((), self.real)
        self.gloss = arena.take((), self.real)
        channels = [graph.weights[norm.gamma][0] for norm in graph.norms]
        self.tickets = arena.take((max(channels, default=1),), "uint32")
        self.probabilities = arena.take((N, K), self.real)
        self.norms: dict[int, DeviceNorm] = {}
        self.sums = PartialSums(graph, self.fusion, N, arena)
        self.incoming: dict[int, Incoming] = {}
        self.holders: dict[int, int] = {}  # how many gradients are computed from one, by its id
        self.forward: list[Call] = []
        self.after_stem: list[Call] = []
        self.backward: list[Call] = []
        self.evaluation: list[Call] = []
        body = graph.nodes[: -len(self.fusion.head)] if self.fusion.head else graph.nodes
        for node in body:
            self._add_forward(node, self.forward, training=True)
        if self.fusion.stem:
            for node in body[1:]:
                self._add_forward(node, self.after_stem, training=True, begun=True)
        for node in graph.nodes:
            self._add_forward(node, self.evaluation, training=False)
        self.gradient_of: dict[int, Array] = {}
        if self.fusion.head:
            self._add_head(*self.fusion.head)
        else:
            self._add_loss()
        for node in reversed(body):
            self._add_backward(node)

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
            tickets=self.tickets[:C],
            momentum=norm.momentum,
            eps=norm.eps,
        )
        return self.norms[number]

    def _add_forward(
        self, node: Node, calls: list[Call], training: bool, begun: bool = False
    ) -> None:
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
                self._add_combine(node, calls, training, begun)
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

    def _add_combine(self, node: Node, calls: list[Call], training: bool, begun: bool) -> None:
        if len(node.terms) > 2:
            raise PlanError("a sum of more than two tensors has no planned form on a device")
        terms: list[tuple[Array, DeviceNorm | None]] = []
        for term in node.terms:
            x = self.values[term.value]
            norm = None if term.norm is None else self._norm(term.norm)
            stem = self.fusion.stem if begun else None
            if norm and stem and term.value == stem.output:
                sums = self.sums.of_stem(stem)
                calls.append(partial(launch_norm, x, norm, sums, training, summed=True))
            elif norm and term.value not in self.fusion.nodes:
                sums = self.sums.of_norm(term.value)
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
        sums = self.sums.of_unit(node.output)
        weights = self.weights[fused.w1], self.weights[fused.w2]
        arrays = *self._loaded(fused.x), *weights, norm, z, sums
        calls.append(partial(launch_igc_forward, fused.unit, *arrays))
        calls.append(partial(launch_norm, z, norm, sums, training, summed=True))

    def begin(self, source: Resident) -> bool:
        """Launch what takes a batch from the images on the device.

        Returns:
            Whether the stem is done with it, so that `after_stem` is what is left.
        """
        stem = self.fusion.stem
        if stem is None:
            launch_augment(source, self.x, self.labels)
            return False
        (number,) = (t.norm for n in self.graph.nodes for t in n.terms if t.value == stem.output)
        assert number is not None
        arrays = self.weights[stem.weights[0]], self.running[number][0], self.x, self.labels
        results = self.values[stem.output], self.sums.of_stem(stem)
        launch_stem(source, *arrays, *results)
        return True

    def _loaded(self, value: int) -> tuple[Array, DeviceNorm | None]:
        """Return what a unit loads for a tensor, and the batch norm that it applies to it."""
        z = self.fusion.rectified.get(value)
        if z is None:
            return self.values[value], None
        return self.values[z], self._norm(self.fusion.nodes[z].norm)

    def _add_loss(self) -> None:
        glogits = self.arena.take(self.logits.shape, self.stored)
        self.gradient_of[self.graph.logits] = glogits
        results = self.probabilities, self.losses, self.loss
        batch = self.logits, self.labels
        start = self.gloss, self.probabilities, self.labels, glogits
        for calls in (self.forward, self.after_stem):
            calls.append(partial(launch_softmax_cross_entropy_forward, *batch, *results))
            calls.append(partial(launch_right_answers, *batch, self.right))
        self.backward.append(partial(launch_softmax_cross_entropy_backward, *start))

    def _add_head(self, pool: Node, linear: Node) -> None:
        """Add the end of the network: one launch from its last unit to the gradient of that."""
        y, (N, K) = self.values[pool.inputs[0]], self.logits.shape
        w, b = (self.weights[i] for i in linear.weights)
        gw, gb = (self.gradients[i] for i in linear.weights)
        assert gw is not None
        assert gb is not None  # fuse takes none with constant weights
        pooled, glogits = (self.arena.take((N, n), self.real) for n in (y.shape[1], K))
        gy, _ = self._gradient(pool, pool.inputs[0])
        arrays = pooled, glogits, self.losses, self.right, gy
        for calls in (self.forward, self.after_stem):
            calls.append(partial(launch_head, y, w, b, self.labels, *arrays))
        self.backward.append(partial(launch_linear_backward_weight, glogits, pooled, gw))
        self.backward.append(partial(launch_linear_backward_bias, glogits, gb))

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
            sums = self.sums.of_weight(node)
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
                sums = self.sums.of_norm(term.value)
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
        partials = self.sums.of_unit_weights(node.output)
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
