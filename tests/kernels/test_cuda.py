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
from igcnn.kernels.launch import check, emulation, launch, signatures, source
from igcnn.kernels.relu import relu_forward

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


def emu(*shape, dtype="float32"):
    return to_device(np.zeros(shape, dtype), "emu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((emu(4), emu(4)), r"relu_forward: takes 3 arguments \(x, y, n\), not 2"),
        ((emu(4), emu(4, dtype="float64"), 4), "y must be an array of float32, not float64"),
        ((emu(4, dtype="int32"), emu(4), 4), "x must be an array of int32, not int32|stored|must"),
        ((emu(4), emu(8)[::2], 4), r"y of shape \(4,\) is not in C order"),
        ((emu(4), np.zeros(4, "f4"), 4), "y lives on the CPU"),
        ((emu(4), emu(4), 4.5), "n must be int, not 4.5"),
        ((emu(4), emu(4), 2**31), "n must be int, not 2147483648"),
        ((emu(4), emu(4), True), None),
        ((emu(4), 3, 4), "y must be an array, not 3"),
    ],
)
def test_an_argument_that_does_not_fit_the_signature_is_refused(arguments, message):
    parameters = signatures("relu")["relu_forward"]
    if message is None:
        check("relu_forward", parameters, arguments)
        return
    with pytest.raises(KernelError, match=message):
        check("relu_forward", parameters, arguments)


def test_arrays_that_are_not_aligned_are_refused():
    odd = np.zeros(17, np.uint8)[1:].view(np.float32).view(type(emu(1)))
    with pytest.raises(KernelError, match="not a multiple of 4"):
        launch("relu", "relu_forward", 1, 32, odd, emu(4), 4)


def test_what_a_device_cannot_do_is_a_device_error():
    x, w = emu(1, 1, 80, 80), emu(1, 1, 60, 60)
    with pytest.raises(DeviceError, match=r"kernel of 60×60 .* use --device cpu"):
        convolution_forward(x, w)
    huge = np.lib.stride_tricks.as_strided(emu(1), (2**31,), (0,)).view(type(x))
    huge_like = type("Huge", (), {})()
    huge_like.dtype, huge_like.flags = huge.dtype, emu(1).flags
    huge_like.shape, huge_like.size = huge.shape, huge.size
    with pytest.raises(DeviceError, match=r"2,147,483,648 elements.*smaller --batch-size"):
        check("relu_forward", signatures("relu")["relu_forward"], (huge_like, emu(1), 1))


def test_an_empty_batch_launches_nothing():
    assert relu_forward(emu(0, 3, 4, 4)).shape == (0, 3, 4, 4)
