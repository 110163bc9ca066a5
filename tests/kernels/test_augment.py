"""Padding, cropping, mirroring and normalising, against loops."""

import numpy as np
import pytest

from igcnn.kernels.augment import crop_and_mirror, normalise


def pixel(images, n, c, row, column, fill):
    inside = 0 <= row < images.shape[2] and 0 <= column < images.shape[3]
    return images[n, c, row, column] if inside else fill[c]


@pytest.mark.parametrize("pad", [0, 1, 4])
def test_crop_and_mirror(pad):
    rng = np.random.default_rng(0)
    N, C, H, W = 6, 3, 7, 5
    images = rng.integers(0, 256, (N, C, H, W), dtype=np.uint8)
    before = images.copy()
    fill = np.array([1, 2, 3], np.uint8)
    offsets = rng.integers(0, 2 * pad + 1, (N, 2))
    mirror = np.arange(N) % 2 == 1
    out = crop_and_mirror(images, pad, fill, offsets, mirror)
    assert out.dtype == np.uint8
    for n, c, i, j in np.ndindex(N, C, H, W):
        column = W - 1 - j if mirror[n] else j
        row, column = i + offsets[n, 0] - pad, column + offsets[n, 1] - pad
        assert out[n, c, i, j] == pixel(images, n, c, row, column, fill)
    np.testing.assert_array_equal(images, before)


def test_normalise():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)
    mean = np.array([125.3, 122.9, 113.9], np.float32)
    std = np.array([63.0, 62.1, 66.7], np.float32)
    x = normalise(images, mean, std)
    assert x.dtype == np.float32
    assert x.transpose(1, 2, 3, 0).flags.c_contiguous
    for n, c, i, j in np.ndindex(images.shape):
        expected = (np.float32(images[n, c, i, j]) - mean[c]) / std[c]
        assert x[n, c, i, j] == expected
