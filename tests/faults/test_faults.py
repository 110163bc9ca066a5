"""Every system call of saving fails in every way; the long form has whole runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SOURCE = Path(__file__).with_name("shim.cpp")
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs LD_PRELOAD"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    command = "g++", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"
    subprocess.run(command, check=True)
    return library


def results(shim, *names, **environment):
    """Return what came of scenarios."""
    # one thread of BLAS: a forked process has no others
    own = os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"} | environment
    command = sys.executable, "-m", "faults", *names
    done = subprocess.run(command, cwd=TESTS, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(found, calls):
    """Hold that nothing was lost at any of so many calls, and that each failed in every way."""
    assert found["lost"] == []
    assert set(calls) <= set(found["calls"])
    count = sum(found["calls"].values())
    transfers = sum(found["calls"].get(name, 0) for name in ("read", "write", "pread", "pwrite"))
    assert found["trials"] == 6 * count + transfers  # four errors, two kills, and short ones
    assert found["codes"]["-9"] == 2 * count


SAVED = "open", "write", "fsync", "rename"


def test_nothing_is_lost_of_files(shim):
    names = "config", "metrics", "last checkpoint"
    found = results(shim, *names)
    for name in names:
        check(found[name], SAVED)
    assert found["last checkpoint"]["codes"].keys() == {"0", "6", "-9"}
    assert found["config"]["codes"].keys() == {"0", "2", "-9"}
    assert found["metrics"]["codes"].keys() == {"0", "-9"}


@pytest.mark.long
@pytest.mark.parametrize("name", ["checkpoint, another follows", "pack", "resume", "training"])
def test_nothing_is_lost_of_runs(shim, name):
    check(results(shim, name)[name], SAVED)


def test_losses_are_noticed(shim):
    """A writer that writes over what is there loses it."""
    found = results(shim, "config", FAULTS_CARELESS="1")["config"]
    assert any("killed" in line for line in found["lost"])
    assert any("ENOSPC" in line for line in found["lost"])
