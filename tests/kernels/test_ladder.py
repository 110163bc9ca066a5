"""The ladder of CUDA kernels: values, races, and the loads that its comments and page count."""

import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from igcnn.backend import gpu_count, to_device, to_host
from igcnn.conformance import oracles
from igcnn.errors import ConfigError, DeviceError, KernelError, ShapeError
from igcnn.inspection.cuda import annotated
from igcnn.kernels import ladder
from igcnn.kernels.ladder import (
    RUNGS,
    cut,
    ladder_backward_input,
    ladder_backward_weight,
    ladder_forward,
)
from igcnn.kernels.launch import emulation, following, signatures

HERE = Path(ladder.__file__).parent
KERNELS = "igc_forward", "igc_backward_input", "igc_backward_weight"
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)
DEVICES = [
    pytest.param("emu", marks=needs_compiler),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}
UNITS = [  # N, L, M, H, W
    (2, 3, 2, 5, 7),
    (1, 5, 3, 9, 10),
    (3, 2, 1, 1, 3),
    (1, 1, 4, 4, 9),
    (2, 24, 2, 5, 9),
]


def random_unit(N, L, M, H, W, dtype="float32"):
    """Return gz, x, w1 and w2."""
    rng = np.random.default_rng(N + L + M)
    C = L * M
    shapes = (N, C, H, W), (N, C, H, W), (C, M, 3, 3), (C, L, 1, 1)
    return [rng.standard_normal(shape).astype(np.float32).astype(dtype) for shape in shapes]


def by_loops(gz, x, w1, w2):
    """Return z, gx, gw1 and gw2 in float64."""
    L = w2.shape[1]
    p = oracles.convolution(x, w1, 1, 1, L)
    gp, gw2 = oracles.mix_gradients(gz, p, w2, L, w1.shape[1])
    gx, gw1 = oracles.convolution_gradients(gp, x, w1, 1, 1, L)
    return oracles.mix(p, w2, L, w1.shape[1]), gx, gw1, gw2


def by_kernel(rung, kernel, gz, x, w1, w2):
    """Return what a kernel computes, in a list."""
    if kernel == "igc_forward":
        return [ladder_forward(rung, x, w1, w2)]
    if kernel == "igc_backward_input":
        return [ladder_backward_input(rung, gz, w1, w2)]
    return list(ladder_backward_weight(rung, gz, x, w1, w2))


def by_ladder(rung, *arrays):
    return [to_host(a) for kernel in KERNELS for a in by_kernel(rung, kernel, *arrays)]


def assert_close(actual, expected, tolerance):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * max(1.0, np.abs(e).max()))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: "-".join(map(str, unit)))
@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("device", DEVICES)
def test_every_rung_is_the_formula(device, rung, unit, dtype):
    if device == "cuda" and not gpu_count():
        pytest.skip("no GPU")
    arrays = random_unit(*unit, dtype)
    on_device = [to_device(a, device) for a in arrays]
    with emulation(checked=True):
        actual = by_ladder(rung, *on_device)
    assert_close(actual, by_loops(*arrays), TOLERANCES[dtype])
    with emulation(checked=True, backwards=True):
        again = by_ladder(rung, *on_device)
    assert [a.tobytes() for a in actual] == [a.tobytes() for a in again]


@needs_compiler
@pytest.mark.parametrize("rung", RUNGS)
def test_activations_may_be_bfloat16(rung):
    gz, x, w1, w2 = random_unit(1, 3, 2, 5, 6)
    halves = [to_device((a.view(np.uint32) >> 16).astype(np.uint16), "emu") for a in (gz, x)]
    whole = [(to_host(a).astype(np.uint32) << 16).view(np.float32) for a in halves]
    weights = [to_device(w, "emu") for w in (w1, w2)]
    with emulation(checked=True):
        z, gx, *gradients = by_ladder(rung, *halves, *weights)
    expected = by_loops(*whole, w1, w2)
    activations = [(a.astype(np.uint32) << 16).view(np.float32) for a in (z, gx)]
    assert_close(activations, expected[:2], 2.0**-8)
    assert_close(gradients, expected[2:], 1e-5)


BARRIER = "__syncthreads();"
BARRIERS = [
    (path.stem, index)
    for path in sorted(HERE.glob("*.cu"))
    for index in range(path.read_text().count(BARRIER))
]


class WithoutBarrier:
    """Removes one barrier of a rung."""

    def __init__(self, rung, index):
        self.body = re.split(r'#include "\w+.cuh"', (HERE / f"{rung}.cu").read_text())[-1]
        parts = self.body.split(BARRIER)
        self.edited = BARRIER.join(parts[: index + 1]) + BARRIER.join(parts[index + 1 :])

    def __call__(self, stem, text):
        return text.replace(self.body, self.edited)


@needs_compiler
@pytest.mark.parametrize(("rung", "index"), BARRIERS)
def test_each_barrier_is_needed(rung, index, monkeypatch):
    monkeypatch.setattr(ladder, "RESIDENT_BLOCKS", 1)
    arrays = [to_device(a, "emu") for a in random_unit(1, 3, 2, 9, 10)]
    with (
        emulation(checked=True, edit=WithoutBarrier(rung, index)),
        pytest.raises(KernelError, match=r"race|read before"),
    ):
        by_ladder(rung, *arrays)


@needs_compiler
def test_blocks_that_stay_add_up_all_their_tiles(monkeypatch):
    monkeypatch.setattr(ladder, "RESIDENT_BLOCKS", 2)
    arrays = random_unit(2, 3, 2, 9, 10)
    gz, x, w1, w2 = (to_device(a, "emu") for a in arrays)
    assert cut("micro_tiles", KERNELS[2], x, w1, w2).blocks == 2
    with emulation(checked=True):
        gradients = ladder_backward_weight("micro_tiles", gz, x, w1, w2)
    assert_close(map(to_host, gradients), by_loops(*arrays)[2:], 1e-5)


L, M, SIDE = 24, 2, 16
C, PIXELS = L * M, SIDE * SIDE
NEIGHBOURS = (3 * SIDE - 2) ** 2  # pairs of a pixel and one of the nine around it, in the image


@cache
def launches(rung, kernel):
    """Return the launches of a rung for one image of 16×16."""
    arrays = [to_device(a, "emu") for a in random_unit(1, L, M, SIDE, SIDE)]
    # a thread of the image's interior: every tap lies inside
    with following(block=0, thread=5 * SIDE + 5) as done:
        by_kernel(rung, kernel, *arrays)
    assert done[0].kernel == kernel
    return done


def loads_of_tiles(rows):
    """Return the numbers that tiles of rows × 8 load of an image with halo and without."""

    def span(size):
        tiles = range(0, SIDE, size)
        return sum(min(begin + size + 1, SIDE) - max(begin - 1, 0) for begin in tiles)

    return C * span(rows) * span(8), C * PIXELS


def global_loads(rung, kernel):
    """Return the loads of a launch: of naive by the formulas, of the others tile by tile."""
    p, gp = M * (9 * PIXELS + NEIGHBOURS), 2 * L * PIXELS  # of a channel
    if rung == "naive":
        return {
            "igc_forward": C * L * (p + PIXELS),
            "igc_backward_input": C * M * (9 * PIXELS + 2 * L * NEIGHBOURS),
            "igc_backward_weight": C * M * (9 * gp + NEIGHBOURS) + C * L * (p + PIXELS),
        }[kernel]
    rows = {"shared_memory": 4, "micro_tiles": 8}[rung]
    with_halo, without = loads_of_tiles(rows)
    weights = C * (9 * M + L) * (SIDE // rows) * (SIDE // 8)
    return weights + with_halo + (without if kernel == "igc_backward_weight" else 0)


@needs_compiler
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_loads_what_its_formula_says(rung, kernel):
    assert launches(rung, kernel)[0].traffic.global_read == 4 * global_loads(rung, kernel)


@needs_compiler
@pytest.mark.parametrize("rung", RUNGS)
def test_the_table_in_a_header_is_what_the_emulator_counts(rung):
    text = (HERE / f"{rung}.cu").read_text(encoding="utf-8")
    rows = re.findall(r"^// \| (igc_\w+) .*\| +([\d.]+) \| +([\d.]+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(KERNELS)
    for kernel, *shown in rows:
        traffic = launches(rung, kernel)[0].traffic
        results = C * (9 * M + L) if kernel == "igc_backward_weight" else C * PIXELS
        counted = traffic.global_read, traffic.shared_read
        assert shown == [f"{bytes_ / 4 / results:.1f}" for bytes_ in counted], kernel


@needs_compiler
@pytest.mark.parametrize(
    ("rung", "kernel"), [("naive", "igc_forward"), ("naive", "igc_backward_input")]
)
def test_a_thread_of_the_interior_loads_what_the_formula_in_the_header_says(rung, kernel):
    text = (HERE / f"{rung}.cu").read_text(encoding="utf-8")
    (said,) = re.findall(rf"^// \| {kernel} +\| .*\) = (\d+) ", text, re.MULTILINE)
    followed = launches(rung, kernel)[0]
    reads = [step for step in followed.steps if step.array is not None and not step.write]
    assert len(reads) == int(said)
    assert "^ reads " in annotated(followed)


def test_formulas_of_tiles_in_the_headers_and_on_the_page():
    page = (HERE.parents[2] / "docs" / "ladder.md").read_text(encoding="utf-8")
    assert f"(60 + 9·M + L) / 32 = {(60 + 9 * M + L) / 32:.2f} numbers" in page
    assert f"L·(18·M + 1) = {L * (18 * M + 1)} loads" in page
    assert f"L·(9·M + 1) = {L * (9 * M + 1)} multiplications" in page
    assert f"9·M + L = {9 * M + L} are enough" in page
    for rung, (tile, halo) in {"shared_memory": (32, 60), "micro_tiles": (64, 100)}.items():
        text = (HERE / f"{rung}.cu").read_text(encoding="utf-8")
        weights = 9 * M + L
        assert text.count(f"({halo} + 9·M + L) / {tile} = {(halo + weights) / tile:.2f}") == 2
        assert f"C·({halo + tile} + 9·M + L) = {C * (halo + tile + weights):,} a tile" in text


@needs_compiler
@pytest.mark.parametrize("kernel", KERNELS)
def test_each_rung_moves_less_than_the_one_below(kernel):
    moved = [np.sum([each.traffic for each in launches(rung, kernel)], axis=0) for rung in RUNGS]
    from_global = [row[0] + row[1] for row in moved]
    assert from_global[0] > from_global[1] > from_global[2]
    in_all = [row.sum() for row in moved]
    assert in_all[0] > in_all[1] > in_all[2]


@needs_compiler
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rung", RUNGS[1:])
def test_shared_memory_is_as_large_as_the_source_needs(rung, kernel, monkeypatch):
    arrays = [to_device(a, "emu") for a in random_unit(1, 3, 2, 9, 10, "float64")]

    def less(*arguments):  # the last number of a channel without halo is not used
        how = cut(*arguments)
        return how._replace(shared_bytes=how.shared_bytes - 16)

    monkeypatch.setattr(ladder, "cut", less)
    with emulation(checked=True), pytest.raises(KernelError, match="out of bounds"):
        by_kernel(rung, kernel, *arrays)


@pytest.mark.parametrize("rung", RUNGS)
def test_signatures_say_the_shapes_and_are_the_same_on_every_rung(rung):
    def declared(rung):  # naive leaves one part of a weight's gradient, the others one a block
        return {
            kernel: [(p.type, p.name, str(p.shape).replace("gridDim.x", "1")) for p in parameters]
            for kernel, parameters in signatures(f"ladder/{rung}").items()
        }

    assert list(declared(rung)) == list(KERNELS)
    assert declared(rung) == declared(RUNGS[0])
    text = (HERE / f"{rung}.cu").read_text(encoding="utf-8")
    pointers = re.findall(r"^.*\*__restrict__ \w+,.*$", text, re.MULTILINE)
    assert len(pointers) == 4 + 4 + 6
    assert all(re.search(r",\s+// (\[[\w.]+\])+$", line) for line in pointers)


@pytest.mark.parametrize("rung", RUNGS)
def test_weights_that_do_not_fit_are_refused(rung):
    _, x, w1, w2 = (to_device(a, "emu") for a in random_unit(1, 3, 2, 4, 4))
    with pytest.raises(ShapeError, match=r"6 channels take weights .* stride 1 and padding 1"):
        ladder_forward(rung, x, to_device(np.zeros((6, 2, 5, 5), "f4"), "emu"), w2)
    with pytest.raises(ShapeError, match=r"not \(6, 2, 3, 3\) and \(6, 6, 1, 1\)"):
        ladder_forward(rung, x, w1, to_device(np.zeros((6, 6, 1, 1), "f4"), "emu"))
    with pytest.raises(DeviceError, match="x lives on the CPU; move it"):
        ladder_forward(rung, to_host(x), w1, w2)
    with pytest.raises(ConfigError, match="no rung 'tensor_cores'; choose naive, shared_memory"):
        ladder_forward("tensor_cores", x, w1, w2)


def test_tiles_have_fewer_rows_where_a_block_is_short_of_room():
    unit = [to_device(a, "emu") for a in random_unit(1, 24, 8, 4, 4)[1:]]
    rows = [cut("micro_tiles", kernel, *unit).defines["ROWS"] for kernel in KERNELS]
    assert rows == [8, 8, 4]
    wide = [to_device(a, "emu") for a in random_unit(1, 32, 8, 1, 1, "float64")[1:]]
    with pytest.raises(ShapeError, match=r"of shared memory for L = 32, M = 8, but a block may"):
        cut("micro_tiles", KERNELS[0], *wide)
    many = [to_device(a, "emu") for a in random_unit(1, 64, 4, 1, 1)[1:]]
    with pytest.raises(ShapeError, match=r"1,280 threads for L = 64, M = 4, but .* have 1,024"):
        cut("micro_tiles", KERNELS[2], *many)
