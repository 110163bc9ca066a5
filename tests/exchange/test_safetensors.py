"""safetensors files: the authors' names, and round trips to the bit."""

import json

import numpy as np
import pytest

from igcnn import build_network
from igcnn.errors import CheckpointError
from igcnn.exchange.metadata import from_metadata
from igcnn.exchange.names import network_of

from .networks import FUSIONS, PREPROCESSING, SMALL, equal_bits, sample

safetensors_numpy = pytest.importorskip("safetensors.numpy")

from igcnn.exchange.safetensors import read_safetensors, safetensors_file  # noqa: E402


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("net", SMALL)
def test_a_round_trip_is_equal_to_the_bit(path, net):
    network = sample(net)
    path.write_bytes(safetensors_file(network, PREPROCESSING))
    arrays, metadata = read_safetensors(path)
    settings, preprocessing = from_metadata(metadata, path)
    assert (settings, preprocessing) == (network.settings, PREPROCESSING)
    assert equal_bits(network_of(arrays, settings).state_dict(), network.state_dict())


@pytest.mark.parametrize("settings", [{"dtype": "float64"}, *({"fusion": f} for f in FUSIONS)])
def test_so_is_that_of_float64_and_of_fixed_weights(path, settings):
    network = sample("plain_igc", **settings)
    path.write_bytes(safetensors_file(network))
    arrays, _ = read_safetensors(path)
    assert equal_bits(network_of(arrays, network.settings).state_dict(), network.state_dict())


def test_the_file_has_the_authors_names(path):
    network = build_network("resnet_igc", depth=8, L=4, M=2)
    path.write_bytes(safetensors_file(network))
    arrays = safetensors_numpy.load_file(path)
    assert {"g0_conv_weight", "g1_b1_p2_two1_conv2_weight", "fc_bias"} < set(arrays)
    assert {"g0_bn_gamma", "g0_bn_beta", "g0_bn_moving_mean", "g0_bn_moving_var"} < set(arrays)
    np.testing.assert_array_equal(arrays["g0_conv_weight"], network.state_dict()["g0_conv_weight"])


def test_names_of_pytorch_modules_are_taken_too(path):
    network = sample("resnet_igc")
    theirs = {"_gamma": ".weight", "_beta": ".bias", "_weight": ".weight", "_bias": ".bias"}
    theirs |= {"_moving_mean": ".running_mean", "_moving_var": ".running_var"}
    arrays = {"g0_bn.num_batches_tracked": np.array(5)}
    for name, array in network.state_dict().items():
        suffix = next(s for s in theirs if name.endswith(s))
        arrays[name.removesuffix(suffix) + theirs[suffix]] = array
    assert equal_bits(network_of(arrays, network.settings).state_dict(), network.state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("fc_bias"), "missing: fc_bias"),
        (lambda a: a.update(more=np.zeros(1, np.float32)), "not in the network: more"),
        (lambda a: a.update(fc_bias=np.zeros(9, np.float32)), r"\(9,\) in the state but \(10,\)"),
        (lambda a: a.update({"fc.bias": a["fc_bias"]}), "a weight under two names"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    network = sample("resnet")
    arrays = network.state_dict()
    change(arrays)
    with pytest.raises(CheckpointError, match=words):
        network_of(arrays, network.settings)


def test_settings_that_make_no_network_are_refused():
    for settings in ({"net": "resnet", "depth": 7}, {"net": "resnet", "width": 3}, {}):
        with pytest.raises(CheckpointError, match="cannot be built"):
            network_of(sample("resnet").state_dict(), settings)


@pytest.mark.parametrize(
    "change",
    [
        {"network": "{"},
        {"network": "[]"},
        {"preprocessing": "{}"},
        {"classes": "3"},
        {"classes": "["},
        {"preprocessing": json.dumps({"mean": [1, 2]})},
    ],
)
def test_damaged_metadata_is_one_error(path, change):
    path.write_bytes(safetensors_file(sample("resnet"), PREPROCESSING))
    _, metadata = read_safetensors(path)
    with pytest.raises(CheckpointError, match="cannot read the metadata"):
        from_metadata(metadata | change, path)


def test_damaged_files_are_one_error(path):
    data = safetensors_file(sample("resnet"))
    for damaged in (b"", b"abc", data[:-1], data[:100], b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            read_safetensors(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        read_safetensors(path.with_name("absent"))


def test_bfloat16_is_refused_with_the_way_out(path):
    header = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match="save it as float32"):
        read_safetensors(path)
