"""permute_channels: gradient, inverse."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.errors import ShapeError
from igcnn.functional import permute_channels


def test_gradient():
    x = Tensor(np.random.default_rng(0).standard_normal((2, 6, 3, 1)), requires_grad=True)
    assert gradcheck(lambda x: permute_channels(x, 2), x).worst_error < 1e-9


def test_order_and_inverse():
    x = Tensor(np.arange(6.0).reshape(1, 6, 1, 1))
    assert permute_channels(x, 2).data.ravel().tolist() == [0, 3, 1, 4, 2, 5]
    back = permute_channels(permute_channels(x, 2), 3)
    np.testing.assert_array_equal(back.data, x.data)


def test_branches_must_divide_the_channels():
    with pytest.raises(ShapeError, match="6 channels do not divide into 4 branches"):
        permute_channels(Tensor(np.ones((1, 6, 1, 1))), 4)
