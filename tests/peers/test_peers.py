"""Chainer's, MyGrad's, HIPS/autograd's and PyTorch's parameters: each case has its outcome."""

from pathlib import Path

import numpy as np
import pytest
from peers import references
from peers.cases import ON_DEVICE, OPERATIONS, RULES, run
from peers.table import CASES, groups, lines

from igcnn.conformance import oracles

ROOT = Path(__file__).parents[2]
GROUPS = groups()
NUMBERS = 100_000  # an input with more makes a convolution slow


def is_slow(case):
    return case.op == "conv2d" and any(np.prod(shape) > NUMBERS for shape in case.shapes)


def outcomes(cases, device="cpu"):
    """Run cases; return one line for each that has another outcome."""
    wrong = []
    for case in cases:
        try:
            run(case, device)
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}\n    {case}")
    return wrong


@pytest.mark.parametrize("group", GROUPS, ids="-".join)
def test_outcomes(group):
    wrong = outcomes([case for case in GROUPS[group] if not is_slow(case)])
    assert not wrong, f"{len(wrong)} of {len(GROUPS[group])}:\n" + "\n".join(wrong[:5])


@pytest.mark.long
def test_outcomes_of_large_convolutions():
    assert not outcomes([case for case in CASES if is_slow(case)])


@pytest.mark.parametrize("op", ON_DEVICE.split())
def test_outcomes_on_a_device(op):
    single = [c for c in CASES if c.op == op and c.dtypes == ("float32",) and not is_slow(c)]
    taken = [c for c in single if not c.missing and not c.rules]
    assert not outcomes(taken[:: 1 + len(taken) // 4], "emu")


def test_rules_and_operations_are_all_used():
    assert {rule for case in CASES for rule in case.rules} == set(RULES)
    assert {case.op for case in CASES if not case.missing} == set(OPERATIONS)


def test_documentation_has_this_table():
    text = (ROOT / "docs" / "peers.md").read_text()
    assert "\n".join(lines()) in text


@pytest.mark.parametrize(
    ("shapes", "geometry"),
    [
        (((2, 4, 5, 6), (6, 2, 3, 2)), ((2, 1), (1, 0), 2)),
        (((1, 3, 4, 4), (2, 3, 1, 3)), (1, (0, 2), 1)),
    ],
)
def test_reference_of_convolution(shapes, geometry):
    x, w = map(np.random.default_rng(0).standard_normal, shapes)
    stride, padding, groups = geometry
    y = references.convolution(x, w, None, stride, padding, groups)
    np.testing.assert_allclose(y, oracles.convolution(x, w, stride, padding, groups), atol=1e-12)


def test_references_of_the_other_operations():
    rng = np.random.default_rng(0)
    x, (gamma, beta) = rng.standard_normal((2, 6, 5, 4)), rng.standard_normal((2, 6))
    for reference, oracle in (
        (references.max_pool, oracles.max_pool),
        (references.average_pool, oracles.average_pool),
    ):
        y = reference(x, 3, 2, 1)
        for place, (value, *_) in oracle(x, 3, 2, 1).items():
            assert y[place] == pytest.approx(value, abs=1e-12)
    y, _, _ = oracles.batch_norm(x, gamma, beta, 0.5)
    np.testing.assert_allclose(references.batch_norm(x, gamma, beta, eps=0.5), y, atol=1e-12)
    np.testing.assert_array_equal(references.permute_channels(x, 3), oracles.permute(x, 3))
    logits, labels = x[0, :, :, 0], [0, 4, 2, 2, 1, 3]
    loss, _ = oracles.cross_entropy(logits, labels)
    assert references.cross_entropy(logits, labels) == pytest.approx(loss)
