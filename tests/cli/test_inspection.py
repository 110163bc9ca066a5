"""`igcnn trace` and `igcnn gradcheck`."""

import json

import pytest

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
