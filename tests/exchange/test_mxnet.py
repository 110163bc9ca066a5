"""Files in MXNet's formats, written here by the format's description, become networks."""

import json
import struct

import numpy as np
import pytest

from igcnn import build_network
from igcnn.errors import CheckpointError
from igcnn.exchange.mxnet import TYPES, V1, V2, V3, convert, read_params

NETWORKS = {
    "ResNet-18": ("resnet_imgnet_d18", {"L": 6, "M": 1}),
    "L4M32": ("resnet_igc_imgnet_d18", {"L": 2, "M": 4, "growth": "M"}),
    "L100M2": ("resnet_igc_imgnet_d18", {"L": 6, "M": 2, "growth": "L"}),
}


def array_bytes(array, generation):
    kind = next(k for k, t in TYPES.items() if np.dtype(t) == array.dtype)
    tail = struct.pack("<iii", 1, 0, kind) + array.tobytes()
    if generation == "legacy":
        return struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape) + tail
    head = struct.pack("<I", generation)
    if generation != V1:
        head += struct.pack("<i", 0)
    return head + struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape) + tail


def params_bytes(arrays, generation="legacy"):
    result = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for array in arrays.values():
        result += array_bytes(array, generation)
    result += struct.pack("<Q", len(arrays))
    for name in arrays:
        result += struct.pack("<Q", len(name)) + name.encode()
    return result


def symbol_of(network, key="param"):
    """Return symbol.json in the form of the year 2016, or with `attrs` as later."""
    nodes = [{"op": "null", key: {}, "name": "data", "inputs": []}]
    for name, _ in network.named_parameters():
        nodes.append({"op": "null", key: {}, "name": name, "inputs": []})
        if name.endswith("_bn_gamma"):
            attributes = {"eps": "2e-005", "fix_gamma": "False"}
            nodes.append({"op": "BatchNorm", key: attributes, "name": name.removesuffix("_gamma")})
    if network.settings["net"] == "resnet_igc_imgnet_d18":
        L, growth = network.settings["L"], network.settings["growth"]
        for k in range(4):
            groups = L << k if growth == "L" else L
            attributes = {"kernel": "(3,3)", "num_group": str(groups)}
            node = {"op": "Convolution", key: attributes, "name": f"g{k + 1}_b1_conv1_conv1"}
            nodes.append(node)
    return json.dumps({"nodes": nodes, "arg_nodes": [], "heads": []})


def released(network, seed=0):
    """Return arrays as a release has them, in arbitrary order, and what they must become."""
    rng = np.random.default_rng(seed)
    own = {n: rng.random(a.shape).astype(np.float32) for n, a in network.state_dict().items()}
    auxiliary = {name for name, _ in network.named_buffers()}
    names = rng.permutation(list(own))
    return {f"{'aux' if n in auxiliary else 'arg'}:{n}": own[n] for n in names}, own


def write(folder, arrays, symbol, generation="legacy"):
    params, path = folder / "net-0095.params", folder / "net-symbol.json"
    params.write_bytes(params_bytes(arrays, generation))
    path.write_text(symbol)
    return params, path


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("generation", ["legacy", V1, V2, V3])
def test_every_weight_arrives(tmp_path, name, generation):
    net, settings = NETWORKS[name]
    network = build_network(net, num_classes=7, **settings)
    arrays, expected = released(network)
    key = "param" if generation == "legacy" else "attrs"
    result, prepared = convert(*write(tmp_path, arrays, symbol_of(network, key), generation))
    assert result.settings == network.settings
    for name_, array in result.state_dict().items():
        np.testing.assert_array_equal(array, expected[name_])
    assert (prepared.side, prepared.view, len(prepared.classes)) == (224, "center", 7)


def test_all_types_of_numbers(tmp_path):
    arrays = {f"arg:{k}": np.arange(6).reshape(2, 3).astype(t) for k, t in TYPES.items()}
    path = tmp_path / "x.params"
    path.write_bytes(params_bytes(arrays))
    for name, array in read_params(path).items():
        np.testing.assert_array_equal(array, arrays[f"arg:{name}"])
        assert array.dtype == arrays[f"arg:{name}"].dtype


def test_a_fixed_gamma_is_one(tmp_path):
    network = build_network("resnet_imgnet_d18", L=6, M=1, num_classes=7)
    arrays, _ = released(network)
    symbol = symbol_of(network).replace('"fix_gamma": "False"', '"fix_gamma": "True"')
    result, _ = convert(*write(tmp_path, arrays, symbol))
    assert np.all(result.state_dict()["g0_bn_gamma"] == 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("arg:fc_score_bias"), "missing: fc_score_bias"),
        (lambda a: a.update({"arg:more": np.zeros(1, np.float32)}), "not in the network: more"),
        (lambda a: a.update({"arg:fc_score_bias": np.zeros(8, np.float32)}), "shape"),
        (lambda a: a.pop("arg:fc_score_weight"), "a network that igcnn does not have"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, words):
    network = build_network("resnet_igc_imgnet_d18", L=6, M=2, num_classes=7)
    arrays, _ = released(network)
    change(arrays)
    with pytest.raises(CheckpointError, match=words):
        convert(*write(tmp_path, arrays, symbol_of(network)))


def test_another_eps_is_refused(tmp_path):
    network = build_network("resnet_imgnet_d18", L=6, M=1, num_classes=7)
    symbol = symbol_of(network).replace("2e-005", "1e-3")
    with pytest.raises(CheckpointError, match=r"eps 0\.001"):
        convert(*write(tmp_path, released(network)[0], symbol))


def test_damaged_files_raise_one_error(tmp_path):
    network = build_network("resnet_igc_imgnet_d18", L=2, M=2, num_classes=3)
    arrays, _ = released(network)
    params, symbol = write(tmp_path, arrays, symbol_of(network))
    data, text = params.read_bytes(), symbol.read_text()
    rng = np.random.default_rng(0)
    for _ in range(200):
        mutated = bytearray(data)
        for place in rng.integers(0, 400, 3):  # heads, where damage hurts
            mutated[place] = rng.integers(256)
        params.write_bytes(bytes(mutated[: rng.integers(1, len(data))]))
        with pytest.raises(CheckpointError):
            read_params(params)
    params.write_bytes(data)
    for damaged in ("", "[]", "{}", '{"nodes": 3}', '{"nodes": [{"name": 1}]}', text[:-5]):
        symbol.write_text(damaged)
        with pytest.raises(CheckpointError):
            convert(params, symbol)
    with pytest.raises(CheckpointError, match="cannot read"):
        convert(tmp_path / "absent.params", symbol)


def igcv3_file(blocks, groups, widths, classes=7):
    """Return arrays and symbol.json as the authors' igcv3 has them, layer by layer."""
    rng = np.random.default_rng(5)
    arrays, nodes = {}, []

    def layer(prefix, C, C_out, K, num_group):
        arrays[f"arg:{prefix}-conv2d_weight"] = rng.random((C_out, C // num_group, K, K))
        for name in ("gamma", "beta"):
            arrays[f"arg:{prefix}-batchnorm_{name}"] = rng.random(C_out)
        for name in ("moving_mean", "moving_var"):
            arrays[f"aux:{prefix}-batchnorm_{name}"] = rng.random(C_out)
        attributes = {"kernel": f"({K}, {K})", "num_group": str(num_group)}
        nodes.append({"op": "Convolution", "attr": attributes, "name": f"{prefix}-conv2d"})
        attributes = {"eps": "1e-05", "fix_gamma": "False"}
        nodes.append({"op": "BatchNorm", "attr": attributes, "name": f"{prefix}-batchnorm"})

    layer("first-3x3-conv", 3, 32, 3, 1)
    C = 32
    for k, (n, width) in enumerate(zip(blocks, widths, strict=True), 1):
        for j in range(1, n + 1):
            e = C * (6 if k > 1 else 1)
            layer(f"seq-{k}-block{j}-exp", C, e, 1, 2)
            layer(f"seq-{k}-block{j}-depthwise", e, e, 3, e)
            layer(f"seq-{k}-block{j}-linear", e, width, 1, groups)
            C = width
    layer("last-1x1-conv", C, 1280, 1, 1)
    arrays["arg:fc_weight"], arrays["arg:fc_bias"] = (
        rng.random((classes, 1280)),
        rng.random(classes),
    )
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    return arrays, json.dumps({"nodes": nodes, "heads": [[1, 0, 0]]})


@pytest.mark.parametrize(
    ("blocks", "groups", "widths", "settings"),
    [
        ((1, 2, 1, 1, 1, 1, 1), 2, (16, 24, 32, 64, 96, 160, 320), {"wider": False}),
        ((1, 1, 1, 1, 1, 1, 1), 4, (16, 24, 32, 64, 96, 160, 320), {"secondary_groups": 4}),
        ((1, 1, 1, 1, 1, 1, 1), 2, (32, 48, 64, 128, 192, 320, 640), {"wider": True}),
    ],
)
def test_igcv3(tmp_path, blocks, groups, widths, settings):
    arrays, symbol = igcv3_file(blocks, groups, widths)
    network, prepared = convert(*write(tmp_path, arrays, symbol, V2))
    assert network.settings["blocks"] == ",".join(map(str, blocks))
    assert network.settings | settings == network.settings
    state = network.state_dict()
    assert len(state) == len(arrays)
    for own, theirs in (
        ("first_weight", "arg:first-3x3-conv-conv2d_weight"),
        ("seq2_block1_exp_bn_beta", "arg:seq-2-block1-exp-batchnorm_beta"),
        ("seq7_block1_depthwise_weight", "arg:seq-7-block1-depthwise-conv2d_weight"),
        ("seq3_block1_linear_bn_moving_var", "aux:seq-3-block1-linear-batchnorm_moving_var"),
        ("last_bn_gamma", "arg:last-1x1-conv-batchnorm_gamma"),
        ("fc_bias", "arg:fc_bias"),
    ):
        np.testing.assert_array_equal(state[own], arrays[theirs])
    assert prepared.mean == (123.68, 116.779, 103.939)
    assert prepared.std == (1, 1, 1)


def test_an_igcv3_that_does_not_fit(tmp_path):
    arrays, symbol = igcv3_file((1,) * 7, 2, (16, 24, 32, 64, 96, 160, 320))
    del arrays["arg:seq-2-block1-exp-conv2d_weight"]
    with pytest.raises(CheckpointError, match="missing: seq2_block1_exp_weight"):
        convert(*write(tmp_path, arrays, symbol, V2))
    arrays, symbol = igcv3_file((1,) * 7, 3, (18, 24, 36, 66, 96, 162, 321))
    with pytest.raises(CheckpointError, match="secondary_groups must be 1, 2 or 4, not 3"):
        convert(*write(tmp_path, arrays, symbol, V2))
    arrays, symbol = igcv3_file((1,) * 7, 2, (16, 24, 32, 64, 96, 160, 320))
    with pytest.raises(CheckpointError, match="supports only 1e-05"):
        convert(*write(tmp_path, arrays, symbol.replace("1e-05", "2e-5"), V2))
