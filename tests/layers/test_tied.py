"""Layers and parameters that a network uses in several places."""

import numpy as np
import pytest

from igcnn import Tensor
from igcnn.errors import CheckpointError, PlanError
from igcnn.functional import cross_entropy, linear
from igcnn.inspection import summarize
from igcnn.layers import BatchNorm, Chain, Convolution, GlobalAveragePool, Layer, Linear, ReLU
from igcnn.optim import SGD
from igcnn.plan import Plan
from igcnn.training import load_checkpoint, make_engine, save_checkpoint

RNG = np.random.default_rng(0)


def tied():
    """A convolution and a batch norm, both used twice."""
    rng = np.random.default_rng(1)
    conv = Convolution(3, 3, 3, padding=1, rng=rng, dtype="float64")
    bn = BatchNorm(3, dtype="float64")
    layers = {"a": conv, "a_bn": bn, "relu": ReLU(), "b": conv, "b_bn": bn}
    head = {"pool": GlobalAveragePool(), "fc": Linear(3, 4, rng=rng, dtype="float64")}
    return Chain(layers | head)


class Untied(Layer):
    """The same function, written out with one set of arrays."""

    def __init__(self):
        fc = Linear(2, 2, rng=np.random.default_rng(2), dtype="float64")
        self.encode, self.decode = fc, fc

    def forward(self, x):
        return self.decode(self.encode(x))


def test_each_tensor_has_the_first_of_its_names():
    net = tied()
    names = ["a_weight", "a_bn_gamma", "a_bn_beta", "fc_weight", "fc_bias"]
    assert [name for name, _ in net.named_parameters()] == names
    assert list(net.state_dict()) == [*names, "a_bn_moving_mean", "a_bn_moving_var"]
    assert [name for name, _ in net.named_layers()] == ["", "a", "a_bn", "relu", "pool", "fc"]
    other = Layer()
    other.one, other.two = net.children()["fc"], Linear(3, 4, rng=RNG, dtype="float64")
    other.two.weight = other.one.weight
    assert [name for name, _ in other.named_parameters()] == ["one_weight", "one_bias", "two_bias"]


def test_gradients_add_up_and_one_step_is_done():
    net, x = Untied(), RNG.standard_normal((3, 2))
    w, b = (Tensor(a.data.copy(), requires_grad=True) for a in net.parameters())
    linear(linear(Tensor(x), w, b), w, b).sum().backward()
    net(x).sum().backward()
    optimizer = SGD(net.named_parameters(), lr=0.5, momentum=0, weight_decay=0)
    optimizer.step()
    for own, expected in zip(net.parameters(), (w, b), strict=True):
        np.testing.assert_allclose(own.grad, expected.grad, rtol=1e-14)
        np.testing.assert_allclose(own.data, expected.data - 0.5 * expected.grad, rtol=1e-13)


def test_a_state_is_taken_under_either_name():
    net = Untied()
    one = {name: array + 1 for name, array in net.state_dict().items()}
    two = {name.replace("encode", "decode"): array + 1 for name, array in one.items()}
    for state in (one, two, two | {name.replace("de", "en", 1): a for name, a in two.items()}):
        net.load_state_dict(state)
        np.testing.assert_array_equal(net.encode.weight.data, state[next(iter(state))])
    with pytest.raises(CheckpointError, match="decode_bias is the same array as encode_bias, but"):
        net.load_state_dict(one | {"decode_bias": one["encode_bias"] + 1})
    with pytest.raises(CheckpointError, match="missing: encode_bias; build"):
        net.load_state_dict({"decode_weight": one["encode_weight"]})


def test_a_checkpoint_of_tied_weights_comes_back(tmp_path):
    net, other = tied(), tied()
    optimizer = SGD(net.named_parameters(), lr=0.1)
    for x in (*net.parameters(), *optimizer.velocity):
        np.add(x.data, 1, out=x.data) if isinstance(x, Tensor) else np.add(x, 1, out=x)
    save_checkpoint(tmp_path / "x.h5", net, optimizer)
    checkpoint = load_checkpoint(tmp_path / "x.h5")
    other.load_state_dict(checkpoint.state)
    restored = SGD(other.named_parameters(), lr=0.1)
    checkpoint.restore(restored)
    assert restored.velocity[0][0, 0, 0, 0] == 1
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, net.state_dict()[name])


def test_tied_weights_move_and_stay_tied():
    net = tied().to("emu").to("cpu")
    layers = net.children()
    assert layers["a"] is layers["b"]
    assert layers["a_bn"].moving_mean is layers["b_bn"].buffers()["moving_mean"]


def test_a_summary_counts_parameters_once_and_work_each_time():
    summary = summarize(tied(), (3, 8, 8))
    assert summary.params == 81 + 6 + 16 == sum(layer.params for layer in summary.layers)
    assert summary.params_of("conv") == 81
    assert summary.macs_conv == 2 * 81 * 64


def test_there_is_no_plan_and_the_tape_trains():
    with pytest.raises(PlanError, match="used by two operations"):
        Plan(tied(), (3, 8, 8), 4)
    net = tied()
    engine, how = make_engine(net, (3, 8, 8), 4)
    assert "no plan" in how
    x, labels = RNG.standard_normal((4, 3, 8, 8)), np.array([0, 1, 2, 3])
    optimizer = SGD(net.named_parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        losses.append(engine.step(x, labels)[0])
        optimizer.step()
    assert losses[-1] < losses[0]
    assert losses[0] == pytest.approx(cross_entropy(tied()(x), labels).item())
