"""Parameters and multiply-adds against the published and derived tables, digit for digit."""

import numpy as np
import pytest

from igcnn import build_network, no_grad
from igcnn.layers import forward_hook

DEPTHS = (8, 20, 38, 62, 98)

# 10 classes, 32×32: for each depth (parameters, multiply-adds of convolutions in millions)
CIFAR = {
    ("plain", 16, 1): (
        (75_290, 12.24),
        (269_722, 40.55),
        (561_370, 83.02),
        (950_234, 139.64),
        (1_533_530, 224.58),
    ),
    ("plain", 18, 1): (
        (95_068, 15.43),
        (341_020, 51.26),
        (709_948, 105.01),
        (1_201_852, 176.67),
        (1_939_708, 284.17),
    ),
    ("resnet", 16, 1): (
        (78_042, 12.50),
        (272_474, 40.81),
        (564_122, 83.28),
        (952_986, 139.90),
        (1_536_282, 224.84),
    ),
    ("resnet", 18, 1): (
        (98_524, 15.76),
        (344_476, 51.59),
        (713_404, 105.34),
        (1_205_308, 177.00),
        (1_943_164, 284.50),
    ),
    ("plain_igc", 4, 8): (
        (78_634, 13.14),
        (277_546, 42.37),
        (575_914, 86.21),
        (973_738, 144.67),
        (1_570_474, 232.36),
    ),
    ("plain_igc", 24, 2): (
        (48_442, 9.88),
        (155_962, 28.75),
        (317_242, 57.07),
        (532_282, 94.81),
        (854_842, 151.44),
    ),
    ("plain_igc", 48, 1): (
        (50_746, 11.80),
        (154_234, 33.62),
        (309_466, 66.36),
        (516_442, 110.00),
        (826_906, 175.47),
    ),
    ("resnet_igc", 4, 8): (
        (82_346, 13.50),
        (281_258, 42.73),
        (579_626, 86.57),
        (977_450, 145.03),
        (1_574_186, 232.72),
    ),
    ("resnet_igc", 24, 2): (
        (56_890, 10.86),
        (164_410, 29.74),
        (325_690, 58.05),
        (540_730, 95.80),
        (863_290, 152.42),
    ),
    ("resnet_igc", 48, 1): (
        (65_626, 13.62),
        (169_114, 35.44),
        (324_346, 68.17),
        (531_322, 111.82),
        (841_786, 177.29),
    ),
}

# 1000 classes, 224×224: parameters, those of convolutions, multiply-adds of convolutions
IMAGENET = {
    ("resnet_imgnet_d18", 64, 1): (11_689_512, 11_166_912, 1.8136),
    ("resnet_imgnet_d18", 69, 1): (13_542_457, 12_979_107, 2.0981),
    ("resnet_igc_imgnet_d18", 4, 32): (12_251_240, 11_207_040, 1.9436),
    ("resnet_igc_imgnet_d18", 16, 16): (13_528_296, 11_440_896, 2.2639),
    ("resnet_igc_imgnet_d18", 100, 2): (8_637_900, 7_006_700, 1.2632),
}


def count(net, image_size):
    """Return (parameters, parameters of convolutions, multiply-adds of convolutions)."""
    macs = 0
    conv = 0

    def add(layer, name, x, y):
        nonlocal macs, conv
        if layer.kind == "conv":
            macs += layer.macs(x.shape, y.shape)
            conv += sum(tensor.size for _, tensor in layer.named_parameters())

    with no_grad(), forward_hook(add):
        net(np.zeros((1, 3, image_size, image_size), np.float32))
    return sum(tensor.size for tensor in net.parameters()), conv, macs


@pytest.mark.parametrize(
    ("net", "depth", "params", "mmacs"),
    [
        (net, depth, *values)
        for net, row in CIFAR.items()
        for depth, values in zip(DEPTHS, row, strict=True)
    ],
)
def test_cifar(net, depth, params, mmacs):
    name, L, M = net
    counted, _, macs = count(build_network(name, depth=depth, L=L, M=M, num_classes=10), 32)
    assert counted == params
    assert f"{macs / 1e6:.2f}" == f"{mmacs:.2f}"


@pytest.mark.parametrize(("net", "expected"), IMAGENET.items())
def test_imagenet(net, expected):
    name, L, M = net
    params, conv, macs = count(build_network(name, L=L, M=M), 224)
    assert (params, conv, f"{macs / 1e9:.4f}") == (*expected[:2], f"{expected[2]:.4f}")


def test_100_classes_add_90_rows_to_the_classifier():
    ten = build_network("resnet_igc", depth=8, L=24, M=2, num_classes=10)
    hundred = build_network("resnet_igc", depth=8, L=24, M=2, num_classes=100)
    difference = sum(p.size for p in hundred.parameters()) - sum(p.size for p in ten.parameters())
    assert difference == 90 * (4 * 48 + 1)


@pytest.mark.parametrize(
    ("L", "M", "millions"), [(16, 32, "17.7"), (450, 2, "19.3"), (32, 26, "24.1")]
)
def test_the_networks_of_the_papers_comparison(L, M, millions):
    """Table 7 counts convolutions and classifier of plain_igc with 100 classes, not batch norm."""
    net = build_network("plain_igc", depth=20, L=L, M=M, num_classes=100)
    counted = sum(p.size for name, p in net.named_parameters() if "_bn_" not in name)
    assert f"{counted / 1e6:.1f}" == millions


def test_the_network_that_the_authors_command_line_builds():
    """Their script's defaults, s = 4, that is M = 8 and growing L: 36.85 M parameters."""
    net = build_network("resnet_igc_imgnet_d18", L=100, M=8, growth="L")
    assert f"{sum(p.size for p in net.parameters()) / 1e6:.2f}" == "36.85"
