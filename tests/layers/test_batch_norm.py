"""batch_norm: gradients in training and evaluation, running statistics."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.errors import ShapeError
from igcnn.functional import batch_norm
from igcnn.layers import BatchNorm


def inputs(shape=(3, 2, 4, 5)):
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal(shape) * 3 + 2, requires_grad=True)
    gamma = Tensor(rng.standard_normal(shape[1]), requires_grad=True)
    beta = Tensor(rng.standard_normal(shape[1]), requires_grad=True)
    return x, gamma, beta, rng.standard_normal(shape[1]), rng.uniform(0.5, 2, shape[1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (1, 3, 7, 5), (4, 2, 1, 1)])
def test_gradients(training, shape):
    *tensors, mean, var = inputs(shape)

    def function(x, gamma, beta):
        return batch_norm(x, gamma, beta, mean.copy(), var.copy(), training, 0.9, 2e-5)

    assert gradcheck(function, tensors).worst_error < 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_a_dropped_term_of_the_gradient_is_noticed(training, monkeypatch):
    """The check of the check: without the gradient through the mean it must fail."""
    from igcnn.layers import batch_norm as module

    name = f"batch_norm_backward_{'training' if training else 'evaluation'}"
    right = getattr(module, name)

    def wrong(gy, *arguments):
        gx, ggamma, gbeta = right(gy, *arguments)
        return gx + 1e-3 * gy.mean(axis=(0, 2, 3), keepdims=True), ggamma, gbeta

    monkeypatch.setattr(module, name, wrong)
    *tensors, mean, var = inputs()
    report = gradcheck(
        lambda x, g, b: batch_norm(x, g, b, mean.copy(), var.copy(), training, 0.9, 2e-5),
        tensors,
        raise_exception=False,
    )
    assert not report
    assert report.worst_input == 0


def test_running_statistics_follow_mxnet():
    x, gamma, beta, mean, var = inputs()
    before = mean.copy(), var.copy()
    batch_norm(x, gamma, beta, mean, var, True, 0.9, 2e-5)
    np.testing.assert_allclose(mean, 0.9 * before[0] + 0.1 * x.data.mean((0, 2, 3)))
    np.testing.assert_allclose(var, 0.9 * before[1] + 0.1 * x.data.var((0, 2, 3)))


def test_evaluation_uses_and_keeps_the_running_statistics():
    x, gamma, beta, mean, var = inputs()
    before = mean.copy(), var.copy()
    y = batch_norm(x, gamma, beta, mean, var, False, 0.9, 2e-5)
    np.testing.assert_array_equal(mean, before[0])
    np.testing.assert_array_equal(var, before[1])
    shape = (1, 2, 1, 1)
    normalised = (x.data - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 2e-5)
    expected = normalised * gamma.data.reshape(shape) + beta.data.reshape(shape)
    np.testing.assert_allclose(y.data, expected, atol=1e-12)


def test_layer_switches_with_train_and_eval():
    layer = BatchNorm(2, momentum=0.5)
    x = Tensor(np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32))
    y = layer(x)
    np.testing.assert_allclose(y.data.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, 0.5 * x.data.mean((0, 2, 3)), rtol=1e-5)
    assert [name for name, _ in layer.named_buffers()] == ["moving_mean", "moving_var"]
    layer.eval()
    assert np.abs(layer(x).data - y.data).max() > 0.01


def test_errors():
    x, gamma, beta, mean, var = inputs()
    with pytest.raises(ShapeError, match=r"x must be \(N, C, H, W\)"):
        batch_norm(Tensor(np.ones((2, 2))), gamma, beta, mean, var, True)
    with pytest.raises(ShapeError, match=r"\(3, 2, 4, 5\), \(3,\)"):
        batch_norm(x, Tensor(np.ones(3)), beta, mean, var, True)
