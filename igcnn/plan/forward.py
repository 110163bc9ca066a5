"""The forward pass of a plan: each node of the graph as calls on memory laid out once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from .columns import MANY_CHANNELS, SHORT_ROW, ColumnsConvolution
from .combine import forward_calls
from .graph import IMAGEWISE, Graph, Node
from .interleaved_group_convolution import Mix
from .max_pool import MaxPool
from .memory import Call, Scratch
from .planes import Array, Halo, granularity
from .shard import Shard, as_images, from_images
from .source import Norm
from .strided import StridedConvolution


class Forward:
    """Lays out the forward calls of nodes, shard by shard.

    Args:
        graph: what to compute.
        weights: one array for each weight of the graph.
        images: of the largest shard.

    Attributes:
        refresh: calls that bring matrices up to date with the weights.
        convolutions: for each convolution's place in the graph, what its shards share.
        mixes: likewise.
    """

    def __init__(self, graph: Graph, weights: list[Array], images: int) -> None:
        self.graph = graph
        self.weights = weights
        self.dtype = str(weights[0].dtype)
        self.scratch = Scratch()
        self.refresh: list[Call] = []
        self.convolutions: dict[int, StridedConvolution | ColumnsConvolution] = {}
        self.mixes: dict[int, Mix] = {}
        for i, node in enumerate(graph.nodes):
            if node.op == "convolution":
                image = graph.shapes[node.inputs[0]]
                row = graph.shapes[node.output][2] * images
                kind = kind_of_convolution(graph.weights[node.weights[0]], node.geometry, row)
                convolution = kind(self.weight(i), image, **node.geometry)
                self.convolutions[i] = convolution
                self.refresh += convolution.refresh
            elif node.op == "mix":
                self.mixes[i] = Mix(self.weight(i), **node.partitions)

    def weight(self, place: int) -> Array:
        """Return the weight that the node at a place of the graph computes with."""
        return self.weights[self.graph.nodes[place].weights[0]]

    def store(self, shard: Shard, value: int) -> Array:
        """Give a tensor memory, in the order that the convolution that takes it reads."""
        for i, convolution in self.convolutions.items():
            if value not in self.graph.nodes[i].inputs:
                continue
            if isinstance(convolution, StridedConvolution) and convolution.layout is not None:
                halo = self.new_halo(shard, convolution)
                shard.halos[value] = convolution.layout, halo
                shard.values[value] = halo.view
                return halo.view
        shard.values[value] = self.new_array(shard, value)[None]
        return shard.values[value]

    def new_array(self, shard: Shard, value: int, shape: tuple[int, ...] | None = None) -> Array:
        """Return memory for a tensor, (C, H, W, N) or (K, N) if no shape is given."""
        shape = shape or (*self.graph.shapes[value], shard.N)
        shard.arrays[value] = np.empty(shape, self.dtype)
        return shard.arrays[value]

    def new_halo(self, shard: Shard, convolution: StridedConvolution) -> Halo:
        """Return memory for the image of a convolution that reads it in place."""
        return convolution.new_input(shard.N, self.dtype)

    def node_calls(self, place: int, shard: Shard) -> Iterator[Call]:
        """Yield the calls of a node that is no `combine`."""
        node = self.graph.nodes[place]
        match node.op:
            case "convolution":
                yield from self._convolution(place, node, shard)
            case "mix":
                yield from self._mix(place, node, shard)
            case "function":
                yield self._function(place, node, shard)
            case "max_pool":
                x, y = shard.values[node.inputs[0]], self.store(shard, node.output)
                shard.pools[place] = MaxPool(x, y, *node.arguments)
                yield from shard.pools[place].forward()
            case "global_average_pool":
                yield from self._global_average_pool(node, shard)
            case "linear":
                yield from self._linear(node, shard)

    def combine_calls(
        self, node: Node, norms: Sequence[Norm | None], shard: Shard
    ) -> Iterator[Call]:
        """Yield the calls of a `combine` node.

        Args:
            node: the node.
            norms: scale and shift of each term.
            shard: which shard.
        """
        convolution = self._reader_of_deferred(node, shard)
        if convolution is not None:
            (term,), (norm,) = node.terms, norms
            assert norm is not None
            shard.deferred[node.output] = convolution.defer(shard.values[term.value], norm)
            return
        y = self.store(shard, node.output)
        terms = [
            (shard.values[term.value], norm) for term, norm in zip(node.terms, norms, strict=True)
        ]
        yield from forward_calls(terms, y, node.relu, self.scratch)

    def _reader_of_deferred(self, node: Node, shard: Shard) -> StridedConvolution | None:
        """Return the one convolution that reads a batch norm's ReLU, if it can compute it."""
        graph, value = self.graph, node.terms[0].value
        if not (node.relu and len(node.terms) == 1 and node.terms[0].norm is not None):
            return None
        if graph.uses(node.output) != 1 or graph.uses(value) != 1 or value == 0:
            return None
        place = next(i for i, n in enumerate(graph.nodes) if node.output in n.inputs)
        convolution = self.convolutions.get(place)
        if not isinstance(convolution, StridedConvolution) or convolution.layout is None:
            return None
        fits = convolution.Cg % granularity(shard.values[value]) == 0
        return convolution if fits else None

    def _convolution(self, place: int, node: Node, shard: Shard) -> Iterator[Call]:
        convolution = self.convolutions[place]
        x = node.inputs[0]
        layout, halo = shard.halos.get(x, (None, None))
        if layout != convolution.layout:
            halo = None
        if x in shard.deferred:
            shard.inputs[place] = [shard.deferred[x]]
        else:
            shard.inputs[place], copies = convolution.inputs(shard.values[x], halo)
            yield from copies
        y = self.new_array(shard, node.output)
        mixes = [self.mixes[i] for i in self.mixes if node.output in self.graph.nodes[i].inputs]
        if mixes:
            shard.matrices[node.output], y = mixes[0].input_views(y)
        else:
            y = y.reshape(convolution.G, convolution.Og, *y.shape[1:])
        shard.values[node.output] = y
        yield from convolution.forward(shard.inputs[place], y, self.scratch)

    def _mix(self, place: int, node: Node, shard: Shard) -> Iterator[Call]:
        mix = self.mixes[place]
        stored = self.new_array(shard, node.output)
        y, shard.values[node.output] = mix.output_views(stored)
        shard.matrices[node.output] = y
        yield from mix.forward(shard.matrices[node.inputs[0]], y)

    def _function(self, place: int, node: Node, shard: Shard) -> Call:
        function = IMAGEWISE[node.function](*node.arguments)
        function.needs_gradient = (True,)
        shard.functions[place] = function
        x, y = shard.values[node.inputs[0]], self.store(shard, node.output)
        return lambda: np.copyto(y, from_images(function.forward(as_images(x)), y))

    def _global_average_pool(self, node: Node, shard: Shard) -> Iterator[Call]:
        x = shard.values[node.inputs[0]]
        A, B, H, W, N = x.shape
        y = shard.values[node.output] = self.new_array(shard, node.output)
        yield partial(np.add.reduce, x, axis=(2, 3), out=y.reshape(A, B, N))
        yield partial(np.multiply, y, 1 / (H * W), out=y)

    def _linear(self, node: Node, shard: Shard) -> Iterator[Call]:
        w, *bias = (self.weights[i] for i in node.weights)
        y = shard.values[node.output] = self.new_array(shard, node.output)
        yield partial(np.matmul, w, shard.values[node.inputs[0]], out=y)
        for b in bias:
            yield partial(np.add, y, b[:, None], out=y)


def kind_of_convolution(
    weight: tuple[int, ...], geometry: dict[str, Any], row: int
) -> type[StridedConvolution | ColumnsConvolution]:
    """Return the class for a weight of this shape and rows of so many numbers."""
    many = weight[0] // geometry["groups"] >= MANY_CHANNELS
    return ColumnsConvolution if many and row < SHORT_ROW else StridedConvolution
