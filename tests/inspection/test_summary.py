import json

import numpy as np
import pytest

from igcnn import build_network
from igcnn.errors import ShapeError
from igcnn.inspection import summarize


def test_a_network_by_hand():
    """plain of depth 8, width 2: every figure worked out on paper."""
    network = build_network("plain", depth=8, L=2, M=1, num_classes=3)
    summary = summarize(network, (3, 8, 8))
    convs = [layer for layer in summary.layers if layer.kind == "conv"]
    # stem 3→2 and 2 + 2 + 2 units of widths 2, 4, 8; 9 weights a pair of channels
    pairs = [3 * 2, 2 * 2, 2 * 2, 2 * 4, 4 * 4, 4 * 8, 8 * 8]
    pixels = [64, 64, 64, 16, 16, 4, 4]
    assert [layer.params for layer in convs] == [9 * pair for pair in pairs]
    assert [layer.macs for layer in convs] == [
        9 * pair * n for pair, n in zip(pairs, pixels, strict=True)
    ]
    assert summary.params_of("bn") == 2 * (2 + 2 + 2 + 4 + 4 + 8 + 8)
    assert summary.params_of("fc") == 8 * 3 + 3
    assert summary.macs == summary.macs_conv + 8 * 3
    assert summary.layers[0].output == (2, 8, 8)
    assert summary.layers[-1].output == (3,)


@pytest.mark.parametrize("net", ["plain", "resnet", "plain_igc", "resnet_igc"])
def test_totals_are_those_of_the_parameters(net):
    network = build_network(net, depth=8, L=4, M=2, num_classes=5)
    values = summarize(network, (3, 32, 32)).to_json()
    assert values["params"] == sum(p.size for p in network.parameters())
    assert values["params"] == sum(values[f"params_{kind}"] for kind in ("conv", "bn", "fc"))
    for key in ("params", "macs"):
        assert values[key] == sum(layer[key] for layer in values["layers"])
    json.dumps(values)


def test_the_network_is_left_as_it_was():
    network = build_network("resnet_igc", depth=8, L=2, M=2, dtype="float64")
    before = network.state_dict()
    summarize(network, (3, 8, 8))
    assert network.training
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_table_shows_names_shapes_and_the_rule():
    network = build_network("plain_igc", depth=8, L=2, M=2)
    text = summarize(network, (3, 16, 16)).to_text()
    assert "1 multiply-add = one multiplication and one addition" in text
    for name, _ in network.named_layers():
        if "bn" in name:
            assert name in text
    assert "4×16×16" in text


@pytest.mark.parametrize("net", ["resnet_igc", "resnet_igc_imgnet_d18"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_a_terminal(net, width):
    network = build_network(net, L=4, M=2)
    summary = summarize(network, (3, 32, 32))
    lines = summary.to_text(width).splitlines()
    assert max(map(len, lines)) <= width
    whole = summary.to_text()
    wide = len(whole.splitlines()[0])
    assert ("InterleavedGroupConvolution" in "\n".join(lines)) == (wide <= width)
    # of the 27 columns of the types at least 10 are shown, or none
    assert ("type" in lines[0].split()) == (wide - width <= 17)
    for layer in summary.layers:
        (line,) = (line for line in lines if line.split()[:1] == [layer.name])
        assert line.endswith(f"{layer.params:,}".rjust(6) + f"{layer.macs:,}".rjust(15))
    assert " ".join(whole[whole.index("parameters ") :].split()) == " ".join(
        " ".join(lines[len(summary.layers) + 3 :]).split()
    )


def test_an_image_of_another_depth_is_refused():
    with pytest.raises(ShapeError):
        summarize(build_network("plain", depth=8, L=2), (4, 8, 8))
