"""ReLU6."""

import numpy as np

from igcnn.kernels.relu6 import relu6_backward, relu6_forward


def test_each_element():
    x = np.array([[-1.5, 0.0, -0.0, 5.5], [6.0, 6.5, np.inf, -np.inf]])
    y = relu6_forward(x)
    assert y.tolist() == [[0, 0, 0, 5.5], [6, 6, 6, 0]]
    gy = np.arange(1.0, 9).reshape(2, 4)
    assert relu6_backward(gy, y).tolist() == [[0, 0, 0, 4], [0, 0, 0, 0]]


def test_nan_stays_nan():
    assert np.isnan(relu6_forward(np.array([np.nan]))).all()


def test_type_and_memory_order_are_kept():
    x = 4 * np.random.default_rng(0).standard_normal((3, 5, 2, 4)).astype(np.float32)
    x = x.transpose(3, 0, 1, 2)
    before = x.copy()
    y = relu6_forward(x)
    assert y.dtype == np.float32
    assert y.strides == x.strides
    assert relu6_backward(x, y).dtype == np.float32
    np.testing.assert_array_equal(x, before)
