"""One thread of a kernel, followed on the emulator."""

import shutil

import numpy as np
import pytest

from igcnn.backend import to_device, to_host
from igcnn.inspection.cuda import annotated, kernel_lines
from igcnn.kernels.convolution import launch_convolution_formula, launch_convolution_forward
from igcnn.kernels.launch import HERE, following, signatures
from igcnn.kernels.permutation import permutation_forward

emulated = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)


def array(*shape, dtype="float32"):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


@emulated
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_thread_moves_its_number(dtype):
    x = array(2, 6, 3, 5, dtype=dtype)
    expected = permutation_forward(x, 3).ravel()
    for rank in (0, 77, 179):
        with following(thread=rank) as launches:
            permutation_forward(to_device(x, "emu"), 3)
        (launch,) = launches
        read, written = launch.steps
        assert [launch.names[step.array] for step in launch.steps] == ["x", "y"]
        assert (read.write, written.write) == (False, True)
        assert written.element == rank
        assert x.ravel()[read.element] == read.value == written.value == expected[rank]
        assert read.places[0][0] == "permutation.cu"
        assert tuple(launch.traffic) == (x.nbytes, x.nbytes, 0, 0)
    with following(thread=180) as launches:
        permutation_forward(to_device(x, "emu"), 3)
    assert launches[0].steps == []


@emulated
def test_the_formula_reads_each_product_and_writes_the_sum():
    x, w, y = (
        to_device(a, "emu") for a in (array(1, 4, 5, 6), array(6, 2, 3, 3), array(1, 6, 5, 6))
    )
    with following(thread=67) as launches:
        launch_convolution_formula(x, w, y, (1, 1), (1, 1), 2)
    steps = {name: [] for name in ("w", "x", "y")}
    for step in launches[0].steps:
        name = launches[0].names[step.array]
        steps[name].append(step)
        value = {"x": x, "w": w, "y": y}[name].ravel()[step.element]
        assert step.value == value
    # output 67: channel 2, row 1, column 1
    assert len(steps["w"]) == len(steps["x"]) == 2 * 9
    products = sum(
        float(a.value) * float(b.value) for a, b in zip(*(steps[n] for n in "wx"), strict=True)
    )
    (written,) = steps["y"]
    assert written.element == 67
    assert float(written.value) == pytest.approx(products, rel=1e-5)


@emulated
def test_shared_memory_and_barriers():
    x, w = (to_device(a, "emu") for a in (array(1, 2, 8, 8), array(2, 2, 1, 1)))
    y = to_device(array(1, 2, 8, 8), "emu")
    with following(thread=5) as launches:
        launch_convolution_forward(x, w, y, (1, 1), (0, 0), 1)
    (launch,) = launches
    names = ["barrier" if s.array is None else "shared" if s.array < 0 else launch.names[s.array]
             for s in launch.steps]  # fmt: skip
    # threads 0 to 3 bring the four weights, so that thread 5 only waits for them; of each channel
    # it takes the place, four pixels and two weights
    channel = ["shared", "x", "x", "x", "x", "shared", "shared"]
    assert names == ["barrier", "barrier", *channel, *channel, *(8 * ["y"])]
    places = 2 * 4  # bytes, of two channels
    assert launch.traffic.shared_written == w.nbytes + places
    assert launch.traffic.shared_read == 16 * (w.nbytes + places)
    assert launch.traffic.global_written == y.nbytes
    # quad 5 is the second of row 2
    written = [s.value for s in launch.steps[-8:]]
    np.testing.assert_allclose(np.ravel(to_host(y)[0, :, 2, 4:]), written)


@emulated
def test_text_of_a_followed_thread():
    x = to_device(array(1, 4, 2, 2), "emu")
    with following(thread=3) as launches:
        permutation_forward(x, 2)
    text = annotated(launches[0]).splitlines()
    first, lines = kernel_lines("permutation", "permutation_forward")
    shown = [line for line in text if not line.lstrip().startswith("^")]
    assert shown == [f"{first + k:4} {line}" for k, line in enumerate(lines)]
    place = next(k for k, line in enumerate(text) if "y[i] = x[" in line)
    value = to_host(x).ravel()[3]
    assert text[place + 1].split() == ["^", "reads", "x[3]", "=", f"{value:.4g}"]
    assert text[place + 2].split() == ["^", "writes", "y[3]", "=", f"{value:.4g}"]


@pytest.mark.parametrize("stem", sorted(path.stem for path in HERE.glob("*.cu")))
def test_lines_of_every_kernel(stem):
    source = (HERE / f"{stem}.cu").read_text().splitlines()
    for kernel in signatures(stem):
        first, lines = kernel_lines(stem, kernel)
        assert source[first - 1 : first - 1 + len(lines)] == lines
        text = "\n".join(lines)
        assert text.count("__global__") == 1
        assert f"{kernel}(" in text
        assert text.count("{") == text.count("}")


def test_lines_of_a_helper():
    _, lines = kernel_lines("convolution", "convolve")
    text = "\n".join(lines)
    assert lines[0].startswith("// The convolution of")
    assert text.count("__device__") == 1
    assert "void convolve(" in text
    assert text.count("{") == text.count("}")
