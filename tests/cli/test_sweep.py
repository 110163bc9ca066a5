"""`igcnn sweep`: what is trained, kept, summarised and refused."""

import json
import signal
import statistics
from pathlib import Path

import pytest

from igcnn import load_checkpoint
from igcnn.training import RunDirectory

from .conftest import ROOT, TINY
from .processes import children, gone, needs_procfs
from .test_train import fingerprint, wait_for_rows, weights

pytestmark = pytest.mark.xdist_group("processes")  # each has several, and limits of time

# two runs at a time, of seconds each
EPOCHS = "20"  # so that neither run ends before the other has begun
PAIR = ("sweep", "--out", "s", *TINY[1:], "--epochs", EPOCHS, "--log-interval", "5",
        "--grid", "lr=0.1,0.05", "--jobs", "2")  # fmt: skip
RUNS = ("s/lr0.1/seed0", "s/lr0.05/seed0")
OPTIONS = ("--net", "plain_igc", "--depth", "5", "--progress", "none", "--max-steps", "2")


@pytest.fixture(autouse=True)
def this_igcnn(monkeypatch):
    """The processes of a sweep use the same code."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_combinations_with_every_seed(igcnn):
    line = ("sweep", "--out", "s", *OPTIONS, "--grid", "L=2,3", "--grid", "lr=0.1;0.05")
    line += ("--seeds", "0,4", "--jobs", "3")
    code, out, err = igcnn(*line)
    assert code == 0, err
    names = ("L2-lr0.1", "L2-lr0.05", "L3-lr0.1", "L3-lr0.05")
    assert all(f"of 8: {name}/seed{seed}\n" in err for name in names for seed in (0, 4))
    rows = json.loads(Path("s/sweep.json").read_text())
    assert [row["settings"] for row in rows] == [
        {"L": L, "lr": lr} for L in "23" for lr in ("0.1", "0.05")
    ]
    for row, name in zip(rows, names, strict=True):
        lasts = [
            json.loads(Path("s", name, f"seed{seed}", "result.json").read_text())["last_top1"]
            for seed in (0, 4)
        ]
        assert row["last_top1"]["mean"] == pytest.approx(sum(lasts) / 2)
        assert row["last_top1"]["std"] == pytest.approx(statistics.stdev(lasts))
        checkpoint = load_checkpoint(f"s/{name}/seed4/checkpoints/last.h5")
        statistics_of = ("moving_mean", "moving_var")
        sizes = (a.size for n, a in checkpoint.state.items() if not n.endswith(statistics_of))
        assert row["parameters"] == sum(sizes)
        assert checkpoint.network["L"] == int(row["settings"]["L"])
        assert checkpoint.training["seed"] == 4
    table = out[out.index("L    lr  parameters") :].splitlines()
    assert [line.split()[:2] for line in table[1:5]] == [
        [L, lr] for L in "23" for lr in ("0.1", "0.05")
    ]
    assert Path("s/sweep.png").read_bytes().startswith(b"\x89PNG")
    # what has ended is kept
    before = fingerprint("s/L3-lr0.1/seed4")
    code, again, err = igcnn(*line)
    assert code == 0
    assert err.count("is complete and kept") == 8
    assert fingerprint("s/L3-lr0.1/seed4") == before
    assert again[again.index("L    lr  parameters") :] == out[out.index("L    lr  parameters") :]


def test_widths_that_a_budget_pays_for(igcnn):
    options = ("--net", "plain_igc_equal", *OPTIONS[2:], "--budget", "60")
    code, _, err = igcnn("sweep", "--out", "s", *options)
    assert code == 0, err
    rows = json.loads(Path("s/sweep.json").read_text())
    pairs = [(int(row["settings"]["L"]), int(row["settings"]["M"])) for row in rows]
    # L·M²·9 + M·L² ≤ 60, and one more partition or channel would be too many
    assert pairs == [(1, 2), (4, 1)]
    for L, M in pairs:
        assert L * M * M * 9 + M * L * L <= 60
    checkpoint = load_checkpoint("s/L4-M1/seed0/checkpoints/last.h5")
    shapes = {name: array.shape for name, array in checkpoint.state.items()}
    # all stages have the same width
    assert {shapes[f"g{k}_b1_conv1_weight"] for k in (1, 2, 3)} == {(4, 1, 3, 3)}


@needs_procfs
def test_interrupted_and_continued(start, igcnn):
    process = start(*PAIR)
    for run in RUNS:
        wait_for_rows(run, 1, process)
    trainings = children(process.pid)
    assert trainings
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert all(map(gone, trainings))
    stopped = [run for run in RUNS if not RunDirectory(run).result.is_file()]
    assert all(RunDirectory(run).last.is_file() for run in RUNS)
    code, out, err = igcnn(*PAIR)
    assert code == 0, err
    assert all(f"of {len(stopped)}: {Path(run).relative_to('s')}\n" in err for run in stopped)
    assert "lr  parameters" in out
    # as each would be by itself
    lone = (*TINY, "--epochs", EPOCHS, "--lr", "0.05", "--cores", "1", "--out", "lone")
    assert igcnn(*lone, "--progress", "none")[0] == 0
    assert weights(RUNS[1]) == weights("lone")


@needs_procfs
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_run_outlives_the_sweep(start, number):
    process = start(*PAIR, "--epochs", "1000")
    for run in RUNS:
        wait_for_rows(run, 1, process)
    trainings = children(process.pid)
    process.send_signal(number)
    assert process.wait(20) == (75 if number == signal.SIGTERM else -number)
    assert all(map(gone, trainings))
    assert all(RunDirectory(run).last.is_file() for run in RUNS)


def test_a_run_that_fails_stops_the_others(igcnn):
    values = ("lr=0.1,1e30" if each.startswith("lr=") else each for each in PAIR)
    code, _, err = igcnn(*values, "--epochs", "1000")
    assert code == 5
    assert "lr1e30/seed0 ended with exit code 5; the others stop" in err
    assert "last good weights" in err
    assert not Path("s/sweep.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "pass --grid KEY=A,B,… or --budget N"),
        (("--grid", "lr"), "--grid takes KEY=A,B,…"),
        (("--grid", "lr=0.1", "--grid", "lr=0.2"), "each setting once"),
        (("--grid", "seed=1,2"), "seeds by --seeds"),
        (("--grid", "lr=0.1,fast"), "lr must be a number, not 'fast'"),
        (("--grid", "color=1,2"), "unknown setting 'color'"),
        (("--net", "resnet", "--budget", "100"), "--budget is for --net plain_igc_equal"),
        (
            ("--net", "plain_igc_equal", "--budget", "100", "--grid", "L=1,2"),
            "varies L and M itself",
        ),
        (("--grid", "lr=0.1", "--seeds", "x"), "--seeds takes integers"),
        (("--grid", "lr=0.1", "--gpus", "0,1", "--jobs", "2"), "leave out --jobs"),
    ],
)
def test_what_cannot_be(refused, options, words):
    assert words in refused(2, "sweep", "--out", "s", *options)
    assert not Path("s").exists()
