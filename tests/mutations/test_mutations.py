"""Every planted fault still applies to the source; the long form plants them all."""

import subprocess
import sys
from pathlib import Path

import pytest

from .faults import planted
from .sweep import changes, sample
from .workspace import ROOT, Workspace

FAULTS = planted()
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_applies_in_one_place(fault):
    assert fault.apply((ROOT / fault.file).read_text(encoding="utf-8")) is not None


def test_faults_have_names_and_tests_of_their_own():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        files = [word for word in fault.tests.split() if word.startswith("tests/")]
        assert files
        assert all((ROOT / file).exists() for file in files), fault.name


def test_a_fault_that_occurs_twice_or_not_at_all_does_not_apply():
    fault = FAULTS[0]
    assert fault.apply("") is None
    assert fault.apply(2 * fault.before) is None
    assert fault.apply(f"a{fault.before}b") == f"a{fault.after}b"


SOURCE = '''
def f(a: int = 3) -> int:
    """What 1 + 1 is."""
    if a and not a < 2:
        print(f"{a + 1} é", a + 5 == 6)
    return a
'''
CHANGED = [
    "4",
    "(a or not a < 2)",
    "(a < 2)",
    "(a <= 2)",
    "3",
    "pass",
    "(a + 5 != 6)",
    "(a - 5)",
    "6",
    "7",
    "return None",
]


def test_changes_are_small_and_leave_texts_alone():
    found = changes(SOURCE)
    assert [change.words.split(" -> ")[1] for change in found] == CHANGED
    for change in found:
        compile(change.source, "changed", "exec")
        assert change.source != SOURCE
    assert sample(SOURCE, 3, seed=1) == sample(SOURCE, 3, seed=1)
    assert len(sample(SOURCE, 99, seed=1)) == len(CHANGED)


def test_a_fault_is_planted_in_a_copy_alone(tmp_path):
    workspace = Workspace(tmp_path)
    file = "igcnn/optim/number.py"
    before = (ROOT / file).read_text(encoding="utf-8")
    tests = "tests/optim/test_sgd.py -k two_steps_by_hand"
    assert workspace.passes(tests)
    with workspace.planted(file, "raise RuntimeError"):
        assert not workspace.passes(tests)
        assert (ROOT / file).read_text(encoding="utf-8") == before
    assert (workspace.root / file).read_text(encoding="utf-8") == before


@pytest.mark.long
def test_every_fault_is_found():
    command = sys.executable, "-m", "mutations"
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
