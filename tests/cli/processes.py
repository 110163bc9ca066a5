"""Processes of the tests, seen from outside."""

import time
from pathlib import Path

import pytest

PROCFS = Path("/proc/self/task")
needs_procfs = pytest.mark.skipif(not PROCFS.exists(), reason="finds processes by /proc")


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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
