"""Pooling against loops over windows."""

import numpy as np
import oracles
import pytest

from igcnn.errors import ShapeError
from igcnn.kernels.pooling import (
    average_pool_backward,
    average_pool_forward,
    global_average_pool_backward,
    global_average_pool_forward,
    max_pool_backward,
    max_pool_forward,
)

# shape, kernel, stride, padding
GEOMETRIES = [
    ((1, 1, 1, 1), 1, 1, 0),
    ((1, 2, 7, 5), 3, 2, 1),
    ((2, 3, 6, 6), 2, 2, 0),
    ((2, 1, 7, 5), 2, 3, 1),
    ((1, 3, 5, 4), 3, 1, 1),
    ((2, 2, 9, 8), 4, 2, 2),
]


def planes(array):
    return np.ascontiguousarray(array.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)


@pytest.mark.parametrize("order", [np.ascontiguousarray, planes])
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), GEOMETRIES)
def test_max_pool(shape, kernel, stride, padding, order):
    rng = np.random.default_rng(0)
    # few values, many equal ones: the first in row order wins
    x = rng.integers(-3, 3, shape).astype(float)
    expected = oracles.max_pool(x, kernel, stride, padding)
    y, argmax = max_pool_forward(order(x), kernel, stride, padding)
    gy = rng.standard_normal(y.shape)
    gx = max_pool_backward(order(gy), argmax, shape, kernel, stride, padding)
    wanted = np.zeros(shape)
    assert y.size == len(expected)
    for (n, c, i, j), (value, pixel) in expected.items():
        assert y[n, c, i, j] == value
        wanted[n, c][pixel] += gy[n, c, i, j]
    np.testing.assert_allclose(gx, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("order", [np.ascontiguousarray, planes])
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), GEOMETRIES)
def test_average_pool(shape, kernel, stride, padding, order):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    expected = oracles.average_pool(x, kernel, stride, padding)
    y = average_pool_forward(order(x), kernel, stride, padding)
    gy = rng.standard_normal(y.shape)
    gx = average_pool_backward(order(gy), shape, kernel, stride, padding)
    wanted = np.zeros(shape)
    for (n, c, i, j), (value, pixels) in expected.items():
        assert y[n, c, i, j] == pytest.approx(value, abs=1e-14)
        for pixel in pixels:
            wanted[n, c][pixel] += gy[n, c, i, j] / kernel**2
    np.testing.assert_allclose(gx, wanted, rtol=0, atol=1e-14)


def test_padding_never_wins():
    y, _ = max_pool_forward(np.full((1, 1, 3, 3), -5.0), 3, 2, 1)
    np.testing.assert_array_equal(y, -5)


def test_nan_is_not_lost():
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 1, 2] = np.nan
    y, argmax = max_pool_forward(x, 2, 2)
    assert np.isnan(y[0, 0]).tolist() == [[False, True], [False, False]]
    assert argmax[0, 0, 0, 1] == 2


def test_global_average_pool():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 7, 5))
    y = global_average_pool_forward(x)
    for n, c in np.ndindex(2, 3):
        assert y[n, c] == pytest.approx(sum(x[n, c].ravel().tolist()) / 35, abs=1e-14)
    gy = rng.standard_normal((2, 3))
    gx = global_average_pool_backward(gy, x.shape)
    for place in np.ndindex(x.shape):
        assert gx[place] == pytest.approx(gy[place[:2]] / 35, abs=1e-15)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding", "message"),
    [
        ((2, 3, 4), 2, 2, 0, r"\(2, 3, 4\)"),
        ((1, 1, 2, 4), 3, 1, 0, "2×4 .* 3×3"),
        ((1, 1, 4, 4), 0, 1, 0, "kernel_size must be an integer ≥ 1 .*, not 0"),
        ((1, 1, 4, 4), 2, 0, 0, "stride must be an integer ≥ 1 .*, not 0"),
        ((1, 1, 4, 4), 2, 1, 2, "padding 2 must be smaller than the window 2×2"),
    ],
)
def test_what_does_not_fit_is_named(shape, kernel, stride, padding, message):
    for function in (max_pool_forward, average_pool_forward):
        with pytest.raises(ShapeError, match=message):
            function(np.zeros(shape), kernel, stride, padding)


def test_global_average_pool_needs_pixels():
    for shape in ((2, 3), (2, 3, 0, 4)):
        with pytest.raises(ShapeError, match="with pixels"):
            global_average_pool_forward(np.zeros(shape))
