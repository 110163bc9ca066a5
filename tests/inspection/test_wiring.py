"""Wires of the permutations, against what the permutation kernel does to channels."""

import numpy as np
import pytest

from igcnn.errors import ShapeError
from igcnn.inspection.wiring import wire
from igcnn.kernels.permutation import permutation_forward

# channels in, channels out, L, secondary partitions
UNITS = [
    (6, 6, 2, 3),  # the paper's figure 1
    (48, 48, 24, 2),
    (12, 24, 6, 2),  # down-sampling of resnet_igc
    (5, 5, 5, 1),
    (5, 5, 1, 5),
    (400, 400, 100, 4),
]


@pytest.mark.parametrize("sizes", UNITS)
def test_wires_are_those_of_the_kernel(sizes):
    _, C_out, L, S = sizes
    channels = np.arange(C_out, dtype=np.float32).reshape(1, C_out, 1, 1)
    wiring = wire(*sizes)
    for wires, branches in ((wiring.interleave, L), (wiring.restore, S)):
        assert list(wires) == permutation_forward(channels, branches).ravel().tolist()


@pytest.mark.parametrize("sizes", UNITS)
def test_ways_from_every_input_to_every_output(sizes):
    """Counted by products of 0-1 matrices, as a graph has them."""
    C_in, C_out, L, S = sizes
    wiring = wire(*sizes)
    primary = np.kron(np.eye(L), np.ones((C_out // L, C_in // L)))
    interleave = np.eye(C_out)[list(wiring.interleave)]
    secondary = np.kron(np.eye(S), np.ones((C_out // S, C_out // S)))
    restore = np.eye(C_out)[list(wiring.restore)]
    ways = restore @ secondary @ interleave @ primary
    np.testing.assert_array_equal(ways, C_out // S // L)


def test_the_papers_first_picture():
    wiring = wire(6, 6, 2, 3)
    # secondary partition m holds the m-th channel of both primary ones
    assert wiring.interleave == (0, 3, 1, 4, 2, 5)
    assert wiring.restore == (0, 2, 4, 1, 3, 5)


@pytest.mark.parametrize("sizes", [*UNITS, (3328, 3328, 1664, 2), (3328, 3328, 52, 64)])
def test_bundles_hold_every_wire_once(sizes):
    _, C_out, L, S = sizes
    bundles = wire(*sizes).bundles()
    wires, back = np.array(bundles["wires"]), np.array(bundles["back"])
    assert wires.sum() == back.sum() == C_out
    assert max(wires.shape) <= 32
    whole = bundles["primary"] * (C_out // L)
    assert set(wires.sum(axis=1)[:-1].tolist()) <= {whole}
    assert set(back.sum(axis=0)[:-1].tolist()) <= {whole}
    assert wires.shape == (-(-L // bundles["primary"]), -(-S // bundles["secondary"]))


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(ShapeError):
        wire(7, 6, 2, 3)
