"""Winograd's algorithm against the NumPy convolutions in float64."""

import ctypes
import subprocess

import numpy as np
import pytest
from vectors import Case, Ending, without_compiler

from igcnn.compiler import find_compiler
from igcnn.kernels import compiled
from igcnn.kernels.convolution import (
    convolution_backward_input,
    convolution_backward_weight,
    convolution_forward,
)

pytestmark = without_compiler

BOUNDS = {"float64": 1e-12, "float32": 3e-6}  # relative to the largest value
PADDING = {"stride": 1, "padding": 1}
# C, H, W, D
SHAPES = [
    (8, 8, 8, 8),
    (9, 1, 1, 8),
    (8, 2, 5, 11),
    (16, 7, 7, 24),
    (17, 4, 33, 9),
    (33, 9, 3, 70),
    (70, 14, 6, 33),
    (8, 33, 10, 16),
    (40, 5, 4, 68),
]
# dtype, lanes, images, slices
CASES = [
    Case("float64", 4, 7, 1),
    Case("float64", 8, 17, 2),
    Case("float64", 16, 19, 3),
    Case("float32", 4, 3, 2),
    Case("float32", 8, 16, 3),
    Case("float32", 16, 37, 1),
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_case = pytest.mark.parametrize("case", CASES, ids=repr)
every_cut = pytest.mark.parametrize("by_channels", [0, 1], ids=["rows", "channels"])
both_weights = pytest.mark.parametrize("raw", [0, 1], ids=["packed", "raw"])


def close(case, actual, expected, factor=1):
    bound = factor * BOUNDS[case.dtype] * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def parts(case, by_channels):
    return case.blocks if by_channels else case.jobs


def cut(case, shape, by_channels, band):
    """Return the fields that every kernel takes."""
    C, H, W, D = shape
    fields = {"C": C, "H": H, "W": W, "D": D, "band": band, "by_channels": by_channels}
    return fields | {"batch": case.batch}


def some_weights(case, shape):
    C, _, _, D = shape
    return case.normal(D, C, 3, 3) / (3 * C**0.5)


def pack(case, w, raw, scale=None, jobs=3):
    """Return the weights as forward and as backward reads them."""
    D, C = w.shape[:2]
    size = w.size * (1 if raw else 4)
    forward, backward = case.empty(size), None if raw else case.empty(size)
    fields = {"w": case.numbers(w), "scale": None if scale is None else case.numbers(scale)}
    fields |= {"forward": forward, "backward": backward, "C": C, "D": D, "raw": raw}
    written = [forward] if raw else [forward, backward]
    case.launch("winograd", "winograd_pack", jobs, written, jobs=jobs, **fields)
    return forward, forward if raw else backward


def run_forward(case, shape, x, w, raw, by_channels, band=4, **end):
    D, H, W = shape[3], shape[1], shape[2]
    z = case.vectors((case.N, D, H, W))
    sums = case.empty(parts(case, by_channels), 2, D, dtype="float64")
    fields = {"bias": None, "skip": None, "relu": 0, "sums": sums, "x": x, "w": w, "z": z} | end
    written = [z] + ([] if fields["sums"] is None else [sums])
    fields |= cut(case, shape, by_channels, band) | {"raw": raw}
    case.launch("winograd", "winograd_forward", case.jobs, written, **fields)
    return z, sums


def check_sums(case, sums, z, by_channels):
    """Each part has mean and Σ (z − mean)² of its own pixels and images."""
    H = z.shape[2]
    tiles, slices = -(-H // 4), 1 if by_channels else case.slices
    for part, (mean, square) in enumerate(sums):
        block, k = divmod(part, slices)
        rows = slice(4 * (tiles * k // slices), min(H, 4 * (tiles * (k + 1) // slices)))
        own = z[block * case.lanes : (block + 1) * case.lanes, :, rows]
        if own.size:
            expected = own.mean((0, 2, 3))
            bound = case.tolerance * max(1, np.abs(own).max())
            np.testing.assert_allclose(mean, expected, rtol=0, atol=bound)
            squares = ((own - expected[:, None, None]) ** 2).sum((0, 2, 3))
            bound = 5 * case.tolerance * max(1, np.abs(squares).max())
            np.testing.assert_allclose(square, squares, rtol=0, atol=bound)
        else:
            assert not mean.any()
            assert not square.any()


@every_case
@every_shape
@every_cut
@both_weights
def test_forward(case, shape, by_channels, raw):
    x, value = case.input(case.normal(case.N, *shape[:3]), case.N % 3)
    w = some_weights(case, shape)
    packed, _ = pack(case, w, raw)
    z, sums = run_forward(case, shape, x, packed, raw, by_channels)
    expected = convolution_forward(value, w, **PADDING)
    close(case, case.get(z), expected)
    check_sums(case, sums, expected, by_channels)


@every_cut
@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("band", [4, 8, 16])
def test_forward_of_every_kind_of_input(by_channels, kind, band):
    case, shape = CASES[1], (9, 15, 6, 20)
    x, value = case.input(case.normal(case.N, *shape[:3]), kind)
    w = some_weights(case, shape)
    z, sums = run_forward(case, shape, x, pack(case, w, 0)[0], 0, by_channels, band)
    expected = convolution_forward(value, w, **PADDING)
    close(case, case.get(z), expected)
    check_sums(case, sums, expected, by_channels)


@every_case
@every_cut
@both_weights
@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("relu", [0, 1])
def test_forward_of_evaluation(case, by_channels, raw, skipped, relu):
    """Weights are scaled; bias, residual and ReLU end the result."""
    shape = C, H, W, D = 12, 9, 7, 19
    x, value = case.input(case.normal(case.N, C, H, W), 0)
    w, scale, bias = some_weights(case, shape), case.normal(D), case.normal(D)
    skip = case.normal(case.N, D, H, W)
    end = {"bias": case.numbers(bias), "skip": case.put(skip) if skipped else None, "relu": relu}
    packed, _ = pack(case, w, raw, scale)
    z, _ = run_forward(case, shape, x, packed, raw, by_channels, sums=None, **end)
    expected = convolution_forward(value, w, **PADDING) * scale[:, None, None]
    expected += bias[:, None, None] + (skip if skipped else 0)
    close(case, case.get(z), np.maximum(expected, 0) if relu else expected)


@every_cut
def test_sums_of_what_is_stored(by_channels):
    """The statistics are those of z as it is stored, far from zero as well."""
    case, shape = CASES[5], (16, 12, 8, 16)
    x, _ = case.input(case.normal(case.N, *shape[:3]), 1)
    bias = case.numbers(1000 + case.normal(16))
    packed, _ = pack(case, some_weights(case, shape), 0)
    z, sums = run_forward(case, shape, x, packed, 0, by_channels, bias=bias)
    check_sums(case, sums, case.get(z), by_channels)


def check_backward_input(case, shape, by_channels, raw, kind, ending, band=4):
    C, H, W, D = shape
    w = some_weights(case, shape)
    gz, g = case.gradient((case.N, D, H, W), kind)
    end = Ending(case, (case.N, C, H, W), **ending)
    for fields in end.fields["norm"]:
        fields["sums"] = case.empty(parts(case, by_channels), 2, C, dtype="float64")
    end.sums = [fields["sums"] for fields in end.fields["norm"]]
    gx = case.vectors((case.N, C, H, W))
    fields = {"gz": gz, "w": pack(case, w, raw)[1], "gx": gx, "end": end.fields, "raw": raw}
    fields |= cut(case, shape, by_channels, band)
    written = [gx, *end.sums]
    case.launch("winograd", "winograd_backward_input", case.jobs, written, **fields)
    expected = convolution_backward_input(g, w, (case.N, C, H, W), **PADDING)
    end.check(gx, expected)
    if not ending:
        close(case, case.get(gx), expected)


@every_case
@every_shape
@every_cut
@both_weights
def test_backward_input(case, shape, by_channels, raw):
    check_backward_input(case, shape, by_channels, raw, case.lanes // 8 % 2, {})


@every_cut
@pytest.mark.parametrize("norms", [0, 1, 2])
@pytest.mark.parametrize("relu", [None, 0, 1])
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("kind", [0, 1])
def test_every_ending(by_channels, other, relu, norms, kind):
    ending = {"other": other, "relu": relu, "norms": norms}
    check_backward_input(CASES[1], (18, 9, 6, 12), by_channels, 0, kind, ending, 8)


@pytest.mark.parametrize("case", CASES[3:], ids=repr)
@every_cut
def test_endings_in_float32(case, by_channels):
    ending = {"other": True, "relu": 1, "norms": 2}
    check_backward_input(case, (18, 9, 6, 12), by_channels, 1, 1, ending)


def check_backward_weight(case, shape, by_channels, kind, x_kind, band):
    C, H, W, D = shape
    x, value = case.input(case.normal(case.N, C, H, W), x_kind)
    gz, g = case.gradient((case.N, D, H, W), kind)
    gw = case.empty(parts(case, by_channels), D, C, 3, 3)
    fields = {"gz": gz, "x": x, "gw": gw} | cut(case, shape, by_channels, band)
    case.launch("winograd", "winograd_backward_weight", case.jobs, [gw], **fields)
    expected = convolution_backward_weight(g, value, (D, C, 3, 3), **PADDING)
    close(case, gw.astype(float).sum(0), expected)


@every_case
@every_shape
@every_cut
@pytest.mark.parametrize("band", [4, 36])
def test_backward_weight(case, shape, by_channels, band):
    check_backward_weight(case, shape, by_channels, case.lanes // 8 % 2, case.N % 3, band)


@every_cut
@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("x_kind", [0, 1, 2])
@pytest.mark.parametrize("band", [4, 8, 16])
def test_backward_weight_of_every_kind(by_channels, kind, x_kind, band):
    check_backward_weight(CASES[1], (18, 15, 6, 12), by_channels, kind, x_kind, band)


@pytest.mark.parametrize("band", [4, 32])
def test_gradient_of_many_pixels(band):
    check_backward_weight(Case("float32", 16, 37, 1), (16, 32, 32, 16), 0, 0, 0, band)


def test_a_block_without_rows_for_every_job():
    """More slices than there are tiles or channels to cut."""
    case, shape = Case("float64", 8, 9, 5), (8, 6, 5, 16)
    for by_channels in (0, 1):
        x, value = case.input(case.normal(case.N, *shape[:3]), 1)
        w = some_weights(case, shape)
        z, sums = run_forward(case, shape, x, pack(case, w, 0)[0], 0, by_channels)
        expected = convolution_forward(value, w, **PADDING)
        close(case, case.get(z), expected)
        check_sums(case, sums, expected, by_channels)
        check_backward_input(case, shape, by_channels, 0, 1, {"norms": 1})
        check_backward_weight(case, shape, by_channels, 1, 1, 4)


@both_weights
def test_pack_by_any_number_of_jobs(raw):
    case = CASES[3]
    w = some_weights(case, (20, 1, 1, 70))
    first = pack(case, w, raw, jobs=1)
    for jobs in (2, 9, 40):
        for one, other in zip(first, pack(case, w, raw, jobs=jobs), strict=True):
            np.testing.assert_array_equal(one, other)


def test_scratch(monkeypatch):
    """Kernels use no more scratch than they ask for, and nothing that lies in it already."""
    guard, shape = 1 << 16, (18, 9, 7, 20)
    taken = []

    def scratch(size):
        raw = np.full(size + guard + 64, 0xFF, np.uint8)  # NaN everywhere
        begin = -raw.ctypes.data % 64
        taken.append((raw, begin + size))
        return raw[begin : begin + size]

    monkeypatch.setattr(compiled, "_scratch", scratch)
    for case in CASES:
        for by_channels in (0, 1):
            x, value = case.input(case.normal(case.N, *shape[:3]), 1)
            w = some_weights(case, shape)
            for raw in (0, 1):
                packed, _ = pack(case, w, raw)
                z, _ = run_forward(case, shape, x, packed, raw, by_channels)
                close(case, case.get(z), convolution_forward(value, w, **PADDING))
                check_backward_input(case, shape, by_channels, raw, 1, {"norms": 1})
            for band in (4, 12):
                check_backward_weight(case, shape, by_channels, 1, 1, band)
    for raw, end in taken:
        assert (raw[end:] == 0xFF).all()


@pytest.mark.parametrize("case", [CASES[1], CASES[5]], ids=repr)
@both_weights
def test_registers_change_no_bit(case, raw, monkeypatch, tmp_path):
    """AVX2 and AVX-512 give the same results."""
    probe = [*find_compiler().command, "-march=native", "-dM", "-E", "-x", "c++", "/dev/null"]
    if "__AVX512F__" not in subprocess.run(probe, capture_output=True, text=True).stdout:
        pytest.skip("needs AVX-512")
    shape = C, H, W, D = 37, 14, 9, 44
    x, _ = case.input(case.normal(case.N, C, H, W), 1)
    gz, _ = case.gradient((case.N, D, H, W), 1)
    end = Ending(case, (case.N, C, H, W), relu=1, norms=2)
    w = some_weights(case, shape)

    def results():
        forward, backward = pack(case, w, raw)
        arrays = [*run_forward(case, shape, x, forward, raw, raw)]
        gx, gw = case.vectors((case.N, C, H, W)), case.empty(case.jobs, D, C, 3, 3)
        fields = {"gz": gz, "w": backward, "gx": gx, "end": end.fields, "raw": raw}
        fields |= cut(case, shape, 0, 4)
        case.launch("winograd", "winograd_backward_input", case.jobs, [gx], **fields)
        fields = {"gz": gz, "x": x, "gw": gw} | cut(case, shape, 0, 16 if raw else 4)
        case.launch("winograd", "winograd_backward_weight", case.jobs, [gw], **fields)
        return [array.copy() for array in (*arrays, gx, gw, *end.sums)]

    wide = results()
    path, library = tmp_path / "narrow.cpp", tmp_path / "narrow.so"
    path.write_text(compiled._source("winograd"), encoding="utf-8")
    defines = [f"-DREAL={compiled.C_TYPES[case.dtype]}", f"-DLANES={case.lanes}"]
    flags = [*compiled.FLAGS, *compiled.FAST, "-mavx2", "-mfma", *defines]
    find_compiler().run([*flags, str(path), "-o", str(library)], tmp_path)
    narrow = ctypes.CDLL(str(library))
    original = compiled._library

    def replaced(module, sanitize):
        return narrow if module.name == "winograd" else original(module, sanitize)

    monkeypatch.setattr(compiled, "_library", replaced)
    for one, other in zip(wide, results(), strict=True):
        np.testing.assert_array_equal(one, other)
