"""The report: every number is the engine's, and a wrong gradient shows where it is."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from igcnn import Tensor, build_network, no_grad
from igcnn.inspection import summarize
from igcnn.inspection.live import make_live
from igcnn.inspection.page import render_page
from igcnn.layers import InterleavedGroupConvolution, InterleavedProduct
from igcnn.layers.convolution import ConvolutionFunction
from igcnn.layers.interleaved_group_convolution import InterleavedGroupConvolutionFunction
from igcnn.layers.linear import LinearFunction
from igcnn.layers.pooling import GlobalAveragePoolFunction

NETWORKS = [
    dict(net="plain", depth=5, L=4, M=1),
    dict(net="resnet", depth=8, L=4, M=1),
    dict(net="plain_igc", depth=8, L=4, M=2),
    dict(net="resnet_igc", depth=8, L=4, M=2),
    dict(net="resnet_imgnet_d18", L=4, M=1),
    dict(net="resnet_igc_imgnet_d18", L=4, M=2),
    dict(net="plain_igc", depth=5, L=1, M=4),
    dict(net="plain_igc", depth=5, L=4, M=1),
    dict(net="plain_igc", depth=5, L=4, M=2, fusion="summation"),
    dict(net="plain_igc", depth=5, L=4, M=2, fusion="identity"),
    dict(net="plain_igc", depth=5, L=4, M=2, fusion="four_branch"),
    dict(net="igcv2", depth=5, width=12, factors="3,4"),
]


DOCUMENTATION = Path(__file__).parents[2] / "docs" / "inspect.md"


def name_of(settings):
    return "-".join(map(str, settings.values()))


@pytest.mark.parametrize("settings", NETWORKS, ids=name_of)
def test_numbers_are_those_of_the_engine(settings, reported):
    subject, report = reported(**settings)
    network = subject.network
    json.loads(json.dumps(report, allow_nan=False))
    assert report["failed"] == []
    assert report["network"] == network.settings

    summary = summarize(network, subject.pixels.shape)
    assert report["totals"]["params"] == summary.params
    assert [layer["name"] for layer in report["layers"]] == [row.name for row in summary.layers]
    for layer, row in zip(report["layers"], summary.layers, strict=True):
        assert (layer["params"], layer["macs"]) == (row.params, row.macs)
        assert layer["share"] == pytest.approx(row.macs / summary.macs)
        assert layer["bytes"] == 4 * (row.params + np.prod(row.output))
        for name, tensor in network.named_parameters():
            if name in [f"{layer['name']}_{own}" for own in layer["parameters"]]:
                told = layer["parameters"][name.removeprefix(f"{layer['name']}_")]
                assert told["mean"] == pytest.approx(float(tensor.data.mean()), abs=1e-6)

    network.eval()
    x = (subject.pixels - subject.mean[:, None, None]) / subject.std[:, None, None]
    with no_grad():
        logits = network(Tensor(x[None].astype(np.float32))).numpy()[0]
    for answer in report["answers"]:
        assert answer["logit"] == pytest.approx(float(logits[answer["index"]]), rel=1e-4)
    exponentials = np.exp(logits - logits.max())
    for answer in report["answers"]:
        expected = exponentials[answer["index"]] / exponentials.sum()
        assert answer["probability"] == pytest.approx(expected, rel=1e-3, abs=1e-9)

    layers = dict(network.named_layers())
    wired = [n for n, x in layers.items() if isinstance(x, InterleavedGroupConvolution)]
    products = [n for n, x in layers.items() if isinstance(x, InterleavedProduct)]
    assert [unit["name"] for unit in report["units"]] == wired + products
    drawn = [name for wiring in report["wirings"] for name in wiring["units"]]
    assert sorted(drawn) == sorted(wired + products)
    for unit in report["units"]:
        assert unit["difference"] <= 1e-12 * unit["scale"]


def test_the_network_stays_as_it_was(reported):
    subject, _ = reported(net="resnet_igc", depth=8, L=2, M=2)
    fresh = build_network(**subject.network.settings).state_dict()
    for name, array in subject.network.state_dict().items():
        np.testing.assert_array_equal(array, fresh[name])
    assert subject.network.training
    assert all(tensor.grad is None for tensor in subject.network.parameters())


def wrong_where(function, where, monkeypatch):
    """Let the backward of a function be wrong by a tenth of a per cent for some calls."""
    right = function.backward

    def backward(self, gy):
        first, *others = right(self, gy)
        return (first * 1.001 if where(self, gy) else first, *others)

    monkeypatch.setattr(function, "backward", backward)


def is_second_stage(function, gy):
    return function.geometry[0] in (2, (2, 2)) and gy.shape[1] == 8


@pytest.mark.parametrize(
    ("function", "where", "layer"),
    [
        (ConvolutionFunction, lambda function, gy: True, "g0_conv"),
        (InterleavedGroupConvolutionFunction, is_second_stage, "g2_b1"),
        (GlobalAveragePoolFunction, lambda function, gy: True, "pool"),
        (LinearFunction, lambda function, gy: True, "fc_score"),
    ],
)
def test_a_broken_backward_turns_exactly_its_layer_red(
    function, where, layer, reported, monkeypatch
):
    wrong_where(function, where, monkeypatch)
    subject, report = reported(net="plain_igc", depth=8, L=2, M=2)
    assert report["failed"] == [layer]
    page = render_page(report, make_live(subject))
    assert page.count('<tr class="failed"') == 1
    assert f'<tr class="failed" data-layer="{layer}"' in page
    assert page.count('<details class="layer failed"') == 1
    assert f'<details class="layer failed" id="layer-{layer}"' in page
    assert f'is wrong: <a href="#layer-{layer}">' in page
    assert page.count("gradient wrong") == 1


def test_the_error_curve_has_a_valley(reported):
    _, report = reported(net="resnet_igc", depth=8, L=2, M=2)
    layers = {layer["name"]: layer["gradient"] for layer in report["layers"]}
    norm = layers["g0_bn"]
    assert len(norm["steps"]) == len(norm["errors"]) > 8
    smallest = int(np.argmin(norm["errors"]))
    assert 0 < smallest < len(norm["steps"]) - 1
    assert norm["errors"][0] > 1e3 * norm["errors"][smallest]
    assert norm["errors"][-1] > 1e3 * norm["errors"][smallest]


def test_conditions_of_units(reported):
    _, report = reported(**NETWORKS[-1])
    first, second, third = report["units"]
    assert first["name"] == "g1_b1"
    assert first["fan_ins"] == [9, 3, 4]
    assert (first["fewest_paths"], first["paths"], first["strict"]) == (1, 1, True)
    assert first["parameters"] == 12 * (9 + 3 + 4) > first["bound"]
    for unit in (second, third):  # the width doubles
        assert (unit["fewest_paths"], unit["paths"], unit["strict"]) == (2, 2, False)
        assert unit["bound"] is None
    assert all(unit["difference"] <= 1e-12 * unit["scale"] for unit in report["units"])


def test_the_documentation_names_every_number(reported):
    _, report = reported(**NETWORKS[0])
    _, _, table = DOCUMENTATION.read_text(encoding="utf-8").partition("| key | |\n")
    told = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, flags=re.MULTILINE)))
    assert sorted(told) == sorted(report)
