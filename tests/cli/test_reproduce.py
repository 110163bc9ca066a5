"""`igcnn reproduce`: what is counted, and runs where there are any."""

import json

import pytest


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


@pytest.mark.long
def test_all_tables_in_words(igcnn):
    for name in ("sota", "imagenet", "width", "depth"):
        code, out, err = igcnn("reproduce", name)
        assert code == 0, err
        assert len(out.splitlines()) > 5


def test_names(igcnn, refused):
    assert igcnn("reproduce")[1].split() == ["sota", "imagenet", "width", "depth"]
    assert "sota" in refused(2, "reproduce", "table 7")
