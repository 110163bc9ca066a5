import json

import numpy as np
import pytest

from igcnn import build_network, load_dataset, save_checkpoint
from igcnn.training import Preprocessing, TapeEngine, evaluate


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of a network whose batch norm follows the images, and its accuracy."""
    digits = load_dataset("digits")
    network = build_network("plain", depth=8, L=4, num_classes=10, seed=2)
    for x, _ in [(np.random.default_rng(0).standard_normal((50, 3, 8, 8), np.float32), 0)] * 9:
        network(x)
    path = tmp_path / "a.h5"
    # half the data set's own deviation, so that using the wrong one is seen
    half = tuple(s / 2 for s in digits.std)
    save_checkpoint(
        path,
        network,
        preprocessing=Preprocessing("digits", digits.classes, digits.mean, half),
    )
    return path, evaluate(TapeEngine(network), digits.test, mean=digits.mean, std=half)


def test_json(igcnn, checkpoint):
    path, expected = checkpoint
    for arguments in (("--dataset", "digits"), (), ("--batch-size", "360")):
        code, out, _ = igcnn("eval", path, "--json", *arguments)
        assert code == 0
        values = json.loads(out)
        assert list(values)[:4] == ["top1", "top5", "loss", "images"]
        numbers = {key: values[key] for key in ("top1", "top5", "loss", "images")}
        known = {key: getattr(expected, key) for key in numbers}
        assert numbers == pytest.approx(known, rel=1e-4)
        assert values["confusion"] == expected.confusion.tolist()


def test_text(igcnn, checkpoint):
    path, expected = checkpoint
    code, out, _ = igcnn("eval", path)
    assert code == 0
    assert f"top-1   {expected.top1:.2f} %" in out
    assert "images  360" in out


def test_files_that_are_no_checkpoint(refused, checkpoint, tmp_path):
    path, _ = checkpoint
    refused(6, "eval", tmp_path / "absent.h5")
    path.write_bytes(path.read_bytes()[:5000])
    refused(6, "eval", path)
    path.write_text("hello")
    refused(6, "eval", path)


def test_a_data_set_that_does_not_fit(refused, tmp_path, checkpoint):
    path = tmp_path / "b.h5"
    save_checkpoint(path, build_network("plain", depth=8, L=2, num_classes=7))
    assert "7 classes" in refused(6, "eval", path, "--dataset", "digits")
    assert "--dataset" in refused(2, "eval", path)
    assert "did you mean digits" in refused(2, "eval", checkpoint[0], "--dataset", "digit")


def test_broken_weights_are_said_to_be_so(refused, tmp_path):
    network = build_network("plain", depth=8, L=2, num_classes=10)
    network.parameters()[0].data[...] = np.nan
    save_checkpoint(tmp_path / "c.h5", network)
    assert "diverged" in refused(5, "eval", tmp_path / "c.h5", "--dataset", "digits")


def test_batch_size(refused, checkpoint):
    refused(2, "eval", checkpoint[0], "--batch-size", "0")
