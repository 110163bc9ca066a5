"""The permutations of interleaved group convolutions as wires between their partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..kernels.permutation import check_branches, permutation_index

MOST_BUNDLES = 32  # of partitions, where single channels are too many to draw


@dataclass(frozen=True)
class ProductWiring:
    """Who is connected to whom in an interleaved product of K factors.

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


@dataclass(frozen=True)
class Wiring:
    """Who is connected to whom in a unit (paper, figure 1).

    Attributes:
        C_in: channels of the input.
        C_out: channels of the output.
        L: primary partitions.
        secondary_groups: secondary partitions.
        interleave: P^T; entry r is the primary output that secondary input r reads.
        restore: P; entry c is the secondary output that channel c of the result is.
    """

    C_in: int
    C_out: int
    L: int
    secondary_groups: int
    interleave: tuple[int, ...]
    restore: tuple[int, ...]

    def bundles(self) -> dict[str, Any]:
        """Return the wires between partitions, counted.

        Neighbouring partitions are taken together where there are more than 32: "primary" and
        "secondary" are the partitions in a bundle, "wires" the number from each primary to each
        secondary bundle, "back" the number from each secondary to each partition of the result.
        """
        product = wire_product(
            [self.C_in, self.C_out, self.C_out], [self.L, self.secondary_groups]
        )
        (primary, secondary, _), (wires, back) = product.bundled(), product.counts()
        return {
            "primary": primary,
            "secondary": secondary,
            "wires": wires.tolist(),
            "back": back.tolist(),
        }

    def to_json(self) -> dict[str, Any]:
        """Return sizes, both permutations, and the wires in bundles."""
        return {
            "C_in": self.C_in,
            "C_out": self.C_out,
            "L": self.L,
            "secondary_groups": self.secondary_groups,
            "interleave": list(self.interleave),
            "restore": list(self.restore),
            "bundles": self.bundles(),
        }


def wire(C_in: int, C_out: int, L: int, secondary_groups: int) -> Wiring:
    """Return the wiring of a unit.

    Raises:
        ShapeError: the channels do not divide into the partitions.
    """
    check_branches(C_in, L)
    interleave, restore = (
        tuple(permutation_index(C_out, branches).tolist()) for branches in (L, secondary_groups)
    )
    return Wiring(C_in, C_out, L, secondary_groups, interleave, restore)


def wire_product(channels: Sequence[int], groups: Sequence[int]) -> ProductWiring:
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
    return ProductWiring(tuple(channels), tuple(groups), permutations)
