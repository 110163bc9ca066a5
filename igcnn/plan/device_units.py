"""Which parts of a graph the fused kernels of a device compute."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..kernels.head import head_bytes
from ..kernels.interleaved_group_convolution import Unit, fused_unit
from ..kernels.stem import stem_bytes
from .graph import Graph, Node


@dataclass(frozen=True)
class FusedNode:
    """A primary convolution and its mix as one operation, whose output a batch norm takes.

    Attributes:
        unit: how the kernels compute it.
        x: number of the tensor that goes in.
        w1: number of the primary weights.
        w2: number of the secondary weights.
        norm: number of the batch norm of its output.
    """

    unit: Unit
    x: int
    w1: int
    w2: int
    norm: int


@dataclass
class Fusion:
    """What is fused.

    Attributes:
        nodes: by the number of the tensor that comes out.
        primaries: tensors between the two convolutions, which are never in memory.
        rectified: a tensor max(norm(z), 0) that is never in memory, as all who take it compute
            it from z while they load it → number of z.
        stem: the convolution that takes the images, None if it is not one launch with what
            makes them and with the sums of its batch norm.
        head: global mean and classifier at the network's end, nothing if they are not one launch.
    """

    nodes: dict[int, FusedNode] = field(default_factory=dict)
    primaries: set[int] = field(default_factory=set)
    rectified: dict[int, int] = field(default_factory=dict)
    stem: Node | None = None
    head: tuple[Node, ...] = ()


def fuse(graph: Graph, shared_bytes: int) -> Fusion:
    """Return what can be fused on a device whose blocks may have so much shared memory."""
    fusion = Fusion(stem=_stem(graph, shared_bytes), head=_head(graph, shared_bytes))
    if graph.dtype != "float32":
        return fusion
    made_by = {node.output: node for node in graph.nodes}
    for node in graph.nodes:
        primary = made_by.get(node.inputs[0])
        norm = _norm_of(graph, node.output)
        if node.op != "mix" or primary is None or norm is None or primary.inputs[0] == 0:
            continue
        if graph.uses(primary.output) == 1:
            unit = _unit(graph, primary, node, shared_bytes)
            weights = primary.weights[0], node.weights[0]
            if unit is not None and all(graph.trained[i] for i in weights):
                fusion.nodes[node.output] = FusedNode(unit, primary.inputs[0], *weights, norm)
                fusion.primaries.add(primary.output)
    for node in graph.nodes:
        takers = sum(fused.x == node.output for fused in fusion.nodes.values())
        single = node.op == "combine" and len(node.terms) == 1 and node.relu
        if single and node.inputs[0] in fusion.nodes and takers == graph.uses(node.output):
            fusion.rectified[node.output] = node.inputs[0]
    return fusion


def _unit(graph: Graph, primary: Node, mix: Node, shared_bytes: int) -> Unit | None:
    L, S = mix.partitions["L"], mix.partitions["S"]
    geometry = primary.geometry
    return fused_unit(
        graph.shapes[primary.inputs[0]],
        graph.weights[primary.weights[0]],
        (tuple(geometry["stride"]), tuple(geometry["padding"]), geometry["groups"]),
        S if geometry["groups"] == L else 0,
        shared_bytes,
    )


def _stem(graph: Graph, shared_bytes: int) -> Node | None:
    node = graph.nodes[0]
    if node.op != "convolution" or graph.uses(0) != 1 or _norm_of(graph, node.output) is None:
        return None
    geometry = tuple(node.geometry["stride"]), tuple(node.geometry["padding"])
    C, *kernel = graph.weights[node.weights[0]]
    fits = stem_bytes(C, graph.shapes[0][2], graph.dtype) <= shared_bytes
    return node if fits and kernel == [3, 3, 3] and geometry == ((1, 1), (1, 1)) else None


def _head(graph: Graph, shared_bytes: int) -> tuple[Node, ...]:
    if len(graph.nodes) < 3:
        return ()
    pool, linear = graph.nodes[-2:]
    ops = (pool.op, linear.op) == ("global_average_pool", "linear")
    trained = len(linear.weights) == 2 and all(graph.trained[i] for i in linear.weights)
    chained = linear.inputs == [pool.output] and graph.uses(pool.inputs[0]) == 1
    if not (ops and trained and chained):
        return ()
    fits = head_bytes(graph.weights[linear.weights[0]], graph.dtype) <= shared_bytes
    return (pool, linear) if fits else ()


def _norm_of(graph: Graph, value: int) -> int | None:
    """Return the batch norm that is all that a tensor goes into, None if it is not so."""
    terms = [term for node in graph.nodes for term in node.terms if term.value == value]
    if len(terms) != 1 or graph.uses(value) != 1:
        return None
    return terms[0].norm
