"""Which parts of a graph the fused CUDA kernels compute."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..kernels.interleaved_group_convolution import Unit, fused_unit
from ..kernels.stem import stem_bytes
from . import graph as op


@dataclass
class Fusion:
    """What is fused.

    Attributes:
        graph: the operations that are left; a unit that the fused kernels do not take has become
            a primary and a secondary convolution.
        units: how the fused kernels compute a unit, by the tensor that it gives.
        recomputed: tensors max(norm(z), 0) that are never in memory, as all their consumers
            compute them from z while they load it → number of z.
        stem: the convolution of the images, None unless it is one launch with what makes them
            and with the sums of its batch norm.
    """

    graph: op.Graph
    units: dict[int, Unit] = field(default_factory=dict)
    recomputed: dict[int, int] = field(default_factory=dict)
    stem: op.Convolution | None = None


def fuse(graph: op.Graph, shared_bytes: int) -> Fusion:
    """Return what can be fused on a device whose blocks may have so much shared memory."""
    units = {}
    for operation in graph.operations:
        if isinstance(operation, op.InterleavedGroupConvolution):
            unit = _unit(graph, operation, shared_bytes)
            if unit is not None:
                units[operation.y] = unit
    fusion = Fusion(_separate(graph, units), units, stem=_stem(graph, shared_bytes))
    for operation in graph.operations:
        if not isinstance(operation, op.NormAddReLU) or len(operation.terms) > 1:
            continue
        takers = graph.consumers[operation.y]
        by_units = bool(takers) and all(taker.y in units for taker in takers)
        if operation.relu == 1 and operation.inputs[0] in units and by_units:
            fusion.recomputed[operation.y] = operation.inputs[0]
    return fusion


def _separate(graph: op.Graph, units: dict[int, Unit]) -> op.Graph:
    """Return the graph with every unit that is not fused as two convolutions."""
    shapes = list(graph.shapes)
    operations: list[op.Operation] = []
    for operation in graph.operations:
        if not isinstance(operation, op.InterleavedGroupConvolution) or operation.y in units:
            operations.append(operation)
            continue
        primary = len(shapes)
        shapes.append(graph.shapes[operation.y])
        geometry = operation.stride, operation.padding, operation.L
        operations.append(op.Convolution(primary, operation.x, operation.w1, *geometry))
        partitions = operation.L, operation.S
        operations.append(op.SecondaryConvolution(operation.y, primary, operation.w2, *partitions))
    return replace(graph, operations=tuple(operations), shapes=tuple(shapes))


def _unit(
    graph: op.Graph, operation: op.InterleavedGroupConvolution, shared_bytes: int
) -> Unit | None:
    """Return how the fused kernels compute a unit, None if they do not."""
    trained = all(graph.trained[i] for i in operation.weights)
    alone = graph.norm_of(operation.y) is not None and operation.x != 0
    clipped = any(getattr(taker, "relu", 0) == 2 for taker in graph.consumers[operation.y])
    if graph.dtype != "float32" or not trained or not alone or clipped:
        return None
    shapes = graph.shapes[operation.x], graph.weights[operation.w1]
    geometry = operation.stride, operation.padding, operation.L
    return fused_unit(*shapes, geometry, operation.S, shared_bytes)


def _stem(graph: op.Graph, shared_bytes: int) -> op.Convolution | None:
    first = graph.operations[0]
    if not isinstance(first, op.Convolution) or first.groups != 1:
        return None
    if len(graph.consumers[0]) != 1 or graph.norm_of(first.y) is None:
        return None
    D, *kernel = graph.weights[first.w]
    fits = stem_bytes(D, graph.shapes[0][2], graph.dtype) <= shared_bytes
    plain = (first.stride, first.padding) == ((1, 1), (1, 1))
    return first if fits and kernel == [3, 3, 3] and plain else None
