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

    def writes_through(x: int) -> op.Convolution | None:
        """Return the convolution that gives x to nobody else and permutes nothing yet."""
        before = made.get(x)
        if not isinstance(before, op.Convolution) or len(graph.consumers[x]) > 1:
            return None
        return before if before.branches[1] == 1 and takes(before) else None

    for operation in graph.operations:
        kept = operation
        if isinstance(operation, op.Permutation):
            takers, before = graph.consumers[operation.y], writes_through(operation.x)
            if before:
                del made[before.y]
                branches = before.branches[0], graph.shapes[before.y][0] // operation.branches
                kept = replace(before, y=operation.y, branches=branches)
            elif all(isinstance(taker, op.Convolution) and takes(taker) for taker in takers):
                folded[operation.y] = operation
                continue
        elif isinstance(operation, op.Convolution) and operation.x in folded:
            permutation = folded[operation.x]
            kept = replace(operation, x=permutation.x, branches=(permutation.branches, 1))
        made[kept.y] = kept
    return replace(graph, operations=tuple(made.values()))
