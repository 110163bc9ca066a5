"""`igcnn reproduce`: what is counted, and runs where there are any."""

import json
from types import SimpleNamespace

import pytest

NAMES = "sota imagenet width depth igcv2 igcv2_factors igcv3 igcv3_imagenet".split()


def table(igcnn, name, *arguments):
    code, out, err = igcnn("reproduce", name, "--json", *arguments)
    assert code == 0, err
    return {row["name"]: row for row in json.loads(out)["rows"]}


def test_imagenet(igcnn):
    rows = table(igcnn, "imagenet")
    assert len(rows) == 5
    own = rows["IGC-L100M2+Ident."]
    assert own["computed"]["params_without_bn"] == 8_607_700
    assert own["published"] == {
        "imagenet": "26.95 / 8.92",
        "params": "8.61 M",
        "multiply_adds": "1.3 G",
    }
    for row in rows.values():
        assert row["computed"]["macs"] > 1e9
        assert row["measured"] == {}


def test_width(igcnn):
    rows = table(igcnn, "width")
    assert len(rows) == 20
    # L·M²·9 + M·L², from networks of the paper's figure
    for name, width, params in (("a, L28M3", 84, 4620), ("b, L41M5", 205, 17_630)):
        assert rows[f"case {name}"]["computed"] == {"width": width, "params": params}


def test_igcv2(igcnn):
    (candidate, *_) = table(igcnn, "igcv2").values()
    # 650,208 and the 100 numbers of the classifier's bias
    assert candidate["computed"]["params"] == 650_308
    rows = table(igcnn, "igcv2_factors")
    for row, layers, K, C in zip(
        rows.values(), (1, 2, 3, 4, 5, 8), (64, 12, 6, 4, 3, 2), (64, 144, 174, 184, 192, 186),
        strict=True,
    ):  # fmt: skip
        assert row["computed"] == {"width": C, "params": C * (9 + layers * K)}


def test_igcv3(igcnn):
    rows = table(igcnn, "igcv3")
    # 2,210,688 and a classifier of 100 classes
    assert rows["IGCV3-D 1.0×"]["computed"]["params"] == 2_210_688 + 128_100
    assert rows["IGCV3-D 1.0×"]["computed"]["macs"] == pytest.approx(166.05e6, rel=1e-4)
    # the errors are 100 − the accuracies that the paper prints
    assert rows["IGCV3-D 1.0×"]["published"]["cifar10"] == f"{100 - 94.96:.2f} ± 0.07"
    assert not any(row["measured"] for row in rows.values())


@pytest.mark.long
def test_igcv3_on_imagenet(igcnn):
    for row in table(igcnn, "igcv3_imagenet").values():
        if row["name"].endswith("imgclsmob"):
            assert f"{row['computed']['params']:,}" == row["published"]["params"]


def test_depth_with_runs_on_disk(igcnn, monkeypatch):
    from igcnn.inspection import reproduce

    monkeypatch.setattr(reproduce, "_paper", lambda: {
        "toy": {
            "title": "toy",
            "note": "toy",
            "datasets": ["digits"],
            "rows": [
                {"name": "own", "network": {"net": "plain_igc", "depth": 8, "L": 2, "M": 2}},
                {"name": "other", "network": {"net": "plain_igc", "depth": 8, "L": 2, "M": 3}},
            ],
        }
    })  # fmt: skip
    for seed in "01":
        line = ("train", "--net", "plain_igc", "--depth", "8", "--L", "2", "--M", "2")
        options = ("--epochs", "1", "--seed", seed, "--out", f"runs/{seed}", "--progress", "none")
        assert igcnn(*line, *options)[0] == 0
    errors = [100 - run["last_top1"] for run in json.loads(igcnn("runs", "--json")[1])]
    rows = table(igcnn, "toy")
    assert rows["own"]["measured"] == {"digits": f"{sum(errors) / 2:.2f} (2 × 1 epochs)"}
    assert rows["other"]["measured"] == {}
    code, out, _ = igcnn("reproduce", "toy")
    assert code == 0
    assert "(2 × 1 epochs)" in out


def test_runs_of_other_settings_do_not_count():
    from igcnn import build_network
    from igcnn.inspection.reproduce import _measured

    def run(**settings):
        return settings, SimpleNamespace(epochs=3, last_top1=90.0)

    row = {"net": "igcv3", "num_classes": 100}
    network = build_network(**row)
    common = {"net": "igcv3", "dataset": "cifar100"}
    other = "1,1,1,2,2,1,2,1"
    own = [run(**common), run(**common, strides=network.settings["strides"], blocks=None)]
    others = [run(**common, strides=other), run(**common | {"dataset": "cifar10"})]
    assert _measured(row, network, "cifar100", own + others) == "10.00 (2 × 3 epochs)"
    assert _measured(row | {"strides": other}, network, "cifar100", own) == ""


@pytest.mark.long
def test_all_tables_in_words(igcnn):
    for name in NAMES:
        code, out, err = igcnn("reproduce", name)
        assert code == 0, err
        assert len(out.splitlines()) > 5


def test_names(igcnn, refused):
    assert igcnn("reproduce")[1].split() == NAMES
    assert "sota" in refused(2, "reproduce", "table 7")
