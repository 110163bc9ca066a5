"""What a notebook or a prompt shows of an object: little, and all text escaped."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from igcnn import build_network, load_checkpoint, load_dataset, save_checkpoint
from igcnn.datasets import Dataset, Loader, Split
from igcnn.inspection import summarize
from igcnn.layers import Chain, ReLU
from igcnn.networks import Network
from igcnn.training import Preprocessing, RunDirectory

MEAN = (77.842,) * 3


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture
def network():
    return build_network("plain", depth=5, L=2, num_classes=3)


def test_a_data_set_in_a_line(digits):
    text = "Dataset('digits', 1,437 training and 360 test images of 8×8, 10 classes)"
    assert repr(digits) == text
    assert repr(digits.test) == "Split(360 images of 3×8×8)"
    loader = Loader(digits.train, batch_size=64, mean=MEAN, std=MEAN, seed=3)
    assert repr(loader) == "Loader(1,437 images in 23 batches of 64, seed 3)"


def test_the_picture_of_a_data_set_has_an_image_of_each_class(digits):
    page = digits._repr_html_()
    data = re.search(r'src="data:image/png;base64,([^"]+)"', page)[1]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert pixels.shape == (48, 10 * (48 + 4), 3)  # 8 pixels six times as large, and a gap
    for k in range(10):
        first = digits.train.images[list(digits.train.labels).index(k)]
        shown = pixels[::6, k * 52 : k * 52 + 48 : 6]
        np.testing.assert_array_equal(shown, first.transpose(1, 2, 0))
    assert "<p>0, 1, 2, 3, 4, 5, 6, 7, 8, 9</p>" in page


def test_names_of_classes_are_escaped():
    split = Split(np.zeros((2, 3, 50, 50), np.uint8), np.array([1, 0]))
    names = ("<script>", "b", "never seen")
    page = Dataset("<i>", names, MEAN, MEAN, None, split, split)._repr_html_()
    assert "&lt;script&gt;, b, …" in page
    assert "&lt;i&gt;" in page
    assert not re.search("<script|<i>", page)


def test_a_network_in_a_line_and_as_a_table(network):
    line = repr(network)
    assert line == "Network(net='plain', depth=5, L=2, M=1, num_classes=3, 509 parameters)"
    assert str(network).count("Convolution(") == 4
    page = network._repr_html_()
    leaves = [layer for _, layer in network.named_layers() if not layer.children()]
    assert page.count("<tr>") == 1 + len(leaves)
    counts = re.findall(r'right">([\d,]+)</td>', page)
    assert sum(int(count.replace(",", "")) for count in counts) == 509


def test_names_of_layers_are_escaped():
    page = Network(Chain({"<b>": ReLU()}).children(), {"num_classes": 1})._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_a_summary(network):
    summary = summarize(network, (3, 8, 8))
    text = (
        f"Summary(14 layers, 509 parameters, {summary.macs:,} multiply-adds for one 3×8×8 image)"
    )
    assert repr(summary) == text
    page = summary._repr_html_()
    assert page.count("<tr>") == 15
    assert '<td style="text-align: left">2×8×8</td>' in page


def test_a_checkpoint_and_a_run(network, tmp_path):
    path = tmp_path / "a.h5"
    save_checkpoint(path, network)
    assert repr(load_checkpoint(path)) == "Checkpoint(plain: 509 parameters)"
    prepared = Preprocessing("digits", ("a", "b", "c"), MEAN, MEAN)
    save_checkpoint(path, network, preprocessing=prepared, progress={"step": 7})
    text = "Checkpoint(plain: 509 parameters, trained on digits, step 7)"
    assert repr(load_checkpoint(path)) == text
    assert repr(RunDirectory("runs/a")) == "RunDirectory('runs/a')"


def test_nothing_shows_its_arrays(digits, network, tmp_path):
    save_checkpoint(tmp_path / "a.h5", network)
    checkpoint = load_checkpoint(tmp_path / "a.h5")
    for thing in (digits, digits.train, network, checkpoint, RunDirectory(tmp_path)):
        assert "\n" not in repr(thing)
        assert "array(" not in repr(thing)
    assert dataclasses.replace(digits, name="other") != digits
