"""The mix of an interleaved group convolution, its steps, and the kernel they compose."""

import numpy as np
import pytest

from igcnn.conformance import oracles
from igcnn.errors import DtypeError, ShapeError
from igcnn.kernels.convolution import convolution_forward
from igcnn.kernels.interleaved_group_convolution import (
    mix_backward_input,
    mix_backward_weight,
    mix_forward,
)

# C, L, secondary groups: paper's units, L = 1, M = 1, the down-sampling unit, odd ones
CASES = [(6, 2, 3), (6, 3, 2), (6, 1, 6), (6, 6, 1), (12, 2, 3), (8, 2, 2), (12, 3, 1), (6, 2, 6)]


def make(C, S, H=3, W=5, N=2):
    rng = np.random.default_rng(0)
    p, gy = rng.standard_normal((2, N, C, H, W))
    return p, rng.standard_normal((C, C // S, 1, 1)), gy


@pytest.mark.parametrize(("C", "L", "S"), CASES)
def test_forward_is_its_steps(C, L, S):
    p, w2, _ = make(C, S)
    expected = oracles.mix(p, w2, L, S)
    np.testing.assert_allclose(mix_forward(p, w2, L, S), expected, rtol=0, atol=1e-12)
    planes = np.ascontiguousarray(p.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(mix_forward(planes, w2, L, S), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("C", "L", "S"), CASES)
def test_backward_is_that_of_its_steps(C, L, S):
    p, w2, gy = make(C, S)
    permuted = oracles.permute(p, L)
    gx, gw2 = oracles.convolution_gradients(oracles.permute(gy, C // S), permuted, w2, groups=S)
    gp = mix_backward_input(gy, w2, L, S)
    np.testing.assert_allclose(gp, oracles.permute(gx, C // L), rtol=0, atol=1e-12)
    result = mix_backward_weight(gy, p, w2.shape, L, S)
    np.testing.assert_allclose(result, gw2, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("L", "M"), [(2, 3), (3, 2), (1, 4), (4, 1), (5, 3)])
def test_a_unit_equals_one_dense_convolution(L, M):
    """Paper, section 3; also for L = 1, a dense convolution, and for M = 1, Xception."""
    rng = np.random.default_rng(0)
    C = L * M
    x = rng.standard_normal((2, C, 5, 4))
    w1 = rng.standard_normal((C, M, 3, 3))
    w2 = rng.standard_normal((C, L, 1, 1))
    y = mix_forward(convolution_forward(x, w1, 1, 1, L), w2, L, M)
    dense = oracles.convolution(x, oracles.composed_kernel(w1, w2, L), 1, 1)
    np.testing.assert_allclose(y, dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("L", "S", "shape", "message"),
    [
        (4, 3, (6, 2, 1, 1), "6 channels .* L = 4"),
        (2, 4, (6, 2, 1, 1), "4 secondary groups; C/L = 3"),
        (2, 3, (6, 3, 1, 1), r"shape \(6, 3, 1, 1\), but 6 channels in 3 groups take \(6, 2"),
    ],
)
def test_what_does_not_fit_is_named(L, S, shape, message):
    with pytest.raises(ShapeError, match=message):
        mix_forward(np.zeros((1, 6, 2, 2)), np.zeros(shape), L, S)


def test_element_types_are_not_mixed():
    with pytest.raises(DtypeError, match="float32, float64"):
        mix_forward(np.zeros((1, 6, 2, 2)), np.zeros((6, 2, 1, 1), np.float32), 2, 3)
