"""build_network: names, order, refusals, special cases."""

import hashlib
import math
import shutil

import numpy as np
import pytest

from igcnn import Tensor, build_network, no_grad
from igcnn.backend import to_device
from igcnn.errors import ConfigError
from igcnn.functional import cross_entropy
from igcnn.networks import NETWORKS


def images(N=2, size=9, seed=0):
    return np.random.default_rng(seed).standard_normal((N, 3, size, size))


def names(net, **settings):
    return [name for name, _ in build_network(net, **settings).named_parameters()]


def test_names_of_plain():
    assert names("plain", depth=5, L=2)[:4] == [
        "g0_conv_weight",
        "g0_bn_gamma",
        "g0_bn_beta",
        "g1_b1_conv_weight",
    ]
    assert names("plain", depth=5, L=2)[-2:] == ["fc_score_weight", "fc_score_bias"]


def test_names_of_plain_igc():
    first = "g1_b1_conv1_weight", "g1_b1_conv2_weight", "g1_b1_bn_gamma", "g1_b1_bn_beta"
    assert tuple(names("plain_igc", depth=5, L=2, M=2)[3:7]) == first


def test_names_of_resnet_put_the_shortcut_first():
    block = [name for name in names("resnet", depth=8, L=2) if name.startswith("g2_b1")]
    assert block == [
        *("g2_b1_p0_line_conv_weight", "g2_b1_p0_line_bn_gamma", "g2_b1_p0_line_bn_beta"),
        *("g2_b1_p2_two1_conv_weight", "g2_b1_p2_two1_bn_gamma", "g2_b1_p2_two1_bn_beta"),
        *("g2_b1_p2_two2_conv_weight", "g2_b1_p2_two2_bn_gamma", "g2_b1_p2_two2_bn_beta"),
    ]


def test_names_and_shapes_of_the_published_imagenet_models():
    net = build_network("resnet_igc_imgnet_d18", L=100, M=2)
    shapes = {name: p.shape for name, p in net.named_parameters()}
    assert len(shapes) == 81
    assert len(dict(net.named_buffers())) == 42
    assert shapes["g0_conv_weight"] == (100, 3, 7, 7)
    for k in range(1, 5):
        W, Lk = 200 << (k - 1), 100 << (k - 1)
        assert shapes[f"g{k}_b1_proj_conv_weight"] == (W, 1, 1, 1)
        assert shapes[f"g{k}_b1_conv1_conv1_weight"] == (W, 1, 3, 3)
        assert shapes[f"g{k}_b1_conv1_conv2_weight"] == (W, Lk, 1, 1)
        assert shapes[f"g{k}_b2_conv2_conv1_weight"] == (W, 2, 3, 3)
        assert shapes[f"g{k}_b2_conv2_bn_gamma"] == (W,)
    assert shapes["fc_score_weight"] == (1000, 1600)
    regular = names("resnet_imgnet_d18", L=2)
    assert regular[0] == "g0_weight"
    assert "g1_b1_conv1_weight" in regular
    assert "g2_b1_proj_weight" in regular
    assert "g2_b1_proj_bn_gamma" in regular
    assert "g1_b1_proj_weight" not in regular


def test_secondary_groups_of_the_down_sampling_units():
    plain = build_network("plain_igc", depth=5, L=3, M=2)
    residual = build_network("resnet_igc", depth=8, L=3, M=2)
    shapes = {name: p.shape for net in (plain, residual) for name, p in net.named_parameters()}
    assert shapes["g2_b1_conv2_weight"] == (12, 3, 1, 1)
    assert shapes["g2_b1_p2_two1_conv2_weight"] == (12, 6, 1, 1)
    assert shapes["g2_b1_p2_two2_conv2_weight"] == (12, 3, 1, 1)
    assert shapes["g2_b1_p0_line_conv_weight"] == (12, 2, 1, 1)


def test_batch_norm_momentum_differs_between_plain_and_residual():
    for net, momentum in {"plain": 0.99, "plain_igc": 0.99, "resnet": 0.9}.items():
        layers = dict(build_network(net, depth=8, L=2, M=2).named_layers())
        assert layers["g0_bn"].momentum == momentum
        assert layers["g0_bn"].eps == 2e-5


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(8, "111"), (10, "112"), (12, "122"), (16, "223"), (18, "233"), (20, "333"), (98, "g")],
)
def test_blocks_of_residual_networks(depth, blocks):
    found = names("resnet", depth=depth, L=1)
    counts = [sum(f"g{k}_b" in n and "two1_conv" in n for n in found) for k in (1, 2, 3)]
    assert counts == ([16, 16, 16] if blocks == "g" else [int(n) for n in blocks])
    assert 2 + 2 * sum(counts) == depth


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(net="resnet_icg"), "unknown network 'resnet_icg': did you mean resnet_igc"),
        (dict(net="vgg"), "choose one of plain, resnet, plain_igc, resnet_igc, resnet_imgnet_d18"),
        (dict(net="plain", depth=21), r"2 \+ 3·n with n ≥ 1 .* not 21; choose 20 or 23"),
        (dict(net="plain", depth=2), "not 2; choose 5"),
        (dict(net="plain_igc", depth=-4), "not -4; choose 5"),
        (dict(net="resnet", depth=21), "even and at least 8 .* not 21; choose 20 or 22"),
        (dict(net="resnet_igc", depth=6), "not 6; choose 8"),
        (dict(net="resnet_imgnet_d18", depth=20), "depth must be 18, not 20"),
        (dict(net="resnet_igc", L=0), "L must be at least 1, not 0"),
        (dict(net="resnet_igc", M=-2), "M must be at least 1, not -2"),
        (dict(net="plain", num_classes=0), "num_classes must be at least 1"),
        (dict(net="plain", dtype="float16"), "dtype must be float32 or float64"),
        (dict(net="resnet_igc", fusion="learned"), "no setting 'fusion': it takes depth, L, M"),
        (dict(net="plain_igc", fusoin="learned"), "did you mean fusion"),
        (dict(net="plain_igc", fusion="sum"), "fusion must be one of learned, summation"),
        (dict(net="plain", depth="eight"), "plain: depth must be an integer, not 'eight'"),
        (dict(net="plain", depth=8.5), "plain: depth must be an integer, not 8.5"),
        (dict(net="plain", depth=True), "plain: depth must be an integer, not True"),
        (dict(net="plain_igc", L=3, fusion="four_branch"), "needs L = 4 and an even M"),
        (dict(net="resnet_igc", growth="L"), "no setting 'growth'"),
        (dict(net="resnet_igc_imgnet_d18", growth="N"), "growth must be L or M, not 'N'"),
        (dict(net="resnet_igc_imgnet_d18", L=4, M=3, growth="L"), "needs an even M"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_network(**settings)


@pytest.mark.parametrize("net", NETWORKS)
def test_settings_build_the_same_network_again(net):
    one = build_network(net, seed=3, L=4, M=2, num_classes=7)
    two = build_network(**one.settings, seed=3)
    assert two.settings == one.settings
    for (name, p), (name2, q) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        assert name == name2 == q.name
        np.testing.assert_array_equal(p.data, q.data)


def digest(net, **settings):
    """Of names, types, shapes and bytes of all parameters and buffers."""
    sha = hashlib.sha256()
    for name, array in build_network(net, **settings).state_dict().items():
        sha.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return sha.hexdigest()[:16]


# seeds 0, 1 and 2⁶³ in float32, 5 in float64: made by version 0.1, of which runs are continued
WEIGHTS = [
    (
        "plain",
        dict(depth=8, L=4),
        "18ad10cfedb89a0a 0d3ea4eba18dcf59 6945f7f4c97696a2 67219a1de60c94b8",
    ),
    (
        "resnet",
        dict(depth=10, L=4),
        "4661f718118b7c94 71eddc72b19066f9 02c063a974980ca5 b46ca0387ed6daa0",
    ),
    (
        "plain_igc",
        dict(depth=8, L=3, M=2),
        "898708c6bdcb42c5 83d46a15756b5618 9076f639c22aa6de d4bd745c9195a068",
    ),
    (
        "plain_igc",
        dict(depth=8, L=3, M=2, fusion="summation"),
        "e7c90b33d72105cf feae2add16284fdb d88971d9185ea1fd 097bd72ffd084d31",
    ),
    (
        "plain_igc",
        dict(depth=5, L=4, M=2, fusion="four_branch"),
        "6b055c67d8fbb5ce 96ff8d6f21ef8e7a 0ba1a1b72021c9e0 d145d53a0788594d",
    ),
    (
        "resnet_igc",
        dict(depth=10, L=3, M=2),
        "c5683631df77c3f4 092521694f088078 72494d0a9972f48d 83315a2346f0eed5",
    ),
    (
        "resnet_imgnet_d18",
        dict(L=2),
        "a15902f6750846e8 2b9d4f060119fb72 9a1e74f6bece323a ca9f83a7268577fd",
    ),
    (
        "resnet_igc_imgnet_d18",
        dict(L=4, M=2),
        "dd5ab6ac9db6ba09 23ab261d139487b1 5f79237158b0eea3 813604a99f29a59e",
    ),
    (
        "resnet_igc_imgnet_d18",
        dict(L=4, M=4),
        "1d1f5f408de96cfb 539b62099136a45d f53beae882b552e8 917e9bd3f012ee94",
    ),
    (
        "resnet_igc_imgnet_d18",
        dict(L=4, M=4, growth="L"),
        "fe8a23ec838004f4 5d8a875e3edcd587 bc88d3b60973f791 7aca540a4f85f9c7",
    ),
]


@pytest.mark.parametrize(
    ("net", "settings", "expected"), WEIGHTS, ids=lambda value: str(value)[:50]
)
def test_weights_of_a_seed_are_those_they_always_were(net, settings, expected):
    seeds = [(0, "float32"), (1, "float32"), (2**63, "float32"), (5, "float64")]
    found = [digest(net, seed=k, dtype=t, num_classes=7, **settings) for k, t in seeds]
    assert found == expected.split()


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        ("plain", "depth 20 L 16 M 1 num_classes 10"),
        ("resnet", "depth 20 L 16 M 1 num_classes 10"),
        ("plain_igc", "depth 20 L 24 M 2 num_classes 10 fusion learned"),
        ("resnet_igc", "depth 20 L 24 M 2 num_classes 10"),
        ("resnet_imgnet_d18", "depth 18 L 64 M 1 num_classes 1000"),
        ("resnet_igc_imgnet_d18", "depth 18 L 100 M 2 num_classes 1000 growth L"),
    ],
)
def test_defaults(net, expected):
    settings = NETWORKS[net].complete({})
    assert " ".join(f"{name} {value}" for name, value in settings.items()) == expected
    assert NETWORKS[net].image_size == (224 if "imgnet" in net else 32)


def test_growth_follows_the_published_networks():
    family = NETWORKS["resnet_igc_imgnet_d18"]
    assert [family.complete({"M": M})["growth"] for M in (1, 2, 16, 32)] == ["M", "L", "M", "M"]
    assert family.complete({"growth": "L", "M": 4})["growth"] == "L"


def test_settings_given_as_text_make_the_same_network():
    one = build_network("plain_igc", depth="5", L="4", M=np.int64(2), num_classes="7")
    assert one.settings == build_network("plain_igc", depth=5, L=4, M=2, num_classes=7).settings


@pytest.mark.parametrize("net", NETWORKS)
def test_gradient_of_whole_networks(net):
    """Directional derivative in float64, training mode, along random directions."""
    imagenet = "imgnet" in net
    network = build_network(
        net, depth=None if imagenet else 8, L=2, M=2, num_classes=3, dtype="float64"
    )
    x, labels = images(N=3, size=45 if imagenet else 9), np.array([0, 2, 1])

    def loss():
        return cross_entropy(network(Tensor(x)), labels)

    loss().backward()
    rng = np.random.default_rng(1)
    directions = [rng.standard_normal(p.shape) for p in network.parameters()]
    scale = math.sqrt(sum(float(np.sum(d * d)) for d in directions))
    pairs = list(zip(network.parameters(), directions, strict=True))
    analytic = sum(float(np.sum(p.grad * d)) for p, d in pairs) / scale
    step = 1e-6
    values = []
    with no_grad():
        for sign in (1, -1):
            for p, d in pairs:
                p.data += sign * step / scale * d
            values.append(loss().item())
            for p, d in pairs:
                p.data -= sign * step / scale * d
    numeric = (values[0] - values[1]) / (2 * step)
    assert analytic == pytest.approx(numeric, rel=1e-6, abs=1e-8)
    assert abs(analytic) > 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        dict(L=1, M=4),
        dict(L=4, M=1),
        dict(L=3, M=2, fusion="summation"),
        dict(L=3, M=2, fusion="identity"),
        dict(L=4, M=2, fusion="four_branch"),
    ],
)
def test_special_cases_run_and_learn(settings):
    network = build_network("plain_igc", depth=8, num_classes=3, dtype="float64", **settings)
    x, labels = images(N=6), np.array([0, 1, 2, 0, 1, 2])
    losses = []
    for _ in range(20):
        loss = cross_entropy(network(x), labels)
        network.zero_grad()
        loss.backward()
        for tensor in network.parameters():
            tensor.data -= 0.1 * tensor.grad
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)
@pytest.mark.parametrize("fusion", ["summation", "identity", "four_branch"])
def test_fixed_secondary_convolutions_move_to_a_device(fusion):
    settings = dict(depth=5, L=4, M=2, num_classes=3, dtype="float64", fusion=fusion)
    here, there = (build_network("plain_igc", **settings) for _ in range(2))
    there.to("emu")
    x = images()
    y = there(Tensor(to_device(x, "emu")))
    np.testing.assert_allclose(y.numpy(), here(x).numpy(), atol=1e-12)


def test_summation_fusion_gives_every_partition_the_same_sum():
    network = build_network("plain_igc", depth=5, L=3, M=2, fusion="summation", dtype="float64")
    y = dict(network.named_layers())["g1_b1"](np.random.default_rng(0).random((1, 6, 4, 4)))
    partitions = y.data.reshape(1, 3, 2, 4, 4)
    np.testing.assert_allclose(partitions[:, 0], partitions[:, 1], atol=1e-12)


def test_four_branch_network_equals_a_regular_one_of_half_the_width():
    """Its primary kernels W11, W12, W21, W22 are the blocks of the regular kernel."""
    C = 4
    branches = build_network(
        "plain_igc", depth=8, L=4, M=C // 2, fusion="four_branch", dtype="float64", num_classes=3
    )
    regular = build_network("plain", depth=8, L=C, dtype="float64", num_classes=3)
    state = branches.state_dict()
    for name, tensor in regular.named_parameters():
        if name.startswith("g0") or name.endswith("bias"):
            tensor.data[...] = state[name]
        elif name.endswith("conv_weight"):
            blocks = state[name.replace("conv_weight", "conv1_weight")]
            W11, W12, W21, W22 = np.split(blocks, 4)
            tensor.data[...] = np.concatenate(
                [np.concatenate([W11, W12], axis=1), np.concatenate([W21, W22], axis=1)]
            )
        elif name == "fc_score_weight":
            left, right = np.split(state[name], 2, axis=1)
            tensor.data[...] = left + right
    x = images()
    np.testing.assert_allclose(branches(x).data, regular(x).data, atol=1e-10)
