"""Compiled softmax and cross-entropy against their definition."""

import numpy as np
import pytest
from vectors import every_case, without_compiler

from igcnn.conformance import oracles
from igcnn.training.metrics import count_hits

pytestmark = without_compiler
STEM = "softmax_cross_entropy"


def compute(case, z, labels, gradient=True, smoothing=0.0):
    """Return gz, losses and right answers."""
    N, K = z.shape
    gz = case.vectors(z.shape)
    losses, right = case.empty(N), case.empty(N)
    fields = {"z": case.put(z), "labels": labels.astype(np.int32), "K": K, "N": N}
    fields |= {"gz": gz if gradient else None, "losses": losses, "right": right}
    fields |= {"smoothing": smoothing}
    case.launch(STEM, STEM, case.jobs, [gz, losses, right], **fields, batch=case.batch)
    return gz, losses, right


@every_case
@pytest.mark.parametrize("K", [1, 2, 10, 33])
@pytest.mark.parametrize("size", [1, 30])
def test_against_the_definition(case, K, size):
    z = case.numbers(size * case.normal(case.N, K)).astype(float)
    labels = case.rng.integers(0, K, case.N)
    gz, losses, right = compute(case, z, labels)
    loss, gradient = oracles.cross_entropy(z, labels)
    exact = np.finfo(case.dtype).eps
    np.testing.assert_allclose(losses.mean(dtype=float), loss, rtol=8 * exact, atol=8 * exact)
    np.testing.assert_allclose(case.get(gz), gradient, rtol=0, atol=2 * exact)
    assert not case.unused(gz).any()
    assert right.sum() == count_hits(z, labels)
    unwanted, *same = compute(case, z, labels, gradient=False)
    assert np.isnan(unwanted).all()
    np.testing.assert_array_equal(same, [losses, right])


@every_case
@pytest.mark.parametrize("K", [1, 2, 10])
def test_label_smoothing(case, K):
    z = case.numbers(3 * case.normal(case.N, K)).astype(float)
    labels = case.rng.integers(0, K, case.N)
    gz, losses, right = compute(case, z, labels, smoothing=0.2)
    loss, gradient = oracles.cross_entropy(z, labels, 0.2)
    exact = np.finfo(case.dtype).eps
    np.testing.assert_allclose(losses.mean(dtype=float), loss, rtol=8 * exact, atol=8 * exact)
    np.testing.assert_allclose(case.get(gz), gradient, rtol=0, atol=2 * exact)
    assert not case.unused(gz).any()
    assert right.sum() == count_hits(z, labels)


@every_case
def test_exponentials(case):
    """Of two logits, x apart, the smaller one has the probability exp(x) / (1 + exp(x))."""
    exact = {"rtol": 4 * np.finfo(case.dtype).eps, "atol": np.finfo(case.dtype).tiny}
    xs = case.numbers([*np.linspace(-40, 0, 120), -87.3, -500, -1e4]).astype(float)
    for first in range(0, len(xs), max(case.N, 16)):
        x = np.resize(xs[first:], case.N)
        e = np.exp(x)
        z = np.stack([np.zeros(case.N), x], axis=1)
        gz, _, _ = compute(case, z, np.zeros(case.N, int))
        np.testing.assert_allclose(case.get(gz)[:, 1], e / (1 + e) / case.N, **exact)
        gz, losses, _ = compute(case, z, np.ones(case.N, int))
        np.testing.assert_allclose(losses, np.log1p(e) - x, **exact)
        np.testing.assert_allclose(case.get(gz)[:, 1], -1 / (1 + e) / case.N, **exact)


@every_case
def test_right_answers_of_ties_and_nan(case):
    values = [[0, 0, 0], [1, 1, 0], [0, 1, 1], [np.nan, 0, 1], [0, np.nan, 1], [-np.inf] * 3]
    z = np.array(values)[np.arange(case.N) % len(values)].astype(float)
    for label in range(3):
        labels = np.full(case.N, label)
        _, _, right = compute(case, z, labels)
        for n in range(case.N):
            assert right[n] == count_hits(z[n : n + 1], labels[n : n + 1])


@every_case
@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_logit_breaks_the_loss_of_its_image(case, column, value):
    z = case.normal(case.N, 3)
    z[-1, column] = value
    gz, losses, _ = compute(case, z, np.zeros(case.N, int))
    assert np.isnan(losses).tolist() == [n == case.N - 1 for n in range(case.N)]
    assert np.isnan(case.get(gz)[-1, column])
    assert np.isfinite(case.get(gz)[:-1]).all()


@every_case
def test_record_result(case):
    losses, right = case.normal(case.N), case.rng.integers(0, 2, case.N).astype(float)
    results = case.numbers(np.zeros((3, 2)))
    state = np.array([5, 1, 2, 3, 7], np.uint32)
    fields = {"losses": case.numbers(losses), "right": case.numbers(right)}
    fields |= {"results": results, "state": state, "N": case.N, "slots": 3}
    case.launch(STEM, "record_result", 1, [results, state], **fields)
    np.testing.assert_array_equal(state, [5 + case.N, 1, 2, 3, 8])
    expected = np.zeros((3, 2))
    expected[1] = losses.mean(), right.sum()
    np.testing.assert_allclose(results, expected, rtol=0, atol=case.tolerance)
