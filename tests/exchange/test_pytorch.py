"""PyTorch: the module that is written loads the weights and gives igcnn's logits."""

import importlib.util
import pickle
import subprocess
import sys

import numpy as np
import pytest

from igcnn.errors import CheckpointError, ConfigError
from igcnn.exchange.names import network_of
from igcnn.layers import Chain, Convolution, GlobalAveragePool, Linear, MaxPool

from .networks import (
    FUSIONS,
    PREPROCESSING,
    SMALL,
    Own,
    difference,
    equal_bits,
    image_shape,
    images,
    logits,
    sample,
)

torch = pytest.importorskip("torch")

from igcnn.exchange.pytorch import pytorch_files, read_state_dict  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture
def written(tmp_path):
    """Write a network's files; return the module and the path of the state_dict."""

    def write(network, shape, preprocessing=None):
        path = tmp_path / "net.pt"
        weights, source = pytorch_files(network, shape, preprocessing)
        path.write_bytes(weights)
        path.with_suffix(".py").write_bytes(source)
        spec = importlib.util.spec_from_file_location("net", path.with_suffix(".py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module, path

    return write


def run(network, x):
    with torch.no_grad():
        return network(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("net", SMALL)
def test_logits_and_round_trips_of_all_networks(written, net):
    network, shape = sample(net), image_shape(net)
    module, path = written(network, shape)
    x = images(shape)
    assert difference(run(module.load(path), x), logits(network, x)) < 1e-5
    back = network_of(read_state_dict(path), network.settings)
    assert equal_bits(back.state_dict(), network.state_dict())


@pytest.mark.parametrize("settings", [{"dtype": "float64"}, *({"fusion": f} for f in FUSIONS)])
def test_float64_and_fixed_weights(written, settings):
    network = sample("plain_igc", **settings)
    module, path = written(network, (3, 32, 32))
    x = images((3, 32, 32)).astype(settings.get("dtype", "float32"))
    theirs = module.load(path)
    bound = 1e-13 if "dtype" in settings else 1e-5
    assert difference(run(theirs, x), logits(network, x)) < bound
    trained = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert trained == sum(p.size for p in network.parameters())
    back = network_of(read_state_dict(path), network.settings)
    assert equal_bits(back.state_dict(), network.state_dict())


def test_ones_own_network(written):
    network = Own()
    module, path = written(network, (3, 8, 8))
    x = images((3, 8, 8))
    theirs = module.load(path)
    assert difference(run(theirs, x), logits(network, x)) < 1e-5
    trained = {name for name, p in theirs.named_parameters() if p.requires_grad}
    assert {"first.weight", "first.bias", "shared.weight", "scale", "fc.bias"} < trained


def test_the_source_normalizes_names_classes_and_trains(written):
    network = sample("resnet_igc")
    module, path = written(network, (3, 32, 32), PREPROCESSING)
    assert network.settings == module.NETWORK
    assert list("abcdefghij") == module.CLASSES
    pixels = torch.full((1, 3, 2, 2), 64.5)
    expected = [(64.5 - 1.5) / 61, (64.5 - 2.5) / 62, (64.5 - 3.5) / 63]
    assert module.normalize(pixels)[0, :, 0, 0].tolist() == pytest.approx(expected)
    theirs = module.load(path).train()
    assert theirs.g0_bn.momentum == 0.1  # PyTorch's is 1 − igcnn's 0.9
    assert theirs.g0_bn.eps == 2e-5
    theirs(torch.from_numpy(images((3, 32, 32)))).sum().backward()
    assert theirs.g1_b1_p2_two1_conv2.weight.grad.abs().sum() > 0
    # what PyTorch adds of its own, the counters of batch norm, is no hindrance
    torch.save({"state_dict": theirs.state_dict()}, path)
    back = network_of(read_state_dict(path), network.settings).state_dict()
    assert np.array_equal(back["g0_bn_moving_mean"], theirs.g0_bn.running_mean.numpy())


def test_small_numbers_arrive_exactly(tmp_path):
    path = tmp_path / "net.pt"
    values = torch.tensor([1.0, 3.140625, 1e-3])
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({"x": values.to(dtype)}, path)
        assert read_state_dict(path)["x"].tolist() == values.to(dtype).double().tolist()


class Hostile:
    def __reduce__(self):
        return open, ("executed", "w")


@pytest.mark.parametrize("content", [Hostile(), {"x": Hostile()}, [1, 2], {"x": 3}, None])
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="state_dict"):
        read_state_dict(path)
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="state_dict"):
        read_state_dict(path)
    assert not (tmp_path / "executed").exists()


def test_damaged_files_are_one_error(tmp_path):
    path = tmp_path / "net.pt"
    data, _ = pytorch_files(sample("resnet"), (3, 32, 32))
    for damaged in (b"", b"abc", data[: len(data) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="state_dict"):
            read_state_dict(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        read_state_dict(tmp_path / "absent.pt")


def conv(*arguments, **settings):
    return Convolution(*arguments, **settings, rng=RNG)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"pool": MaxPool(3, 1, 2)}, "by half its window"),
        ({"half": conv(3, 3, 1)}, "'half' cannot be the name"),
        ({"block-1": conv(3, 3, 1)}, "'block-1' cannot be the name"),
    ],
)
def test_what_a_module_cannot_have_is_named(layers, words):
    network = Chain({**layers, "mean": GlobalAveragePool(), "fc": Linear(3, 2, rng=RNG)})
    with pytest.raises(ConfigError, match=words):
        pytorch_files(network, (3, 8, 8))


def test_torch_is_loaded_only_where_it_is_asked_for():
    code = (
        "import sys, pkgutil, importlib, igcnn\n"
        "import igcnn.exchange.names, igcnn.exchange.onnx, igcnn.exchange.safetensors\n"
        "import igcnn.training, igcnn.inspection, igcnn.cli.main\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
