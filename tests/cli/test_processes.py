"""`igcnn train` on several processes: how they end, and what they leave."""

import os
import signal
import time
from pathlib import Path

import pytest

from igcnn import load_checkpoint

from .conftest import TINY
from .test_train import wait_for_rows, weights

PROCFS = Path("/proc/self/task")
ARGUMENTS = (*TINY, "--epochs", "40", "--log-interval", "5", "--cores", "2", "--progress", "none")

needs_procfs = pytest.mark.skipif(not PROCFS.exists(), reason="finds processes by /proc")


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def shared_files():
    return sorted(Path("/dev/shm").iterdir())


def gone(pid):
    """Wait until a process has ended."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_cores_and_eager_give_one_result(igcnn):
    short = (*TINY, "--epochs", "1", "--progress", "none")
    for name, arguments in {
        "one": ("--cores", "1"),
        "three": ("--cores", "3"),
        "tape": ("--eager",),
    }.items():
        code, out, err = igcnn(*short, *arguments, "--out", name)
        assert code == 0, err
        assert {"one": "plan, 1 process", "three": "3 processes", "tape": "tape"}[name] in out
    assert weights("one") == weights("three")
    tape, plan = (load_checkpoint(f"{n}/checkpoints/last.h5").state for n in ("tape", "one"))
    for name, array in tape.items():
        scale = max(1.0, abs(array).max())
        assert abs(array - plan[name]).max() < 1e-3 * scale, name


@needs_procfs
def test_a_killed_worker_ends_the_run_and_costs_nothing(start, igcnn):
    before = shared_files()
    process = start(*ARGUMENTS, "--out", "run")
    wait_for_rows("run", 8, process)
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    assert process.wait(10) == 1
    err = process.stderr.read()
    assert err.startswith("igcnn: error: a worker process ended")
    assert "SIGKILL" in err
    assert "igcnn train --resume run" in err
    assert err.count("\n") == 1
    assert load_checkpoint("run/checkpoints/last.h5").progress["step"] >= 40
    assert shared_files() == before
    code, _, err = igcnn("train", "--resume", "run", "--max-steps", "200")
    assert code == 0, err
    assert igcnn(*ARGUMENTS, "--max-steps", "200", "--out", "whole")[0] == 0
    assert weights("run") == weights("whole")


@needs_procfs
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_run_ends_nothing_is_left(start, number):
    before = shared_files()
    process = start(*ARGUMENTS, "--out", "run")
    wait_for_rows("run", 4, process)
    (worker,) = children(process.pid)
    process.send_signal(number)
    process.wait(10)
    assert gone(worker)
    assert shared_files() == before
