"""Layer: names, state, modes, hooks."""

import numpy as np
import pytest

from igcnn import build_network
from igcnn.errors import CheckpointError
from igcnn.layers import BatchNorm, Chain, ReLU, forward_hook


def chain():
    return Chain({"a": Chain({"": BatchNorm(2), "bn": BatchNorm(2)}), "relu": ReLU()})


def test_names_join_with_underscores_and_empty_names_vanish():
    names = [name for name, _ in chain().named_parameters()]
    assert names == ["a_gamma", "a_beta", "a_bn_gamma", "a_bn_beta"]
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


def test_train_and_eval_reach_every_layer():
    net = build_network("resnet", depth=8, L=2)
    assert all(layer.training for _, layer in net.named_layers())
    assert net.eval() is net
    assert not any(layer.training for _, layer in net.named_layers())


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
