"""The CUDA kernels against the NumPy ones: on the emulator, and on a GPU with -m gpu."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from cuda_cases import CASES, results

import igcnn.kernels
from igcnn.backend import gpu_count, to_device
from igcnn.errors import DeviceError, KernelError
from igcnn.kernels.convolution import convolution_forward
from igcnn.kernels.launch import emulation, signatures, source

KERNELS = Path(igcnn.kernels.__file__).parent
STEMS = sorted(path.stem for path in KERNELS.glob("*.cu"))
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)
DEVICES = [
    pytest.param("emu", marks=needs_compiler),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


def assert_close(actual, expected, tolerance):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        scale = max(1.0, float(np.abs(e).max()))
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_numpy(name, device, dtype):
    if device == "cuda" and not gpu_count():
        pytest.skip("no GPU")
    expected = results(name, "cpu", "float64")
    actual = results(name, device, dtype)
    # the pixels of the data are prepared in float32
    # or exist for float32 alone
    single = any(word in name for word in ("images", "augmentation", "fused"))
    tolerance = 1e-5 if single else TOLERANCES[dtype]
    assert_close(actual, expected, tolerance)


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_check_mode_finds_nothing(name):
    both = []
    for backwards in (False, True):
        with emulation(checked=True, backwards=backwards):
            both.append(results(name, "emu", "float32"))
    # the order of the threads changes no bit: nothing depends on it
    for a, b in zip(*both, strict=True):
        assert a.tobytes() == b.tobytes()


class NoLibrary:
    """Stands for compiled kernels and executes nothing."""

    def launch(self, *arguments, **settings):
        pass


def test_every_kernel_in_the_sources_has_a_case(monkeypatch):
    monkeypatch.setattr("igcnn.kernels.launch.emulated", lambda *_: NoLibrary())
    with emulation() as launched:
        for name in CASES:
            results(name, "emu", "float32")
    everything = {(stem, kernel) for stem in STEMS for kernel in signatures(stem)}
    assert everything == {(stem, kernel) for stem, kernel, _ in launched}


BARRIER = "__syncthreads();"
# the cases that a barrier of a file matters in
USERS = {
    "common.cuh": ("batch_norm", ["batch norm far from zero"]),
    "batch_norm.cu": ("batch_norm", ["batch norm far from zero"]),
    "convolution.cu": ("convolution", [name for name in CASES if "than fit" in name]),
    "combine.cu": ("combine", ["two terms"]),
    "head.cu": ("head", ["head"]),
    "interleaved_group_convolution.cu": (
        "interleaved_group_convolution",
        ["fused unit", "fused unit without ReLU, little shared memory"],
    ),
    "interleaved_group_convolution_v3.cu": (
        "interleaved_group_convolution_v3",
        ["fused unit, cut anew"],
    ),
    "stem.cu": ("stem", ["stem"]),
    "sum_partials.cu": ("sum_partials", ["parts of gradients"]),
    "softmax_cross_entropy.cu": ("softmax_cross_entropy", ["softmax cross-entropy"]),
}
BARRIERS = [
    (path.name, index)
    for path in sorted(KERNELS.glob("*.cu*"))
    for index in range(path.read_text().count(BARRIER))
]


class WithoutBarrier:
    """Removes one barrier of a file from the sources that contain it."""

    def __init__(self, name, index):
        parts = (KERNELS / name).read_text().split(BARRIER)
        self.before = BARRIER.join(parts)
        self.after = (
            BARRIER.join(parts[: index + 1])
            + BARRIER.join(["", *parts[index + 1 :]])[len(BARRIER) :]
        )

    def __call__(self, stem, text):
        body, edited = (re.split(r'#include "\w+.cuh"', t)[-1] for t in (self.before, self.after))
        return text.replace(body, edited)


@needs_compiler
@pytest.mark.parametrize(("name", "index"), BARRIERS)
def test_each_barrier_is_needed(name, index):
    """A race planted by taking one barrier away is found."""
    stem, cases = USERS[name]
    edit = WithoutBarrier(name, index)
    assert edit(stem, source(stem)).count(BARRIER) == source(stem).count(BARRIER) - 1
    caught = []
    with emulation(checked=True, edit=edit):
        for case in cases:
            try:
                results(case, "emu", "float32")
            except KernelError as error:
                caught.append(str(error))
    assert any(re.search("race|read before", message) for message in caught)


def test_what_a_device_cannot_do_is_a_device_error():
    x, w = (to_device(np.zeros((1, 1, side, side), "f4"), "emu") for side in (80, 60))
    with pytest.raises(DeviceError, match=r"kernel of 60×60 .* use --device cpu"):
        convolution_forward(x, w)
