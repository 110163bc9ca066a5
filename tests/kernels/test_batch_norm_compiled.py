"""Compiled batch norm against its definition."""

import numpy as np
import pytest
from vectors import every_case, without_compiler

from igcnn.conformance import oracles

pytestmark = without_compiler
EPS = 2e-5
MOMENTUM = 0.9


def normalise(case, x, gamma, beta, running=None):
    """The sums and statistics of x by the kernels: what batch_norm_statistics writes."""
    C, H, W = x.shape[1:]
    sums = case.empty(case.jobs, 2, C, dtype="float64")
    sizes = {"C": C, "H": H, "W": W, "batch": case.batch}
    case.launch(
        "batch_norm", "batch_norm_sums", case.jobs, [sums], x=case.put(x), sums=sums, **sizes
    )
    names = "mean variance scale shift running_mean running_var"
    out = {name: case.empty(C) for name in names.split()}
    out["running_mean"][:], out["running_var"][:] = running or (0, 1)
    case.launch(
        "batch_norm",
        "batch_norm_statistics",
        1,
        list(out.values()),
        sums=sums,
        gamma=case.numbers(gamma),
        beta=case.numbers(beta),
        momentum=MOMENTUM,
        eps=EPS,
        **out,
        **sizes,
    )
    return out


@every_case
@pytest.mark.parametrize("size", [(3, 7, 5), (2, 1, 1), (5, 4, 17)])
def test_statistics(case, size):
    x = 2 * case.normal(case.N, *size) + 1
    gamma, beta, mean, variance = case.normal(4, size[0])
    out = normalise(case, x, gamma, beta, running=(mean, variance))
    y, batch_mean, batch_variance = oracles.batch_norm(x, gamma, beta, EPS)
    close = {"rtol": 0, "atol": case.tolerance * (1 if case.N > 1 or size[1] > 1 else 1e3)}
    np.testing.assert_allclose(out["mean"], batch_mean, **close)
    np.testing.assert_allclose(out["variance"], batch_variance, **close)
    moved = MOMENTUM * mean + (1 - MOMENTUM) * batch_mean
    np.testing.assert_allclose(out["running_mean"], moved, **close)
    moved = MOMENTUM * variance + (1 - MOMENTUM) * batch_variance
    np.testing.assert_allclose(out["running_var"], moved, **close)
    normed = x * out["scale"][:, None, None].astype(float) + out["shift"][:, None, None]
    np.testing.assert_allclose(normed, y, **close)


@every_case
def test_large_mean(case):
    """The variance is that of numbers which differ in their last digits."""
    step = np.finfo(case.dtype).eps * 2048
    x = 1024 + 1024 * step * case.rng.integers(-8, 8, (case.N, 2, 6, 5))
    out = normalise(case, x, np.ones(2), np.zeros(2))
    np.testing.assert_allclose(out["variance"], x.var((0, 2, 3)), rtol=1e-3)


@every_case
def test_a_constant_channel_becomes_beta(case):
    x = np.empty((case.N, 3, 5, 3))
    x[...] = case.numbers([0.1, -1234.5678, 3e-6])[:, None, None]
    beta = case.normal(3)
    out = normalise(case, x, np.ones(3), beta)
    np.testing.assert_array_equal(out["variance"], 0)
    np.testing.assert_array_equal(out["mean"], x[0, :, 0, 0])
    normed = x[0, :, 0, 0] * out["scale"].astype(float) + out["shift"]
    size = np.abs(x[0, :, 0, 0]) * out["scale"]
    assert (np.abs(normed - beta) <= np.finfo(case.dtype).eps * (size + 1)).all()


@every_case
def test_nan_is_not_lost(case):
    x = case.normal(case.N, 2, 4, 3)
    x[case.N - 1, 1, 2, 1] = np.nan
    out = normalise(case, x, np.ones(2), np.zeros(2))
    for name in ("mean", "variance", "scale", "shift"):
        assert np.isnan(out[name]).tolist() == [False, True]


@every_case
def test_inference(case):
    gamma, beta, mean = case.normal(3, 5)
    variance = case.normal(5) ** 2
    scale, shift = case.empty(5), case.empty(5)
    case.launch(
        "batch_norm",
        "batch_norm_inference",
        1,
        [scale, shift],
        gamma=case.numbers(gamma),
        beta=case.numbers(beta),
        running_mean=case.numbers(mean),
        running_var=case.numbers(variance),
        scale=scale,
        shift=shift,
        eps=EPS,
        C=5,
    )
    expected = gamma / np.sqrt(case.numbers(variance).astype(float) + EPS)
    np.testing.assert_allclose(scale, expected, rtol=case.tolerance)
    np.testing.assert_allclose(shift, beta - mean * expected, rtol=0, atol=10 * case.tolerance)


@every_case
@pytest.mark.parametrize("constant", [False, True])
def test_gradient(case, constant):
    shape = N, C, H, W = case.N, 2, 3, 3
    x, g = case.normal(2, *shape)
    gamma = case.normal(C)
    expected = oracles.batch_norm_gradients(g, x, gamma, EPS)
    mean = case.numbers(x.mean((0, 2, 3)))
    variance = case.numbers(x.var((0, 2, 3)))
    centred = x - mean[:, None, None].astype(float)
    sums = np.zeros((3, 2, C))
    for job, part in enumerate(np.array_split(np.arange(H), 3)):
        sums[job, 0] = g[:, :, part].sum((0, 2, 3))
        sums[job, 1] = (g * centred)[:, :, part].sum((0, 2, 3))
    ggamma, gbeta, scale, slope, shift = (case.empty(C) for _ in range(5))
    case.launch(
        "batch_norm",
        "batch_norm_gradient",
        1,
        [ggamma, gbeta, scale, slope, shift],
        sums=sums,
        gamma=case.numbers(gamma),
        mean=mean,
        variance=variance,
        ggamma=None if constant else ggamma,
        gbeta=None if constant else gbeta,
        scale=scale,
        slope=slope,
        shift=shift,
        eps=EPS,
        count=float(N * H * W),
        C=C,
        jobs=len(sums),
    )
    columns = (a[:, None, None].astype(float) for a in (scale, slope, shift))
    a, b, c = columns
    np.testing.assert_allclose(a * g + b * x + c, expected[0], rtol=0, atol=10 * case.tolerance)
    if constant:
        assert np.isnan([ggamma, gbeta]).all()
        return
    close = {"rtol": case.tolerance, "atol": 10 * case.tolerance}
    np.testing.assert_allclose(ggamma, expected[1], **close)
    np.testing.assert_allclose(gbeta, expected[2], **close)
