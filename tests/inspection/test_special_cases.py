"""The special cases of the paper: each equals what it is said to equal."""

import numpy as np
import pytest

from igcnn.inspection.special_cases import special_cases

CASES = {case.name: case for case in special_cases()}


@pytest.mark.parametrize("name", CASES)
def test_a_case_equals_the_other_operation(name):
    case = CASES[name]
    assert case.scale > 1
    assert case.difference <= 1e-12 * case.scale


def test_shapes_of_the_composed_kernels():
    kernels = {name: np.array(case.kernel) for name, case in CASES.items()}
    for name in ("interleaved", "regular", "xception", "summation"):
        assert (kernels[name] > 0).all(), name
    blocks = np.kron(np.eye(4), np.ones((2, 2)))
    np.testing.assert_array_equal(kernels["identity"] > 0, blocks > 0)
    # of the doubled input each output adds up two branches: one whole copy
    assert ((kernels["four_branch"] > 0).sum(axis=1) == 4).all()


def test_numbers_of_the_cases():
    found = {name: (case.L, case.M, case.parameters) for name, case in CASES.items()}
    assert found == {
        "interleaved": (4, 2, 4 * 2 * 2 * 9 + 2 * 4 * 4),
        "regular": (1, 8, 8 * 8 * 9 + 8),
        "xception": (8, 1, 8 * 9 + 8 * 8),
        "identity": (4, 2, 4 * 2 * 2 * 9),
        "summation": (4, 2, 4 * 2 * 2 * 9),
        "four_branch": (4, 2, 4 * 2 * 2 * 9),
    }
    # all partitions of a sum are equal; of four branches, two and two
    assert {name: case.rank for name, case in CASES.items()} == {
        "interleaved": 8,
        "regular": 8,
        "xception": 8,
        "identity": 8,
        "summation": 2,
        "four_branch": 4,
    }
    assert CASES["four_branch"].equal_parameters == 4 * 4 * 9


def test_another_seed_gives_other_numbers():
    assert special_cases(1)[0].kernel != CASES["interleaved"].kernel
