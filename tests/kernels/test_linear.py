"""The fully connected layer against loops."""

import math

import numpy as np
import pytest

from igcnn.errors import DtypeError, ShapeError
from igcnn.kernels.linear import (
    linear_backward_bias,
    linear_backward_input,
    linear_backward_weight,
    linear_forward,
)


@pytest.mark.parametrize(("N", "features", "outputs"), [(1, 1, 1), (3, 5, 2), (4, 1, 7)])
def test_against_loops(N, features, outputs):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, features))
    w = rng.standard_normal((outputs, features))
    b = rng.standard_normal(outputs)
    gy = rng.standard_normal((N, outputs))
    y, plain = linear_forward(x, w, b), linear_forward(x, w)
    gx, gw, gb = (
        linear_backward_input(gy, w),
        linear_backward_weight(gy, x),
        linear_backward_bias(gy),
    )
    for n, o in np.ndindex(N, outputs):
        total = math.fsum(x[n, i] * w[o, i] for i in range(features))
        assert plain[n, o] == pytest.approx(total, abs=1e-12)
        assert y[n, o] == pytest.approx(total + b[o], abs=1e-12)
    for n, i in np.ndindex(N, features):
        assert gx[n, i] == pytest.approx(math.fsum(gy[n] * w[:, i]), abs=1e-12)
    for o, i in np.ndindex(outputs, features):
        assert gw[o, i] == pytest.approx(math.fsum(gy[:, o] * x[:, i]), abs=1e-12)
    for o in range(outputs):
        assert gb[o] == pytest.approx(math.fsum(gy[:, o]), abs=1e-12)


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(4, 5\)"):
        linear_forward(np.zeros((2, 3)), np.zeros((4, 5)))
    with pytest.raises(ShapeError, match=r"\(4,\) for w \(4, 3\), not \(3,\)"):
        linear_forward(np.zeros((2, 3)), np.zeros((4, 3)), np.zeros(3))
    with pytest.raises(DtypeError, match="float32, float64"):
        linear_forward(np.zeros((2, 3)), np.zeros((4, 3), np.float32))
