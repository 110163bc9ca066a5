"""A training step as a list of calls: the same NumPy calls on the same memory every time.

Segments of calls that need one shard alone alternate with merges, where the sums of all shards
become the statistics of a batch norm. Who executes a shard changes no bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ..kernels.softmax_cross_entropy import (
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)
from .combine import (
    BatchStatistics,
    OutputGradient,
    norm_backward_calls,
    statistics_call,
)
from .forward import Forward
from .graph import Graph, Node
from .memory import Call
from .planes import Array, Images, aligned, granularity
from .shard import Memory, Shard, as_images, from_images, make_shards, shard_sizes
from .strided import StridedConvolution


class TrainingProgram(Forward):
    """Forward and backward pass of a batch, for those shards that one process computes.

    Args:
        graph: what to compute.
        memory: shared by all processes.
        local: numbers of the shards to compute.

    Attributes:
        refresh: calls at the beginning of a step, when weights have changed.
        segments: calls between two merges.
        merges: merges[k] follows segments[k], after all processes have finished it.
        norms: the statistics of each batch norm.
        completed: completed[k] are the weights whose gradients all shards have after merges[k].
        merged: what returns the gradient of those, γ and β, that come out of a merge.
    """

    def __init__(self, graph: Graph, memory: Memory, local: list[int]) -> None:
        super().__init__(graph, memory.weights, max(shard_sizes(memory.images.shape[3])))
        self.memory = memory
        self.batch = memory.images.shape[3]
        self.segments: list[list[Call]] = []
        self.merges: list[list[Call]] = []
        sizes = shard_sizes(self.batch)
        self.shards = make_shards(self.batch, local, self.dtype)
        self.norms = [self._statistics(i, sizes) for i in range(len(graph.norms))]
        self.producers = {node.output: i for i, node in enumerate(graph.nodes)}
        self.merged: dict[int, Callable[[], Array]] = {}
        self._done: set[int] = set()
        self._ended: set[int] = set()  # tensors whose convolution has ended their gradient
        self._segment: dict[int, int] = {}  # in which each weight's gradient is computed
        self._calls: list[list[Call]] = [[] for _ in self.shards]
        self._lay_out_forward()
        self._lay_out_backward()
        self.completed: list[list[int]] = [[] for _ in self.segments]
        for weight, segment in self._segment.items():
            self.completed[segment].append(weight)

    def run(self, meet: Callable[[], None], take: Callable[[list[int]], None] | None) -> None:
        """Execute a step.

        Args:
            meet: returns when all processes have called it.
            take: called with the numbers of weights as soon as their gradients are complete.
        """
        for call in self.refresh:
            call()
        passes = zip(self.segments, self.merges, self.completed, strict=True)
        for calls, merges, completed in passes:
            for call in calls:
                call()
            meet()
            for call in merges:
                call()
            if take and completed:
                take(completed)

    def _statistics(self, number: int, sizes: list[int]) -> BatchStatistics:
        norm = self.graph.norms[number]
        (value,) = (t.value for n in self.graph.nodes for t in n.terms if t.norm == number)
        _, H, W = self.graph.shapes[value]
        gamma, beta = self.weights[norm.gamma], self.weights[norm.beta]
        counts = [H * W * n for n in sizes]
        return BatchStatistics(gamma, beta, norm.eps, self.memory.statistics[number], counts)

    def _each(self) -> Iterator[tuple[Shard, list[Call]]]:
        yield from zip(self.shards, self._calls, strict=True)

    def _close(self, merges: list[Call]) -> None:
        """End a segment."""
        self.segments.append([call for calls in self._calls for call in calls])
        self.merges.append(merges)
        self._calls = [[] for _ in self.shards]

    # -- forward --------------------------------------------------------------------------------

    def _lay_out_forward(self) -> None:
        for shard, calls in self._each():
            view = self.store(shard, 0)
            images = self.memory.images[None, ..., shard.images]  # (1, C, H, W, N)
            calls.append(partial(np.copyto, view, images))
        for place, node in enumerate(self.graph.nodes):
            if node.op == "combine":
                self._forward_combine(node)
                continue
            for shard, calls in self._each():
                calls.extend(self.node_calls(place, shard))
        for shard, calls in self._each():
            calls.append(self._loss(shard))

    def _forward_combine(self, node: Node) -> None:
        norms = [None if t.norm is None else self.norms[t.norm] for t in node.terms]
        for shard, calls in self._each():
            for term, norm in zip(node.terms, norms, strict=True):
                if norm is not None:
                    x = shard.values[term.value]
                    calls.append(statistics_call(x, norm.shards[0, shard.index]))
        if any(norms):
            self._close([norm.merge_forward for norm in norms if norm is not None])
        for shard, calls in self._each():
            calls.extend(self.combine_calls(node, norms, shard))

    def _loss(self, shard: Shard) -> Call:
        logits = shard.values[self.graph.logits]
        gradient = np.empty_like(logits)
        shard.gradients[self.graph.logits] = gradient
        labels = self.memory.labels[shard.images]
        share = np.asarray(shard.N / self.batch, logits.dtype)
        memory, index = self.memory, shard.index

        def call() -> None:
            loss, probabilities = softmax_cross_entropy_forward(logits.T, labels)
            gradient[...] = softmax_cross_entropy_backward(share, probabilities, labels).T
            memory.losses[index] = share * float(loss)
            memory.hits[index] = count_hits(logits.T, labels)

        return call

    # -- backward -------------------------------------------------------------------------------

    def _lay_out_backward(self) -> None:
        for place, node in reversed(list(enumerate(self.graph.nodes))):
            if node.op == "combine":
                self._backward_combine(node)
            elif place not in self._done:
                for shard, calls in self._each():
                    if node.output in shard.gradients:
                        calls.extend(self._backward(place, node, shard))
        self._close([])

    def _gradient(self, shard: Shard, value: int) -> tuple[Array, bool]:
        """Return memory for one more part of a tensor's gradient, and whether others are in it."""
        shard.contributions[value] += 1
        if value in shard.gradients:
            return shard.gradients[value], True
        shape = self.graph.shapes[value]
        array = shard.pool.take((*shape, shard.N))
        if len(shape) == 3:
            array = array.reshape(1, *array.shape)
        shard.gradients[value] = array
        return array, False

    def _release(self, shard: Shard, value: int) -> None:
        array = shard.gradients.pop(value)
        if not any(array is other for other in shard.gradients.values()):
            shard.pool.give(array)

    def _slot(self, shard: Shard, weight: int) -> Array | None:
        """Return where a shard writes the gradient of a weight, None where none is wanted."""
        wanted = self.graph.trained[weight]
        if wanted:
            self._segment[weight] = len(self.segments)
        return self.memory.gradients[shard.index][weight] if wanted else None

    def _backward(self, place: int, node: Node, shard: Shard) -> Iterator[Call]:
        """Yield the calls of a node whose output's gradient is complete."""
        match node.op:
            case "convolution":
                halo = self.convolutions[place].new_output_gradient(shard.N, self.dtype)
                source, target = aligned(shard.gradients[node.output], halo.view)
                yield partial(np.copyto, target, source)
                yield from self._finish_convolution(place, node, shard, halo)
            case "mix":
                # y is not needed any more: its memory takes its gradient
                y, gy = aligned(shard.values[node.output], shard.gradients[node.output])
                yield partial(np.copyto, y, gy)
                yield from self._finish_mix(place, node, shard)
            case "function":
                yield self._backward_function(place, node, shard)
            case "max_pool":
                gx, accumulate = self._gradient(shard, node.inputs[0])
                gy = shard.gradients[node.output]
                yield from shard.pools[place].backward(gy, gx, accumulate, self.scratch)
            case "global_average_pool":
                gy = shard.gradients[node.output]
                gx, _ = self._gradient(shard, node.inputs[0])
                H, W = gx.shape[2:4]
                yield partial(np.multiply, gy[None, :, None, None], 1 / (H * W), out=gx)
            case "linear":
                yield from self._backward_linear(node, shard)
        self._release(shard, node.output)

    def _backward_linear(self, node: Node, shard: Shard) -> Iterator[Call]:
        w, *bias = node.weights
        x, gy = shard.values[node.inputs[0]], shard.gradients[node.output]
        yield partial(np.matmul, gy, x.T, out=self._slot(shard, w))
        for b in bias:
            yield partial(np.add.reduce, gy, axis=1, out=self._slot(shard, b))
        gx, _ = self._gradient(shard, node.inputs[0])
        yield partial(np.matmul, self.weights[w].T, gy, out=gx)

    def _backward_function(self, place: int, node: Node, shard: Shard) -> Call:
        function = shard.functions[place]
        gy = shard.gradients[node.output]
        gx, accumulate = self._gradient(shard, node.inputs[0])

        def call() -> None:
            (result,) = function.backward(as_images(gy))
            assert result is not None
            planes = from_images(result, gx)
            np.add(gx, planes, out=gx) if accumulate else np.copyto(gx, planes)

        return call

    def _backward_combine(self, node: Node) -> None:
        normed = [(t.value, self.norms[t.norm]) for t in node.terms if t.norm is not None]
        if node.output not in self._ended:
            for shard, calls in self._each():
                y = shard.values[node.output] if node.relu else None
                calls.extend(self._output_gradient(node, shard).whole(y))
        if normed:
            self._note_norms(node)
            self._close([norm.merge_backward for _, norm in normed])
        for shard, calls in self._each():
            gy = shard.gradients[node.output]
            for value, norm in normed:
                calls.extend(self._backward_norm(shard, value, gy, norm))
            for term in node.terms:
                if term.norm is None:
                    calls.extend(self._backward_identity(shard, term.value, gy))
            self._release(shard, node.output)

    def _output_gradient(
        self, node: Node, shard: Shard, step: int | None = None
    ) -> OutputGradient:
        """Return what ends the gradient of a `combine` node's output."""
        gy = shard.gradients[node.output]
        terms = [
            (shard.values[t.value], self.norms[t.norm].shards[1, shard.index])
            for t in node.terms
            if t.norm is not None
        ]
        return OutputGradient(gy, terms, node.relu, step or gy.shape[-3], self.scratch)

    def _note_norms(self, node: Node) -> None:
        for number in (term.norm for term in node.terms if term.norm is not None):
            norm, statistics = self.graph.norms[number], self.norms[number]
            self.merged[norm.gamma] = partial(getattr, statistics, "ggamma")
            self.merged[norm.beta] = partial(getattr, statistics, "gbeta")
            for weight in (norm.gamma, norm.beta):
                if self.graph.trained[weight]:
                    self._segment[weight] = len(self.segments)

    def _backward_identity(self, shard: Shard, value: int, gy: Array) -> Iterator[Call]:
        if value not in shard.gradients:
            if sum(gy is other for other in shard.gradients.values()) == 1:
                shard.gradients[value] = gy  # nobody but this node has it, which is done
                shard.contributions[value] += 1
            else:
                gx, _ = self._gradient(shard, value)
                target, source = aligned(gx, gy)
                yield partial(np.copyto, target, source)
            return
        gx, _ = self._gradient(shard, value)
        if gx is gy:  # x + x
            yield partial(np.multiply, gx, 2, out=gx)
        else:
            yield partial(np.add, gx, gy, out=gx)

    def _backward_norm(
        self, shard: Shard, value: int, gy: Array, norm: BatchStatistics
    ) -> Iterator[Call]:
        """Batch norm's gradient, and at once that of the operation whose output it takes."""
        place = self.producers.get(value, -1)
        node = self.graph.nodes[place]
        x = shard.values[value]
        if place >= 0 and self.graph.uses(value) == 1 and node.op == "convolution":
            halo = self.convolutions[place].new_output_gradient(shard.N, self.dtype)
            yield from norm_backward_calls(gy, x, halo.view, norm, self.scratch)
            yield from self._finish_convolution(place, node, shard, halo)
        elif place >= 0 and self.graph.uses(value) == 1 and node.op == "mix":
            # x is not needed any more: its memory takes its gradient
            yield from norm_backward_calls(gy, x, x, norm, self.scratch)
            yield from self._finish_mix(place, node, shard)
        elif value != 0:
            gx, accumulate = self._gradient(shard, value)
            if accumulate:
                other = shard.pool.take(gx.shape)
                yield from norm_backward_calls(gy, x, other, norm, self.scratch)
                yield partial(np.add, gx, other, out=gx)
                shard.pool.give(other)
            else:
                yield from norm_backward_calls(gy, x, gx, norm, self.scratch)

    def _finish_mix(self, place: int, node: Node, shard: Shard) -> Iterator[Call]:
        """Gradients of W^d and of p, and at once those of the primary convolution."""
        mix = self.mixes[place]
        gy, p = shard.matrices[node.output], shard.matrices[node.inputs[0]]
        slot = self._slot(shard, node.weights[0])
        if slot is not None:
            gw = slot.reshape(mix.matrices.shape)
            yield from mix.backward_weight(gy, p, gw, self.scratch)
        primary = self.producers[node.inputs[0]]
        halo = self.convolutions[primary].new_output_gradient(shard.N, self.dtype)
        yield from mix.backward_input(gy, halo, self.scratch)
        yield from self._finish_convolution(primary, self.graph.nodes[primary], shard, halo)
        self._done.add(place)

    def _finish_convolution(
        self, place: int, node: Node, shard: Shard, gy: Images
    ) -> Iterator[Call]:
        convolution = self.convolutions[place]
        slot = self._slot(shard, node.weights[0])
        x, gx, accumulate = node.inputs[0], None, False
        if x != 0:
            gx, accumulate = self._gradient(shard, x)
            C, H, W = self.graph.shapes[x]
            gx = gx.reshape(convolution.G, C // convolution.G, H, W, shard.N)
        inputs = shard.inputs[place]
        arguments = inputs, gy, gx, accumulate, slot, self.scratch
        combine = self._combine_ended_by(place, shard)
        if combine is None:
            yield from convolution.backward(*arguments)
        else:
            assert isinstance(convolution, StridedConvolution)
            step, Cg = convolution.rows_of_a_part(shard.N), convolution.Cg
            gradient = self._output_gradient(combine, shard, step)

            def end(groups: slice, part: slice, y: Array) -> Iterator[Call]:
                channels = groups.start * Cg, groups.stop * Cg
                # (groups, rows, Cg, W, N) → (groups, Cg, rows, W, N)
                return gradient.part(*channels, part, y.swapaxes(1, 2))

            yield from convolution.backward(*arguments, end)
            yield from gradient.finish()
            self._ended.add(x)
        self._done.add(place)

    def _combine_ended_by(self, place: int, shard: Shard) -> Node | None:
        """Return the `combine` whose output's gradient is complete with a convolution's part."""
        convolution, nodes = self.convolutions[place], self.graph.nodes
        (value,) = nodes[place].inputs
        node = nodes[self.producers[value]] if value in self.producers else None
        if node is None or node.op != "combine":
            return None
        if not isinstance(convolution, StridedConvolution) or convolution.layout is None:
            return None
        complete = shard.contributions[value] == self.graph.uses(value)
        views = [shard.values[term.value] for term in node.terms if term.norm is not None]
        views.append(shard.gradients[value])
        fits = convolution.Cg % granularity(*views) == 0
        return node if complete and fits else None


def count_hits(logits: Array, labels: Array) -> int:
    """Return how many labels have the largest logit of their row, (N, K)."""
    return int(np.count_nonzero(logits.argmax(axis=1) == labels))
