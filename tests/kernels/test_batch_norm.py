"""Batch norm against its definition."""

import shutil

import numpy as np
import pytest

from igcnn.backend import to_device, to_host
from igcnn.conformance import oracles
from igcnn.errors import DtypeError, ShapeError
from igcnn.kernels.augment import Resident
from igcnn.kernels.batch_norm import (
    batch_norm_backward_evaluation,
    batch_norm_backward_training,
    batch_norm_forward_evaluation,
    batch_norm_forward_training,
)
from igcnn.kernels.combine import DeviceNorm, launch_norm
from igcnn.kernels.interleaved_group_convolution import fused_unit, launch_igc_forward
from igcnn.kernels.stem import launch_stem, stem_blocks

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)
DEVICES = ["cpu", pytest.param("emu", marks=needs_compiler)]
EPS = 2e-5
SHAPES = [(1, 1, 2, 1), (1, 3, 7, 5), (4, 2, 3, 3), (3, 5, 1, 1)]


def make(shape):
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal((2, *shape))
    gamma, beta = rng.standard_normal((2, shape[1]))
    return 2 * x + 1, gy, gamma, beta


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["NCHW", "CHWN"])
def test_training(shape, order):
    x, gy, gamma, beta = make(shape)
    expected, mean, variance = oracles.batch_norm(x, gamma, beta, EPS)
    gradients = oracles.batch_norm_gradients(gy, x, gamma, EPS)
    if order == "CHWN":
        x, gy = (
            np.ascontiguousarray(a.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2) for a in (x, gy)
        )
    y, centred, got_mean, got_variance = batch_norm_forward_training(x, gamma, beta, EPS)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got_mean, mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got_variance, variance, rtol=0, atol=1e-12)
    results = batch_norm_backward_training(gy, centred, got_variance, gamma, EPS)
    for result, wanted in zip(results, gradients, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation(shape):
    x, gy, gamma, beta = make(shape)
    rng = np.random.default_rng(1)
    mean, variance = rng.standard_normal(shape[1]), rng.uniform(0.5, 2, shape[1])
    y = batch_norm_forward_evaluation(x, gamma, beta, mean, variance, EPS)
    gx, ggamma, gbeta = batch_norm_backward_evaluation(gy, x, gamma, mean, variance, EPS)
    for c in range(shape[1]):
        inverse = 1 / np.sqrt(variance[c] + EPS)
        normalised = (x[:, c] - mean[c]) * inverse
        np.testing.assert_allclose(y[:, c], gamma[c] * normalised + beta[c], rtol=0, atol=1e-12)
        np.testing.assert_allclose(gx[:, c], gy[:, c] * gamma[c] * inverse, rtol=0, atol=1e-12)
        assert ggamma[c] == pytest.approx((gy[:, c] * normalised).sum(), abs=1e-11)
        assert gbeta[c] == pytest.approx(gy[:, c].sum(), abs=1e-11)


def test_a_large_mean_costs_no_digits():
    """A variance from Σx² would have none left here."""
    rng = np.random.default_rng(0)
    x = (1e4 + rng.standard_normal((16, 2, 8, 8))).astype(np.float32)
    one, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
    y, _, _, variance = batch_norm_forward_training(x, one, zero, EPS)
    exact, _, expected = oracles.batch_norm(x, one, zero, EPS)
    np.testing.assert_allclose(variance, expected, rtol=1e-3)
    np.testing.assert_allclose(y, exact, rtol=0, atol=5e-3)


def test_rows_are_added_in_float64():
    gy = np.array([1e8, 1, -1e8], np.float32).reshape(1, 1, 3, 1)
    one = np.ones(1, np.float32)
    _, _, gbeta = batch_norm_backward_training(gy, np.zeros_like(gy), one, one, EPS)
    assert gbeta == 1


def test_the_gradient_is_orthogonal_to_what_normalising_removes():
    x, gy, gamma, beta = make((4, 3, 5, 5))
    _, centred, _, variance = batch_norm_forward_training(x, gamma, beta, 0.0)
    gx, _, _ = batch_norm_backward_training(gy, centred, variance, gamma, 0.0)
    np.testing.assert_allclose(gx.sum(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose((gx * centred).sum(axis=(0, 2, 3)), 0, atol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0, 7, 100.1, -1e-9, 1e15, 1 / 3])
def test_a_constant_channel_gives_beta(value, dtype):
    x = np.full((7, 1, 9, 11), value, dtype)
    y, _, mean, _ = batch_norm_forward_training(x, np.array([3], dtype), x[0, :, 0, 0], EPS)
    np.testing.assert_allclose(y, x, rtol=0, atol=1e-9)
    np.testing.assert_allclose(mean, x[0, 0, 0, 0])


def planted(name, shape=(6, 2, 5, 7)):
    """Images, float32, whose statistics are lost by sums of squares, or about one pixel."""
    x = np.random.default_rng(0).standard_normal(shape)
    match name:
        case "constant":
            x[...] = np.array([100.1, -3e6])[:, None, None]
        case "bright first pixel":
            x[0, :, 0, 0] = 3e4
        case "bright last pixel":
            x[-1, :, -1, -1] = -3e4
        case "bright row":
            x[:, :, 0] = 1e3
        case "large mean":
            x += 1e4
        case "images far apart":
            x += 1e3 * np.arange(shape[0])[:, None, None, None]
    return x.astype(np.float32)


PLANTED = [
    "constant",
    "bright first pixel",
    "bright last pixel",
    "bright row",
    "large mean",
    "images far apart",
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("order", ["NCHW", "CHWN"])
@pytest.mark.parametrize("name", PLANTED)
def test_statistics_in_float32_have_the_digits_of_float64(name, order, device):
    x = planted(name)
    one, beta = np.ones(2, np.float32), np.array([-2, 0.5], np.float32)
    exact, exact_mean, exact_variance = oracles.batch_norm(x, one, beta, EPS)
    if order == "CHWN":
        x = np.ascontiguousarray(x.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
    results = batch_norm_forward_training(*(to_device(a, device) for a in (x, one, beta)), EPS)
    y, _, mean, variance = map(to_host, results)
    np.testing.assert_allclose(mean, exact_mean, rtol=3e-7, atol=1e-7)
    # means far from zero are rounded to float32
    rounding = np.abs(exact_mean).max() * 2e-7 / np.sqrt(exact_variance.max() + EPS)
    np.testing.assert_allclose(variance, exact_variance, rtol=1e-5 + rounding)
    tolerance = 0 if name == "constant" else 1e-5 + rounding
    np.testing.assert_allclose(y, exact, rtol=0, atol=tolerance)


def emu(array, dtype=np.float32):
    return to_device(np.asarray(array, dtype), "emu")


def by_slices(x):
    """Channel by channel, as the general kernels do."""
    return emu(x), emu(np.full((x.shape[1], 4, 3), np.nan)), False


def by_fused_unit(x):
    """With weights that change nothing, so that z is x."""
    N, C = x.shape[:2]
    w1 = np.zeros((C, 2, 3, 3))
    w1[:, :, 1, 1] = np.tile(np.eye(2), (C // 2, 1))
    w2 = np.tile(np.eye(C // 2), (2, 1))[..., None, None]
    unit = fused_unit(x.shape[1:], w1.shape, ((1, 1), (1, 1), C // 2), 2, 227 << 10)
    z, moments = emu(np.empty_like(x)), emu(np.full((C, unit.blocks(N), 3), np.nan))
    launch_igc_forward(unit, emu(x), None, emu(w1), emu(w2), z, moments)
    return z, moments, True


def by_stem(x):
    """The largest pixels of x, as bytes, through weights that pick a colour."""
    N, C, H, _ = x.shape
    images = np.where(np.abs(x[:, :1]) > 50, 255, 1).astype(np.uint8).repeat(3, axis=1)
    w = np.zeros((C, 3, 3, 3))
    w[:, 0, 1, 1] = 1 + np.arange(C)
    scale = emu(np.full(3, 1e3)), emu(np.full(3, 1e-2))
    numbers = emu(np.arange(N), np.int32), emu(np.arange(N), np.int32), emu([0] * 5, np.uint32)
    source = Resident(emu(images, np.uint8), *numbers, *scale, 0, False, 0)
    z, moments = emu(np.empty_like(x)), emu(np.full((C, stem_blocks(N, H), 3), np.nan))
    launch_stem(source, emu(w), emu(images), numbers[0].copy(), z, moments)
    return z, moments, True


def norm_of(C, dtype=np.float32):
    arrays = [emu(np.ones(C), dtype) for _ in range(10)]
    last = emu(np.ones((C, 3)), dtype), emu(np.zeros(C), np.uint32)
    return DeviceNorm(*arrays, *last, 0.9, EPS)


@needs_compiler
@pytest.mark.parametrize("kernel", [by_slices, by_fused_unit, by_stem])
@pytest.mark.parametrize("name", PLANTED)
def test_statistics_of_a_plan_on_a_device(name, kernel):
    x = planted(name, (6, 12, 8, 8) if name != "constant" else (6, 2, 8, 8))
    x = np.tile(x, (1, 12 // x.shape[1], 1, 1))
    z, moments, summed = kernel(x)
    norm = norm_of(12)
    launch_norm(z, norm, moments, training=True, summed=summed)
    values = to_host(z).astype(float)
    mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3))
    np.testing.assert_allclose(to_host(norm.mean), mean, rtol=3e-7, atol=1e-6)
    rounding = np.abs(mean).max() * 2e-7 / np.sqrt(variance.max() + EPS)
    np.testing.assert_allclose(to_host(norm.variance), variance, rtol=1e-5 + rounding, atol=1e-15)


@needs_compiler
def test_a_large_mean_costs_a_plan_in_float64_no_digits():
    x = 1e6 + np.random.default_rng(0).standard_normal((6, 2, 8, 8))
    norm = norm_of(2, np.float64)
    launch_norm(emu(x, np.float64), norm, emu(np.ones((2, 4, 3)), np.float64), training=True)
    np.testing.assert_allclose(to_host(norm.variance), x.var((0, 2, 3)), rtol=1e-8)


def test_an_empty_batch_has_no_statistics():
    for shape in ((0, 3, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0)):
        x, c = np.zeros(shape), np.ones(3)
        y, centred, mean, variance = batch_norm_forward_training(x, c, c, EPS)
        assert y.shape == shape
        assert not mean.any()
        assert not variance.any()
        gradients = batch_norm_backward_training(x, centred, variance, c, EPS)
        assert [a.shape for a in gradients] == [shape, (3,), (3,)]
        assert not any(a.any() for a in gradients)
        assert batch_norm_forward_evaluation(x, c, c, c, c, EPS).shape == shape
        assert not any(a.any() for a in batch_norm_backward_evaluation(x, x, c, c, c, EPS))


def test_what_does_not_fit_is_named():
    x, c = np.zeros((2, 3, 4, 4)), np.zeros(3)
    with pytest.raises(
        ShapeError, match=r"\(2, 3, 4, 4\) takes gamma of shape \(3,\), not \(2,\)"
    ):
        batch_norm_forward_training(x, np.zeros(2), c, EPS)
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        batch_norm_forward_training(np.zeros(3), c, c, EPS)
    with pytest.raises(ShapeError, match="with channels"):
        batch_norm_forward_training(np.zeros((2, 0, 4, 4)), c[:0], c[:0], EPS)
    with pytest.raises(ShapeError, match=r"\(2, 4, 4, 3\) looks like \(N, H, W, C\)"):
        batch_norm_forward_training(x.transpose(0, 2, 3, 1), c, c, EPS)
    with pytest.raises(DtypeError, match="float32, float64"):
        batch_norm_forward_training(x, c.astype(np.float32), c, EPS)
