"""Compiled pooling: against the reference, and by windows that need not be square."""

import numpy as np
import pytest
from vectors import Ending, every_case, every_ending, without_compiler

from igcnn.kernels import pooling

pytestmark = without_compiler

# (C, H, W), kernel, stride, padding, each of rows and columns
GEOMETRIES = [
    ((1, 1, 1), (1, 1), (1, 1), (0, 0)),
    ((3, 7, 5), (3, 3), (2, 2), (1, 1)),
    ((2, 6, 6), (2, 2), (2, 2), (0, 0)),
    ((4, 9, 8), (4, 4), (2, 2), (2, 2)),
    ((2, 8, 7), (2, 2), (3, 3), (0, 0)),
    ((3, 7, 6), (3, 2), (1, 2), (0, 1)),
    ((2, 5, 9), (2, 5), (3, 1), (1, 2)),
    ((1, 9, 4), (1, 3), (4, 3), (0, 0)),
    ((2, 4, 3), (3, 5), (1, 2), (2, 4)),  # as much padding as there may be
]
every_geometry = pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"), GEOMETRIES, ids=str
)


class Windows:
    """All windows of x, padded, one array for each of their pixels."""

    def __init__(self, shape, kernel, stride, padding):
        (KH, KW), (SH, SW), (PH, PW) = kernel, stride, padding
        N, C, H, W = shape
        self.padding, self.shape = padding, shape
        self.OH, self.OW = (H + 2 * PH - KH) // SH + 1, (W + 2 * PW - KW) // SW + 1
        self.padded = N, C, H + 2 * PH, W + 2 * PW
        self.inside = slice(PH, PH + H), slice(PW, PW + W)
        self.places = [
            (
                ...,
                slice(a, a + SH * (self.OH - 1) + 1, SH),
                slice(b, b + SW * (self.OW - 1) + 1, SW),
            )
            for a in range(KH)
            for b in range(KW)
        ]
        self.sizes = {"C": C, "H": H, "W": W, "OH": self.OH, "OW": self.OW}
        self.sizes |= {"KH": KH, "KW": KW, "SH": SH, "SW": SW, "PH": PH, "PW": PW}

    def of(self, x, outside=0.0):
        """Return (KH·KW, N, C, OH, OW)."""
        padded = np.full(self.padded, outside)
        padded[..., *self.inside] = x
        return np.stack([padded[place] for place in self.places])

    def scatter(self, taps):
        """Return the sum of (KH·KW, N, C, OH, OW) at their pixels."""
        padded = np.zeros(self.padded)
        for place, tap in zip(self.places, taps, strict=True):
            padded[place] += tap
        return padded[..., *self.inside]

    def terms(self, counted):
        """Return how many pixels of each window count, padding among them if `counted`."""
        return self.of(np.ones(self.shape), float(counted)).sum(0)

    def winners(self, x):
        """Return (largest, 1 at the first pixel that is the largest, (KH·KW, N, C, OH, OW))."""
        taps, pixels = self.of(x, -np.inf), self.of(np.ones(self.shape)) > 0
        largest = taps.max(0)  # NaN if there is one
        hits = ((taps == largest) | np.isnan(taps)) & pixels
        return largest, hits & (hits.cumsum(0) == 1)

    def empty(self, case):
        return case.vectors((*self.shape[:2], self.OH, self.OW))


def max_pool(case, windows, x):
    y = windows.empty(case)
    fields = {"x": x, "y": y, "batch": case.batch} | windows.sizes
    case.launch("pooling", "max_pool_forward", case.jobs, [y], **fields)
    return y


def max_pool_backward(case, windows, x, y, gy, end):
    gx = case.vectors(windows.shape)
    fields = {"gy": case.put(gy, 0), "x": x, "y": y, "gx": gx, "end": end.fields}
    outputs = [gx, *end.sums]
    fields |= windows.sizes | {"batch": case.batch}
    case.launch("pooling", "max_pool_backward", case.jobs, outputs, **fields)
    return gx


@every_case
@every_geometry
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_max_pool(case, kind, size, kernel, stride, padding):
    windows = Windows((case.N, *size), kernel, stride, padding)
    # few values, many equal ones: the first in row order wins
    few = case.rng.integers(-3, 3, windows.shape).astype(float)
    x, value = case.input(few, kind)
    y = max_pool(case, windows, x)
    largest, winners = windows.winners(value)
    np.testing.assert_allclose(case.get(y), largest, rtol=0, atol=case.tolerance)
    end = Ending(case, windows.shape, other=True, relu=0, norms=1)
    gy = case.normal(*largest.shape)
    gx = max_pool_backward(case, windows, x, y, gy, end)
    end.check(gx, windows.scatter(winners * gy))


@every_case
@every_ending
def test_endings_of_max_pool(case, ending):
    windows = Windows((case.N, 5, 7, 6), (3, 3), (2, 2), (1, 1))
    x, value = case.input(case.normal(*windows.shape), 1)
    y = max_pool(case, windows, x)
    largest, winners = windows.winners(value)
    end = Ending(case, windows.shape, **ending)
    gy = case.normal(*largest.shape)
    gx = max_pool_backward(case, windows, x, y, gy, end)
    end.check(gx, windows.scatter(winners * gy))


@every_case
def test_max_pool_is_that_of_the_reference(case):
    x = case.rng.integers(-2, 2, (case.N, 3, 6, 7)).astype(float)
    expected, argmax = pooling.max_pool_forward(x, 3, 2, 1)
    windows = Windows(x.shape, (3, 3), (2, 2), (1, 1))
    stored, _ = case.input(x, 0)
    y = max_pool(case, windows, stored)
    np.testing.assert_array_equal(case.get(y), expected)
    gy = case.normal(*expected.shape)
    end = Ending(case, x.shape)
    gx = max_pool_backward(case, windows, stored, y, gy, end)
    end.check(gx, pooling.max_pool_backward(gy, argmax, x.shape, 3, 2, 1))


@every_case
def test_max_pool_of_infinities_and_nan(case):
    """Padding never wins over −∞, and a NaN wins over all; the gradient follows."""
    windows = Windows((case.N, 2, 6, 5), (3, 3), (2, 2), (2, 2))
    x = np.full(windows.shape, -np.inf)
    x[0, 0, 1:3, 2:4] = np.inf
    x[-1, 1, 2, 3] = x[-1, 1, 3, 1] = np.nan
    stored, _ = case.input(x, 0)
    y = max_pool(case, windows, stored)
    largest, winners = windows.winners(x)
    np.testing.assert_array_equal(case.get(y), largest)
    gy = case.normal(*largest.shape)
    end = Ending(case, x.shape)
    gx = max_pool_backward(case, windows, stored, y, gy, end)
    end.check(gx, windows.scatter(winners * gy))


@every_case
@every_geometry
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_average_pool_forward(case, kind, counted, size, kernel, stride, padding):
    windows = Windows((case.N, *size), kernel, stride, padding)
    x, value = case.input(case.normal(*windows.shape), kind)
    y = windows.empty(case)
    fields = {"x": x, "y": y, "batch": case.batch, "count_include_pad": int(counted)}
    fields |= windows.sizes
    case.launch("pooling", "average_pool_forward", case.jobs, [y], **fields)
    expected = windows.of(value).sum(0) / windows.terms(counted)
    np.testing.assert_allclose(case.get(y), expected, rtol=0, atol=case.tolerance)
    reference = pooling.average_pool_forward(value, kernel, stride, padding, counted)
    np.testing.assert_allclose(expected, reference, rtol=0, atol=1e-12)


@every_case
@every_geometry
@every_ending
@pytest.mark.parametrize("counted", [True, False])
def test_average_pool_backward(case, counted, ending, size, kernel, stride, padding):
    windows = Windows((case.N, *size), kernel, stride, padding)
    end = Ending(case, windows.shape, **ending)
    gy = case.normal(*windows.shape[:2], windows.OH, windows.OW)
    gx = case.vectors(windows.shape)
    fields = {"gy": case.put(gy, 0), "gx": gx, "end": end.fields, "batch": case.batch}
    outputs = [gx, *end.sums]
    fields |= windows.sizes | {"count_include_pad": int(counted)}
    case.launch("pooling", "average_pool_backward", case.jobs, outputs, **fields)
    end.check(gx, windows.scatter([gy / windows.terms(counted)] * len(windows.places)))


@every_case
@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("size", [(5, 7, 5), (2, 1, 1)], ids=str)
def test_global_average_pool_forward(case, size, kind):
    x, value = case.input(case.normal(case.N, *size), kind)
    pooled = case.vectors((case.N, size[0]))
    fields = dict(zip("CHW", size, strict=True)) | {"batch": case.batch}
    kernel = "pooling", "global_average_pool_forward"
    case.launch(*kernel, case.jobs, [pooled], x=x, pooled=pooled, **fields)
    expected = value.mean((2, 3))
    np.testing.assert_allclose(case.get(pooled), expected, rtol=0, atol=case.tolerance)


@every_case
@every_ending
@pytest.mark.parametrize("size", [(5, 7, 5), (2, 1, 1)], ids=str)
def test_global_average_pool_backward(case, size, ending):
    end = Ending(case, (case.N, *size), **ending)
    gpooled = case.normal(case.N, size[0])
    gx = case.vectors(end.shape)
    fields = {"gpooled": case.put(gpooled, 0), "gx": gx, "end": end.fields}
    fields |= dict(zip("CHW", size, strict=True)) | {"batch": case.batch}
    outputs = [gx, *end.sums]
    case.launch("pooling", "global_average_pool_backward", case.jobs, outputs, **fields)
    end.check(gx, np.broadcast_to(gpooled[:, :, None, None] / (size[1] * size[2]), end.shape))
