"""One number written out: the sum gives what the network has, by its real weights and pixels."""

import re

import numpy as np
import pytest

from igcnn import build_network
from igcnn.inspection.activations import observe
from igcnn.inspection.pixel import write_out

NETWORKS = [
    dict(net="resnet_igc", depth=8, L=4, M=2),
    dict(net="plain_igc", depth=8, L=4, M=2, fusion="four_branch"),
    dict(net="resnet", depth=8, L=4, M=1),
    dict(net="resnet_imgnet_d18", L=4, M=1),
    dict(net="igcv3", width_mult=0.25, blocks="1,1,1,1,1,1,1"),
]


def seen_in(settings, side=9):
    network = build_network(**settings, num_classes=3, dtype="float64")
    side = 64 if "imgnet" in settings["net"] else side
    x = np.random.default_rng(0).standard_normal((2, 3, side, side))
    return observe(network, x)[0]


@pytest.mark.parametrize("settings", NETWORKS, ids=lambda s: s["net"])
def test_the_sum_is_the_networks_number(settings):
    written = 0
    for seen in seen_in(settings):
        pixel = write_out(seen, image=1)
        if pixel is None:
            continue
        written += 1
        assert pixel.value == seen.y[1][pixel.index]
        assert abs(pixel.value) == np.abs(seen.y[1]).max()
        assert pixel.steps[-1].value == pytest.approx(pixel.value, rel=1e-10, abs=1e-12)
        for step in pixel.steps:
            products = [left * right for _, left, _, right in step.terms]
            if products:
                assert sum(products) + step.rest == pytest.approx(step.value, rel=1e-9, abs=1e-12)
                assert len(step.terms) == min(9, step.count)
                assert np.all(np.diff(np.abs(products)) <= 0)
    assert written > 10


@pytest.mark.parametrize("settings", NETWORKS[:2], ids=lambda s: s["net"])
def test_terms_are_named_after_what_they_are(settings):
    for seen in seen_in(settings):
        pixel = write_out(seen)
        arrays = {"x": seen.x[0]}
        for name, tensor in seen.layer.named_parameters():
            arrays[{"weight": "w", "conv1_weight": "Wᵖ", "conv2_weight": "Wᵈ"}.get(name)] = (
                tensor.data
            )
        for step in pixel.steps if pixel else []:
            for term in step.terms:
                for text, value in (term[:2], term[2:]):
                    letter, _, index = text.partition("[")
                    if letter in arrays and index:
                        place = tuple(map(int, re.findall(r"\d+", index)))
                        assert float(arrays[letter][place].squeeze()) == value, text
