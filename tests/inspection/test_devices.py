"""The same layer on another device."""

import shutil

import numpy as np
import pytest

from igcnn import build_network
from igcnn.inspection.activations import observe
from igcnn.inspection.devices import compare_devices, other_devices
from igcnn.layers.relu import ReLUFunction

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)


@pytest.fixture(scope="module")
def seen():
    network = build_network("resnet_igc", depth=8, L=2, M=2, num_classes=3)
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    return observe(network, x)[0]


def test_every_layer_is_close_on_the_emulator(seen):
    assert "emu" in other_devices()
    for one in seen:
        rows = compare_devices(one, ["emu"])
        names = {"y", "gx"} | {f"g_{name}" for name, _ in one.layer.named_parameters()}
        assert {row.array for row in rows} == names
        for row in rows:
            assert row.device == "emu"
            assert row.ulps <= 32, (one.name, row)
            assert row.ulps <= row.ulps_of_element
            assert 0 <= row.equal <= 1


def test_a_device_that_computes_something_else_shows(seen, monkeypatch):
    relu = next(one for one in seen if one.name.endswith("relu"))
    assert all(row.ulps == 0 and row.equal == 1 for row in compare_devices(relu, ["emu"]))
    right = ReLUFunction.forward

    def wrong(self, x):
        y = right(self, x).copy()
        if type(y) is not np.ndarray:
            y[0, 0, 0, 0] += 1e-5
        return y

    monkeypatch.setattr(ReLUFunction, "forward", wrong)
    row = compare_devices(relu, ["emu"])[0]
    assert row.array == "y"
    assert row.ulps > 1
    assert row.equal == pytest.approx(1 - 1 / relu.y.size)
