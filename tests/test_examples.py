"""Every example runs, from the first to the last."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs" / "guide.md"
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
    # what the guide shows of it
    guide = GUIDE.read_text().partition(f"python examples/{path.name}")[2]
    assert guide, "the guide does not name it"
    shown = re.match(r"\s*```\n(.*?)```", guide, re.DOTALL)
    for line in shown.group(1).splitlines() if shown else []:
        assert line in done.stdout
