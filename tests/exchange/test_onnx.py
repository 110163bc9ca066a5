"""ONNX models: ONNX Runtime's logits are igcnn's, and the metadata say the rest."""

import json

import numpy as np
import pytest

from igcnn import __version__
from igcnn.errors import ConfigError, DivergedError, IgcnnError
from igcnn.layers import BatchNorm, Chain, Convolution, GlobalAveragePool, Layer, Linear, ReLU

from .networks import (
    FUSIONS,
    PREPROCESSING,
    SMALL,
    Own,
    difference,
    image_shape,
    images,
    logits,
    sample,
)

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from igcnn.exchange.onnx import largest_difference, onnx_model  # noqa: E402

RNG = np.random.default_rng(0)


def run(model, x):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (result,) = session.run(["logits"], {"images": x})
    return result


def operations(model):
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("net", SMALL)
def test_logits_of_all_networks(net, fold_bn):
    network, shape = sample(net), image_shape(net)
    before = network.state_dict()
    model = onnx_model(network, shape, fold_bn=fold_bn)
    for count in (1, 5):  # any batch size
        x = images(shape, count)
        assert difference(run(model, x), logits(network, x)) < 1e-5
    assert ("BatchNormalization" in operations(model)) is not fold_bn
    assert all(np.array_equal(a, before[name]) for name, a in network.state_dict().items())
    assert largest_difference(model, network, shape) < 1e-5


@pytest.mark.parametrize("settings", [{"dtype": "float64"}, *({"fusion": f} for f in FUSIONS)])
def test_float64_and_fixed_weights(settings):
    network = sample("plain_igc", **settings)
    model = onnx_model(network, (3, 32, 32))
    x = images((3, 32, 32))
    expected = logits(network, x.astype(settings.get("dtype", "float32")))
    assert difference(run(model, x), expected) < 1e-5
    assert largest_difference(model, network, (3, 32, 32)) < 1e-5


def test_a_unit_is_group_convolution_permutation_group_convolution_permutation():
    model = onnx.load_from_string(onnx_model(sample("plain_igc"), (3, 32, 32), fold_bn=False))
    onnx.checker.check_model(model, full_check=True)
    names = [node.name for node in model.graph.node]
    first = names.index("g1_b1_conv1")
    permutation = ["Reshape", "Transpose", "Reshape"]
    unit = model.graph.node[first : first + 9]
    expected = ["Conv", *permutation, "Conv", *permutation, "BatchNormalization"]
    assert [node.op_type for node in unit] == expected
    attributes = (a for node in unit if node.op_type == "Conv" for a in node.attribute)
    groups = [attribute.i for attribute in attributes if attribute.name == "group"]
    assert groups == [4, 2]  # L primary and M secondary partitions
    weights = {x.name: list(x.dims) for x in model.graph.initializer}
    assert weights["g1_b1_conv1_weight"] == [8, 2, 3, 3]
    assert weights["g1_b1_conv2_weight"] == [8, 4, 1, 1]


def test_metadata_opset_and_shapes():
    model = onnx.load_from_string(onnx_model(sample("resnet"), (3, 32, 32), PREPROCESSING))
    assert [(x.domain, x.version) for x in model.opset_import] == [("", 17)]
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert texts.pop("igcnn_version") == __version__
    content = {name: json.loads(text) for name, text in texts.items()}
    assert content["network"]["net"] == "resnet"
    assert content["classes"] == list("abcdefghij")
    assert content["preprocessing"] == {
        "dataset": "cifar10",
        "mean": [1.5, 2.5, 3.5],
        "std": [61.0, 62.0, 63.0],
        "side": 32,
        "view": "square",
        "channels": "RGB",
        "layout": "NCHW",
    }
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["N", 3, 32, 32], ["N", 10]]


def test_ones_own_network():
    network = Own()
    model = onnx_model(network, (3, 8, 8))
    x = images((3, 8, 8))
    assert difference(run(model, x), logits(network, x)) < 1e-5
    # the shared convolution before the batch norm takes it up, the one after it does not
    assert "BatchNormalization" not in operations(model)


def test_a_batch_norm_is_folded_only_into_a_convolution_that_nothing_else_reads():
    class Twice(Layer):
        def __init__(self):
            self.conv, self.bn = Convolution(3, 4, 3, rng=RNG), BatchNorm(4)

        def forward(self, x):
            y = self.conv(x)
            return (self.bn(y) + y).sum(axis=(2, 3))

    network = Twice()
    network.bn.moving_mean[...] = 3
    before = Chain(  # of what is no convolution
        {
            "bn": BatchNorm(3),
            "relu": ReLU(),
            "pool": GlobalAveragePool(),
            "fc": Linear(3, 2, rng=RNG),
        }
    )
    for each in (network, before):
        model = onnx_model(each, (3, 8, 8))
        assert "BatchNormalization" in operations(model)
        x = images((3, 8, 8))
        assert difference(run(model, x), logits(each, x)) < 1e-5


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda x: x[:, :, ::2].sum(axis=(2, 3)), "operation getitem"),
        (lambda x: x.sum(), "one row per image"),
        (lambda x: x.reshape(-1, 3), "one row per image"),
    ],
)
def test_what_cannot_be_exported_is_named(forward, words):
    class Odd(Layer):
        def __init__(self):
            self.conv = Convolution(3, 3, 1, rng=RNG)

        def forward(self, x):
            return forward(self.conv(x))

    with pytest.raises(ConfigError, match=words):
        onnx_model(Odd(), (3, 8, 8))


def test_a_model_of_other_weights_is_found_out():
    network = sample("plain")
    model = onnx_model(network, (3, 32, 32))
    network.parameters()[0].data[0] *= 1.01
    with pytest.raises(IgcnnError, match="differ from igcnn's by"):
        largest_difference(model, network, (3, 32, 32))
    network.parameters()[0].data[0] = np.nan
    with pytest.raises(DivergedError, match="earlier checkpoint"):
        largest_difference(model, network, (3, 32, 32))
