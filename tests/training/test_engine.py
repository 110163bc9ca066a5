"""The plain tape as an engine."""

import numpy as np
import pytest

from igcnn.optim import SGD
from igcnn.training import TapeEngine


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_step_after_a_loss_that_is_not_finite(small_network, value):
    optimizer = SGD(small_network.named_parameters(), lr=0.1)
    engine = TapeEngine(small_network)
    engine.prepare(optimizer, loader=None)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((4, 3, 8, 8)).astype(np.float32), np.arange(4)
    engine.update((x, labels))
    before = {name: p.data.copy() for name, p in small_network.named_parameters()}
    velocity = [v.copy() for v in optimizer.velocity]
    x[0, 0, 0, 0] = value
    with np.errstate(invalid="ignore"):
        engine.update((x, labels))
    losses = [loss for loss, _ in engine.collect(wait=True)]
    assert np.isfinite(losses).tolist() == [True, False]
    for name, parameter in small_network.named_parameters():
        np.testing.assert_array_equal(parameter.data, before[name])
    for array, kept in zip(optimizer.velocity, velocity, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_the_loss_is_that_of_smoothed_labels(small_network):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((4, 3, 8, 8)).astype(np.float32), np.arange(4)
    loss, _ = TapeEngine(small_network, label_smoothing=0.2).step(x, labels)
    z = small_network(x).data.astype(float)
    log_softmax = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    targets = 0.8 * np.eye(10)[labels] + 0.02
    assert loss == pytest.approx(-(targets * log_softmax).sum(axis=1).mean(), rel=1e-5)
