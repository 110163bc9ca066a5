"""Compiled convolutions and interleaved units against the NumPy kernels in float64."""

import ctypes
import subprocess
from dataclasses import dataclass, replace

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
from igcnn.kernels.interleaved_group_convolution import (
    mix_backward_input,
    mix_backward_weight,
    mix_forward,
)

pytestmark = without_compiler


@dataclass(frozen=True)
class Unit:
    """A convolution, or with S an interleaved unit whose primary convolution it is."""

    C: int
    size: tuple[int, int]
    D: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    G: int = 1
    S: int = 0
    band: int = 2
    alone: int = 0
    branches: tuple[int, int] = (1, 1)  # of permutations of x and z

    @property
    def module(self):
        return "interleaved_group_convolution" if self.S else "convolution"

    @property
    def shapes(self):
        """The shapes of the weights."""
        first = self.D, self.C // self.G, *self.kernel
        return [first, (self.D, self.D // self.S, 1, 1)] if self.S else [first]

    @property
    def output(self):
        sizes = zip(self.size, self.kernel, self.stride, self.padding, strict=True)
        return self.D, *((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)

    @property
    def geometry(self):
        """The fields of a kernel's struct."""
        H, W = self.size
        D, OH, OW = self.output
        fields = {"C": self.C, "H": H, "W": W, "D": D, "OH": OH, "OW": OW, "G": self.G}
        for name, (vertical, horizontal) in zip(
            ("K", "S", "P"), (self.kernel, self.stride, self.padding), strict=True
        ):
            fields |= {f"{name}H": vertical, f"{name}W": horizontal}
        return fields | ({"S": self.S} if self.S else {})

    @property
    def loops(self):
        """How the kernels go through rows, groups and channels."""
        return {} if self.S else {"alone": self.alone} | self.permutations

    @property
    def permutations(self):
        names = () if self.S else ("x_branches", "y_branches")
        return dict(zip(names, self.branches, strict=False))

    @property
    def orders(self):
        """The channels of x and of z that come first, second, … in the convolution."""
        pairs = zip((self.C, self.D), self.branches, strict=True)
        return [np.arange(n).reshape(branches, -1).T.ravel() for n, branches in pairs]

    def forward(self, x, weights):
        source, target = self.orders
        x = x[:, source]
        p = convolution_forward(x, weights[0], self.stride, self.padding, self.G)
        z = mix_forward(p, weights[1], self.G, self.S) if self.S else p
        return z[:, np.argsort(target)]

    def backward(self, gz, x, weights):
        """Return the gradients of x and of the weights."""
        arguments = self.stride, self.padding, self.G
        source, target = self.orders
        gz, x = gz[:, target], x[:, source]
        gradients = []
        if self.S:
            p = convolution_forward(x, weights[0], *arguments)
            gradients = [mix_backward_weight(gz, p, weights[1].shape, self.G, self.S)]
            gz = mix_backward_input(gz, weights[1], self.G, self.S)
        gw = convolution_backward_weight(gz, x, weights[0].shape, *arguments)
        gx = np.empty_like(x)
        gx[:, source] = convolution_backward_input(gz, weights[0], x.shape, *arguments)
        return gx, [gw, *gradients]

    def weights(self, case):
        return [case.normal(*shape) / (shape[1] * shape[2]) for shape in self.shapes]

    def pack(self, case, weights, scale=None):
        """Return the weights as the kernels read them: forward and backward of each."""
        arrays = [case.numbers(w) for w in weights]
        packed = [[case.empty(w.size) for _ in "fb"] for w in weights]
        names = ("1", "2") if self.S else ("",)
        fields = self.geometry | self.permutations
        fields |= {"scale": None if scale is None else case.numbers(scale)}
        for name, w, (forward, backward) in zip(names, arrays, packed, strict=True):
            fields |= {f"w{name}": w, f"forward{name}": forward, f"backward{name}": backward}
        kernel = "igc_pack" if self.S else "convolution_pack"
        jobs = self.S or self.G
        written = [array for pair in packed for array in pair]
        case.launch(self.module, kernel, jobs, written, **fields)
        return packed


DENSE = [
    Unit(1, (1, 1), 1, kernel=(1, 1), padding=(0, 0)),
    Unit(3, (7, 5), 4),
    Unit(16, (8, 8), 16, band=3),
    Unit(5, (9, 11), 7, kernel=(5, 5), padding=(2, 2), band=1),
    Unit(3, (16, 18), 6, kernel=(7, 7), stride=(2, 2), padding=(3, 3)),
    Unit(4, (6, 9), 5, kernel=(1, 3), padding=(0, 1)),
    Unit(4, (9, 6), 5, kernel=(3, 1), stride=(1, 2), padding=(1, 0)),
    Unit(6, (7, 9), 6, stride=(1, 2), G=3),
    Unit(6, (8, 7), 12, kernel=(1, 1), stride=(2, 2), padding=(0, 0), band=1),
    Unit(24, (5, 6), 24, G=24),
    Unit(6, (10, 7), 9, kernel=(2, 2), stride=(3, 3), padding=(0, 0), G=3),
    Unit(4, (2, 1), 3, kernel=(5, 3), padding=(2, 1)),
    Unit(2, (3, 4), 3, padding=(4, 5)),
    Unit(2, (5, 5), 3, kernel=(2, 2), stride=(3, 3), padding=(4, 2)),
    Unit(3, (8, 8), 8, kernel=(3, 2), stride=(2, 3), padding=(0, 1), band=8),
    Unit(24, (5, 6), 24, G=24, alone=1),
    Unit(5, (9, 8), 10, stride=(2, 2), G=5, alone=1, band=2),
    Unit(6, (10, 7), 9, kernel=(5, 4), stride=(3, 2), padding=(2, 1), G=3, alone=1),
    Unit(3, (7, 5), 4, alone=1),
    Unit(6, (7, 5), 4, G=2, branches=(3, 1)),
    Unit(24, (5, 6), 24, G=24, alone=1, branches=(4, 12)),
    Unit(12, (7, 6), 18, kernel=(1, 1), stride=(2, 2), padding=(0, 0), G=6, branches=(2, 3)),
]
UNITS = [
    Unit(48, (6, 8), 48, G=24, S=2),
    Unit(15, (7, 5), 15, G=3, S=5),
    Unit(4, (5, 5), 4, G=1, S=4),
    Unit(4, (5, 6), 4, G=4, S=1, band=3),
    Unit(12, (8, 8), 24, stride=(2, 2), G=6, S=2, band=1),  # down-sampling: S = C/L of x
    Unit(6, (9, 7), 12, kernel=(1, 1), stride=(2, 2), padding=(0, 0), G=3, S=2),
    Unit(12, (4, 5), 12, G=4, S=6),  # secondary groups smaller than L
    Unit(12, (4, 5), 12, G=4, S=4),  # neither of J and L divides the other
    Unit(30, (3, 3), 30, kernel=(3, 5), padding=(1, 2), G=5, S=3),
    Unit(8, (6, 3), 8, kernel=(5, 1), stride=(2, 1), padding=(4, 0), G=2, S=2),
    Unit(100, (5, 6), 100, G=50, S=2),  # secondary groups wide enough to be cut, and turned round
    Unit(8, (6, 7), 104, stride=(2, 2), G=4, S=2),
]
ALL = DENSE + UNITS
# dtype, lanes, images, slices
CASES = [
    ("float64", 8, 17, 2),
    ("float64", 4, 1, 1),
    ("float64", 16, 37, 3),
    ("float32", 16, 37, 1),
    ("float32", 8, 7, 2),
    ("float32", 4, 7, 3),
    ("float32", 1, 3, 2),
]
every_case = pytest.mark.parametrize("case", [Case(*c) for c in CASES], ids=repr)
every_unit = pytest.mark.parametrize("unit", ALL, ids=str)


def compare(case, actual, expected, factor=1):
    """Compare to rounding, relative to the largest value."""
    bound = factor * case.tolerance * max(1, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


def job_rows(case, OH):
    """Return the images and the rows of each job."""
    jobs = []
    for job in range(case.jobs):
        block, k = divmod(job, case.slices)
        images = slice(block * case.lanes, (block + 1) * case.lanes)
        jobs.append((images, slice(OH * k // case.slices, OH * (k + 1) // case.slices)))
    return jobs


def run_forward(case, unit, x, packed, band=None, **fields):
    """Launch forward; return z and the sums of the jobs."""
    z = case.vectors((case.N, *unit.output))
    sums = case.empty(case.jobs, 2, unit.D, dtype="float64")
    fields = {"bias": None, "skip": None, "relu": 0, "sums": sums} | fields
    fields |= (
        {"x": x, "z": z, "band": band or unit.band, "batch": case.batch}
        | unit.geometry
        | unit.loops
    )
    names = ("w1", "w2") if unit.S else ("w",)
    fields |= {name: forward for name, (forward, _) in zip(names, packed, strict=True)}
    written = [z] + ([] if fields["sums"] is None else [sums])
    kernel = "igc_forward" if unit.S else "convolution_forward"
    case.launch(unit.module, kernel, case.jobs, written, **fields)
    return z, sums


def run_backward(case, unit, gz, x, packed, end=None, gradients=True, band=None):
    """Launch backward; return gx and the partial gradients of the weights."""
    gx = case.vectors((case.N, unit.C, *unit.size)) if end else None
    partials = [case.empty(case.jobs, *shape) for shape in unit.shapes] if gradients else []
    nothing = Ending(case, (case.N, 1, 1, 1)).fields
    fields = unit.geometry | {"gz": gz, "x": x, "gx": gx, "end": end.fields if end else nothing}
    fields |= {"band": band or unit.band, "batch": case.batch} | unit.loops
    names = ("w1", "w2") if unit.S else ("w",)
    for name, (_, backward) in zip(names, packed, strict=True):
        fields |= {name: backward, f"g{name}": None}
    fields |= {f"g{name}": partial for name, partial in zip(names, partials, strict=False)}
    if unit.S:
        fields["w1f"] = packed[0][0]
    written = partials + ([gx, *end.sums] if end else [])
    kernel = "igc_backward" if unit.S else "convolution_backward"
    case.launch(unit.module, kernel, case.jobs, written, **fields)
    return gx, partials


def check_sums(case, sums, z):
    """Each job leaves mean and Σ (z − mean)² of its own pixels and images."""
    for job, (images, rows) in enumerate(job_rows(case, z.shape[2])):
        own = z[images, :, rows]
        if own.size:
            mean = own.mean((0, 2, 3))
            compare(case, sums[job, 0], mean)
            squares = ((own - mean[:, None, None]) ** 2).sum((0, 2, 3))
            compare(case, sums[job, 1], squares, 5)
        else:
            assert not sums[job].any()


@every_case
@every_unit
def test_forward(case, unit):
    x, value = case.input(case.normal(case.N, unit.C, *unit.size), case.N % 3)
    weights = unit.weights(case)
    z, sums = run_forward(case, unit, x, unit.pack(case, weights))
    expected = unit.forward(value, weights)
    compare(case, case.get(z), expected)
    check_sums(case, sums, expected)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("unit", [DENSE[2], DENSE[7], UNITS[0], UNITS[4]], ids=str)
def test_forward_of_every_kind_of_input(unit, kind):
    case = Case("float64", 8, 17, 2)
    x, value = case.input(case.normal(case.N, unit.C, *unit.size), kind)
    weights = unit.weights(case)
    z, sums = run_forward(case, unit, x, unit.pack(case, weights))
    expected = unit.forward(value, weights)
    compare(case, case.get(z), expected)
    check_sums(case, sums, expected)


@every_case
@pytest.mark.parametrize("unit", [DENSE[3], DENSE[7], UNITS[1], UNITS[4], UNITS[6]], ids=str)
@pytest.mark.parametrize("skipped", [False, True])
@pytest.mark.parametrize("relu", [0, 1])
def test_forward_of_evaluation(case, unit, skipped, relu):
    """Weights are scaled; bias, residual and ReLU end the result."""
    x, value = case.input(case.normal(case.N, unit.C, *unit.size), 0)
    weights, scale, bias = unit.weights(case), case.normal(unit.D), case.normal(unit.D)
    skip = case.normal(case.N, *unit.output)
    z, _ = run_forward(
        case,
        unit,
        x,
        unit.pack(case, weights, scale),
        sums=None,
        bias=case.numbers(bias),
        skip=case.put(skip) if skipped else None,
        relu=relu,
    )
    expected = unit.forward(value, weights) * scale[:, None, None] + bias[:, None, None]
    expected += skip if skipped else 0
    compare(case, case.get(z), np.maximum(expected, 0) if relu else expected)


def test_sums_of_what_is_stored():
    """The statistics are those of z as it is stored, far from zero as well."""
    case, unit = Case("float32", 16, 37, 2), UNITS[0]
    x, value = case.input(case.normal(case.N, unit.C, *unit.size), 1)
    weights, bias = unit.weights(case), 1000 + case.normal(unit.D)
    skip = case.normal(case.N, *unit.output)
    end = {"bias": case.numbers(bias), "skip": case.put(skip)}
    z, sums = run_forward(case, unit, x, unit.pack(case, weights), **end)
    check_sums(case, sums, case.get(z))
    expected = unit.forward(value, weights) + case.numbers(bias)[:, None, None] + skip
    compare(case, case.get(z), expected)


def check_backward(case, unit, kind, x_kind, ending, band=None):
    x, value = case.input(case.normal(case.N, unit.C, *unit.size), x_kind)
    weights = unit.weights(case)
    gz, g = case.gradient((case.N, *unit.output), kind)
    end = Ending(case, value.shape, **ending)
    packed = unit.pack(case, weights)
    gx, partials = run_backward(case, unit, gz, x, packed, end, band=band)
    expected, gradients = unit.backward(g, value, weights)
    end.check(gx, expected)
    for partial, wanted in zip(partials, gradients, strict=True):
        compare(case, partial.sum(0), wanted, 4)
    return gx, partials


@every_case
@every_unit
def test_backward(case, unit):
    ending = {"other": case.N > 7, "relu": case.N % 2 or None, "norms": case.N % 3}
    check_backward(case, unit, case.lanes // 8 % 2, case.N % 3, ending)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("x_kind", [0, 1, 2])
@pytest.mark.parametrize("unit", [DENSE[2], DENSE[7], UNITS[0], UNITS[4]], ids=str)
def test_backward_of_every_kind(unit, kind, x_kind):
    check_backward(Case("float64", 8, 17, 2), unit, kind, x_kind, {})


@pytest.mark.parametrize("norms", [0, 1, 2])
@pytest.mark.parametrize("relu", [None, 0, 1])
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("unit", [DENSE[7], UNITS[4]], ids=str)
def test_every_ending(unit, other, relu, norms):
    ending = {"other": other, "relu": relu, "norms": norms}
    check_backward(Case("float64", 8, 17, 2), unit, 1, 1, ending)


@pytest.mark.parametrize("unit", [DENSE[4], DENSE[9], UNITS[0], UNITS[4]], ids=str)
def test_only_what_is_wanted(unit):
    """Either gradient alone has the same bits as both together."""
    case = Case("float32", 16, 37, 2)
    x, _ = case.input(case.normal(case.N, unit.C, *unit.size), 1)
    gz, _ = case.gradient((case.N, *unit.output), 1)
    end = Ending(case, (case.N, unit.C, *unit.size), relu=1, norms=1)
    arguments = case, unit, gz, x, unit.pack(case, unit.weights(case))
    gx, partials = run_backward(*arguments, end)
    alone, _ = run_backward(*arguments, end, gradients=False)
    _, partials_alone = run_backward(*arguments)
    np.testing.assert_array_equal(gx, alone)
    for one, other in zip(partials, partials_alone, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("band", [1, 2, 3, 5, 40])
@pytest.mark.parametrize(
    "unit", [*DENSE[2:5], *DENSE[10:14], *DENSE[15:], UNITS[0], *UNITS[4:7]], ids=str
)
def test_every_band(unit, band):
    case = Case("float64", 4, 6, 2)
    x, value = case.input(case.normal(case.N, unit.C, *unit.size), 2)
    weights = unit.weights(case)
    z, sums = run_forward(case, unit, x, unit.pack(case, weights), band)
    expected = unit.forward(value, weights)
    compare(case, case.get(z), expected)
    check_sums(case, sums, expected)
    check_backward(case, unit, 0, 2, {"norms": 1}, band)


@pytest.mark.parametrize(
    "unit",
    [
        Unit(48, (32, 32), 48, G=24, S=2),
        Unit(48, (32, 32), 96, stride=(2, 2), G=24, S=2, band=4),
        Unit(192, (8, 8), 192, G=24, S=8, band=8),
        Unit(64, (8, 8), 64, band=8),
        Unit(72, (32, 32), 72, G=72, alone=1, band=8),
        Unit(144, (8, 8), 144, stride=(2, 2), G=144, alone=1, band=8),
        Unit(3, (32, 32), 16),
        Unit(3, (56, 56), 64, kernel=(7, 7), stride=(2, 2), padding=(3, 3)),
    ],
    ids=str,
)
def test_sizes_of_the_networks(unit):
    case = Case("float32", 16, 20, 2)
    x, value = case.input(case.normal(case.N, unit.C, *unit.size), 1)
    weights = unit.weights(case)
    z, sums = run_forward(case, unit, x, unit.pack(case, weights))
    expected = unit.forward(value, weights)
    compare(case, case.get(z), expected)
    check_sums(case, sums, expected)
    check_backward(case, unit, 1, 1, {"other": True, "relu": 1, "norms": 1})


@pytest.mark.parametrize("unit", ALL, ids=str)
def test_the_formula_as_it_stands(unit):
    case = Case("float64", 8, 8, 1)
    unit = replace(unit, branches=(1, 1))
    x, weights = case.normal(case.N, unit.C, *unit.size), unit.weights(case)
    z = case.vectors((case.N, *unit.output))
    names = ("w1", "w2") if unit.S else ("w",)
    fields = dict(zip(names, map(case.numbers, weights), strict=True)) | unit.geometry
    kernel = "igc_formula" if unit.S else "convolution_formula"
    case.launch(unit.module, kernel, 1, [z], x=case.put(x), z=z, **fields)
    compare(case, case.get(z), unit.forward(x, weights))


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("count", [1, 7, 3000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sum_partials(count, jobs, dtype):
    case = Case(dtype, 8, 1, 1)
    partial = case.numbers(case.normal(5, count))
    total = case.empty(count)
    fields = {"partial": partial, "total": total, "count": count, "parts": 5, "jobs": jobs}
    case.launch("convolution", "sum_partials", jobs, [total], **fields)
    expected = partial[0]
    for k in range(1, 5):  # in their order
        expected = expected + partial[k]
    np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize("unit", ALL, ids=str)
def test_scratch(unit, monkeypatch):
    """Kernels use no more scratch than they ask for, and nothing that lies in it already."""
    case = Case("float64", 8, 17, 2)
    guard = 1 << 16

    def run(self, threads, seconds):
        (noted,) = self.noted
        library, arguments = compiled._library(noted.module, ""), ctypes.byref(noted.arguments)
        count = getattr(library, f"{noted.kernel}_scratch", lambda _: 0)(arguments)
        size = count * case.lanes
        scratch = case.empty(size + guard)
        for job in range(noted.jobs):
            scratch[...] = np.nan
            getattr(library, noted.kernel)(arguments, job, ctypes.c_void_p(scratch.ctypes.data))
            assert np.isnan(scratch[size:]).all()

    monkeypatch.setattr(compiled.Recording, "_run", run)
    for band in (1, 3):
        x, value = case.input(case.normal(case.N, unit.C, *unit.size), 1)
        weights = unit.weights(case)
        z, _ = run_forward(case, unit, x, unit.pack(case, weights), band)
        compare(case, case.get(z), unit.forward(value, weights))
        check_backward(case, unit, 1, 1, {"other": True, "relu": 1, "norms": 2}, band)


@pytest.mark.parametrize("unit", [DENSE[5], UNITS[4]], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_registers_change_no_bit(unit, dtype, monkeypatch, tmp_path):
    """AVX2 and AVX-512 give the same results."""
    probe = [*find_compiler().command, "-march=native", "-dM", "-E", "-x", "c++", "/dev/null"]
    if "__AVX512F__" not in subprocess.run(probe, capture_output=True, text=True).stdout:
        pytest.skip("needs AVX-512")
    case = Case(dtype, 16, 20, 2)
    x, _ = case.input(case.normal(case.N, unit.C, *unit.size), 1)
    gz, _ = case.gradient((case.N, *unit.output), 1)
    end = Ending(case, (case.N, unit.C, *unit.size), relu=1, norms=2)
    weights = unit.weights(case)

    def results():
        packed = unit.pack(case, weights)
        gx, partials = run_backward(case, unit, gz, x, packed, end)
        arrays = [*run_forward(case, unit, x, packed), gx, *partials, *end.sums]
        return [array.copy() for array in arrays]

    wide = results()
    source = compiled._source(unit.module)
    path = tmp_path / "narrow.cpp"
    path.write_text(source, encoding="utf-8")
    library = tmp_path / "narrow.so"
    defines = [f"-DREAL={compiled.C_TYPES[dtype]}", f"-DLANES={case.lanes}"]
    flags = [*compiled.FLAGS, *compiled.FAST, "-mavx2", "-mfma", *defines]
    find_compiler().run([*flags, str(path), "-o", str(library)], tmp_path)
    narrow = ctypes.CDLL(str(library))
    original = compiled._library

    def replaced(module, sanitize):
        return narrow if module.name == unit.module else original(module, sanitize)

    monkeypatch.setattr(compiled, "_library", replaced)
    for one, other in zip(wide, results(), strict=True):
        np.testing.assert_array_equal(one, other)
