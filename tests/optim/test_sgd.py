import numpy as np
import pytest

from igcnn import Tensor
from igcnn.errors import AutogradError, ConfigError
from igcnn.optim import SGD


def test_two_steps_by_hand():
    # d = 1 + 0.5·2 = 2, v = 2, w = 2 − 0.1·(2 + 0.5·2) = 1.7
    # d = 1 + 0.5·1.7 = 1.85, v = 0.5·2 + 1.85 = 2.85, w = 1.7 − 0.1·(1.85 + 0.5·2.85) = 1.3725
    w = Tensor(np.array([2.0]), requires_grad=True)
    optimizer = SGD([w], lr=0.1, momentum=0.5, weight_decay=0.5)
    for expected in (1.7, 1.3725):
        w.grad = np.array([1.0])
        optimizer.step()
        assert w.data[0] == pytest.approx(expected, abs=1e-14)
    assert optimizer.velocity[0][0] == pytest.approx(2.85, abs=1e-14)


def test_decay_acts_on_every_parameter():
    names = ["g0_conv_weight", "g0_bn_gamma", "g0_bn_beta", "fc_bias"]
    parameters = [(name, Tensor(np.ones(2), requires_grad=True)) for name in names]
    optimizer = SGD(parameters, lr=1.0, momentum=0.0, weight_decay=0.25)
    for _, tensor in parameters:
        tensor.grad = np.zeros(2)
    optimizer.step()
    for _, tensor in parameters:
        np.testing.assert_array_equal(tensor.data, 0.75)


def test_a_numpy_learning_rate_leaves_float32_arithmetic():
    steps = []
    for lr in (0.1, np.float64(0.1)):
        w = Tensor(np.full(5, 1 / 3, np.float32), requires_grad=True)
        optimizer = SGD([w], lr=lr)
        w.grad = np.full(5, 0.7, np.float32)
        optimizer.step()
        steps.append(w.data)
    np.testing.assert_array_equal(*steps)


def test_a_missing_gradient_is_named_and_nothing_changes():
    a, b = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    a.grad = np.ones(2)
    optimizer = SGD([("a", a), ("b", b)], lr=0.1)
    with pytest.raises(AutogradError, match="b has no gradient"):
        optimizer.step()
    np.testing.assert_array_equal(a.data, 1)


def test_zero_grad():
    w = Tensor(np.ones(2), requires_grad=True)
    w.grad = np.ones(2)
    SGD([w], lr=0.1).zero_grad()
    assert w.grad is None


@pytest.mark.parametrize(
    "constants",
    [{"lr": -1}, {"lr": float("nan")}, {"momentum": 1.0}, {"weight_decay": float("inf")}],
)
def test_constants_out_of_range(constants):
    w = Tensor(np.ones(2), requires_grad=True)
    with pytest.raises(ConfigError, match=next(iter(constants))):
        SGD([w], **{"lr": 0.1, **constants})


def test_no_parameters_or_one_twice():
    w = Tensor(np.ones(2), requires_grad=True)
    with pytest.raises(ConfigError, match="no parameters"):
        SGD([], lr=0.1)
    with pytest.raises(ConfigError, match="twice"):
        SGD([w, w], lr=0.1)
