"""Pooling: gradients and the floor convention."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.errors import ShapeError
from igcnn.functional import avg_pool2d, global_avg_pool2d, max_pool2d
from igcnn.layers import GlobalAveragePool, MaxPool


def leaf(shape):
    # all elements differ by far more than the step of the differences: no ties, no kinks
    values = np.random.default_rng(0).permutation(np.prod(shape)) / 7.0
    return Tensor(values.reshape(shape), requires_grad=True)


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
@pytest.mark.parametrize(
    ("shape", "kernel_size", "stride", "padding"),
    [
        ((1, 2, 7, 5), 3, 2, 1),
        ((2, 1, 4, 6), 2, None, 0),
        ((1, 1, 5, 5), 3, 1, 0),
        ((1, 2, 4, 3), (3, 2), (1, 2), (2, 1)),
    ],
)
def test_gradients(pool, shape, kernel_size, stride, padding):
    x = leaf(shape)
    report = gradcheck(lambda x: pool(x, kernel_size, stride, padding), x)
    assert report.worst_error < 1e-9


def test_gradients_of_the_mean_of_pixels_alone():
    x = leaf((1, 2, 4, 3))
    report = gradcheck(lambda x: avg_pool2d(x, 3, 2, (1, 2), count_include_pad=False), x)
    assert report.worst_error < 1e-9


def test_global_average():
    x = leaf((2, 3, 7, 5))
    np.testing.assert_allclose(global_avg_pool2d(x).data, x.data.mean((2, 3)))
    assert gradcheck(global_avg_pool2d, x).worst_error < 1e-9


def test_floor_convention_and_layers():
    x = np.zeros((1, 1, 112, 112), np.float32)
    assert MaxPool(3, 2, 1)(x).shape == (1, 1, 56, 56)
    assert MaxPool(3, 2, 0)(x).shape == (1, 1, 55, 55)
    assert GlobalAveragePool()(x).shape == (1, 1)
    assert repr(MaxPool(3, 2, 1)) == "MaxPool(3, stride=2, padding=1)"


def test_errors():
    with pytest.raises(ShapeError, match="image 2×5 with padding 0 is smaller than the window 3"):
        max_pool2d(leaf((1, 1, 2, 5)), 3)
    with pytest.raises(ShapeError, match="global_average_pool"):
        global_avg_pool2d(leaf((2, 3)))
