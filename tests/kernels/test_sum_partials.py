"""Gradients of what blocks have left, many by one launch: on the emulator."""

import shutil

import numpy as np
import pytest

from igcnn.backend import to_device, to_host
from igcnn.kernels.sum_partials import launch_sum_partials, partial_sums, sum_partials

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++ (Debian, Ubuntu: apt install g++)"
)


def emu(array, dtype):
    return to_device(np.asarray(array, dtype), "emu")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "sizes", [[(4, 1)], [(300, 9), (36, 132), (128, 8)], [(33, 7), (1, 20)], [(864, 3), (5, 2)]]
)
def test_each_sum_lands_where_its_gradient_lies(sizes, dtype):
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((S, count)) for count, S in sizes]
    gap = 4  # numbers of others before each gradient
    sums = emu(np.full(sum(count + gap for count, _ in sizes), -7), dtype)
    rows, start, place = [], 0, 0
    for count, S in sizes:
        place += gap
        rows.append((start, S, sums[place : place + count]))
        start, place = start + S * count, place + count
    memory = emu(np.concatenate([part.ravel() for part in parts]), dtype)
    launch_sum_partials(partial_sums(rows, memory, sums))
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype]
    expected = [np.concatenate([np.full(gap, -7), part.sum(axis=0)]) for part in parts]
    np.testing.assert_allclose(to_host(sums), np.concatenate(expected), atol=tolerance)


def test_neighbours_change_no_bit():
    rng = np.random.default_rng(0)
    parts = [emu(rng.standard_normal((S, count)), "f4") for count, S in ((64, 132), (700, 128))]
    together, memory = (
        emu(np.zeros(764), "f4"),
        emu(np.concatenate([p.ravel() for p in parts]), "f4"),
    )
    rows = [(0, 132, together[:64]), (64 * 132, 128, together[64:])]
    launch_sum_partials(partial_sums(rows, memory, together))
    alone = [emu(np.zeros(p.shape[1]), "f4") for p in parts]
    for part, total in zip(parts, alone, strict=True):
        sum_partials(part, total)
    assert to_host(together).tobytes() == b"".join(to_host(total).tobytes() for total in alone)
