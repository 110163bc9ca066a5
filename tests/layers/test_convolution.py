"""conv2d and Convolution: gradients of every element, skipping, bias, errors."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.autograd import Tape
from igcnn.errors import DtypeError, ShapeError
from igcnn.functional import conv2d
from igcnn.layers import Convolution


def leaf(shape, seed):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "stride", "padding", "groups"),
    [
        ((1, 4, 7, 5), (6, 2, 3, 3), 1, 1, 2),
        ((2, 3, 7, 5), (3, 1, 3, 3), 2, 1, 3),
        ((2, 4, 5, 5), (2, 4, 1, 1), 2, 0, 1),
        ((1, 2, 9, 8), (2, 2, 7, 7), 2, 3, 1),
        ((2, 2, 5, 4), (4, 1, 3, 1), (2, 1), (1, 0), 2),
        ((1, 2, 5, 5), (2, 1, 2, 2), 3, 0, 2),
    ],
)
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients(x_shape, w_shape, stride, padding, groups, with_bias):
    inputs = [leaf(x_shape, 0), leaf(w_shape, 1)]
    if with_bias:
        inputs.append(leaf(w_shape[:1], 2))

    def function(x, w, b=None):
        return conv2d(x, w, b, stride, padding, groups)

    assert gradcheck(function, inputs).worst_error < 1e-8


def test_what_needs_no_gradient_is_not_computed():
    y = conv2d(Tensor(np.ones((1, 2, 3, 3))), leaf((2, 2, 3, 3), 0))
    (record,) = Tape.of(y)
    gx, gw = record.function.backward(np.ones(y.shape))
    assert gx is None
    assert gw.shape == (2, 2, 3, 3)


def test_layer_has_no_bias_and_he_initialisation():
    layer = Convolution(64, 128, 3, groups=2, rng=np.random.default_rng(0))
    ((name, weight),) = layer.named_parameters()
    assert (name, weight.shape, weight.dtype) == ("weight", (128, 32, 3, 3), np.float32)
    assert weight.data.std() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.02)
    assert abs(weight.data.mean()) < 0.001


def test_layer_repr_and_multiply_adds():
    layer = Convolution(4, 8, 3, stride=2, padding=1, groups=2, rng=np.random.default_rng(0))
    y = layer(np.zeros((3, 4, 8, 8), np.float32))
    assert repr(layer) == "Convolution(4 -> 8, 3×3, stride=2, padding=1, groups=2)"
    assert layer.macs((3, 4, 8, 8), y.shape) == 3 * 4 * 4 * 8 * 2 * 9


def test_errors():
    x = Tensor(np.ones((1, 6, 3, 3)))
    with pytest.raises(ShapeError, match="x has 6 channels but w takes 2·2 = 4"):
        conv2d(x, Tensor(np.ones((2, 2, 3, 3))), groups=2)
    with pytest.raises(ShapeError, match=r"bias has shape \(3,\), but w"):
        conv2d(x, Tensor(np.ones((2, 6, 3, 3))), Tensor(np.ones(3)))
    with pytest.raises(DtypeError, match="float32, float64"):
        conv2d(x, Tensor(np.ones((2, 6, 3, 3), np.float32)))
    with pytest.raises(ShapeError, match="6 input and 4 output channels do not divide into 3"):
        Convolution(6, 4, 3, groups=3, rng=np.random.default_rng(0))
