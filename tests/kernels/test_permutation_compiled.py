"""Compiled channel permutation against the reference."""

import numpy as np
import pytest
from vectors import Ending, every_case, every_ending, without_compiler

from igcnn.kernels.permutation import permutation_backward, permutation_forward

pytestmark = without_compiler


@every_case
@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("branches", [1, 2, 3, 6])
def test_forward(case, branches, kind):
    shape = (case.N, 6, 5, 3)
    x, value = case.input(case.normal(*shape), kind)
    y = case.vectors(shape)
    sizes = {"branches": branches, "C": 6, "H": 5, "W": 3, "batch": case.batch}
    case.launch("permutation", "permutation_forward", case.jobs, [y], x=x, y=y, **sizes)
    expected = permutation_forward(value, branches)
    np.testing.assert_allclose(case.get(y), expected, rtol=0, atol=case.tolerance)


@every_case
@every_ending
@pytest.mark.parametrize("branches", [2, 3])
def test_backward(case, branches, ending):
    end = Ending(case, (case.N, 6, 5, 3), **ending)
    gy = case.normal(*end.shape)
    gx = case.vectors(end.shape)
    fields = {"gy": case.put(gy, 0), "gx": gx, "end": end.fields}
    sizes = {"branches": branches, "C": 6, "H": 5, "W": 3, "batch": case.batch}
    outputs = [gx, *end.sums]
    case.launch("permutation", "permutation_backward", case.jobs, outputs, **fields, **sizes)
    end.check(gx, permutation_backward(gy, branches))
