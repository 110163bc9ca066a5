"""Channel-wise convolutions of the compiled kernels against the NumPy ones in float64."""

import ctypes
import subprocess

import numpy as np
import pytest
from vectors import CASES, Case, Ending, every_case, without_compiler

from igcnn.compiler import find_compiler
from igcnn.kernels import compiled
from igcnn.kernels.channelwise import suits
from igcnn.kernels.convolution import (
    convolution_backward_input,
    convolution_backward_weight,
    convolution_forward,
)
from igcnn.kernels.geometry import convolution_fields
from igcnn.kernels.lanes import Lanes

pytestmark = without_compiler

# C, H, W, and branches of the permutations of x and z
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 1, 5, 2, 1),
    (6, 2, 2, 1, 3),
    (12, 3, 9, 3, 4),
    (10, 8, 8, 1, 1),
    (4, 17, 11, 2, 2),
    (18, 32, 32, 1, 2),
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Layer:
    """A convolution of a shape, its weights, and what its kernels take."""

    def __init__(self, case, shape):
        self.case = case
        self.C, self.H, self.W, *branches = shape
        self.w = case.normal(self.C, 1, 3, 3)
        # the channels of x and of z that come first, second, … in the convolution
        self.source, self.target = (np.arange(self.C).reshape(b, -1).T.ravel() for b in branches)
        self.fields = {"C": self.C, "H": self.H, "W": self.W, "w": case.numbers(self.w)}
        self.fields |= {"x_branches": branches[0], "y_branches": branches[1], "batch": case.batch}
        self.arguments = 1, 1, self.C  # stride, padding, groups

    def images(self):
        return self.case.normal(self.case.N, self.C, self.H, self.W)

    def value(self, x):
        z = np.empty_like(x)
        z[:, self.target] = convolution_forward(x[:, self.source], self.w, *self.arguments)
        return z

    def gradients(self, gz, x):
        gz, own, gx = gz[:, self.target], x[:, self.source], np.empty_like(x)
        gx[:, self.source] = convolution_backward_input(gz, self.w, x.shape, *self.arguments)
        return gx, convolution_backward_weight(gz, own, self.w.shape, *self.arguments)

    def forward(self, x, **end):
        case = self.case
        z = case.vectors((case.N, self.C, self.H, self.W))
        sums = case.empty(case.blocks, 2, self.C, dtype="float64")
        fields = self.fields | {"bias": None, "skip": None, "relu": 0, "sums": sums} | end
        written = [z] if fields["sums"] is None else [z, sums]
        case.launch("channelwise", "channelwise_forward", case.jobs, written, x=x, z=z, **fields)
        return z, sums

    def backward(self, gz, x, end, gradient=True):
        """Return gx, None without an end of it, and the gradient of the weights by blocks."""
        case = self.case
        gx = case.vectors((case.N, self.C, self.H, self.W)) if end else None
        gw = case.empty(case.blocks, *self.w.shape) if gradient else None
        fields = (end or Ending(case, (case.N, 1, 1, 1))).fields
        written = [array for array in (gx, gw) if array is not None] + (end.sums if end else [])
        case.launch(
            *("channelwise", "channelwise_backward", case.jobs, written),
            **(self.fields | {"gz": gz, "x": x, "gx": gx, "end": fields, "gw": gw}),
        )
        return gx, gw


def close(case, actual, expected, factor=1):
    bound = factor * case.tolerance * max(1, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def check_sums(case, sums, z):
    """Each block has mean and Σ (z − mean)² of its own images."""
    for block, (mean, square) in enumerate(sums):
        own = z[block * case.lanes : (block + 1) * case.lanes]
        expected = own.mean((0, 2, 3))
        close(case, mean, expected)
        close(case, square, ((own - expected[:, None, None]) ** 2).sum((0, 2, 3)), 5)


def ending(case, shape, **settings):
    """Return an Ending whose sums are left by blocks."""
    end = Ending(case, shape, **settings)
    for fields in end.fields["norm"]:
        fields["sums"] = case.empty(case.blocks, 2, shape[1], dtype="float64")
    end.sums = [fields["sums"] for fields in end.fields["norm"]]
    return end


@every_case
@every_shape
def test_forward(case, shape):
    layer = Layer(case, shape)
    x, value = case.input(layer.images(), case.N % 4)
    z, sums = layer.forward(x)
    close(case, case.get(z), layer.value(value))
    check_sums(case, sums, layer.value(value))


@pytest.mark.parametrize("kind", range(4))
def test_forward_of_every_kind_of_input(kind):
    case = Case("float64", 8, 17, 2)
    layer = Layer(case, SHAPES[3])
    x, value = case.input(layer.images(), kind)
    close(case, case.get(layer.forward(x)[0]), layer.value(value))


@every_case
@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("relu", [0, 1, 2])
def test_forward_of_evaluation(case, skipped, relu):
    """Bias, residual and ReLU end the result."""
    layer = Layer(case, SHAPES[3])
    x, skip, bias = layer.images(), layer.images(), case.normal(layer.C)
    end = {"bias": case.numbers(bias), "skip": case.put(skip) if skipped else None}
    z, _ = layer.forward(case.input(x, 0)[0], sums=None, relu=relu, **end)
    expected = layer.value(x) + bias[:, None, None] + (skip if skipped else 0)
    close(case, case.get(z), np.clip(expected, *[(None, None), (0, None), (0, 6)][relu]))


@pytest.mark.parametrize("case", CASES[4:6], ids=repr)
def test_sums_far_from_zero(case):
    """Of channels with a large mean, and where the first row is unlike the others."""
    layer = Layer(case, (6, 16, 16, 1, 1))
    layer.w[...] = np.abs(layer.w)
    layer.fields["w"] = case.numbers(layer.w)
    x = case.put(100 + layer.images())  # a border of zeros: the first row has a third less
    z, sums = layer.forward(case.input(case.get(x), 0)[0], bias=case.numbers(np.full(6, 1e3)))
    stored = case.get(z)
    for block, (mean, square) in enumerate(sums):
        own = stored[block * case.lanes : (block + 1) * case.lanes]
        np.testing.assert_allclose(mean, own.mean((0, 2, 3)), rtol=3e-7)
        expected = ((own - own.mean((0, 2, 3))[:, None, None]) ** 2).sum((0, 2, 3))
        np.testing.assert_allclose(square, expected, rtol=1e-5)


@every_case
@every_shape
def test_backward(case, shape):
    layer = Layer(case, shape)
    x, value = case.input(layer.images(), (case.N + 1) % 4)
    gz, g = case.gradient(value.shape, case.lanes // 8 % 2)
    end = ending(case, value.shape, other=case.N > 7, relu=case.N % 2 or None, norms=case.N % 3)
    gx, gw = layer.backward(gz, x, end)
    expected, expected_gw = layer.gradients(g, value)
    end.check(gx, expected)
    close(case, gw.sum(0), expected_gw, 4)


@pytest.mark.parametrize("norms", [0, 1, 2])
@pytest.mark.parametrize("relu", [None, 0, 1, 3])
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("kind", [0, 1])
def test_every_ending(kind, other, relu, norms):
    case = Case("float64", 8, 17, 2)
    layer = Layer(case, SHAPES[3])
    x, value = case.input(layer.images(), 1)
    gz, g = case.gradient(value.shape, kind)
    end = ending(case, value.shape, other=other, relu=relu, norms=norms)
    gx, _ = layer.backward(gz, x, end)
    end.check(gx, layer.gradients(g, value)[0])


def test_only_what_is_wanted():
    """Either gradient alone has the same bits as both together."""
    case = Case("float32", 16, 37, 2)
    layer = Layer(case, SHAPES[5])
    x, value = case.input(layer.images(), 1)
    gz, _ = case.gradient(value.shape, 1)
    gx, gw = layer.backward(gz, x, ending(case, value.shape, norms=1))
    alone, _ = layer.backward(gz, x, ending(case, value.shape, norms=1), gradient=False)
    np.testing.assert_array_equal(gx, alone)
    np.testing.assert_array_equal(gw, layer.backward(gz, x, None)[1])


def test_scratch(monkeypatch):
    """Kernels use no more scratch than they ask for, and nothing that lies in it already."""
    guard, taken = 1 << 14, []

    def scratch(size):
        raw = np.full(size + guard + 64, 0xFF, np.uint8)  # NaN everywhere
        begin = -raw.ctypes.data % 64
        taken.append((raw, begin + size))
        return raw[begin : begin + size]

    monkeypatch.setattr(compiled, "_scratch", scratch)
    for case in CASES:
        for shape in SHAPES[:6]:
            test_forward(case, shape)
            test_backward(case, shape)
    assert taken
    for raw, end in taken:
        assert (raw[end:] == 0xFF).all()


@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=repr)
def test_registers_change_no_bit(case, monkeypatch, tmp_path):
    """AVX2 and AVX-512 give the same results."""
    probe = [*find_compiler().command, "-march=native", "-dM", "-E", "-x", "c++", "/dev/null"]
    if "__AVX512F__" not in subprocess.run(probe, capture_output=True, text=True).stdout:
        pytest.skip("needs AVX-512")
    layer = Layer(case, SHAPES[5])
    x, value = case.input(layer.images(), 1)
    gz, _ = case.gradient(value.shape, 1)
    end = ending(case, value.shape, relu=1, norms=2)

    def results():
        arrays = *layer.forward(x), *layer.backward(gz, x, end), *end.sums
        return [array.copy() for array in arrays]

    wide = results()
    path, library = tmp_path / "narrow.cpp", tmp_path / "narrow.so"
    path.write_text(compiled._source("channelwise"), encoding="utf-8")
    defines = [f"-DREAL={compiled.C_TYPES[case.dtype]}", f"-DLANES={case.lanes}"]
    flags = [*compiled.FLAGS, *compiled.FAST, "-mavx2", "-mfma", *defines]
    find_compiler().run([*flags, str(path), "-o", str(library)], tmp_path)
    narrow = ctypes.CDLL(str(library))
    original = compiled._library

    def replaced(module, sanitize):
        return narrow if module.name == "channelwise" else original(module, sanitize)

    monkeypatch.setattr(compiled, "_library", replaced)
    for one, other in zip(wide, results(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({}, True), ({"G": 4}, False), ({"D": 16}, False), ({"SH": 2}, False), ({"KW": 5}, False)],
)
def test_what_the_kernels_are_for(changed, expected):
    sizes = convolution_fields((8, 9, 9), (8, 9, 9), (3, 3), (1, 1), (1, 1), 8)
    assert suits(Lanes(16, "float32"), sizes | changed) is expected
    assert not suits(Lanes(1, "float32", least=1), sizes)
