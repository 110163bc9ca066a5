"""Every example runs, from the first to the last."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
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
    for line in shown_in("guide.md", path.name) + shown_in("cuda_kernel.md", path.name):
        assert line in done.stdout


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)
def test_the_code_at_the_end_of_the_kernel_page(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "cuda_kernel.md").read_text(), re.DOTALL)
    exec(compile(code, "cuda_kernel.md", "exec"), {})
    assert "^ reads x[4] = 0.6\n" in capsys.readouterr().out


def shown_in(page, example):
    """Return the lines that a page shows of an example's output, from where it names it."""
    text = (DOCS / page).read_text()
    after = text.partition(f"python examples/{example}")[2].partition("python examples/")[0]
    assert after or page != "guide.md", f"{page} does not name {example}"
    blocks = re.findall(r"^```\n(.*?)^```", after, re.DOTALL | re.MULTILINE)
    return "".join(blocks).splitlines()
