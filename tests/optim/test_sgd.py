from fractions import Fraction

import numpy as np
import pytest

from igcnn import Tensor
from igcnn.backend import to_device
from igcnn.errors import AutogradError, CheckpointError, ConfigError, DeviceError, IgcnnError
from igcnn.layers import Chain, Linear
from igcnn.optim import SGD


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


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
        rng = np.random.default_rng(0)  # of 1,000 numbers some are rounded otherwise in float64
        w, gradient = rng.standard_normal((2, 1000)).astype(np.float32)
        w = Tensor(w, requires_grad=True)
        optimizer = SGD([w], lr=lr)
        w.grad = gradient
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


# what keeps the second of two parameters from a step, and what is said
BAD = [
    (lambda b, o: setattr(b, "grad", None), AutogradError, "b has no gradient"),
    (lambda b, o: setattr(b, "grad", [1.0, 1.0]), AutogradError, "gradient of b is list"),
    (lambda b, o: setattr(b, "grad", 1.0), AutogradError, "gradient of b is float"),
    (lambda b, o: setattr(b, "grad", Tensor([1.0, 1])), AutogradError, "gradient of b is Tensor"),
    (lambda b, o: setattr(b, "requires_grad", False), AutogradError, "b requires no gradient"),
    (lambda b, o: setattr(b, "grad", np.ones(3, "f4")), IgcnnError, r"gradient of b has .*\(3,\)"),
    (lambda b, o: setattr(b, "grad", np.ones((), "f4")), IgcnnError, r"gradient of b has .*\(\)"),
    (lambda b, o: setattr(b, "grad", np.ones(2)), IgcnnError, "gradient of b is float64, but"),
    (lambda b, o: setattr(b, "grad", np.ones(2, int)), IgcnnError, "gradient of b is int64"),
    (lambda b, o: setattr(b, "grad", to_device(b.grad, "emu")), DeviceError, "of b is on emu"),
    (lambda b, o: setattr(b, "data", np.ones(3, "f4")), IgcnnError, "gradient of b has shape"),
    (lambda b, o: b.data.setflags(write=False), AutogradError, "b is read-only"),
    (lambda b, o: o.to("emu"), DeviceError, "velocity of a is on emu, but the parameter on cpu"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "error", "message"), BAD)
def test_a_step_that_one_parameter_does_not_allow_changes_none(spoil, error, message):
    a, b = leaf(1, 1, dtype=np.float32), leaf(2, 2, dtype=np.float32)
    optimizer = SGD([("a", a), ("b", b)], lr=0.1)
    a.grad, b.grad = np.ones(2, np.float32), np.ones(2, np.float32)
    spoil(b, optimizer)
    velocity = [v.copy() for v in optimizer.velocity]
    with pytest.raises(error, match=message):
        optimizer.step()
    np.testing.assert_array_equal(a.data, 1)
    for v, before in zip(optimizer.velocity, velocity, strict=True):
        np.testing.assert_array_equal(v, before)


@pytest.mark.parametrize("clip", ["in place", "anew"])
def test_gradients_may_be_clipped(clip):
    w = leaf(1, 1)
    w.grad = np.array([3.0, 4])
    if clip == "anew":
        w.grad = w.grad * 0.5
    else:
        w.grad *= 0.5
    SGD([w], lr=1, momentum=0, weight_decay=0).step()
    np.testing.assert_array_equal(w.data, [-0.5, -1])


WRONG = [
    *({"lr": x} for x in (-1, float("nan"), float("inf"), "0.1", None, True, 1j, 10**400)),
    *({"lr": x} for x in (np.bool_(True), np.float32("nan"), [0.1], np.array([0.1]))),
    *({"momentum": x} for x in (1.0, np.float64(1), -0.1, "0.9", float("nan"))),
    *({"weight_decay": x} for x in (float("inf"), -1e-4, None, False)),
    *({"nesterov": x} for x in (None, "no", 1, 0.0)),
]


@pytest.mark.parametrize("constant", WRONG, ids=str)
def test_a_constant_out_of_range_is_refused_whenever_it_is_set(constant):
    ((name, value),) = constant.items()
    with pytest.raises(ConfigError, match=f"SGD: {name} must be"):
        SGD([leaf(1)], **{"lr": 0.1, **constant})
    optimizer = SGD([leaf(1)], lr=0.1)
    before = optimizer.state_dict()
    with pytest.raises(ConfigError, match=f"SGD: {name} must be"):
        setattr(optimizer, name, value)
    assert optimizer.state_dict() == before


def test_numbers_of_every_kind_become_floats():
    optimizer = SGD([leaf(1)], lr=np.float32(0.5), momentum=0, weight_decay=Fraction(1, 4))
    optimizer.momentum = np.int64(0)
    optimizer.nesterov = np.False_
    found = [optimizer.lr, optimizer.momentum, optimizer.weight_decay]
    assert found == [0.5, 0, 0.25]
    assert {type(x) for x in found} == {float}
    assert optimizer.nesterov is False


def test_parameters_that_are_none():
    w = leaf(1, 1)
    network = Linear(2, 2, rng=np.random.default_rng(0))
    for parameters, message in (
        ([], "no parameters"),
        ([w, w], "parameter 1 is given twice"),
        ([("a", w), ("b", w)], "b is given twice"),
        ([("a", w), ("a", leaf(1))], "name 'a' is given twice"),
        (w, "not Tensor; give network.named_parameters"),
        (network, "not Linear"),
        (dict(network.named_parameters()), "not dict"),
        ([np.ones(2)], "parameter 0 is ndarray"),
        (["ab"], "parameter 0 is str"),
        ([("a", np.ones(2))], "parameter 0 is tuple"),
    ):
        with pytest.raises(ConfigError, match=message):
            SGD(parameters, lr=0.1)


def test_equal_names_of_layers_outside_a_network_are_told_apart():
    rng = np.random.default_rng(0)
    layers = [Linear(2, 2, rng=rng) for _ in range(2)]
    optimizer = SGD([x for layer in layers for x in layer.parameters()], lr=0.1)
    assert optimizer.names == [f"parameter {i}" for i in range(4)]
    assert SGD(layers[0].parameters(), lr=0.1).names == ["weight", "bias"]


# -- state


def trained(device="cpu"):
    rng = np.random.default_rng(0)
    network = Chain({"a": Linear(2, 2, rng=rng), "b": Linear(2, 2, rng=rng)}).to(device)
    optimizer = SGD(network.named_parameters(), lr=0.1, momentum=0.5, nesterov=False)
    step(network, optimizer)
    return network, optimizer


def step(network, optimizer):
    network.zero_grad()
    like = network.parameters()[0]
    x = to_device(np.ones((3, 2), np.float32), like.device)
    network(x).backward(np.ones((3, 2), np.float32))
    optimizer.step()


@pytest.mark.parametrize("device", ["cpu", "emu"])
def test_a_state_goes_on_with_the_same_bits(device):
    network, optimizer = trained(device)
    state, weights = optimizer.state_dict(), network.state_dict()
    step(network, optimizer)
    assert state["velocity"]["a_weight"].any()  # a copy, of before the step
    other, fresh = trained()
    other.load_state_dict(weights)
    fresh = SGD(other.named_parameters(), lr=1)
    fresh.load_state_dict(state)
    assert (fresh.lr, fresh.momentum, fresh.weight_decay, fresh.nesterov) == (
        0.1,
        0.5,
        1e-4,
        False,
    )
    other.to(device)
    fresh.to(device)
    step(other, fresh)
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("lr"), CheckpointError, "keys lr, momentum, .*, not momentum"),
        (lambda s: s.update(beta=1), CheckpointError, "keys"),
        (lambda s: s.update(lr=-1), ConfigError, "lr must be"),
        (lambda s: s.update(nesterov="yes"), ConfigError, "nesterov must be"),
        (lambda s: s.update(velocity=None), CheckpointError, "maps names to arrays"),
        (lambda s: s["velocity"].pop("b_bias"), CheckpointError, "velocities: missing: b_bias"),
        (lambda s: s["velocity"].update(x=1), CheckpointError, "not in the optimizer's .*: x"),
        (lambda s: s["velocity"].update(b_bias="no"), CheckpointError, "b_bias is of <U2"),
        (lambda s: s["velocity"].update(b_bias=np.ones(3)), CheckpointError, "b_bias has shape"),
        (lambda s: s["velocity"].update(b_bias=[1e300, 1]), CheckpointError, "beyond the range"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, error, message):
    _, optimizer = trained()
    before, state = optimizer.state_dict(), optimizer.state_dict()
    state |= {"lr": 0.7, "momentum": 0.1}
    for velocity in state["velocity"].values():
        velocity += 1
    change(state)
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(state)
    np.testing.assert_equal(optimizer.state_dict(), before)


@pytest.mark.parametrize("state", [None, 3, [("lr", 0.1)]])
def test_a_state_that_is_no_mapping_is_refused(state):
    with pytest.raises(CheckpointError, match="SGD: a state has the keys"):
        trained()[1].load_state_dict(state)


@pytest.mark.parametrize("device", ["tpu", None])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ConfigError, match="unknown device"):
        trained()[1].to(device)
