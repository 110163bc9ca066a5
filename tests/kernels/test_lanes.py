"""How a batch lies in memory for the compiled kernels."""

import numpy as np
import pytest

from igcnn.kernels.lanes import Lanes


def test_lanes_are_as_many_as_images_where_those_are_few():
    assert [Lanes(n, "float32").lanes for n in (1, 4, 5, 8, 9, 64)] == [4, 4, 8, 8, 16, 16]
    assert [Lanes(n, "float64").lanes for n in (1, 5, 64)] == [4, 8, 8]
    assert [Lanes(n, "float32", 1).lanes for n in (1, 2, 3, 5, 64)] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(("N", "n"), [(1, 1), (5, 5), (8, 3), (17, 17), (37, 20), (64, 64)])
@pytest.mark.parametrize("innermost", [0, 3])
def test_images_are_loaded_lane_by_lane(N, n, innermost):
    lanes = Lanes(N, "float32")
    x = np.moveaxis(np.arange(n * 3 * 4 * 5, dtype=np.float32).reshape(n, 3, 4, 5), 0, innermost)
    x = np.moveaxis(np.ascontiguousarray(x), innermost, 0)
    target = np.full(lanes.layout((3, 4, 5)), -1, np.float32)
    lanes.load(x, target)
    for i in range(lanes.blocks * lanes.lanes):
        image = target[i // lanes.lanes, ..., i % lanes.lanes]  # (H, C, W)
        expected = x[i].transpose(1, 0, 2) if i < n else np.full((4, 3, 5), -1)
        np.testing.assert_array_equal(image, expected)


def test_launches_are_cut_by_rows_whatever_the_threads():
    assert [Lanes(64, "float32").jobs(rows) for rows in (1, 8, 32)] == [4, 4, 4]
    assert [Lanes(16, "float32").jobs(rows) for rows in (1, 5, 7, 32)] == [1, 1, 2, 4]
    assert Lanes(37, "float32").batch(32) == {"blocks": 3, "slices": 2, "last": 5}
