"""The successors and companions: counts by formulas of their own, settings, forward passes."""

import numpy as np
import pytest

from igcnn import build_network
from igcnn.errors import ConfigError
from igcnn.inspection import conditions
from igcnn.layers import InterleavedProduct, forward_hook
from igcnn.training import TapeEngine

from .test_counts import count

IGCV3 = ((1, 16, 1), (6, 24, 4), (6, 32, 6), (6, 64, 8), (6, 96, 6), (6, 160, 6), (6, 320, 1))
MOBILENETV2 = (
    (1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)
)  # fmt: skip


def parameters(rows, groups, classes, stem=32, head=1280, widen_first=True):
    """Return the parameters of a network of rows (t, c, n), counted layer by layer."""
    first, second = groups
    total, C = 27 * stem + 2 * stem, stem
    for t, c, n in rows:
        for _ in range(n):
            e = t * C
            if t > 1 or widen_first:
                total += C * e // first + 2 * e
            total += 9 * e + 2 * e + e * c // second + 2 * c
            C = c
    return total + C * head + 2 * head + head * classes + classes


def size(net, **settings):
    return sum(tensor.size for tensor in build_network(net, **settings).parameters())


# settings, published or derived parameters, of which classifier, multiply-adds in millions
IMAGENET = [
    ({}, 3_491_688, 2_210_688, 311.69),
    ({"secondary_groups": 4}, 3_063_304, 1_782_304, 254.54),
    ({"wider": True}, 5_724_968, 4_443_968, 584.54),
    ({"width_mult": 0.25}, 1_534_020, 253_020, 32.76),
    ({"width_mult": 0.5}, 1_985_528, 704_528, 95.63),
    ({"width_mult": 0.75}, 2_638_084, 1_357_084, 188.61),
    ({"width_mult": 1.4}, 6_023_004, 4_230_004, 588.2),
]


@pytest.mark.parametrize(("settings", "params", "without_fc", "mmacs"), IMAGENET)
def test_igcv3_for_imagenet(settings, params, without_fc, mmacs):
    network = build_network("igcv3_imgnet", **settings)
    assert sum(tensor.size for tensor in network.parameters()) == params
    classifier = sum(t.size for name, t in network.named_parameters() if name.startswith("fc_"))
    assert params - classifier == without_fc
    if settings.get("width_mult") == 0.25:  # the others take seconds: below
        assert count(network, 224)[2] / 1e6 == pytest.approx(mmacs, abs=0.005)


@pytest.mark.long
@pytest.mark.parametrize(("settings", "params", "without_fc", "mmacs"), IMAGENET)
def test_multiply_adds_of_igcv3_for_imagenet(settings, params, without_fc, mmacs):
    network = build_network("igcv3_imgnet", **settings)
    assert count(network, 224)[2] / 1e6 == pytest.approx(mmacs, abs=0.05)


@pytest.mark.parametrize(
    ("strides", "mmacs"), [("1,1,1,2,2,1,1,1", 166.05), ("1,1,1,2,2,1,2,1", 93.52)]
)
def test_igcv3_for_cifar(strides, mmacs):
    network = build_network("igcv3", strides=strides)
    params, _, macs = count(network, 32)
    assert params == parameters(IGCV3, (2, 2), 10) == 2_223_498
    assert macs / 1e6 == pytest.approx(mmacs, abs=0.005)


def test_parameters_by_another_count():
    assert size("igcv3", num_classes=100) == parameters(IGCV3, (2, 2), 100) == 2_338_788
    assert size("igcv3_imgnet") == parameters(IGCV3, (2, 2), 1000)
    assert size("igcv3_imgnet", secondary_groups=4) == parameters(IGCV3, (2, 4), 1000)
    # own reading of "0.5×" in one of the ports
    half = [(t, c, n) for (t, c, _), n in zip(IGCV3, (1, 2, 3, 4, 3, 3, 1), strict=True)]
    own = size("igcv3", blocks="1,2,3,4,3,3,1", num_classes=100)
    assert own == parameters(half, (2, 2), 100) == 1_495_012
    published = parameters(MOBILENETV2, (1, 1), 1000, widen_first=False)
    assert size("mobilenetv2_imgnet") == published == 3_504_872
    kept = parameters(MOBILENETV2, (1, 1), 10)
    assert size("mobilenetv2", widen_first=True) == kept
    assert kept - 12_810 == 2_224_960


def test_igcv2_of_0_65_million():
    """The candidate for IGCV2*-C416; 650,208 without the bias of the classifier."""
    settings = {"width": 416, "factors": "8,8", "num_classes": 100}
    assert size("igcv2", condition="loose", **settings) - 100 == 650_208
    widths = 416 * (1 + 2 + 4)
    by_hand = 6 * widths * (9 + 8 + 8 + 2) + 416 * (27 + 2) + 1664 * 100
    assert by_hand == 650_208
    with pytest.raises(ConfigError, match=r"multiply to 64, not to the width 416.* 16,26; 13,32"):
        size("igcv2", **settings)


def test_channels_of_igcv2_meet_by_one_path_and_by_two_where_the_width_doubles():
    network = build_network("igcv2", depth=8, width=24, factors="4,6")
    products = [x for _, x in network.named_layers() if isinstance(x, InterleavedProduct)]
    told = [conditions(product) for product in products]
    paths = [(each.least_paths, each.most_paths) for each in told]
    assert paths == [(1, 1), (1, 1), (2, 2), (1, 1), (2, 2), (1, 1)]
    loose = build_network("igcv2", depth=5, width=24, factors="4,4", condition="loose")
    products = [x for _, x in loose.named_layers() if isinstance(x, InterleavedProduct)]
    assert not any(conditions(product).complementary for product in products)


def test_merge_and_run():
    def by_hand(depth, widen):
        n, total, C = (depth - 2) // 6, 3 * 16 * widen * 9 + 2 * 16 * widen, 16 * widen
        for stage in range(3):
            width = 16 * widen << stage
            for _ in range(n):
                total += 2 * (9 * C * width + 9 * width * width + 4 * width)
                total += 2 * (C * width + 2 * width) if width != C else 0
                C = width
        return total + 10 * C + 10

    for depth, widen, millions in ((56, 1, 1.7), (32, 4, 14.9)):
        assert size("merge_and_run", depth=depth, widen=widen) == by_hand(depth, widen)
        assert by_hand(depth, widen) / 1e6 == pytest.approx(millions, abs=0.05)


def test_merge_and_run_by_its_formula():
    """One block of a network, followed through by hand."""
    network = build_network("merge_and_run", depth=8, dtype="float64", seed=1)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    seen = {}
    layers = dict(network.named_layers())

    def note(layer, name, x, y):
        seen[next(key for key, known in layers.items() if known is layer)] = x.numpy(), y.numpy()

    with forward_hook(note):
        network(x)

    def deep(block):
        return [seen[f"{block}_{d}_two2_bn"][1] for d in ("d1", "d2")]

    first = seen["g0_relu"][1]  # both lines
    a, b = (np.maximum(first + branch, 0) for branch in deep("g1_b1"))
    np.testing.assert_allclose(seen["g2_b1_d1_two1_conv"][0], a, atol=1e-12)
    np.testing.assert_allclose(seen["g2_b1_l1_line_conv"][0], a, atol=1e-12)
    np.testing.assert_allclose(seen["g2_b1_l2_line_conv"][0], b, atol=1e-12)
    mean = (seen["g3_b1_l1_line_bn"][1] + seen["g3_b1_l2_line_bn"][1]) / 2
    last = np.maximum(mean + sum(deep("g3_b1")), 0)
    np.testing.assert_allclose(seen["cls_pool"][0], last, atol=1e-12)


@pytest.mark.parametrize(
    ("net", "settings", "message"),
    [
        ("igcv3", {"width_mult": 0.0}, "width_mult must be a number above 0"),
        ("igcv3", {"width_mult": float("nan")}, "width_mult must be a number above 0"),
        ("igcv3", {"blocks": "1,2"}, "blocks must be 7 integers from 1 up"),
        ("igcv3", {"strides": "1,1,x"}, "strides must be 8 integers"),
        ("igcv3", {"secondary_groups": 3}, "secondary_groups must be 1, 2 or 4"),
        ("mobilenetv2", {"width_mult": -1.0}, "width_mult must be a number above 0"),
        ("igcv2", {"factors": "8,4"}, "multiply to 32, not to the width 64.*choose 8,8; 4,16"),
        ("igcv2", {"factors": "7,8", "condition": "loose"}, "must each divide the width 64"),
        ("igcv2", {"condition": "exact"}, "condition must be strict or loose"),
        ("igcv2", {"depth": 9}, "depth must be 2"),
        ("merge_and_run", {"depth": 10}, "depth must be 2 .* choose 8 or 14"),
        ("merge_and_run", {"widen": 0}, "widen must be at least 1"),
    ],
)
def test_refusals(net, settings, message):
    with pytest.raises(ConfigError, match=message):
        build_network(net, **settings)


def test_gradients_of_a_whole_network():
    """Along a random direction of all parameters at once, by central differences."""
    for net, settings in (
        ("igcv3", {"width_mult": 0.25, "blocks": "1,1,2,1,1,1,1"}),
        ("merge_and_run", {"depth": 8}),
    ):
        network = build_network(net, dtype="float64", **settings)
        rng = np.random.default_rng(4)
        x, labels = rng.normal(size=(4, 3, 8, 8)), rng.integers(0, 10, 4)
        engine = TapeEngine(network)
        engine.step(x, labels)
        directions = [rng.normal(size=p.shape) for p in network.parameters()]
        pairs = list(zip(network.parameters(), directions, strict=True))
        slope = sum((p.grad * d).sum() for p, d in pairs)
        losses = []
        for h in (1e-6, -2e-6):
            for p, d in pairs:
                p.data += h * d
            losses.append(engine.step(x, labels)[0])
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(slope, rel=1e-5)
