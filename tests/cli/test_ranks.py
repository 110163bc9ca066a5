"""`igcnn train` on several ranks: the same run for all, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from igcnn import load_checkpoint
from igcnn.training import RunDirectory

from .conftest import TINY
from .processes import children, gone, needs_procfs
from .test_survival import counts
from .test_train import rows, wait_for_rows, weights

pytest.importorskip("mpi4py", reason="needs MPI (pip install 'igcnn[mpi]')")
pytestmark = [
    needs_procfs,
    pytest.mark.usefixtures("mpiexec"),
    pytest.mark.xdist_group("processes"),  # each has several of its own, and limits of time
]

PROGRAMS = Path(__file__).parents[1] / "distributed" / "rank_programs.py"
LINE = (*TINY, "--epochs", "4", "--log-interval", "5", "--checkpoint-steps", "7",
        "--progress", "none", "--ranks", "2")  # fmt: skip
# a save is where the others have to be patient with rank 0: few of them
ENDLESS = (*LINE, "--epochs", "10000", "--checkpoint-steps", "60", "--checkpoint-epochs", "100")
SECONDS = 10  # in which a job has to end when a rank is lost


@pytest.fixture
def whole(start, tmp_path):
    """A run on two ranks that nothing disturbed."""
    process = start(*LINE, "--out", "whole")
    assert process.wait(300) == 0, process.stderr.read()
    return tmp_path / "whole"


def ranks_of(process):
    """Return the processes that compute, rank 0 first."""
    (mpiexec,) = children(process.pid)
    return children(mpiexec)


def go_on(start, run):
    """Go on with a run on two ranks to its end."""
    process = start("train", "--resume", run, "--ranks", "2")
    assert process.wait(300) == 0, process.stderr.read()


def test_ranks_leave_one_run(whole, igcnn):
    names = {path.name for path in whole.iterdir()}
    assert names == {"config.toml", "env.json", "train.log", "metrics.jsonl", "metrics.csv",
                     "curves.svg", "summary.txt", "result.json", "checkpoints"}  # fmt: skip
    log = (whole / "train.log").read_text()
    assert log.count("2 ranks, summed by MPI") == 1
    assert log.count("epoch 4/4 done") == 1
    assert [row["step"] for row in rows(whole)] == list(range(5, 93, 5))
    # evaluated by two ranks, and again by one process
    code, out, err = igcnn("eval", whole / "checkpoints" / "last.h5", "--dataset", "digits",
                           "--json")  # fmt: skip
    assert code == 0, err
    last = RunDirectory(whole).read_epochs()[-1]
    result = json.loads(out)
    assert result["top1"] == last["test_top1"]
    assert result["loss"] == pytest.approx(last["test_loss"], rel=1e-5)


def test_beyond_the_recipe_ranks_agree_too(start, whole):
    """Weights to start from, frozen ones and averages are the same on all; and they resume."""
    options = ("--init-from", whole, "--freeze", "g0_*", "--average", "0.9", "--validation", "0.2",
               "--label-smoothing", "0.1", "--schedule", "cosine", "--patience", "3")  # fmt: skip
    for arguments in (("--out", "a"), ("--out", "b", "--max-steps", "30")):
        process = start(*LINE, *options, *arguments)
        assert process.wait(300) == 0, process.stderr.read()
    go_on(start, whole.parent / "b")
    ends = [load_checkpoint(whole.parent / x / "checkpoints" / "last.h5") for x in "ab"]
    for group in ("state", "raw", "velocity"):
        one, other = (getattr(end, group) for end in ends)
        assert one.keys() == other.keys()
        assert all(np.array_equal(array, other[name]) for name, array in one.items())
    before = load_checkpoint(whole).parameters
    for name, array in ends[0].raw.items():
        if name in before:
            assert np.array_equal(array, before[name]) == name.startswith("g0_"), name
    results = [json.loads((whole.parent / x / "result.json").read_text()) for x in "ab"]
    assert results[0]["best_val_top1"] == results[1]["best_val_top1"]
    # of each rank's part of the images, by the average that it has
    losses = [
        [row["val_loss"] for row in RunDirectory(whole.parent / x).read_epochs()] for x in "ab"
    ]
    assert losses[0] == losses[1]


def test_synchronised_ranks_learn_as_one(start, igcnn):
    """Batch norm over all ranks: the curves of one process, up to rounding."""
    line = [
        *TINY,
        "--max-steps",
        "12",
        "--log-interval",
        "1",
        "--lr",
        "0.01",
        "--progress",
        "none",
    ]
    process = start(*line, "--ranks", "2", "--batch-size", "63", "--sync-bn", "--out", "two")
    assert process.wait(300) == 0, process.stderr.read()
    code, _, err = igcnn(*line, "--batch-size", "63", "--eager", "--out", "one")
    assert code == 0, err
    for together, alone in zip(rows("two"), rows("one"), strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    for name, array in load_checkpoint("one/checkpoints/last.h5").state.items():
        other = load_checkpoint("two/checkpoints/last.h5").state[name]
        np.testing.assert_allclose(other, array, atol=1e-4 * max(1, np.abs(array).max()))


@counts(1, 20)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_asked_to_end(start, whole, number, code, count):
    for i in range(count):
        run = f"run{i}"
        process = start(*LINE, "--epochs", "400", "--out", run)
        wait_for_rows(run, 1 + i % 17, process)
        process.send_signal(number)
        assert process.wait(6) == code, process.stderr.read()
        assert f"igcnn train --resume {run}" in process.stderr.read()
    # the shorter run is resumed to bits that are known
    process = start(*LINE, "--out", "run")
    wait_for_rows("run", 3, process)
    process.send_signal(number)
    if process.wait(6) == code:
        go_on(start, "run")
    assert weights("run") == weights(whole)
    assert rows("run") == rows(whole)


@counts(1, 10)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_lost(start, rank, number, count):
    for i in range(count):
        run = f"run{i}"
        process = start(*ENDLESS, "--out", run)
        wait_for_rows(run, 13 + i, process)
        ranks = ranks_of(process)
        os.kill(ranks[rank], number)
        code = process.wait(SECONDS)
        assert code not in (0, 2, 3, 4, 5, 6, 75, 130)
        assert all(gone(pid) for pid in ranks)
        checkpoint = load_checkpoint(f"{run}/checkpoints/last.h5")
        assert checkpoint.progress["step"] >= 60


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_that_lost_a_rank_goes_on(start, whole, number):
    """To the bits of one that did not, at whatever step that was."""
    process = start(*LINE, "--out", "run")
    wait_for_rows("run", 3, process)
    os.kill(ranks_of(process)[1], number)
    process.wait(SECONDS)
    go_on(start, "run")
    assert weights("run") == weights(whole)
    assert rows("run") == rows(whole)


def test_a_rank_that_is_lost_after_an_update(mpiexec, start, whole):
    """The step that is saved is that of the weights, also before it was counted."""
    name = "a_rank_that_stops_between_its_update_and_the_next_sum"
    subprocess.run(
        [*mpiexec, "-n", "2", sys.executable, str(PROGRAMS), name, *LINE[:-2], "--out", "run"],
        capture_output=True,
        timeout=30,
    )
    assert load_checkpoint("run/checkpoints/last.h5").progress["step"] == 20
    go_on(start, "run")
    assert weights("run") == weights(whole)
    assert rows("run") == rows(whole)


def test_a_lost_rank_is_brought_back(start, whole):
    process = start("launch", "--max-restarts", "2", "--", *LINE, "--out", "run")
    wait_for_rows("run", 4, process)
    (train,) = children(process.pid)
    (mpiexec,) = children(train)
    os.kill(children(mpiexec)[1], signal.SIGKILL)
    assert process.wait(300) == 0, process.stderr.read()
    assert weights("run") == weights(whole)
    assert rows("run") == rows(whole)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", ["an_error", "a_lost_image"])
def test_an_error_on_one_rank_ends_all(mpiexec, rank, what):
    """In the twentieth step: one that nobody has foreseen, and one after which a run saves."""
    name = f"{what}_on_rank_{rank}"
    began = time.monotonic()
    done = subprocess.run(
        [*mpiexec, "-n", "2", sys.executable, str(PROGRAMS), name, *LINE[:-2], "--out", "run"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert time.monotonic() - began < SECONDS
    assert done.returncode == {"an_error": 1, "a_lost_image": 3}[what]
    assert "out of luck" in done.stderr
    saved = load_checkpoint("run/checkpoints/last.h5").progress["step"]
    if name == "a_lost_image_on_rank_0":
        assert saved == 19
    assert done.stderr.count("Traceback") == 0
    assert load_checkpoint("run/checkpoints/last.h5").progress["step"] >= 14


def test_ranks_by_hand(start, mpiexec):
    """As on several computers: mpiexec starts igcnn, and launch starts mpiexec."""
    program = [sys.executable, "-m", "igcnn"]
    line = LINE[:-2]
    process = start("launch", "--", *mpiexec, "-n", "2", *program, *line, "--out", "run")
    assert process.wait(300) == 2  # launch knows mpiexec by its name alone
    name = Path(mpiexec[0]).name
    path = os.pathsep.join([str(Path(mpiexec[0]).parent), os.environ["PATH"]])
    process = start("launch", "--", name, "-n", "2", *program, *line, "--out", "run",
                    PATH=path)  # fmt: skip
    assert process.wait(300) == 0, process.stderr.read()
    assert "2 ranks" in Path("run/train.log").read_text()


def test_what_cannot_be(start, refused, monkeypatch):
    assert "numbers of GPUs" in refused(2, "train", "--gpus", "0,0")
    assert "numbers of GPUs" in refused(2, "train", "--gpus", "zero")
    assert "a number above 0" in refused(2, "train", "--rank-timeout", "0")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "pip install 'igcnn[mpi]'" in refused(4, "train", "--ranks", "2")


def test_what_cannot_be_on_any_rank_is_said_once(start):
    process = start(*LINE, "--batch-size", "1", "--out", "run")
    assert process.wait(30) == 2
    err = process.stderr.read()
    assert err.count("igcnn: error:") == 1
    assert "fewer ranks" in err
