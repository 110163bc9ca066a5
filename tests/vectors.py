"""What the tests of the compiled kernels share: batches, the layout of images, launches."""

import numpy as np
import pytest

from igcnn.kernels import compiled

GARBAGE = 1e30  # in lanes without image
THREADS = 1, 2, 3
without_compiler = pytest.mark.skipif(bool(compiled.unavailable()), reason=compiled.unavailable())


class Case:
    """A batch of N images in vectors of so many lanes, in jobs of slices.

    Attributes:
        tolerance: of a number around 1.
        rng: of what a test makes up; each begins a new one (conftest.py).
    """

    rng = np.random.default_rng(0)

    def __init__(self, dtype, lanes, N, slices):
        self.dtype, self.lanes, self.N, self.slices = dtype, lanes, N, slices
        self.blocks = -(-N // lanes)
        self.jobs = self.blocks * slices
        self.tolerance = 1e-12 if dtype == "float64" else 2e-5

    def __repr__(self):
        return f"{self.dtype}-{self.lanes}lanes-{self.N}images-{self.slices}slices"

    @property
    def batch(self):
        last = self.N - self.lanes * (self.blocks - 1)
        return {"blocks": self.blocks, "slices": self.slices, "last": last}

    def empty(self, *shape, dtype=None):
        """Return an array that begins on a cache line, full of NaN."""
        dtype = np.dtype(dtype or self.dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        raw = np.zeros(size + 64, np.uint8)
        begin = -raw.ctypes.data % 64
        array = raw[begin : begin + size].view(dtype).reshape(shape)
        if dtype.kind == "f":
            array[...] = np.nan
        return array

    def vectors(self, shape):
        """Return room for (N, C, H, W) or (N, K): (blocks, H, C, W, lanes), (blocks, K, lanes)."""
        if len(shape) == 2:
            return self.empty(self.blocks, shape[1], self.lanes)
        _, C, H, W = shape
        return self.empty(self.blocks, H, C, W, self.lanes)

    def put(self, images, garbage=GARBAGE):
        """Return images, (N, C, H, W) or (N, K), as vectors."""
        padded = np.full((self.blocks * self.lanes, *images.shape[1:]), float(garbage))
        padded[: self.N] = images
        folded = padded.reshape(self.blocks, self.lanes, *images.shape[1:])
        order = (0, 3, 2, 4, 1) if images.ndim == 4 else (0, 2, 1)
        array = self.vectors(images.shape)
        array[...] = folded.transpose(order)
        return array

    def get(self, array):
        """Return the images of vectors, in float64."""
        folded = array.transpose((0, 4, 2, 1, 3) if array.ndim == 5 else (0, 2, 1))
        return folded.reshape(-1, *folded.shape[2:])[: self.N].astype(float)

    def unused(self, array):
        """Return what the lanes without image hold, a copy."""
        return array[-1, ..., self.batch["last"] :].copy()

    def normal(self, *shape):
        """Return random numbers of this element type, in float64."""
        return self.rng.standard_normal(shape).astype(self.dtype).astype(float)

    def numbers(self, values):
        """Return a C array of this element type."""
        return np.ascontiguousarray(values, self.dtype)

    def input(self, x, kind):
        """Return x as an Input of a kind, and the value that it stands for."""
        scale, shift = (5 if kind == 3 else 1) * self.normal(2, x.shape[1])
        fields = {"kind": kind, "x": self.put(x), "scale": None, "shift": None}
        if kind == 0:
            return fields, x
        fields |= {"scale": self.numbers(scale), "shift": self.numbers(shift)}
        value = x * scale[:, None, None] + shift[:, None, None]
        top = {1: np.inf, 3: 6}
        return fields, np.clip(value, 0, top[kind]) if kind in top else value

    def gradient(self, shape, kind):
        """Return a Gradient of a kind, of random numbers, and its value."""
        g = self.normal(*shape)
        fields = {"kind": kind, "g": self.put(g, 0 if kind == 0 else GARBAGE)}
        if kind == 0:
            return fields | dict.fromkeys(("z", "scale", "slope", "shift")), g
        z, numbers = self.normal(*shape), self.normal(3, shape[1])
        scale, slope, shift = (n[:, None, None] for n in numbers)
        fields["z"] = self.put(z)
        fields |= zip(("scale", "slope", "shift"), map(self.numbers, numbers), strict=True)
        return fields, scale * g + slope * z + shift

    def launch(self, module, kernel, jobs, written, /, **fields):
        """Launch on one, two and three threads; `written` must have the same bits each time."""
        with compiled.recording() as recording:
            compiled.launch(module, kernel, jobs, lanes=self.lanes, dtype=self.dtype, **fields)
        before = [array.copy() for array in written]
        first = None
        for threads in THREADS:
            for array, old in zip(written, before, strict=True):
                array[...] = old
            recording.run(threads)
            bits = [array.tobytes() for array in written]
            first = first or bits
            assert bits == first


class Ending:
    """How a gradient of a tensor of a shape ends, with what it should become.

    Args:
        case: the batch.
        shape: (N, C, H, W).
        other: whether there is another gradient.
        relu: kind of the Input whose sign masks it, or None.
        six: whether it is masked from 6 on as well; so it is where the Input is of kind 3.
        norms: how many batch norms take sums.
    """

    def __init__(self, case, shape, other=False, relu=None, six=False, norms=0):
        self.case, self.shape = case, shape
        self.other = case.normal(*shape) if other else 0
        kind, self.value = case.input((5 if six else 1) * case.normal(*shape), relu or 0)
        self.masked = relu is not None
        self.top = 6 if six or relu == 3 else np.inf
        self.zs = [case.normal(*shape) for _ in range(norms)]
        self.means = [case.normal(shape[1]) for _ in range(norms)]
        self.sums = [case.empty(case.jobs, 2, shape[1], dtype="float64") for _ in range(norms)]
        self.fields = {
            "other": case.put(self.other, 0) if other else None,
            "relu": self.masked * (1 if self.top == np.inf else 2),
            "value": kind,
            "norms": norms,
            "norm": [
                {"z": case.put(z), "mean": case.numbers(mean), "sums": sums}
                for z, mean, sums in zip(self.zs, self.means, self.sums, strict=True)
            ],
        }

    def check(self, gx, gradient):
        """Compare what a kernel has left with the end of the gradient in float64."""
        case = self.case
        expected = gradient + self.other
        if self.masked:
            active = (self.value > 0) & (self.value < self.top)
            expected = np.where(active, expected, 0)
        np.testing.assert_allclose(case.get(gx), expected, rtol=0, atol=case.tolerance)
        assert not case.unused(gx).any()
        for z, mean, sums in zip(self.zs, self.means, self.sums, strict=True):
            centred = z - mean[:, None, None]
            wanted = [expected.sum((0, 2, 3)), (expected * centred).sum((0, 2, 3))]
            bound = case.tolerance * max(1, np.abs(expected * centred).sum() ** 0.5)
            np.testing.assert_allclose(sums.sum(0), wanted, rtol=0, atol=bound)


CASES = [
    Case("float64", 8, 17, 2),
    Case("float64", 4, 7, 1),
    Case("float64", 16, 37, 3),
    Case("float64", 8, 64, 1),
    Case("float32", 16, 64, 2),
    Case("float32", 8, 37, 1),
    Case("float32", 4, 1, 3),
]
ENDINGS = [
    {},
    {"other": True, "relu": 0, "norms": 1},
    {"relu": 1, "norms": 2},
    {"other": True, "norms": 2},
    {"relu": 3, "norms": 1},
    {"other": True, "relu": 0, "six": True},
]
every_case = pytest.mark.parametrize("case", CASES, ids=repr)
every_ending = pytest.mark.parametrize("ending", ENDINGS, ids=lambda e: "-".join(e) or "plain")
