"""Compiled fully connected layer against the reference."""

import numpy as np
import pytest
from vectors import every_case, without_compiler

from igcnn.kernels.linear import linear_backward_input, linear_backward_weight, linear_forward

pytestmark = without_compiler
SIZES = [(1, 1), (5, 3), (37, 10), (16, 13)]  # C, K


@every_case
@pytest.mark.parametrize(("C", "K"), SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_forward(case, C, K, bias):
    x, w, b = case.normal(case.N, C), case.normal(K, C), case.normal(K) if bias else None
    z = case.vectors((case.N, K))
    fields = {"x": case.put(x), "w": case.numbers(w), "z": z, "C": C, "K": K}
    fields |= {"b": case.numbers(b) if bias else None, "batch": case.batch}
    case.launch("linear", "linear_forward", case.jobs, [z], **fields)
    expected = linear_forward(x, w, b)
    np.testing.assert_allclose(case.get(z), expected, rtol=0, atol=C * case.tolerance)


@every_case
@pytest.mark.parametrize(("C", "K"), SIZES)
@pytest.mark.parametrize("wanted", ["gw gb", "gw", ""])
def test_backward(case, C, K, wanted):
    x, w, gz = case.normal(case.N, C), case.normal(K, C), case.normal(case.N, K)
    gx = case.vectors((case.N, C))
    gw, gb = case.empty(case.jobs, K, C), case.empty(case.jobs, K)
    fields = {"gz": case.put(gz, 0), "x": case.put(x), "w": case.numbers(w), "gx": gx}
    fields |= {"gw": gw if "gw" in wanted else None, "gb": gb if "gb" in wanted else None}
    fields |= {"C": C, "K": K, "batch": case.batch}
    case.launch("linear", "linear_backward", case.jobs, [gx, gw, gb], **fields)
    close = {"rtol": 0, "atol": max(K, case.N) * case.tolerance}
    np.testing.assert_allclose(case.get(gx), linear_backward_input(gz, w), **close)
    assert not case.unused(gx).any()
    if "gw" in wanted:
        np.testing.assert_allclose(gw.sum(0), linear_backward_weight(gz, x), **close)
    if "gb" in wanted:
        np.testing.assert_allclose(gb.sum(0), gz.sum(0), **close)
