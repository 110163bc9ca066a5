"""Memory for the sums that blocks of a device leave for one to add up, in a fixed order."""

from __future__ import annotations

import math

import numpy as np

from ..kernels.batch_norm import slices
from ..kernels.convolution import weight_slices
from ..kernels.stem import stem_blocks
from .arena import Arena
from .device_units import Fusion
from .graph import Graph, Node

Array = np.ndarray
Shape = tuple[int, ...]


class PartialSums:
    """Two pieces of memory that all nodes use in turn, each as an array of the shape it needs.

    Args:
        graph: the network.
        fusion: what of it is fused.
        batch_size: N.
        arena: what the memory is taken from.
    """

    def __init__(self, graph: Graph, fusion: Fusion, batch_size: int, arena: Arena) -> None:
        self._graph = graph
        self._fusion = fusion
        self._batch_size = batch_size
        shapes: set[Shape] = set()
        second: set[Shape] = {(1,)}
        for z, fused in fusion.nodes.items():
            shapes.add(self._unit_shape(z))
            first, other = fused.unit.partial_shapes(batch_size)
            shapes.add(first)
            second.add(other)
        if fusion.stem is not None:
            shapes.add(self._stem_shape(fusion.stem))
        for node in graph.nodes:
            shapes |= {self._norm_shape(term.value) for term in node.terms}
            is_fused = node.output in fusion.primaries or node.output in fusion.nodes
            if node.op in ("convolution", "mix") and not is_fused:
                shapes.add(self._weight_shape(node))
        self._first = _views(shapes, arena, graph.dtype)
        self._second = _views(second, arena, graph.dtype)

    def of_norm(self, value: int) -> Array:
        """Return what receives the sums of a batch norm of a tensor."""
        return self._first[self._norm_shape(value)]

    def of_unit(self, z: int) -> Array:
        """Return what receives the sums that a fused unit leaves of its output."""
        return self._first[self._unit_shape(z)]

    def of_stem(self, stem: Node) -> Array:
        """Return what receives the sums that the stem leaves of its output."""
        return self._first[self._stem_shape(stem)]

    def of_weight(self, node: Node) -> Array:
        """Return what receives the sums of the gradient of a node's weight."""
        return self._first[self._weight_shape(node)]

    def of_unit_weights(self, z: int) -> tuple[Array, Array]:
        """Return what receives the sums of the gradients of a fused unit's two weights."""
        first, second = self._fusion.nodes[z].unit.partial_shapes(self._batch_size)
        return self._first[first], self._second[second]

    def _norm_shape(self, value: int) -> Shape:
        C, H, W = self._graph.shapes[value]
        return C, slices(self._batch_size, C, H * W), 2

    def _unit_shape(self, z: int) -> Shape:
        unit = self._fusion.nodes[z].unit
        return self._graph.shapes[z][0], unit.blocks(self._batch_size), 2

    def _stem_shape(self, stem: Node) -> Shape:
        C, H, _ = self._graph.shapes[stem.output]
        return C, stem_blocks(self._batch_size, H), 2

    def _weight_shape(self, node: Node) -> Shape:
        shape = self._graph.weights[node.weights[0]]
        _, OH, OW = self._graph.shapes[node.output]
        return weight_slices(self._batch_size, OH * OW, shape), *shape


def _views(shapes: set[Shape], arena: Arena, dtype: str) -> dict[Shape, Array]:
    """Return arrays of several shapes in one piece of memory."""
    sizes = {shape: math.prod(shape) for shape in shapes}
    memory = arena.take((max(sizes.values(), default=1),), dtype)
    return {shape: memory[:size].reshape(shape) for shape, size in sizes.items()}
