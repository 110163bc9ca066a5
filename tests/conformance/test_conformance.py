"""The conformance suite: it finds published faults, and igcnn's implementations pass it."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from vectors import without_compiler

from igcnn.conformance import Case, Library, check, fast_cases, find_library, oracles
from igcnn.conformance.array_module import compute
from igcnn.conformance.cases import GROUPS, KERNELS, PUBLISHED, STRIDES, all_cases
from igcnn.conformance.problem import ANSWERS, LAYOUTS, Problem
from igcnn.conformance.tape import results

from .broken import FAULTS

ROOT = Path(__file__).parents[2]
MOST_NUMBERS = 110  # of the inputs of a case that the fast tests take
CASES = fast_cases()
SMALL = [c for c in CASES if c.problem in PUBLISHED[:-2] or c.problem.size <= MOST_NUMBERS]
needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}")
    for name in ("torch", "onnxruntime")
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_published_faults_are_found(fault):
    find(fault, SMALL)


def find(fault, cases):
    output, smallest = FAULTS[fault]
    convolutions = [case for case in cases if case.problem.op == "convolution"]
    report = check(Library(fault.__name__, "", fault), convolutions)
    assert list(report.smallest) == [f"convolution {output}"]
    assert report.smallest[f"convolution {output}"].case.problem.text == smallest
    assert fault.__doc__


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_published_faults_are_found_by_the_fast_form(fault):
    find(fault, CASES)


OWN = ["numpy", *(pytest.param(name, marks=without_compiler) for name in ("compiled", "emu"))]


@pytest.mark.parametrize("name", OWN)
def test_own_implementations_agree(name):
    few = SMALL if name == "numpy" else [c for c in SMALL if c.problem.size <= MOST_NUMBERS]
    report = check(find_library(name), few)
    assert not report.differences, "\n".join(map(str, report.smallest.values()))
    assert report.cases == len(few)
    assert {op for op, _ in report.compared} == set(ANSWERS)


@pytest.mark.long
@pytest.mark.parametrize("name", [*OWN, *(pytest.param(n, marks=m) for n, m in needs.items())])
def test_libraries_agree_in_the_fast_form(name):
    report = check(find_library(name), CASES)
    assert not report.differences, "\n".join(map(str, report.smallest.values()))


def test_windows_of_an_array_module_agree():
    def function(op, inputs, options):
        return compute(np, op, inputs, options)

    report = check(Library("numpy as cupy", "", function), SMALL)
    assert not report.differences, "\n".join(map(str, report.smallest.values()))
    assert report.absent["max_pool", "y"]
    assert not report.compared["max_pool", "y"]


def test_every_value_of_every_axis_is_there():
    problems = {case.problem for case in CASES if case.problem.op == "convolution"}
    options = [problem.options for problem in problems]
    assert {o["groups"] for o in options} >= set(GROUPS)
    assert {o["stride"] for o in options} >= set(STRIDES)
    assert {problem.shapes["w"][2] for problem in problems} >= set(KERNELS)
    assert {problem.shapes["x"][0] for problem in problems} >= {1, 2, 3, 17}
    assert any(problem.shapes["x"][2:] == (1, 1) for problem in problems)
    assert {case.layout for case in CASES} == set(LAYOUTS)
    assert {case.dtype for case in CASES} == {"float32", "float64"}
    sizes = [case.problem.size for case in CASES]
    assert sizes == sorted(sizes)
    assert len(all_cases()) > 3 * len(CASES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_change_memory_alone(layout):
    a = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    placed = LAYOUTS[layout](a)
    np.testing.assert_array_equal(placed, a)
    assert placed.flags.c_contiguous == (layout == "C order")


def one_case(op="convolution", dtype="float64"):
    return next(c for c in CASES if c.problem.op == op and c.dtype == dtype)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda y: y + 1e-11, "numbers are wrong"),
        (lambda y: np.where(y == y.flat[0], np.nan, y), "1 of"),
        (lambda y: y[..., None], "has shape"),
    ],
)
def test_wrong_results_are_named(spoil, words):
    def function(op, inputs, options):
        right = results("cpu", op, inputs, options)
        return right | {"y": spoil(right["y"])}

    report = check(Library("wrong", "", function), [one_case()])
    (difference,) = report.differences
    assert difference.output == "y"
    assert words in difference.words
    assert report.wrong(("convolution", "y")) == report.wrong() == 1


def test_an_error_of_a_library_is_a_wrong_result():
    def function(op, inputs, options):
        raise RuntimeError("no such\nkernel")

    report = check(Library("wrong", "", function), [one_case()])
    assert {d.words for d in report.differences} == {"raised RuntimeError: no such kernel"}
    assert report.wrong() == report.compared.total() == 4


def test_gradients_of_the_secondary_half():
    """The half is linear in both: ⟨gy, mix(p, w)⟩ is ⟨gp, p⟩ and ⟨gw, w⟩."""
    rng = np.random.default_rng(0)
    p, w = rng.standard_normal((2, 6, 3, 2)), rng.standard_normal((6, 3, 1, 1))
    gy = rng.standard_normal(p.shape)
    gp, gw = oracles.mix_gradients(gy, p, w, 3, 2)
    expected = (gy * oracles.mix(p, w, 3, 2)).sum()
    assert (gp * p).sum() == pytest.approx(expected, rel=1e-12)
    assert (gw * w).sum() == pytest.approx(expected, rel=1e-12)


def test_a_mean_far_from_zero_is_no_excuse():
    """Of a variance by E[x²] − E[x]² in float32 nothing is left at a mean of 10,000."""
    problem = Problem(
        "batch_norm", "", {"x": (5, 3, 7, 5), "gamma": (3,), "beta": (3,)}, {}, "mean 10000"
    )

    def function(op, inputs, options):
        x = inputs["x"]
        mean = x.mean((0, 2, 3))
        return {"mean": mean, "variance": (x * x).mean((0, 2, 3)) - mean * mean}

    report = check(Library("one pass", "", function), [Case(problem, "float32")])
    assert list(report.smallest) == ["batch_norm variance"]


def test_the_page_lists_the_faults():
    text = (ROOT / "docs" / "conformance.md").read_text()
    rows = dict(re.findall(r"^\| \[(\w+#\d+)\].*\| `(.*)` \|$", text, re.MULTILINE))
    expected = {
        fault.__name__.replace("_", "#"): f"{output}: {case}"
        for fault, (output, case) in FAULTS.items()
    }
    assert rows == expected
