"""Which parts of a graph the compiled kernels compute at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from . import graph as op


def fold_permutations(graph: op.Graph, takes: Callable[[op.Convolution], bool]) -> op.Graph:
    """Return the graph without the permutations that nothing but convolutions read.

    Args:
        graph: any.
        takes: whether the kernels of a convolution can read permuted channels.
    """
    folded: dict[int, op.Permutation] = {}
    operations: list[op.Operation] = []
    for operation in graph.operations:
        takers = graph.consumers[operation.y]
        if isinstance(operation, op.Permutation) and all(
            isinstance(taker, op.Convolution) and takes(taker) for taker in takers
        ):
            folded[operation.y] = operation
            continue
        if isinstance(operation, op.Convolution) and operation.x in folded:
            permutation = folded[operation.x]
            operation = replace(operation, x=permutation.x, branches=permutation.branches)
        operations.append(operation)
    return replace(graph, operations=tuple(operations))
