"""Which parts of a graph the compiled kernels compute at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from . import graph as op


def fold_permutations(graph: op.Graph, takes: Callable[[op.Convolution], bool]) -> op.Graph:
    """Return the graph without the permutations that convolutions can write or read through.

    Args:
        graph: as traced.
        takes: whether the kernels of a convolution can permute channels.
    """
    folded: dict[int, op.Permutation] = {}
    made: dict[int, op.Operation] = {}  # by the tensor that they give, in the order of execution
    for operation in graph.operations:
        if isinstance(operation, op.Permutation):
            before, takers = made.get(operation.x), graph.consumers[operation.y]
            alone = len(graph.consumers[operation.x]) == 1
            if alone and isinstance(before, op.Convolution) and takes(before):
                D = graph.shapes[before.y][0]
                branches = before.branches[0], D // operation.branches
                del made[before.y]
                operation = replace(before, y=operation.y, branches=branches)
            elif all(isinstance(taker, op.Convolution) and takes(taker) for taker in takers):
                folded[operation.y] = operation
                continue
        elif isinstance(operation, op.Convolution) and operation.x in folded:
            permutation = folded[operation.x]
            branches = permutation.branches, 1
            operation = replace(operation, x=permutation.x, branches=branches)
        made[operation.y] = operation
    return replace(graph, operations=tuple(made.values()))
