"""Layer: what registers, names, state, modes, devices, hooks."""

import copy
import pickle

import numpy as np
import pytest

from igcnn import Tensor, build_network
from igcnn.backend import to_device
from igcnn.errors import CheckpointError, ConfigError, DeviceError
from igcnn.layers import BatchNorm, Chain, Layer, Linear, ReLU, forward_hook, in_mode, undisturbed


class Net(Layer):
    """A layer of these attributes."""

    def __init__(self, **attributes):
        for name, value in attributes.items():
            setattr(self, name, value)


def chain():
    return Chain({"a": Chain({"": BatchNorm(2), "bn": BatchNorm(2)}), "relu": ReLU()})


def linear(seed=0):
    return Linear(2, 2, rng=np.random.default_rng(seed))


def parameter(*shape):
    return Tensor(np.ones(shape or (2,)), requires_grad=True)


def names(layer):
    return [name for name, _ in layer.named_parameters()]


# -- what registers


def test_layers_and_trained_tensors_register_as_attributes_and_within_containers():
    net = Net(
        fc=linear(),
        blocks=[linear(), {"x": Net(w=parameter())}],
        w=parameter(),
        ws=(parameter(), parameter()),
        constant=Tensor(np.ones(2)),
        size=3,
    )
    own = ["w", "ws_0", "ws_1"]
    below = ["fc_weight", "fc_bias", "blocks_0_weight", "blocks_0_bias", "blocks_1_x_w"]
    assert names(net) == own + below
    assert [x.name for x in net.parameters()[:3]] == own
    assert list(net.state_dict()) == own + below
    net.eval()
    assert not any(layer.training for _, layer in net.named_layers())
    assert net.zero_grad() is None


def test_an_attribute_registers_before_and_without_the_base_constructor():
    class Late(Layer):
        def __init__(self):
            self.fc = linear()
            super().__init__()
            self.bn = BatchNorm(2)

    assert names(Late()) == ["fc_weight", "fc_bias", "bn_gamma", "bn_beta"]
    assert names(Net(fc=linear())) == ["fc_weight", "fc_bias"]


def test_what_is_changed_later_counts():
    net = Net(blocks=[], w=parameter(), bn=BatchNorm(2))
    net.blocks.append(linear())
    assert names(net) == ["w", "blocks_0_weight", "blocks_0_bias", "bn_gamma", "bn_beta"]
    net.blocks[0] = ReLU()
    del net.w
    net.bn.gamma = Tensor(np.full(2, 3.0), requires_grad=True)
    net.bn.moving_mean = np.full(2, 7.0)
    assert names(net) == ["bn_gamma", "bn_beta"]
    assert net.state_dict()["bn_gamma"][0] == 3
    assert net.state_dict()["bn_moving_mean"][0] == 7
    net.bn = None
    assert not net.state_dict()
    net.bn = parameter(3)
    assert [(name, x.shape) for name, x in net.named_parameters()] == [("bn", (3,))]


def test_a_result_kept_as_an_attribute_is_no_parameter():
    net = Net(w=parameter())
    net.last = net.w * 2
    assert names(net) == ["w"]


def test_a_frozen_parameter_is_still_saved():
    net = Net(w=parameter(), ws=[parameter()])
    for tensor in net.parameters():
        tensor.requires_grad = False
    assert names(net) == list(net.state_dict()) == ["w", "ws_0"]
    net.w = Tensor(np.ones(3))
    assert names(net) == ["ws_0"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_have_parameters_of_their_own(copied):
    net = Net(fc=linear(), w=parameter())
    other = copied(net)
    assert names(other) == names(net)
    assert not {id(x) for x in other.parameters()} & {id(x) for x in net.parameters()}


def test_add_parameter_buffer_and_child():
    net = Net()
    w = net.add_parameter("w", np.ones(2))
    count = net.add_buffer("count", np.zeros(1))
    fc = net.add_child("any name", linear())
    assert net.w is w
    assert net.count is count
    assert net.children() == {"any name": fc}
    assert list(net.state_dict()) == ["w", "any name_weight", "any name_bias", "count"]
    for add in (net.add_parameter, net.add_buffer):
        for name in ("w", "count", "forward", "training"):
            with pytest.raises(ConfigError, match=f"already has an attribute '{name}'"):
                add(name, np.ones(2))
    with pytest.raises(ConfigError, match="already is a layer 'any name'"):
        net.add_child("any name", linear())
    with pytest.raises(ConfigError, match="count is a buffer of Net and takes an array"):
        net.count = 3
    del net.count
    net.count = 3
    assert list(net.named_buffers()) == []
    for value in ([], parameter()):
        with pytest.raises(ConfigError, match="parameters is a method of every layer"):
            net.parameters = value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Net(a=Net(b_c=parameter()), a_b=Net(c=parameter())), "parameters .* 'a_b_c'"),
        (lambda: Chain({"a": Chain({"b": ReLU()}), "a_b": ReLU()}), "two layers .* 'a_b'"),
        (lambda: Net(ws=[parameter()], ws_0=parameter()), "'ws_0'"),
        (lambda: Chain({"": BatchNorm(2), "bn": Net(x=ReLU()), "bn_x": ReLU()}), "'bn_x'"),
        (lambda: Net(moving=Net(mean=parameter()), moving_mean=parameter()), "'moving_mean'"),
        (lambda: Chain({"relu": ReLU}), r"'relu' is type, not a layer; call it: ReLU\(…\)"),
        (lambda: Chain({"relu": 3}), "'relu' is int, not a layer"),
        (lambda: Chain([ReLU()]), "takes a dict of name → layer, not list"),
        (lambda: Net(layers={ReLU(), ReLU()}), "a set has no order"),
        (lambda: Chain({"a/b": linear()}), "a slash cannot be saved"),
    ],
)
def test_what_has_no_name_of_its_own_or_is_no_layer_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_refused_assignment_changes_nothing():
    net = Net(fc=linear(), other=3)
    before = vars(net).copy()
    for name in ("fc_weight", "other"):
        value = parameter() if name == "fc_weight" else [net]
        with pytest.raises(ConfigError):
            setattr(net, name, value)
        assert vars(net) == before
    with pytest.raises(ConfigError):
        net.add_child("fc", ReLU())
    assert net.children() == {"fc": net.fc}


def test_a_layer_that_contains_itself_is_refused():
    net = Net(fc=Net(w=parameter()))
    with pytest.raises(ConfigError, match=r"contains itself, as 'parent_fc'; .* weakref\.ref"):
        net.fc.parent = net
    assert names(net) == ["fc_w"]


# -- state


def test_names_join_with_underscores_and_empty_names_vanish():
    assert names(chain()) == ["a_gamma", "a_beta", "a_bn_gamma", "a_bn_beta"]
    assert [name for name, _ in chain().named_buffers()][2] == "a_bn_moving_mean"


def test_state_is_a_copy_and_comes_back():
    net = build_network("resnet_igc", depth=8, L=2, M=2, seed=1)
    state = net.state_dict()
    net.parameters()[0].data += 1
    other = build_network("resnet_igc", depth=8, L=2, M=2, seed=2)
    other.load_state_dict(state)
    assert list(other.state_dict()) == list(state)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_a_state_that_does_not_fit_changes_nothing():
    net = build_network("plain", depth=5, L=4, seed=1)
    before = net.state_dict()
    good = build_network("plain", depth=5, L=4, seed=2).state_dict()
    missing = {name: array for name, array in good.items() if name != "fc_score_bias"}
    with pytest.raises(CheckpointError, match="missing: fc_score_bias; build"):
        net.load_state_dict(missing)
    with pytest.raises(CheckpointError, match="not in the network: extra"):
        net.load_state_dict({**good, "extra": np.zeros(1)})
    with pytest.raises(CheckpointError, match=r"fc_score_bias has shape \(3,\) in the state but"):
        net.load_state_dict({**good, "fc_score_bias": np.zeros(3)})
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("device", ["cpu", "emu"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array(["x", "y"]), "bias is of <U1, not of real numbers"),
        (np.array([1j, 2]), "of complex128"),
        (np.array([None, 1]), "of object"),
        (None, "of object"),
        ([True, False], "of bool"),
        (np.array([1e300, 1]), "beyond the range of float32"),
        (np.array([10.0**40, np.nan]), "beyond the range of float32"),
        ([10**400, 1], "of object"),
        ([[1], [2, 3]], "is list, not an array of numbers"),
        (1.0, r"has shape \(\) in the state but \(2,\) in the network"),
        (np.ones((1, 2)), r"has shape \(1, 2\)"),
        (np.ma.array([1.0, 2], mask=[0, 1]), "masked"),
        (np.array(["2020", "2021"], "M8[Y]"), "of datetime64"),
        (np.zeros(2, [("a", "f4")]), "not of real numbers"),
    ],
)
def test_a_value_that_is_no_array_of_numbers_changes_nothing(device, value, message):
    net = Chain({"a": linear(), "b": linear(1)}).to(device)
    before = net.state_dict()
    with pytest.raises(CheckpointError, match=f"b_bias .*{message}|{message}"):
        net.load_state_dict({name: a + 1 for name, a in before.items()} | {"b_bias": value})
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("device", ["cpu", "emu"])
@pytest.mark.parametrize(
    "value",
    [
        Tensor(np.array([1.0, 2])),
        Tensor(to_device(np.array([1.0, 2]), "emu")),
        [1, 2],
        np.array([1, 2], np.uint8),
        np.array([1, 2], ">f8"),
        np.array([1, 2], np.float16),
        np.array([9.0, 2, 9, 1])[::-2],
    ],
)
def test_numbers_of_any_kind_are_taken(device, value):
    net = linear().to(device)
    net.load_state_dict(net.state_dict() | {"bias": value})
    np.testing.assert_array_equal(net.state_dict()["bias"], [1, 2])
    assert net.bias.dtype == np.float32
    assert net.bias.device == device


def test_a_diverged_state_can_be_loaded():
    net = linear()
    net.load_state_dict(net.state_dict() | {"bias": np.array([np.nan, -np.inf])})
    np.testing.assert_array_equal(net.bias.data, np.array([np.nan, -np.inf], np.float32))


def test_all_that_is_wrong_is_said():
    net = Chain({"a": linear(), "b": linear()})
    with pytest.raises(
        CheckpointError,
        match="missing: a_bias, b_bias; not in the network: 7; a_weight has shape",
    ):
        net.load_state_dict({"a_weight": np.ones(3), "b_weight": "text", 7: 1})


@pytest.mark.parametrize("state", [None, [("bias", np.ones(2))], 3])
def test_a_state_that_is_no_mapping_is_refused(state):
    with pytest.raises(CheckpointError, match="maps names to arrays"):
        linear().load_state_dict(state)


def test_a_state_of_the_networks_own_arrays_is_read_before_it_is_overwritten():
    net = Chain({"a": linear(), "b": linear(1)})
    one, other = net.children().values()
    before = net.state_dict()
    net.load_state_dict(
        {
            "a_weight": other.weight,
            "b_weight": one.weight,
            "a_bias": one.bias.data,
            "b_bias": one.bias.data,
        }
    )
    np.testing.assert_array_equal(one.weight.data, before["b_weight"])
    np.testing.assert_array_equal(other.weight.data, before["a_weight"])


def test_a_read_only_parameter_is_refused():
    net = linear()
    net.bias.data = np.broadcast_to(np.float32(1), (2,))
    with pytest.raises(CheckpointError, match="bias is read-only in the network"):
        net.load_state_dict(net.state_dict())


# -- modes and devices


def test_train_and_eval_reach_every_layer():
    net = build_network("resnet", depth=8, L=2)
    assert all(layer.training for _, layer in net.named_layers())
    assert net.eval() is net
    assert not any(layer.training for _, layer in net.named_layers())


@pytest.mark.parametrize("context", [in_mode, undisturbed])
def test_each_layer_is_in_its_own_mode_again_after_an_error(context):
    net = chain()
    net.children()["a"].eval()
    before = [layer.training for _, layer in net.named_layers()]

    def fail(training):
        with context(net, training):
            assert {layer.training for _, layer in net.named_layers()} == {training}
            raise KeyError

    for training in (True, False):
        with pytest.raises(KeyError):
            fail(training)
        assert [layer.training for _, layer in net.named_layers()] == before


def test_undisturbed_restores_buffers_and_gradients_also_those_replaced():
    bn = BatchNorm(2, dtype="float64")
    mean, gradient = bn.moving_mean, np.ones(2)
    bn.gamma.grad = gradient

    def fail():
        with undisturbed(bn, training=True):
            bn(np.full((2, 2, 1, 1), 5.0)).backward(np.ones((2, 2, 1, 1)))
            bn.moving_mean = np.full(2, 9.0)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert bn.moving_mean is mean
    assert not mean.any()
    assert bn.gamma.grad is gradient
    np.testing.assert_array_equal(gradient, 1)
    assert bn.beta.grad is None


@pytest.mark.parametrize("device", ["tpu", "CPU", "cuda:", "emu:0", "", None, 0])
def test_an_unknown_device_is_refused(device):
    net = linear()
    net.weight.grad = np.ones((2, 2), np.float32)
    with pytest.raises(ConfigError, match="unknown device"):
        net.to(device)
    assert net.weight.grad is not None


def test_a_device_that_is_not_there_or_full_moves_nothing(monkeypatch):
    net = chain()
    monkeypatch.setattr("igcnn.backend.gpu_count", lambda: 0)
    with pytest.raises(DeviceError, match="cuda is not available"):
        net.to("cuda")

    def full(array, device, moved=[]):  # noqa: B006
        moved.append(array)
        if len(moved) > 7:  # the last of four parameters and four buffers
            raise DeviceError("no room")
        return to_device(array, device)

    monkeypatch.setattr("igcnn.layers.layer.to_device", full)
    with pytest.raises(DeviceError, match="no room"):
        net.to("emu")
    assert {x.device for x in net.parameters()} == {"cpu"}


def test_to_moves_parameters_and_buffers_and_forgets_gradients():
    net = chain()
    net.parameters()[0].grad = np.ones(2, np.float32)
    assert net.to("emu") is net
    assert {x.device for x in net.parameters()} == {"emu"}
    assert all(type(array).__name__ == "EmulatedArray" for _, array in net.named_buffers())
    bn = net.children()["a"].children()["bn"]
    assert bn.moving_mean is bn.buffers()["moving_mean"]
    assert net.parameters()[0].grad is None


# -- hooks and text


def test_forward_hook_sees_leaf_layers_in_order_with_their_names():
    net = build_network("plain_igc", depth=5, L=2, M=2)
    seen = []
    with forward_hook(lambda layer, name, x, y: seen.append((name, x.shape, y.shape))):
        net(np.zeros((1, 3, 8, 8), np.float32))
    assert seen[0] == ("g0_conv", (1, 3, 8, 8), (1, 4, 8, 8))
    assert [name for name, *_ in seen] == [
        *("g0_conv", "g0_bn", "g0_relu"),
        *("g1_b1", "g1_b1_bn", "g1_b1_relu"),
        *("g2_b1", "g2_b1_bn", "g2_b1_relu"),
        *("g3_b1", "g3_b1_bn", "g3_b1_relu"),
        *("pool", "fc_score"),
    ]
    net(np.zeros((1, 3, 8, 8), np.float32))
    assert len(seen) == 14


def test_repr_is_a_tree():
    assert repr(chain()).splitlines() == [
        "Chain(",
        "  a: Chain(",
        "    : BatchNorm(2, momentum=0.9, eps=2e-05)",
        "    bn: BatchNorm(2, momentum=0.9, eps=2e-05)",
        "  )",
        "  relu: ReLU()",
        ")",
    ]
