"""Pooling against loops over windows."""

import shutil

import numpy as np
import pytest

from igcnn.backend import to_device, to_host
from igcnn.conformance import oracles
from igcnn.errors import ShapeError
from igcnn.kernels.pooling import (
    average_pool_backward,
    average_pool_forward,
    global_average_pool_backward,
    global_average_pool_forward,
    max_pool_backward,
    max_pool_forward,
)

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)

# shape, kernel, stride, padding
GEOMETRIES = [
    ((1, 1, 1, 1), 1, 1, 0),
    ((1, 2, 7, 5), 3, 2, 1),
    ((2, 3, 6, 6), 2, 2, 0),
    ((2, 1, 7, 5), 2, 3, 1),
    ((1, 3, 5, 4), 3, 1, 1),
    ((2, 2, 9, 8), 4, 2, 2),
    ((1, 2, 4, 4), 3, 1, 2),
    ((2, 2, 5, 6), (3, 2), (1, 3), (2, 1)),
    ((1, 1, 3, 2), (1, 5), (2, 1), (0, 4)),
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
@pytest.mark.parametrize("counted", [True, False])
def test_average_pool(shape, kernel, stride, padding, counted, order):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    expected = oracles.average_pool(x, kernel, stride, padding, counted)
    y = average_pool_forward(order(x), kernel, stride, padding, counted)
    gy = rng.standard_normal(y.shape)
    gx = average_pool_backward(order(gy), shape, kernel, stride, padding, counted)
    wanted = np.zeros(shape)
    assert y.size == len(expected)
    for (n, c, i, j), (value, pixels, terms) in expected.items():
        assert y[n, c, i, j] == pytest.approx(value, abs=1e-14)
        for pixel in pixels:
            wanted[n, c][pixel] += gy[n, c, i, j] / terms
    np.testing.assert_allclose(gx, wanted, rtol=0, atol=1e-14)


def test_padding_never_wins():
    y, _ = max_pool_forward(np.full((1, 1, 3, 3), -5.0), 3, 2, 1)
    np.testing.assert_array_equal(y, -5)


@pytest.mark.parametrize("padding", [1, 2])
@pytest.mark.parametrize("device", ["cpu", pytest.param("emu", marks=needs_compiler)])
def test_the_gradient_of_minus_infinity_goes_to_a_pixel(device, padding):
    """Images of −∞, one with a NaN and one with a number: padding gets nothing."""
    x = np.full((3, 1, 4, 5), -np.inf)
    x[1, 0, 2, 1], x[2, 0, 1, 3] = np.nan, -1e300
    expected = oracles.max_pool(x[[0, 2]], 3, 2, padding)
    y, argmax = max_pool_forward(to_device(x, device), 3, 2, padding)
    gy = np.random.default_rng(0).standard_normal(y.shape)
    gx = to_host(max_pool_backward(to_device(gy, device), argmax, x.shape, 3, 2, padding))
    wanted = np.zeros((2, *x.shape[1:]))
    for (n, c, i, j), (value, pixel) in expected.items():
        assert y[2 * n, c, i, j] == value
        wanted[n, c][pixel] += gy[2 * n, c, i, j]
    np.testing.assert_allclose(gx[[0, 2]], wanted, rtol=0, atol=1e-14)
    assert gx[1].sum() == pytest.approx(gy[1].sum(), abs=1e-13)
    seen = np.isnan(to_host(y)[1, 0])
    assert seen.any()
    assert gx[1, 0, 2, 1] == pytest.approx(gy[1, 0][seen].sum(), abs=1e-14)


def test_a_large_window_has_an_index():
    x = np.zeros((1, 1, 200, 200), np.float32)
    x[0, 0, 199, 198] = 1
    assert max_pool_forward(x, 200, 1)[1].item() == 199 * 200 + 198


def test_an_infinite_gradient_stays_where_it_belongs():
    _, argmax = max_pool_forward(np.arange(4.0).reshape(1, 1, 2, 2), 2, 2)
    gx = max_pool_backward(np.full((1, 1, 1, 1), np.inf), argmax, (1, 1, 2, 2), 2, 2)
    assert gx.ravel().tolist() == [0, 0, 0, np.inf]


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
        ((1, 1, 4, 4), (3, 1), 1, 1, "padding 1 must be smaller than the window 3×1"),
        ((1, 1, 0, 4), 2, 1, 1, r"with pixels, not \(1, 1, 0, 4\)"),
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
