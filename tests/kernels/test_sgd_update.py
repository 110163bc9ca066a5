"""The update against its formula in plain numbers."""

import numpy as np
import pytest

from igcnn.errors import DtypeError, ShapeError
from igcnn.kernels.sgd_update import sgd_update


def oracle_step(w, g, v, lr, momentum, weight_decay, nesterov):
    """The update of one parameter, element by element, in Python's floats."""
    new_w, new_v = [], []
    for wi, gi, vi in zip(w, g, v, strict=True):
        d = gi + weight_decay * wi
        vi = momentum * vi + d
        new_v.append(vi)
        new_w.append(wi - lr * (d + momentum * vi) if nesterov else wi - lr * vi)
    return new_w, new_v


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 5)])
def test_update_is_the_formula(nesterov, dtype, shape):
    rng = np.random.default_rng(0)
    w = rng.standard_normal(shape).astype(dtype)
    v = np.zeros(shape, dtype)
    w, v = np.array(w, ndmin=0), np.array(v, ndmin=0)
    expected_w, expected_v = w.ravel().tolist(), v.ravel().tolist()
    for lr in (0.1, 0.1, 0.01):
        g = np.array(rng.standard_normal(shape), dtype)
        before = g.copy()
        sgd_update(w, g, v, lr, 0.9, 1e-2, nesterov)
        expected_w, expected_v = oracle_step(
            expected_w, g.ravel().tolist(), expected_v, lr, 0.9, 1e-2, nesterov
        )
        np.testing.assert_array_equal(g, before)
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(w.ravel(), expected_w, tolerance, tolerance)
    np.testing.assert_allclose(v.ravel(), expected_v, tolerance, tolerance)
    assert w.dtype == v.dtype == dtype


def test_arrays_that_do_not_fit():
    w = np.ones((2, 3))
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        sgd_update(w, np.ones(3), np.ones((2, 3)), 0.1, 0.9, 0.0)
    with pytest.raises(DtypeError, match="float32"):
        sgd_update(w, np.ones((2, 3), np.float32), np.ones((2, 3)), 0.1, 0.9, 0.0)
