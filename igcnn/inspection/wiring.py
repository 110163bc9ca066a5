"""The permutations of an interleaved group convolution as wires between its partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.permutation import check_branches, permutation_index

MOST_BUNDLES = 32  # of partitions, where single channels are too many to draw


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
        per_primary = -(-self.L // MOST_BUNDLES)
        per_secondary = -(-self.secondary_groups // MOST_BUNDLES)
        channels = np.arange(self.C_out)

        def primary(c: np.ndarray) -> np.ndarray:
            return c // (self.C_out // self.L) // per_primary

        def secondary(c: np.ndarray) -> np.ndarray:
            return c // (self.C_out // self.secondary_groups) // per_secondary

        A, B = -(-self.L // per_primary), -(-self.secondary_groups // per_secondary)
        wires, back = np.zeros((A, B), int), np.zeros((B, A), int)
        np.add.at(wires, (primary(np.array(self.interleave)), secondary(channels)), 1)
        np.add.at(back, (secondary(np.array(self.restore)), primary(channels)), 1)
        return {
            "primary": per_primary,
            "secondary": per_secondary,
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
