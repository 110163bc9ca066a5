"""Every example runs, from the first to the last."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_the_ladder_has_no_missing_step():
    assert [path.name[:2] for path in EXAMPLES] == [f"{n:02}" for n in range(1, 9)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path):
    if "emu" in path.read_text() and shutil.which("g++") is None:
        pytest.skip("needs g++ (Debian, Ubuntu: apt install g++)")
    done = subprocess.run(
        [sys.executable, "-W", "error", path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
