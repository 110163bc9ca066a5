"""Reorder(b): a permutation of channels."""

import numpy as np
import pytest

from igcnn.conformance import oracles
from igcnn.errors import ShapeError
from igcnn.kernels.permutation import (
    permutation_backward,
    permutation_forward,
    permutation_index,
)

CASES = [(1, 1), (6, 1), (6, 2), (6, 3), (6, 6), (48, 24), (30, 5)]


@pytest.mark.parametrize(("channels", "branches"), CASES)
def test_against_dealing_channel_by_channel(channels, branches):
    x = np.random.default_rng(0).standard_normal((2, channels, 3, 2))
    y = permutation_forward(x, branches)
    np.testing.assert_array_equal(y, oracles.permute(x, branches))
    np.testing.assert_array_equal(y, x[:, permutation_index(channels, branches)])


@pytest.mark.parametrize(("channels", "branches"), CASES)
def test_backward_is_the_inverse_and_the_adjoint(channels, branches):
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal((2, 1, channels, 2, 3))
    y = permutation_forward(x, branches)
    np.testing.assert_array_equal(permutation_backward(y, branches), x)
    gx = permutation_backward(gy, branches)
    assert np.vdot(y, gy) == pytest.approx(np.vdot(x, gx), rel=1e-12)


def test_the_papers_example():
    """L = 2 partitions of M = 3: channels 1 2 3 | 4 5 6 become 1 4 | 2 5 | 3 6."""
    x = np.arange(1.0, 7).reshape(1, 6, 1, 1)
    assert permutation_forward(x, 2).ravel().tolist() == [1, 4, 2, 5, 3, 6]


@pytest.mark.parametrize("branches", [4, 7])
def test_branches_must_divide_the_channels(branches):
    for function in (permutation_forward, permutation_backward):
        with pytest.raises(ShapeError, match=rf"6 channels do not divide into {branches} "):
            function(np.zeros((1, 6, 2, 2)), branches)
