"""Add."""

import numpy as np
import pytest

from igcnn.errors import DtypeError, ShapeError
from igcnn.kernels.add import add_forward


def test_sum():
    a, b = np.random.default_rng(0).standard_normal((2, 3, 1, 7, 5)).astype(np.float32)
    y = add_forward(a, b)
    assert y.dtype == np.float32
    for place in np.ndindex(a.shape):
        assert y[place] == np.float32(float(a[place]) + float(b[place]))


def test_nothing_is_broadcast():
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(1, 3\)"):
        add_forward(np.zeros((2, 3)), np.zeros((1, 3)))


def test_element_types_are_not_mixed():
    with pytest.raises(DtypeError, match="float32, float64"):
        add_forward(np.zeros(3), np.zeros(3, np.float32))
