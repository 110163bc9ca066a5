"""`igcnn runs` and `igcnn plot`."""

import json
from pathlib import Path

from PIL import Image

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
        "runs/b": "stopped",
        "runs/c/d": "running",
    }
    assert (found["runs/a"]["epoch"], found["runs/b"]["epoch"]) == (2, 1)
    assert found["runs/a"]["best_top1"] >= found["runs/a"]["last_top1"] > 0
    code, out, _ = igcnn("runs")
    assert code == 0
    assert out.count("%") == 4 + 2 * found["runs/c/d"]["epoch"] or "running" in out
    assert "absent" in refused(2, "runs", "absent")


def test_curves(igcnn, refused):
    for seed in "01":
        arguments = ("--epochs", "2", "--seed", seed, "--out", f"run{seed}")
        assert igcnn(*LINE, *arguments)[0] == 0
    code, _, err = igcnn("plot", "run0", "run1", "-o", "both.png")
    assert code == 0, err
    with Image.open("both.png") as image:
        assert len(image.convert("L").getcolors(1 << 20)) > 10
    assert "exists" in refused(2, "plot", "run0", "-o", "both.png")
    assert "no folder of a run" in refused(2, "plot", ".")
    assert "cannot write" in refused(2, "plot", "run0", "-o", "absent/x.png")


def test_tensorboard(igcnn):
    code, _, err = igcnn(*LINE, "--epochs", "1", "--tensorboard", "--out", "run")
    assert code == 0, err
    (path,) = Path("run/tensorboard").iterdir()
    content = path.read_bytes()
    for name in (b"loss", b"test/top1", b"train/loss"):
        assert name in content
