"""Runs that are killed, pre-empted or out of disk; `pytest -m long` for the full counts."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from igcnn import build_network, load_checkpoint, save_checkpoint
from igcnn.errors import CheckpointError
from igcnn.optim import SGD
from igcnn.training import RunDirectory, load_newest

from .conftest import TINY
from .test_train import rows, wait_for_rows, weights

pytestmark = pytest.mark.xdist_group("processes")  # each has several, and limits of time

LINE = (*TINY, "--epochs", "4", "--log-interval", "5", "--checkpoint-steps", "7", "--cores", "1",
        "--progress", "none")  # fmt: skip


def counts(quick, long):
    return pytest.mark.parametrize("count", [quick, pytest.param(long, marks=pytest.mark.long)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    from igcnn.cli.main import main

    out = tmp_path_factory.mktemp("whole") / "run"
    assert main([*LINE, "--out", str(out)]) == 0
    return out


@counts(4, 50)
def test_killed_at_any_moment_and_resumed(start, whole, count):
    """SIGKILL at random moments, a save among them, until the run is through."""
    rng = random.Random(count)
    expected = weights(whole), rows(whole), RunDirectory(whole).read_epochs()
    kills = 0
    number = 0
    while kills < count:
        number += 1
        run = f"run{number}"
        line = [*LINE, "--out", run]
        while True:
            process = start(*line)
            # the whole run takes about two seconds, the first of which is the start
            try:  # after so many kills it may end, however slow the machine is
                code = process.wait(rng.uniform(0.3, 2.5) if kills < count else 60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                if RunDirectory(run).last.is_file():
                    line = ["train", "--resume", run]
                else:
                    line = [*LINE, "--out", run, "--overwrite"]
                continue
            assert code == 0, process.stderr.read()
            break
        clock = "seconds"
        epochs = [
            {k: v for k, v in r.items() if k != clock} for r in RunDirectory(run).read_epochs()
        ]
        known = [{k: v for k, v in r.items() if k != clock} for r in expected[2]]
        assert (weights(run), rows(run), epochs) == (expected[0], expected[1], known)


def save_for_ever(folder):
    """Save checkpoints that differ, as a run does."""
    network = build_network("plain_igc", depth=8, L=8, M=4)
    optimizer = SGD(network.named_parameters(), lr=0.1)
    run = RunDirectory(folder)
    step = 0
    while True:
        step += 1
        for parameter in network.parameters():
            parameter.data[...] = step
        run.keep_previous()
        save_checkpoint(run.last, network, optimizer, progress={"step": step})


@counts(8, 300)
def test_killed_while_saving(tmp_path, count):
    """After every kill the newest checkpoint can be read and is of one step."""
    run = RunDirectory(tmp_path)
    run.create()
    rng = random.Random(0)
    for _ in range(count):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                save_for_ever(tmp_path)
            os._exit(1)
        while not run.previous.is_file():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        checkpoint, note = load_newest(run.last, run.previous)
        assert note is None
        step = checkpoint.progress["step"]
        assert all(np.all(array == step) for array in checkpoint.parameters.values())


@counts(2, 20)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_preempted(start, igcnn, whole, count, number):
    """Saved within a step and five seconds, exit code 75, resumed as if nothing had been."""
    for i in range(count):
        run = f"run{i}"
        process = start(*LINE, "--out", run)
        wait_for_rows(run, 1 + i % 17, process)
        process.send_signal(number)
        assert process.wait(6) in (0, 75)
        err = process.stderr.read()
        if process.returncode == 0:  # it was through
            continue
        assert err.count("\n") == 3  # an empty line, the notice, the error
        assert f"{number.name}: step " in err
        assert f"igcnn train --resume {run}" in err
        code, _, err = igcnn("train", "--resume", run)
        assert code == 0, err
        assert weights(run) == weights(whole)
        assert rows(run) == rows(whole)


def test_a_signal_to_all_processes_of_a_job(start):
    """A batch system signals the workers too: that is no error of theirs."""
    process = start(*TINY, "--epochs", "100", "--cores", "2", "--progress", "none", "--out", "run")
    wait_for_rows("run", 1, process)
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not path.exists():
        pytest.skip("finds processes by /proc")
    for pid in (*map(int, path.read_text().split()), process.pid):
        os.kill(pid, signal.SIGTERM)
    assert process.wait(10) == 75


def test_a_killed_training_is_brought_back(start, whole):
    process = start("launch", "--max-restarts", "2", "--", *LINE, "--out", "run")
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not path.exists():
        pytest.skip("finds processes by /proc")
    wait_for_rows("run", 6, process)
    os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
    assert process.wait(60) == 0
    assert "ended with code -9; restart 1 of 2" in process.stderr.read()
    assert weights("run") == weights(whole)
    assert rows("run") == rows(whole)


def test_what_trying_again_cannot_mend(start, refused):
    process = start("launch", "--", "train", "--lr", "-1", "--out", "run")
    assert process.wait(30) == 2
    assert process.stderr.read().count("\n") == 1
    assert "starts train" in refused(2, "launch", "--", "eval")


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 6, 75, 130])
def test_ends_that_a_restart_cannot_fix(igcnn, monkeypatch, code):
    lines = []
    monkeypatch.setattr("igcnn.cli.launch.run_signalled", lambda x, *_: lines.append(x) or code)
    assert igcnn("launch", "--", "train")[0] == code
    assert len(lines) == 1


def test_others_are_restarted_so_many_times_from_where_they_were(igcnn, monkeypatch):
    lines = []
    monkeypatch.setattr("igcnn.cli.launch.run_signalled", lambda x, *_: lines.append(x) or -9)
    monkeypatch.setattr("igcnn.cli.launch.PAUSE", 0)
    assert igcnn("launch", "--max-restarts", "2", "--", "train")[0] == 128 + 9
    assert [line[-1] for line in lines] == ["train", "--resume=auto", "--resume=auto"]


def test_a_signal_reaches_the_training(start):
    process = start("launch", "--", *LINE, "--epochs", "200", "--out", "run")
    wait_for_rows("run", 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 75


def test_rows_wait_for_a_disk_that_takes_them(tmp_path, monkeypatch):
    """A write that fails half-way leaves whole lines, and the rows come later."""
    run = RunDirectory(tmp_path / "run")
    run.create()
    row = dict.fromkeys(("step", "epoch", "loss", "top1", "lr", "images_per_second", "seconds"), 1)
    run.append_step(row)
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "full")))
    run.append_step(row | {"step": 2})
    run.append_step(row | {"step": 3})
    assert [r["step"] for r in run.read_steps()] == [1]
    with pytest.raises(OSError, match="full"):
        run.flush()
    monkeypatch.setattr(os, "fsync", real)
    run.append_step(row | {"step": 4})
    assert [r["step"] for r in run.read_steps()] == [1, 2, 3, 4]


def test_a_disk_that_is_full_while_saving(igcnn, whole, monkeypatch):
    """Checkpoints in the middle are done without; the one before stays and the run ends well."""
    from igcnn.training import saver

    real = saver.save_checkpoint
    saves = []

    def save(path, *arguments, **named):
        saves.append(path)
        if 3 <= len(saves) <= 9:
            raise CheckpointError(f"cannot write the checkpoint {path}: no room")
        real(path, *arguments, **named)

    monkeypatch.setattr(saver, "save_checkpoint", save)
    code, _, err = igcnn(*LINE, "--out", "run")
    assert code == 0, err
    assert "could not be saved, continuing" in Path("run/train.log").read_text()
    assert weights("run") == weights(whole)
    assert rows("run") == rows(whole)


def test_a_limit_on_file_sizes_is_a_clean_end(start):
    """Not even the first checkpoint has room: one line, and no half file."""
    limit = 20_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        process = start(*LINE, "--out", "run")
        code = process.wait(30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    err = process.stderr.read()
    assert code == 6, err
    assert "cannot write the checkpoint" in err
    assert err.count("\n") == 1
    assert not list(Path("run/checkpoints").iterdir())


def test_a_loss_that_is_no_number_is_found_within_a_step(igcnn, whole):
    code, _, err = igcnn(*LINE, "--lr", "1e30", "--out", "run")
    assert code == 5
    assert "last good weights" in err
    state = load_checkpoint("run/checkpoints/last.h5").state
    assert all(np.isfinite(array).all() for array in state.values())
