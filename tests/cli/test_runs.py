"""`igcnn runs` and `igcnn plot`."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from written_runs import make_run

from .conftest import TINY
from .test_train import wait_for_rows

LINE = (*TINY, "--progress", "none", "--cores", "1")


def test_runs_and_their_states(igcnn, start, refused):
    assert igcnn(*LINE, "--epochs", "2", "--out", "runs/a")[0] == 0
    assert igcnn(*LINE, "--epochs", "3", "--max-steps", "30", "--out", "runs/b")[0] == 0
    process = start(*LINE, "--epochs", "300", "--out", "runs/c/d")
    wait_for_rows("runs/c/d", 1, process)
    Path("runs/other").mkdir()
    Path("runs/other/config.toml").write_text("epochs = 'many'")
    code, out, err = igcnn("runs", "--json")
    assert code == 0, err
    found = {run["path"]: run for run in json.loads(out)}
    assert {name: run["state"] for name, run in found.items()} == {
        "runs/a": "done",
        "runs/b": "done",
        "runs/c/d": "running",
    }
    assert (found["runs/a"]["epoch"], found["runs/b"]["epoch"]) == (2, 1)
    assert found["runs/a"]["best_top1"] >= found["runs/a"]["last_top1"] > 0
    code, out, _ = igcnn("runs")
    assert code == 0
    assert "running" in out
    assert "absent" in refused(2, "runs", "absent")


@pytest.fixture
def two_runs():
    make_run("runs/digits/first", [60.0, 90.0], lr=0.05)
    make_run("runs/digits/second", [95.0], lr=0.5)


def test_settings_that_differ_are_columns(igcnn, two_runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = igcnn("runs")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["run", "state", "epoch", "best", "last", "time", "lr"],
        ["runs/digits/first", "stopped", "2/4", "90.00", "90.00", "0:20", "0.05"],
        ["runs/digits/second", "stopped", "1/4", "95.00", "95.00", "0:10", "0.5"],
    ]
    monkeypatch.setenv("COLUMNS", "50")  # the paths' common part stands above the table
    assert igcnn("runs")[1].splitlines()[:2] == [
        "in runs/digits:",
        "run     state    epoch   best   last  time    lr",
    ]
    monkeypatch.setenv("COLUMNS", "40")
    assert igcnn("runs")[1].splitlines()[:3] == [
        "runs/digits/first",
        "  state stopped  epoch 2/4  best 90.00",
        "  last 90.00  time 0:20  lr 0.05",
    ]


@pytest.mark.parametrize(
    ("key", "first"),
    [
        ("best", "second"),
        ("LAST", "second"),
        ("time", "second"),
        ("name", "first"),
        ("lr", "first"),
    ],
)
def test_runs_are_sorted(igcnn, two_runs, key, first):
    found = json.loads(igcnn("runs", "--sort", key, "--json")[1])
    assert Path(found[0]["path"]).name == first
    assert found[0]["settings"]["lr"] == {"first": 0.05, "second": 0.5}[first]


def test_runs_as_csv(igcnn, two_runs, refused):
    rows = list(csv.DictReader(igcnn("runs", "--csv")[1].splitlines()))
    assert [row["lr"] for row in rows] == ["0.05", "0.5"]
    assert rows[1]["best_top1"] == "95.0"
    assert "did you mean lr" in refused(2, "runs", "--sort", "lrr")
    assert "cannot be combined" in refused(2, "runs", "--csv", "--json")


def test_compare(igcnn, two_runs, refused):
    paths = ("runs/digits/first", "runs/digits/second")
    code, out, _ = igcnn("compare", *paths)
    assert code == 0
    words = [line.split() for line in out.splitlines()]
    assert words[:2] == [["[1]", paths[0]], ["[2]", paths[1]]]
    assert ["lr", "0.05", "0.5"] in words
    assert ["epochs", "to", "90", "%", "2", "1"] in words  # what both have reached
    _, out, _ = igcnn("compare", *paths, "--reach", "60", "--reach", "93", "--json")
    content = json.loads(out)
    assert content["differing"] == ["lr"]
    first = content["runs"][0]
    assert first["epochs_to"] == [{"top1": 60, "epoch": 1}, {"top1": 93, "epoch": None}]
    assert "two or more runs" in refused(2, "compare", paths[0])
    assert "is not a run directory" in refused(2, "compare", paths[0], ".")


def test_a_comparison_comes_in_parts_on_a_narrow_terminal(igcnn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    paths = [f"runs/{i:02}" for i in range(12)]
    for i, path in enumerate(paths):
        make_run(path, [50.0], seed=i)
    _, out, _ = igcnn("compare", *paths)
    assert max(map(len, out.splitlines())) <= 60
    seeds = [line.split()[1:] for line in out.splitlines() if line.startswith("seed")]
    assert len(seeds) > 1
    assert [int(seed) for part in seeds for seed in part] == list(range(12))


def test_curves(igcnn, refused, two_runs):
    make_run("empty")
    code, out, err = igcnn("plot", "runs/digits/first", "runs/digits/second", "empty")
    assert (code, out) == (0, "curves.png\n")
    assert err == "igcnn: empty is skipped: no epoch is complete\n"
    with Image.open("curves.png") as image:
        assert len(image.convert("L").getcolors(1 << 20)) > 10
    assert "exists" in refused(2, "plot", "empty")
    assert "nothing to plot" in refused(2, "plot", "empty", "-o", "new.png")
    assert "is not a run directory" in refused(2, "plot", ".", "-o", "new.png")
    assert "cannot write" in refused(2, "plot", "runs/digits/first", "-o", "absent/x.png")


def test_a_data_set_of_ones_own_has_its_folders_name(igcnn):
    for split in ("train", "test"):
        for name in ("rose", "tulip"):
            folder = Path("flowers", split, name)
            folder.mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (8, 8), (90 * i, 50, 50)).save(folder / f"{i}.png")
    data = ("--dataset", "folder", "--data-dir", "flowers", "--image-size", "8")
    limits = ("--batch-size", "2", "--max-steps", "1", "--workers", "0")
    code, _, err = igcnn(*LINE, *data, *limits)
    assert code == 0, err
    (run,) = json.loads(igcnn("runs", "--json")[1])
    assert run["path"].startswith("runs/flowers/plain_igc-L2M2-d8/")
    assert (run["settings"]["dataset"], run["state"]) == ("flowers", "done")


def test_tensorboard(igcnn):
    code, _, err = igcnn(*LINE, "--epochs", "1", "--tensorboard", "--out", "run")
    assert code == 0, err
    (path,) = Path("run/tensorboard").iterdir()
    content = path.read_bytes()
    for name in (b"loss", b"test/top1", b"train/loss"):
        assert name in content
