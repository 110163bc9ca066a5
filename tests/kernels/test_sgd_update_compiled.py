"""Compiled steps of SGD against the reference."""

import numpy as np
import pytest
from vectors import every_case, without_compiler

from igcnn.kernels.sgd_update import sgd_update

pytestmark = without_compiler


@every_case
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("jobs", [1, 3, 7])
def test_update(case, size, nesterov, jobs):
    w, g, v = (case.numbers(a) for a in case.normal(3, size))
    constants = 0.1, 0.9, 5e-4
    expected_w, expected_v = w.astype(float), v.astype(float)
    sgd_update(expected_w, g.astype(float), expected_v, *constants, nesterov)
    fields = {"w": w, "g": g, "v": v, "constants": case.numbers(constants), "size": size}
    fields |= {"nesterov": int(nesterov), "jobs": jobs}
    case.launch("sgd_update", "sgd_update", jobs, [w, v], **fields)
    np.testing.assert_allclose(w, expected_w, rtol=0, atol=case.tolerance)
    np.testing.assert_allclose(v, expected_v, rtol=0, atol=case.tolerance)
