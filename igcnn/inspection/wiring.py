"""The permutations of an interleaved product as wires between the partitions of its factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..kernels.permutation import check_branches, permutation_index

MOST_BUNDLES = 32  # of partitions, where single channels are too many to draw


@dataclass(frozen=True)
class Wiring:
    """Who is connected to whom in an interleaved product of K factors.

    An interleaved group convolution (paper, figure 1) has K = 2: L and then S partitions, P_1 is
    the paper's Pᵀ and P_2 its P.

    Attributes:
        channels: C_0, …, C_K.
        groups: G_1, …, G_K.
        permutations: P_1, …, P_K; entry c of P_k is the output of factor k that channel c is
            after it.
    """

    channels: tuple[int, ...]
    groups: tuple[int, ...]
    permutations: tuple[tuple[int, ...], ...]

    def partitions(self) -> tuple[int, ...]:
        """Return G_1, …, G_K, and G_1 once more for the result, which the next unit reads."""
        return (*self.groups, self.groups[0])

    def bundled(self) -> list[int]:
        """Return how many neighbouring partitions are taken together: K + 1 numbers."""
        return [-(-G // MOST_BUNDLES) for G in self.partitions()]

    def counts(self) -> list[np.ndarray]:
        """Return for each P_k its wires from each bundle of factor k to each of the next.

        Returns:
            K matrices, of at most 32 rows and columns; P_K leads to bundles of the result.
        """
        groups, sizes = self.partitions(), self.bundled()
        found = []
        for k, permutation in enumerate(self.permutations):
            C = self.channels[k + 1]
            left, right = (
                channels * groups[j] // C // sizes[j]
                for j, channels in ((k, np.array(permutation)), (k + 1, np.arange(C)))
            )
            shape = tuple(-(-groups[j] // sizes[j]) for j in (k, k + 1))
            matrix = np.zeros(shape, int)
            np.add.at(matrix, (left, right), 1)
            found.append(matrix)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return sizes, permutations, and the wires in bundles."""
        return {
            "channels": list(self.channels),
            "groups": list(self.groups),
            "permutations": [list(permutation) for permutation in self.permutations],
            "bundles": {
                "partitions": self.bundled(),
                "wires": [matrix.tolist() for matrix in self.counts()],
            },
        }


def wire(channels: Sequence[int], groups: Sequence[int]) -> Wiring:
    """Return the wiring of an interleaved product.

    Args:
        channels: C_0, …, C_K.
        groups: G_1, …, G_K; each is followed by Reorder(G_k).

    Raises:
        ShapeError: there are not as many groups as factors, or they do not divide the channels.
    """
    if not groups or len(channels) != len(groups) + 1:
        raise ShapeError(
            f"wiring: {len(channels)} channels and {len(groups)} groups; K factors have K + 1 "
            "channels and K groups"
        )
    for C, G in zip(channels, groups, strict=False):
        check_branches(C, G)
    permutations = tuple(
        tuple(permutation_index(C, G).tolist()) for C, G in zip(channels[1:], groups, strict=True)
    )
    return Wiring(tuple(channels), tuple(groups), permutations)
