"""A network and a data set of an installed package, on the command line."""

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igcnn.datasets import DATASETS
from igcnn.networks import NETWORKS
from igcnn.training import RunDirectory

MODULE = '''
"""A network of two convolutions, and images of stripes."""

import numpy as np

from igcnn import register_dataset, register_network
from igcnn.datasets import Dataset, Split
from igcnn.layers import BatchNorm, Convolution, GlobalAveragePool, Linear, ReLU


@register_network("two_convs", image_size=8)
def two_convs(*, width: int = 4, momentum_of_bn: float = 0.9, num_classes: int = 10, rng, dtype):
    return {
        "conv1": Convolution(3, width, 3, padding=1, rng=rng, dtype=dtype),
        "bn": BatchNorm(width, momentum_of_bn, dtype=dtype),
        "relu": ReLU(),
        "conv2": Convolution(width, width, 3, padding=1, rng=rng, dtype=dtype),
        "pool": GlobalAveragePool(),
        "fc": Linear(width, num_classes, rng=rng, dtype=dtype),
    }


@register_dataset("stripes")
def stripes(image_size):
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = rng.integers(0, 60, (64, 3, 8, 8)).astype(np.uint8)
    images[labels == 0, :, ::2] += 190
    images[labels == 1, :, :, ::2] += 190
    half = Split(images[:32], labels[:32]), Split(images[32:], labels[32:])
    return Dataset("stripes", ("across", "down"), (120.0,) * 3, (90.0,) * 3, None, *half)
'''
POINTS = """
[igcnn.networks]
two_convs = stripe_nets
broken = stripe_broken

[igcnn.datasets]
stripes = stripe_nets
"""
TRAIN = ("train", "--net", "two_convs", "--dataset", "stripes", "--set", "width=6")
SHORT = ("--batch-size", "8", "--lr", "0.1", "--epochs", "4", "--progress", "none")


@pytest.fixture
def package(install):
    install("stripe-nets", POINTS, stripe_nets=MODULE, stripe_broken="import nowhere")


@pytest.fixture
def trained(package, igcnn):
    code, out, err = igcnn(*TRAIN, *SHORT, "--out", "run")
    assert code == 0, err
    assert "two_convs, width 6, momentum_of_bn 0.9: 512 parameters" in " ".join(out.split())
    assert "backend     compiled plan" in out
    return "run"


def test_from_training_to_inspection(trained, igcnn):
    config = tomllib.loads(Path("run/config.toml").read_text())
    assert (config["net"], config["width"], config["momentum_of_bn"]) == ("two_convs", 6, 0.9)
    assert config["dataset"] == "stripes"
    assert RunDirectory("run").read_epochs()[-1]["test_top1"] == 100.0

    code, out, err = igcnn("eval", "run", "--json")
    assert code == 0, err
    assert json.loads(out)["top1"] == 100.0

    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 250  # 8 × 8 after resizing: every second column
    Image.fromarray(stripes).save("down.png")
    code, out, err = igcnn("predict", "run", "down.png", "--json")
    assert code == 0, err
    assert json.loads(out)[0]["classes"][0]["class"] == "down"

    code, out, err = igcnn("inspect", "run", "-o", "page.html", "--json")
    assert code == 0, err
    assert json.loads(out)["failed"] == []
    assert json.loads(out)["network"]["width"] == 6


def test_it_is_resumed(trained, igcnn):
    code, out, err = igcnn("train", "--resume", "run", "--epochs", "5")
    assert code == 0, err
    assert "resumed     after step 16" in out
    assert [row["epoch"] for row in RunDirectory("run").read_epochs()] == [1, 2, 3, 4, 5]


def test_its_config_trains_it_again(trained, igcnn):
    assert igcnn("train", "--config", "run/config.toml", "--out", "again")[0] == 0
    rows = [RunDirectory(run).read_epochs() for run in ("run", "again")]
    assert [row["test_loss"] for row in rows[0]] == [row["test_loss"] for row in rows[1]]


def test_the_default_run_directory_names_its_settings(package, igcnn):
    assert igcnn(*TRAIN, *SHORT, "--max-steps", "1")[0] == 0
    assert list(Path("runs/stripes").iterdir()) == [
        Path("runs/stripes/two_convs-width6-momentum_of_bn0.9")
    ]


def test_the_commands_that_look_at_a_network(package, igcnn):
    options = ("--net", "two_convs", "--set", "width=5", "--classes", "3")
    code, out, err = igcnn("summary", *options, "--json")
    assert code == 0, err
    values = json.loads(out)
    assert values["network"]["width"] == 5
    assert values["image_shape"] == [3, 8, 8]
    assert values["layers"][0]["output"] == [5, 8, 8]
    code, out, err = igcnn("trace", *options, "--batch-size", "2", "--json")
    assert code == 0, err
    code, out, err = igcnn("gradcheck", *options, "--elements", "0", "--json")
    assert code == 0, err
    # two images of a quarter of 8 × 8, and the 5·3·9 weights
    assert json.loads(out)["layers"][0]["elements"] == 2 * 3 * 2 * 2 + 135
    assert igcnn("summary", "--help")[1].count("two_convs") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --net two_convs --set widht=3", "did you mean width? choose one of net, "),
        ("train --net two_convs --set width=x", "width must be an integer, not 'x' (--set)"),
        ("train --net two_convs --depth 8", "two_convs has no setting 'depth'"),
        ("train --net resnet --set width=3", "unknown setting 'width' (--set)"),
        ("train --net two_convs --data-dir x --dataset stripes", "stripes does not read files"),
        ("train --net two_conv", "did you mean two_convs?"),
        ("train --dataset stripe", "did you mean stripes?"),
        ("summary --net two_convs --set width", "--set takes key=value"),
        ("summary --net two_convs --set widht=3", "did you mean width? it takes width"),
        ("summary --net two_convs --set seed=3", "two_convs has no setting 'seed'"),
        ("summary --net broken", "cannot import the network broken of the package stripe-nets"),
    ],
)
def test_refusals(package, refused, words, message):
    assert message in refused(2, *words.split())
    assert not Path("runs").exists()


def test_a_broken_package_costs_nothing_else(package, igcnn):
    assert igcnn("summary", "--net", "plain", "--depth", "5", "--L", "2")[0] == 0
    assert igcnn("summary", "--net", "two_convs")[0] == 0
    assert "stripe_broken" not in sys.modules


def test_without_the_package_it_is_named(trained, igcnn, refused, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not path.endswith("site")])
    for registry, name in ((NETWORKS, "two_convs"), (DATASETS, "stripes")):
        del registry._items[name], registry._modules[name]
    for words in ("eval run", "predict run x.png", "inspect run", "train --resume run"):
        Path("x.png").write_bytes(b"")
        line = refused(6, *words.split())
        assert "of the network two_convs, which stripe_nets registers: install" in line
