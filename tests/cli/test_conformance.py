"""`igcnn conformance`."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from igcnn.backend import gpu_count
from igcnn.cli.conformance import NAMES
from igcnn.conformance import LIBRARIES, fast_cases

PERMUTATIONS = [case for case in fast_cases() if case.problem.op == "permutation"]

MODULE = """
__version__ = "7"

def results(op, inputs, options):
    if op != "permutation":
        raise NotImplementedError
    x, branches = inputs["x"], options["branches"]
    N, C, H, W = x.shape
    y = x.reshape(N, branches, C // branches, H, W).swapaxes(1, 2).reshape(x.shape)
    return {"y": y + (C == 48)}
"""


@pytest.fixture
def few_cases(monkeypatch):
    monkeypatch.setattr("igcnn.conformance.fast_cases", lambda: PERMUTATIONS)


def test_command(igcnn, few_cases):
    code, out, err = igcnn("conformance", "--library", "numpy", "-o", "report.html")
    assert code == 0, err
    head, line = out.splitlines()
    assert head.split()[:3] == ["library", "version", "cases"]
    assert line.split()[0] == "numpy"
    assert line.split()[3:6] == ["24", "48", "0"]
    page = Path("report.html").read_text()
    assert "permutation gx" in page
    assert "<script" not in page
    assert "http" not in page


def test_command_with_a_library_of_ones_own(igcnn, few_cases):
    Path("own_library.py").write_text(MODULE)
    code, out, err = igcnn("conformance", "--library", "own_library:results", "--json")
    assert code == 1
    (report,) = json.loads(out)
    assert report["version"] == "7"
    wrong = {row["output"]: row["wrong"] for row in report["results"]}
    assert wrong == {"gx": 0, "y": 6}
    assert {d["shapes"]["x"][1] for d in report["differences"]} == {48}
    assert "of own_library:results; see the cases above" in err
    code, out, _ = igcnn("conformance", "--library", "own_library:results", "-o", "a.html")
    assert code == 1
    assert "own_library:results: permutation y:" in out
    assert 'class="wrong"' in Path("a.html").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tensorflow", "unknown library 'tensorflow'; choose numpy, compiled"),
        ("no_such_module:f", "cannot import no_such_module:f"),
        ("math:f", "cannot import math:f"),
    ],
)
def test_libraries_that_are_not_there(igcnn, name, words):
    code, _, err = igcnn("conformance", "--library", name)
    assert code == 2
    assert words in err


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed")
def test_a_library_that_is_not_installed(igcnn):
    code, _, err = igcnn("conformance", "--library", "torch")
    assert code == 2
    assert "torch cannot be imported" in err
    assert "pip install torch" in err


@pytest.mark.skipif(gpu_count() > 0, reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cupy"])
def test_a_library_that_needs_a_gpu(igcnn, name):
    code, _, err = igcnn("conformance", "--library", name)
    assert code == 4
    assert "not available" in err


def test_a_folder_that_cannot_be_written(igcnn, few_cases):
    code, _, err = igcnn("conformance", "--library", "numpy", "-o", "no/such/folder.html")
    assert code == 2
    assert "choose another -o" in err


def test_the_help_names_all_libraries():
    assert tuple(LIBRARIES) == NAMES
