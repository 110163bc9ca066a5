"""A plan as a list of calls: every step executes the same NumPy calls on the same memory.

A batch is cut into shards of a few images, small enough for the caches. Segments of calls that
need one shard alone alternate with merges, where the sums of all shards become the statistics
of a batch norm. Who executes a shard changes no bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..kernels.softmax_cross_entropy import (
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)
from .combine import (
    BatchStatistics,
    forward_calls,
    gradient_sums_call,
    norm_backward_calls,
    relu_backward_calls,
    statistics_call,
)
from .convolution import Call
from .graph import IMAGEWISE, Graph, Node
from .interleaved_group_convolution import Mix
from .memory import Pool, Scratch
from .planes import Array, Halo, aligned
from .strided import StridedConvolution

MAX_IMAGES = 16
MIN_SHARDS = 4


def shard_sizes(images: int) -> list[int]:
    """Return how many images each shard of a batch has, as equal as possible.

    At most 16, which a core's caches hold, and at least 4 shards if there are as many images.
    """
    shards = max(-(-images // MAX_IMAGES), min(MIN_SHARDS, images))
    return [images // shards + (i < images % shards) for i in range(shards)]


@dataclass
class Memory:
    """What all processes of a plan see.

    Attributes:
        images: (C, H, W, B), normalised.
        labels: (B,), int64.
        weights: one array for each weight of the graph.
        gradients: for each shard, one array for each weight.
        statistics: for each norm, (shards, 2, C) of float64.
        losses: for each shard its share of the mean loss.
        hits: for each shard its number of right answers.
    """

    images: Array
    labels: Array
    weights: list[Array]
    gradients: list[list[Array]]
    statistics: list[Array]
    losses: Array
    hits: Array


@dataclass
class Shard:
    """One shard while its calls are laid out.

    Attributes:
        index: number within the batch.
        images: which images of the batch.
        pool: memory of gradients.
        values: view of each tensor, (A, B, H, W, N), or (K, N).
        halos: layout and storage of those that a convolution reads in place.
        matrices: tensors of `mix` nodes as matrices.
        gradients: view of the gradient of each tensor, while it is needed.
    """

    index: int
    images: slice
    pool: Pool
    values: dict[int, Array] = field(default_factory=dict)
    halos: dict[int, tuple[object, Halo]] = field(default_factory=dict)
    matrices: dict[int, Array] = field(default_factory=dict)
    windows: dict[int, list[Array]] = field(default_factory=dict)
    functions: dict[int, object] = field(default_factory=dict)
    gradients: dict[int, Array] = field(default_factory=dict)

    @property
    def N(self) -> int:
        """How many images."""
        return self.images.stop - self.images.start


class TrainingProgram:
    """Forward and backward pass of a batch, for those shards that one process computes.

    Args:
        graph: what to compute.
        memory: shared by all processes.
        local: numbers of the shards to compute.

    Attributes:
        refresh: calls at the beginning of a step, when weights have changed.
        segments: calls between two merges.
        merges: merges[k] follows segments[k], after all processes have finished it.
    """

    def __init__(self, graph: Graph, memory: Memory, local: list[int]) -> None:
        self.graph = graph
        self.memory = memory
        self.dtype = str(memory.images.dtype)
        self.scratch = Scratch()
        self.refresh: list[Call] = []
        self.segments: list[list[Call]] = []
        self.merges: list[list[Call]] = []
        self.batch = memory.images.shape[3]
        sizes = shard_sizes(self.batch)
        starts = np.cumsum([0, *sizes]).tolist()
        self.shards = [
            Shard(i, slice(starts[i], starts[i + 1]), Pool(self.dtype)) for i in local
        ]
        self.norms = [self._statistics(i, sizes) for i in range(len(graph.norms))]
        self.producers = {node.output: node for node in graph.nodes}
        self.operators = {i: self._operator(node) for i, node in enumerate(graph.nodes)}
        self.done: set[int] = set()
        self._open: list[list[Call]] = [[] for _ in self.shards]
        self._lay_out()

    def _statistics(self, number: int, sizes: list[int]) -> BatchStatistics:
        norm = self.graph.norms[number]
        term = next(
            t for node in self.graph.nodes for t in node.terms if t.norm == number
        )
        _, H, W = self.graph.shapes[term.value]
        gamma, beta = self.memory.weights[norm.gamma], self.memory.weights[norm.beta]
        counts = [H * W * n for n in sizes]
        return BatchStatistics(gamma, beta, norm.eps, self.memory.statistics[number], counts)

    def _operator(self, node: Node) -> object:
        """Return what a node's shards have in common: matrices of weights."""
        weights = [self.memory.weights[i] for i in node.weights]
        if node.op == "convolution":
            shape = self.graph.shapes[node.inputs[0]]
            convolution = StridedConvolution(weights[0], shape, **node.settings)
            self.refresh += convolution.refresh
            return convolution
        if node.op == "mix":
            return Mix(weights[0], node.settings["L"], node.settings["secondary_groups"])
        return weights

    # -- laying out -----------------------------------------------------------------------------

    def _lay_out(self) -> None:
        for shard, calls in zip(self.shards, self._open, strict=True):
            view = self._store(shard, 0)
            calls.append(
                partial(np.copyto, view[0], self.memory.images[..., shard.images])
            )
        for i, node in enumerate(self.graph.nodes):
            if node.op == "combine":
                self._forward_combine(node)
                continue
            for shard, calls in zip(self.shards, self._open, strict=True):
                calls.extend(getattr(self, f"_forward_{node.op}")(i, node, shard))
        for shard, calls in zip(self.shards, self._open, strict=True):
            calls.append(self._loss(shard))
        for i, node in reversed(list(enumerate(self.graph.nodes))):
            if node.op == "combine":
                self._backward_combine(node)
            elif i not in self.done:
                self._backward(i, node)
        self._close([])

    def _close(self, merges: list[Call]) -> None:
        """End a segment."""
        self.segments.append([call for calls in self._open for call in calls])
        self.merges.append(merges)
        self._open = [[] for _ in self.shards]

    def _store(self, shard: Shard, value: int) -> Array:
        """Give a tensor memory, in the order that the convolution that takes it reads."""
        C, H, W = self.graph.shapes[value]
        for i, node in enumerate(self.graph.nodes):
            if value in node.inputs and node.op == "convolution":
                operator = self.operators[i]
                assert isinstance(operator, StridedConvolution)
                if operator.layout is not None:
                    halo = operator.new_input(shard.N, self.dtype)
                    shard.halos[value] = operator.layout, halo
                    shard.values[value] = halo.view
                    return halo.view
        shard.values[value] = np.empty((1, C, H, W, shard.N), self.dtype)
        return shard.values[value]

    # -- forward --------------------------------------------------------------------------------

    def _forward_convolution(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        operator = self.operators[i]
        x = node.inputs[0]
        layout, halo = shard.halos.get(x, (None, None))
        if layout != operator.layout:
            halo = None
        windows, copies = operator.windows(shard.values[x], halo)
        shard.windows[i] = windows
        yield from copies
        C, H, W = self.graph.shapes[node.output]
        follower = next(
            (n for n in self.graph.nodes if n.op == "mix" and node.output in n.inputs), None
        )
        if follower is None:
            y = np.empty((operator.G, C // operator.G, H, W, shard.N), self.dtype)
        else:
            mix = self.operators[self.graph.nodes.index(follower)]
            matrices, y = mix.new_input(H, W, shard.N, self.dtype)
            shard.matrices[node.output] = matrices
        shard.values[node.output] = y
        yield from operator.forward(windows, y, self.scratch)

    def _forward_mix(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        mix = self.operators[i]
        _, H, W = self.graph.shapes[node.output]
        matrices, view = mix.new_output(H, W, shard.N, self.dtype)
        shard.matrices[node.output] = matrices
        shard.values[node.output] = view
        yield from mix.forward(shard.matrices[node.inputs[0]], matrices)

    def _forward_combine(self, node: Node) -> None:
        norms = [term.norm for term in node.terms if term.norm is not None]
        if norms:
            for shard, calls in zip(self.shards, self._open, strict=True):
                for term in node.terms:
                    if term.norm is not None:
                        slot = self.memory.statistics[term.norm][shard.index]
                        calls.append(statistics_call(shard.values[term.value], slot))
            self._close([self.norms[norm].merge_forward for norm in norms])
        for shard, calls in zip(self.shards, self._open, strict=True):
            y = self._store(shard, node.output)
            terms = [
                (shard.values[t.value], None if t.norm is None else self.norms[t.norm])
                for t in node.terms
            ]
            calls.extend(forward_calls(terms, y, node.relu, self.scratch))

    def _forward_function(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        function = IMAGEWISE[node.settings["function"]](*node.settings["arguments"])
        function.needs_gradient = (True,)
        shard.functions[i] = function
        x, y = shard.values[node.inputs[0]], self._store(shard, node.output)

        def call() -> None:
            result = function.forward(_as_images(x))
            np.copyto(y, result.transpose(1, 2, 3, 0).reshape(y.shape))

        yield call

    def _forward_global_average_pool(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        x = shard.values[node.inputs[0]]
        A, B, H, W, N = x.shape
        y = np.empty((A * B, N), self.dtype)
        shard.values[node.output] = y
        yield partial(np.add.reduce, x, axis=(2, 3), out=y.reshape(A, B, N))
        yield partial(np.multiply, y, 1 / (H * W), out=y)

    def _forward_linear(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        w, *bias = self.operators[i]
        y = np.empty((w.shape[0], shard.N), self.dtype)
        shard.values[node.output] = y
        yield partial(np.matmul, w, shard.values[node.inputs[0]], out=y)
        for b in bias:
            yield partial(np.add, y, b[:, None], out=y)

    def _loss(self, shard: Shard) -> Call:
        logits = shard.values[self.graph.logits]
        gradient = np.empty_like(logits)
        shard.gradients[self.graph.logits] = gradient
        labels = self.memory.labels[shard.images]
        share = shard.N / self.batch
        memory, index = self.memory, shard.index

        def call() -> None:
            loss, probabilities = softmax_cross_entropy_forward(logits.T, labels)
            share_ = np.asarray(share, logits.dtype)
            gradient[...] = softmax_cross_entropy_backward(share_, probabilities, labels).T
            memory.losses[index] = share * float(loss)
            memory.hits[index] = np.count_nonzero(logits.argmax(axis=0) == labels)

        return call

    # -- backward -------------------------------------------------------------------------------

    def _backward(self, i: int, node: Node) -> None:
        for shard, calls in zip(self.shards, self._open, strict=True):
            if node.output in shard.gradients:
                calls.extend(getattr(self, f"_backward_{node.op}")(i, node, shard))
        self.done.add(i)

    def _gradient(self, shard: Shard, value: int) -> tuple[Array, bool]:
        """Return memory for the gradient of a tensor, and whether something is in it."""
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
        tensor = self.graph.weights[weight]
        return self.memory.gradients[shard.index][weight] if tensor.requires_grad else None

    def _backward_linear(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        w, *bias = self.operators[i]
        x, gy = shard.values[node.inputs[0]], shard.gradients[node.output]
        yield partial(np.matmul, gy, x.T, out=self._slot(shard, node.weights[0]))
        if bias:
            yield partial(np.add.reduce, gy, axis=1, out=self._slot(shard, node.weights[1]))
        gx, _ = self._gradient(shard, node.inputs[0])
        yield partial(np.matmul, w.T, gy, out=gx)
        shard.gradients.pop(node.output)

    def _backward_global_average_pool(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        gy = shard.gradients[node.output]
        gx, accumulate = self._gradient(shard, node.inputs[0])
        assert not accumulate
        H, W = gx.shape[2:4]
        yield partial(np.multiply, gy[None, :, None, None], 1 / (H * W), out=gx)
        self._release(shard, node.output)

    def _backward_function(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        function = shard.functions[i]
        gy = shard.gradients[node.output]
        gx, accumulate = self._gradient(shard, node.inputs[0])

        def call() -> None:
            (result,) = function.backward(_as_images(gy))
            planes = result.transpose(1, 2, 3, 0).reshape(gx.shape)
            if accumulate:
                np.add(gx, planes, out=gx)
            else:
                np.copyto(gx, planes)

        yield call
        self._release(shard, node.output)

    def _backward_combine(self, node: Node) -> None:
        normed = [term for term in node.terms if term.norm is not None]
        for shard, calls in zip(self.shards, self._open, strict=True):
            gy = shard.gradients[node.output]
            if node.relu:
                calls.extend(relu_backward_calls(gy, shard.values[node.output], self.scratch))
            for term in normed:
                slot = self.memory.statistics[term.norm][shard.index]
                calls.append(gradient_sums_call(gy, shard.values[term.value], slot))
        if normed:
            self._close([self.norms[term.norm].merge_backward for term in normed])
        for shard, calls in zip(self.shards, self._open, strict=True):
            gy = shard.gradients[node.output]
            for term in normed:
                calls.extend(self._backward_term(shard, term.value, gy, self.norms[term.norm]))
            for term in node.terms:
                if term.norm is not None:
                    continue
                if term.value not in shard.gradients:
                    shard.gradients[term.value] = gy
                    continue
                gx = shard.gradients[term.value]
                if gx is gy:  # x + x
                    calls.append(partial(np.multiply, gx, 2, out=gx))
                else:
                    calls.append(partial(np.add, *aligned(gx, gy), out=aligned(gx, gy)[0]))
            self._release(shard, node.output)

    def _backward_term(
        self, shard: Shard, value: int, gy: Array, norm: BatchStatistics
    ) -> Iterator[Call]:
        """Batch norm's gradient, and at once that of the operation whose output it takes."""
        node = self.producers[value]
        i = self.graph.nodes.index(node)
        x = shard.values[value]
        if self.graph.uses(value) == 1 and node.op == "convolution":
            operator = self.operators[i]
            halo = operator.new_output_gradient(shard.N, self.dtype)
            yield from norm_backward_calls(gy, x, halo.view, norm, self.scratch)
            yield from self._finish_convolution(i, node, shard, halo)
            self.done.add(i)
        elif self.graph.uses(value) == 1 and node.op == "mix":
            yield from norm_backward_calls(gy, x, x, norm, self.scratch)
            yield from self._finish_mix(i, node, shard, shard.matrices[value])
            self.done.add(i)
            self.done.add(self.graph.nodes.index(self.producers[node.inputs[0]]))
        else:
            gx, accumulate = self._gradient(shard, value)
            if accumulate:
                other = shard.pool.take(gx.shape)
                yield from norm_backward_calls(gy, x, other, norm, self.scratch)
                yield partial(np.add, gx, other, out=gx)
                shard.pool.give(other)
            else:
                yield from norm_backward_calls(gy, x, gx, norm, self.scratch)

    def _backward_convolution(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        operator = self.operators[i]
        halo = operator.new_output_gradient(shard.N, self.dtype)
        source, target = aligned(shard.gradients[node.output], halo.view)
        yield partial(np.copyto, target, source)
        yield from self._finish_convolution(i, node, shard, halo)
        self._release(shard, node.output)

    def _backward_mix(self, i: int, node: Node, shard: Shard) -> Iterator[Call]:
        # y is not needed any more: its memory takes its gradient, in the order of matrices
        target, source = aligned(shard.values[node.output], shard.gradients[node.output])
        yield partial(np.copyto, target, source)
        yield from self._finish_mix(i, node, shard, shard.matrices[node.output])
        self.done.add(self.graph.nodes.index(self.producers[node.inputs[0]]))
        self._release(shard, node.output)

    def _finish_mix(self, i: int, node: Node, shard: Shard, gy: Array) -> Iterator[Call]:
        """Gradients of W^d and of p, and at once those of the primary convolution."""
        mix = self.operators[i]
        primary = self.producers[node.inputs[0]]
        j = self.graph.nodes.index(primary)
        slot = self._slot(shard, node.weights[0])
        if slot is not None:
            p = shard.matrices[node.inputs[0]]
            yield from mix.backward_weight(gy, p, slot.reshape(mix.matrices.shape), self.scratch)
        halo = self.operators[j].new_output_gradient(shard.N, self.dtype)
        yield from mix.backward_input(gy, halo.view, self.scratch)
        yield from self._finish_convolution(j, primary, shard, halo)

    def _finish_convolution(
        self, i: int, node: Node, shard: Shard, halo: Halo
    ) -> Iterator[Call]:
        operator = self.operators[i]
        slot = self._slot(shard, node.weights[0])
        if slot is not None:
            yield from operator.backward_weight(shard.windows[i], halo, slot, self.scratch)
        x = node.inputs[0]
        if x != 0:
            gx, accumulate = self._gradient(shard, x)
            C = gx.shape[0] * gx.shape[1]
            gx = gx.reshape(operator.G, C // operator.G, *gx.shape[2:])
            yield from operator.backward_input(halo, gx, accumulate, self.scratch)


def _as_images(view: Array) -> Array:
    """Return a view (A, B, H, W, N) as (N, C, H, W), by a copy where strides cannot say it."""
    A, B, H, W, N = view.shape
    return view.reshape(A * B, H, W, N).transpose(3, 0, 1, 2)
