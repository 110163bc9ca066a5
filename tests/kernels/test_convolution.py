"""Convolution against loops, in every geometry and memory order."""

import numpy as np
import pytest

from igcnn.conformance import oracles
from igcnn.errors import DtypeError, ShapeError
from igcnn.kernels import convolution
from igcnn.kernels.convolution import (
    convolution_backward_input,
    convolution_backward_weight,
    convolution_forward,
)

# N, C, H, W, C_out, kernel, stride, padding, groups
GEOMETRIES = [
    (1, 1, 1, 1, 1, (1, 1), 1, 0, 1),
    (1, 3, 7, 5, 4, (3, 3), 1, 1, 1),
    (2, 4, 7, 5, 6, (3, 3), 2, 1, 2),
    (3, 6, 5, 4, 6, (3, 3), 1, 1, 6),
    (2, 4, 9, 9, 8, (1, 1), 2, 0, 4),
    (2, 4, 6, 7, 4, (1, 1), 1, 0, 2),
    (1, 3, 11, 9, 2, (7, 7), 2, 3, 1),
    (2, 2, 8, 6, 4, (3, 2), (2, 1), (1, 0), 2),
    (2, 2, 8, 9, 2, (2, 3), (3, 2), (0, 2), 1),
    (2, 2, 5, 5, 2, (2, 2), 3, 1, 1),
    (1, 2, 3, 3, 2, (5, 5), 1, 2, 2),
    (2, 3, 4, 4, 3, (3, 3), 1, 4, 1),
]


def planes(array):
    """Return a copy in the engine's memory order, (C, H, W, N)."""
    return np.ascontiguousarray(array.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)


def sliced(array):
    """Return the array as every other element of a larger one."""
    larger = np.full([2 * n for n in array.shape], np.nan, array.dtype)
    view = larger[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def make(geometry, dtype=np.float64):
    N, C, H, W, C_out, kernel, stride, padding, groups = geometry
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, C, H, W)).astype(dtype)
    w = rng.standard_normal((C_out, C // groups, *kernel)).astype(dtype)
    gy = rng.standard_normal(oracles.convolution(x, w, stride, padding, groups).shape)
    return x, w, gy.astype(dtype), (stride, padding, groups)


@pytest.mark.parametrize("order", [np.ascontiguousarray, planes, sliced])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_against_loops(geometry, order):
    x, w, gy, settings = make(geometry)
    expected_gx, expected_gw = oracles.convolution_gradients(gy, x, w, *settings)
    expected = oracles.convolution(x, w, *settings)
    arguments = [order(array) for array in (x, w, gy)]
    before = [array.copy() for array in arguments]
    y = convolution_forward(arguments[0], arguments[1], *settings)
    gx = convolution_backward_input(arguments[2], arguments[1], x.shape, *settings)
    gw = convolution_backward_weight(arguments[2], arguments[0], w.shape, *settings)
    for array, wanted in ((y, expected), (gx, expected_gx), (gw, expected_gw)):
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, wanted, rtol=0, atol=1e-12)
    for array, old in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_float32_is_as_exact_as_it_can_be(geometry):
    x, w, gy, settings = make(geometry, np.float32)
    y = convolution_forward(x, w, *settings)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, oracles.convolution(x, w, *settings), rtol=0, atol=2e-5)
    gx, gw = oracles.convolution_gradients(gy, x, w, *settings)
    result = convolution_backward_input(gy, w, x.shape, *settings)
    np.testing.assert_allclose(result, gx, rtol=0, atol=2e-5)
    result = convolution_backward_weight(gy, x, w.shape, *settings)
    np.testing.assert_allclose(result, gw, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_adjoints(stride):
    """⟨conv(x, w), gy⟩ = ⟨x, gx⟩ = ⟨w, gw⟩, at a size that loops cannot do."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 12, 33, 31))
    w = rng.standard_normal((24, 3, 3, 3))
    y = convolution_forward(x, w, stride, 1, 4)
    gy = rng.standard_normal(y.shape)
    gx = convolution_backward_input(gy, w, x.shape, stride, 1, 4)
    gw = convolution_backward_weight(gy, x, w.shape, stride, 1, 4)
    inner = np.vdot(y, gy)
    assert np.vdot(x, gx) == pytest.approx(inner, rel=1e-12)
    assert np.vdot(w, gw) == pytest.approx(inner, rel=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch):
    x, w, gy, settings = make((2, 4, 9, 5, 6, (3, 3), 2, 1, 2))

    def results():
        yield convolution_forward(x, w, *settings)
        yield convolution_backward_input(gy, w, x.shape, *settings)
        yield convolution_backward_weight(gy, x, w.shape, *settings)

    whole = list(results())
    for size in (1, 2000):
        monkeypatch.setattr(convolution, "BLOCK_BYTES", size)
        for array, expected in zip(results(), whole, strict=True):
            np.testing.assert_allclose(array, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "w", "settings", "message"),
    [
        ((2, 3, 4), (2, 3, 3, 3), {}, r"\(2, 3, 4\)"),
        ((2, 3, 4, 4), (2, 2, 3, 3), {}, r"3 channels but w takes 2·1 = 2"),
        ((2, 4, 4, 4), (3, 2, 3, 3), {"groups": 2}, r"4 input and 3 output .* 2 groups"),
        ((2, 4, 4, 4), (4, 4, 3, 3), {"groups": 0}, "groups must be an integer ≥ 1 .* not 0"),
        ((2, 4, 2, 4), (4, 4, 3, 3), {}, r"2×4 .* 3×3"),
        ((2, 4, 4, 4), (4, 4, 3, 3), {"stride": 0}, r"stride must be an integer ≥ 1 .*, not 0"),
        (
            (2, 4, 4, 4),
            (4, 4, 3, 3),
            {"padding": -1},
            r"padding must be an integer ≥ 0 .*, not -1",
        ),
    ],
)
def test_what_does_not_fit_is_named(x, w, settings, message):
    with pytest.raises(ShapeError, match=message):
        convolution_forward(np.zeros(x), np.zeros(w), **settings)


def test_element_types_are_not_mixed():
    with pytest.raises(DtypeError, match="float32, float64"):
        convolution_forward(np.zeros((1, 1, 3, 3)), np.zeros((1, 1, 1, 1), np.float32))
