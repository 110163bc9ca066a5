"""Batch norm against its definition."""

import numpy as np
import oracles
import pytest

from igcnn.errors import DtypeError, ShapeError
from igcnn.kernels.batch_norm import (
    batch_norm_backward_evaluation,
    batch_norm_backward_training,
    batch_norm_forward_evaluation,
    batch_norm_forward_training,
)

EPS = 2e-5
SHAPES = [(1, 1, 2, 1), (1, 3, 7, 5), (4, 2, 3, 3), (3, 5, 1, 1)]


def make(shape):
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal((2, *shape))
    gamma, beta = rng.standard_normal((2, shape[1]))
    return 2 * x + 1, gy, gamma, beta


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["NCHW", "CHWN"])
def test_training(shape, order):
    x, gy, gamma, beta = make(shape)
    expected, mean, variance = oracles.batch_norm(x, gamma, beta, EPS)
    gradients = oracles.batch_norm_gradients(gy, x, gamma, EPS)
    if order == "CHWN":
        x, gy = (
            np.ascontiguousarray(a.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2) for a in (x, gy)
        )
    y, centred, got_mean, got_variance = batch_norm_forward_training(x, gamma, beta, EPS)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got_mean, mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got_variance, variance, rtol=0, atol=1e-12)
    results = batch_norm_backward_training(gy, centred, got_variance, gamma, EPS)
    for result, wanted in zip(results, gradients, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation(shape):
    x, gy, gamma, beta = make(shape)
    rng = np.random.default_rng(1)
    mean, variance = rng.standard_normal(shape[1]), rng.uniform(0.5, 2, shape[1])
    y = batch_norm_forward_evaluation(x, gamma, beta, mean, variance, EPS)
    gx, ggamma, gbeta = batch_norm_backward_evaluation(gy, x, gamma, mean, variance, EPS)
    for c in range(shape[1]):
        inverse = 1 / np.sqrt(variance[c] + EPS)
        normalised = (x[:, c] - mean[c]) * inverse
        np.testing.assert_allclose(y[:, c], gamma[c] * normalised + beta[c], rtol=0, atol=1e-12)
        np.testing.assert_allclose(gx[:, c], gy[:, c] * gamma[c] * inverse, rtol=0, atol=1e-12)
        assert ggamma[c] == pytest.approx((gy[:, c] * normalised).sum(), abs=1e-11)
        assert gbeta[c] == pytest.approx(gy[:, c].sum(), abs=1e-11)


def test_a_large_mean_costs_no_digits():
    """A variance from Σx² would have none left here."""
    rng = np.random.default_rng(0)
    x = (1e4 + rng.standard_normal((16, 2, 8, 8))).astype(np.float32)
    one, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
    y, _, _, variance = batch_norm_forward_training(x, one, zero, EPS)
    exact, _, expected = oracles.batch_norm(x, one, zero, EPS)
    np.testing.assert_allclose(variance, expected, rtol=1e-3)
    np.testing.assert_allclose(y, exact, rtol=0, atol=5e-3)


def test_the_gradient_is_orthogonal_to_what_normalising_removes():
    x, gy, gamma, beta = make((4, 3, 5, 5))
    _, centred, _, variance = batch_norm_forward_training(x, gamma, beta, 0.0)
    gx, _, _ = batch_norm_backward_training(gy, centred, variance, gamma, 0.0)
    np.testing.assert_allclose(gx.sum(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose((gx * centred).sum(axis=(0, 2, 3)), 0, atol=1e-11)


def test_a_constant_channel_gives_beta():
    x = np.full((2, 1, 3, 3), 7.0)
    y, *_ = batch_norm_forward_training(x, np.array([3.0]), np.array([-2.0]), EPS)
    np.testing.assert_array_equal(y, -2.0)


def test_what_does_not_fit_is_named():
    x, c = np.zeros((2, 3, 4, 4)), np.zeros(3)
    with pytest.raises(ShapeError, match=r"\(2, 3, 4, 4\), \(2,\) and \(3,\)"):
        batch_norm_forward_training(x, np.zeros(2), c, EPS)
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        batch_norm_forward_training(np.zeros(3), c, c, EPS)
    with pytest.raises(DtypeError, match="float32, float64"):
        batch_norm_forward_training(x, c.astype(np.float32), c, EPS)
