"""Softmax cross-entropy against exact sums."""

import math

import numpy as np
import pytest

from igcnn.conformance import oracles
from igcnn.errors import DtypeError, ShapeError
from igcnn.kernels.softmax_cross_entropy import (
    softmax_cross_entropy_backward,
    softmax_cross_entropy_forward,
)


@pytest.mark.parametrize(("N", "K"), [(1, 1), (1, 10), (7, 3)])
@pytest.mark.parametrize("label_type", [np.int64, np.uint8])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_against_the_definition(N, K, label_type, smoothing):
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((N, K))
    labels = rng.integers(0, K, N).astype(label_type)
    loss, gradient = oracles.cross_entropy(logits, labels, smoothing)
    got, probabilities = softmax_cross_entropy_forward(logits, labels, smoothing)
    assert got.shape == ()
    assert got == pytest.approx(loss, abs=1e-13)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-14)
    got = softmax_cross_entropy_backward(np.array(-2.5), probabilities, labels, smoothing)
    np.testing.assert_allclose(got, -2.5 * gradient, rtol=0, atol=1e-13)


def test_large_logits_do_not_overflow():
    logits = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], np.float32)
    labels = np.array([1, 2])
    loss, probabilities = softmax_cross_entropy_forward(logits, labels)
    assert loss == pytest.approx((2e4 + math.log(3)) / 2, rel=1e-6)
    assert np.isfinite(softmax_cross_entropy_backward(loss, probabilities, labels)).all()


def test_k_equal_logits_lose_log_k():
    loss, _ = softmax_cross_entropy_forward(np.full((4, 7), 3.25), np.arange(4))
    assert loss == pytest.approx(math.log(7), abs=1e-14)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ((2, 3), [0, 3], "from 0 to 3, but logits have 3 classes"),
        ((2, 3), [-1, 0], "from 0 to 2, not -1; there is no ignored label"),
        ((2, 3), [0], r"\(2, 3\) and \(1,\)"),
        ((0, 3), [], "N ≥ 1"),
        ((2, 3, 1), [0, 0], r"\(2, 3, 1\)"),
    ],
)
def test_what_does_not_fit_is_named(logits, labels, message):
    with pytest.raises(ShapeError, match=message):
        softmax_cross_entropy_forward(np.zeros(logits), np.array(labels, np.int64))


def test_labels_are_integers():
    with pytest.raises(DtypeError, match="float64"):
        softmax_cross_entropy_forward(np.zeros((2, 3)), np.zeros(2))
