"""batch_norm: gradients in training and evaluation, running statistics."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.backend import to_device
from igcnn.errors import ConfigError, DeviceError, DtypeError, ShapeError
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


def test_the_gradient_of_an_evaluation_is_by_the_statistics_that_it_used():
    *tensors, mean, var = inputs()
    gy = np.random.default_rng(1).standard_normal(tensors[0].shape)
    gradients = []
    for moved in (False, True):
        y = batch_norm(*tensors, mean, var, False)
        if moved:
            batch_norm(Tensor(5 + 3 * tensors[0].data), *tensors[1:], mean, var, True, 0.0)
        y.backward(gy)
        gradients.append([t.grad for t in tensors])
        for tensor in tensors:
            tensor.grad = None
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 2, 0, 3)])
def test_an_empty_batch_leaves_the_statistics_as_they_are(shape):
    _, gamma, beta, mean, var = inputs()
    before = mean.copy(), var.copy()
    y = batch_norm(Tensor(np.ones(shape), requires_grad=True), gamma, beta, mean, var, True)
    y.backward(np.ones(shape))
    assert y.shape == shape
    np.testing.assert_array_equal([mean, var], before)
    np.testing.assert_array_equal([gamma.grad, beta.grad], 0)


@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_constants_of_numpy_leave_float32_arithmetic(number):
    arrays = [np.ones(2, np.float32) for _ in range(4)]
    x = Tensor(np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(np.float32))
    y = batch_norm(x, *map(Tensor, arrays[:2]), *arrays[2:], True, number(0.9), number(2e-5))
    assert y.dtype == np.float32
    layer = BatchNorm(np.int64(2), number(0.9), number(2e-5))
    np.testing.assert_allclose(layer(x).data + 1, y.data, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("which", [3, 4])
@pytest.mark.parametrize(
    ("statistic", "error", "message"),
    [
        (None, ShapeError, r"running_\w+ must be an array of shape \(2,\), not NoneType"),
        ([0.0, 0.0], ShapeError, r"must be an array of shape \(2,\), not list"),
        (np.zeros((2, 2)), ShapeError, r"takes running_\w+ of shape \(2,\), not \(2, 2\)"),
        (np.zeros((1, 2)), ShapeError, r"not \(1, 2\)"),
        (np.zeros(()), ShapeError, r"not \(\)"),
        (np.zeros(2, np.float32), DtypeError, "not float32, float64"),
        (np.zeros(2, int), DtypeError, "not float64, int64"),
        (to_device(np.zeros(2), "emu"), DeviceError, "one device, not on cpu and emu"),
    ],
)
def test_statistics_that_do_not_fit(statistic, error, message, which, training):
    arguments = list(inputs())
    arguments[which] = statistic
    kept = arguments[7 - which].copy()
    with pytest.raises(error, match=message):
        batch_norm(*arguments, training)
    np.testing.assert_array_equal(arguments[7 - which], kept)


def test_errors():
    x, gamma, beta, mean, var = inputs()
    with pytest.raises(ShapeError, match=r"x must be \(N, C, H, W\)"):
        batch_norm(Tensor(np.ones((2, 2))), gamma, beta, mean, var, True)
    with pytest.raises(
        ShapeError, match=r"\(3, 2, 4, 5\) takes gamma of shape \(2,\), not \(3,\)"
    ):
        batch_norm(x, Tensor(np.ones(3)), beta, mean, var, True)
    with pytest.raises(ShapeError, match=r"looks like \(N, H, W, C\)"):
        BatchNorm(5, dtype="float64")(x)
    var.flags.writeable = False
    with pytest.raises(ConfigError, match="running_var is read-only"):
        batch_norm(x, gamma, beta, mean, var, True)
    batch_norm(x, gamma, beta, mean, var, False)
    with pytest.raises(ShapeError, match="channels must be an integer ≥ 1"):
        BatchNorm(2.0)
    for settings in ({"momentum": 1.1}, {"momentum": None}, {"momentum": True}, {"eps": -1e-5}):
        with pytest.raises(ConfigError, match=f"{next(iter(settings))} must be a "):
            BatchNorm(2, **settings)
        with pytest.raises(ConfigError, match=f"{next(iter(settings))} must be a "):
            batch_norm(x, gamma, beta, mean, var, False, **settings)
