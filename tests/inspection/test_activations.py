"""What the layers of a network make of images."""

import numpy as np
import pytest

from igcnn import Tensor, build_network
from igcnn.inspection.activations import dead_channels, distribution, maps, observe, significant


@pytest.fixture
def network():
    return build_network("resnet_igc", depth=8, L=2, M=2, num_classes=3)


def images(N=3, side=9):
    return np.random.default_rng(0).standard_normal((N, 3, side, side)).astype(np.float32)


def test_every_layer_is_seen_and_nothing_changes(network):
    before = {name: array.copy() for name, array in network.state_dict().items()}
    seen, logits = observe(network, images())
    leaves = [name for name, layer in network.named_layers() if name and not layer.children()]
    assert sorted(one.name for one in seen) == sorted(leaves)
    network.eval()
    np.testing.assert_array_equal(logits, network(Tensor(images())).numpy())
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_planted_dead_channel_is_found(network):
    alive = dead_channels(network, images())
    assert alive["g0_relu"] == []
    layers = dict(network.named_layers())
    layers["g0_bn"].gamma.data[1] = 0
    layers["g0_bn"].beta.data[1] = -1
    assert dead_channels(network, images())["g0_relu"] == [1]
    # layers that have negative outputs cannot be dead
    assert all("relu" in name for name in alive)


def test_a_channel_that_one_image_wakes_is_not_dead(network):
    layers = dict(network.named_layers())
    x = np.zeros((2, 3, 9, 9), np.float32)
    layers["g0_bn"].beta.data[...] = -0.01
    assert dead_channels(network, x)["g0_relu"] == [0, 1, 2, 3]
    x[1] = images(1)[0]
    assert dead_channels(network, x)["g0_relu"] == []


def test_distribution():
    found = distribution(np.array([[0.0, 1.0], [3.1, -3.1]]))
    assert (found["count"], found["min"], found["max"]) == (4, -3.1, 3.1)
    assert found["mean"] == pytest.approx(0.25)
    assert found["std"] == pytest.approx(np.sqrt((0 + 1 + 2 * 9.61) / 4 - 0.0625))
    # bins of width 0.2 from -3.1: 0 lies in the middle one
    assert {k: n for k, n in enumerate(found["bins"]) if n} == {0: 1, 15: 1, 20: 1, 30: 1}
    assert distribution(np.array([1.0, np.nan]))["bins"] == [0] * 31


def test_maps_are_averaged_over_whole_squares():
    y = np.arange(2 * 70 * 66, dtype=float).reshape(2, 70, 66)
    found = maps(y, 8)
    assert (found["channels"], found["averaged"]) == ([0, 1], 3)
    values = np.array(found["values"])
    assert values.shape == (2, 23, 22)
    assert values[1, 2, 3] == pytest.approx(y[1, 6:9, 9:12].mean(), rel=1e-3)
    few = maps(np.zeros((100, 4, 4)), 5)
    assert few["channels"] == [0, 25, 50, 74, 99]


def test_four_significant_digits():
    values = significant(np.array([[0.0, 123456.0], [-0.000123456, 1.0]]))
    assert values == [[0.0, 123500.0], [-0.0001235, 1.0]]
