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
