"""`igcnn trace` and `igcnn gradcheck`."""

import json

import pytest

from igcnn.cli.dataset import Progress
from igcnn.layers import BatchNorm
from igcnn.layers.relu import ReLUFunction

NET = ("--depth", "8", "--L", "2", "--M", "2")


@pytest.mark.parametrize("net", ["plain", "resnet", "plain_igc", "resnet_igc"])
def test_every_layer_passes(igcnn, net):
    code, out, err = igcnn("gradcheck", "--net", net, *NET, "--elements", "5", "--json")
    assert code == 0, err
    rows = json.loads(out)["layers"]
    assert rows[-1]["layer"] == "network"
    assert all(row["passed"] and row["worst_error"] < 1e-6 for row in rows)
    code, summary, _ = igcnn("summary", "--net", net, *NET, "--json")
    layers = [layer["name"] for layer in json.loads(summary)["layers"]]
    assert [row["layer"] for row in rows[:-1]] == layers


def test_a_broken_backward_fails_where_it_is(igcnn, monkeypatch):
    real = ReLUFunction.backward

    def broken(self, gy):
        (gx,) = real(self, gy)
        return (gx * 1.001,)

    monkeypatch.setattr(ReLUFunction, "backward", broken)
    code, out, err = igcnn("gradcheck", "--net", "plain", *NET, "--elements", "5")
    assert code == 1
    failed = [line.split()[0] for line in out.splitlines() if line.endswith("FAILED")]
    assert failed[:-1] == [name for name in failed[:-1] if "relu" in name]
    assert len(failed) == 8
    assert failed[-1] == "network"
    assert err.startswith("igcnn: error: gradcheck: 8 of")


def test_the_tape_of_a_step(igcnn):
    code, out, err = igcnn("trace", "--net", "resnet_igc", *NET, "--batch-size", "3", "--json")
    assert code == 0, err
    result = json.loads(out)
    records = result["records"]
    operations = [record["op"] for record in records]
    assert operations.count("interleaved_group_convolution") == 6
    assert operations[-1] == "softmax_cross_entropy"
    assert records[0]["layer"]
    assert records[0]["inputs"][0] == [3, 3, 32, 32]
    assert all(record["forward_ms"] >= 0 for record in records)
    assert result["peak_bytes"] > sum(record["kept"] for record in records) / 2
    assert result["plan"]["interleaved_group_convolution"] == 6
    code, out, _ = igcnn("trace", "--net", "resnet_igc", *NET)
    assert code == 0
    assert "MB at most" in out
    assert "6 interleaved_group_convolution" in out


def test_refusals(refused):
    assert "--image-size" in refused(2, "trace", "--image-size", "0")
    refused(2, "gradcheck", "--net", "resnet_icg")


def test_a_kink_within_a_step_is_no_error(igcnn):
    """The input of g0_relu has an element 1.65e-6 from 0."""
    settings = ("--depth", "5", "--L", "2", "--M", "2", "--seed", "3", "--classes", "3")
    options = ("--image-size", "6", "--elements", "0", "--json")
    code, out, err = igcnn("gradcheck", "--net", "plain_igc", *settings, *options)
    assert code == 0, err
    rows = json.loads(out)["layers"]
    assert all(row["passed"] and not row["kinks"] for row in rows)
    assert rows[2]["layer"] == "g0_relu"
    assert rows[2]["elements"] == 288


def test_a_place_without_a_gradient_is_counted(igcnn, monkeypatch):
    real = BatchNorm.forward

    def flat(self, x):  # what ReLU gets is 0 here and there
        y = real(self, x)
        return y * (y.data > 0)

    monkeypatch.setattr(BatchNorm, "forward", flat)
    code, out, err = igcnn("gradcheck", "--net", "plain", *NET, "--elements", "9")
    assert code == 0, err
    kinked = [line for line in out.splitlines() if line.endswith(" not differentiable")]
    assert kinked
    assert all("relu" in line.split()[0] for line in kinked)


@pytest.mark.parametrize("option", [("--tolerance", "nan"), ("--tolerance", "-1")])
def test_a_tolerance_that_is_none_is_refused(refused, option):
    assert "tolerance must be a number above 0" in refused(2, "gradcheck", *NET, *option)


def test_progress_of_what_takes_long(monkeypatch, capsys):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("igcnn.cli.dataset.time.monotonic", lambda: next(clock))
    progress = Progress("elements", at_once=False)
    for name in ("a", "b"):
        for done in range(1, 6 if name == "a" else 3):
            progress(name, done, 5 if name == "a" else 2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "a  4 elements of 5 elements",
        "a  5 elements of 5 elements",
    ]
