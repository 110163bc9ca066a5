"""gradcheck: passes what is right, names what is wrong."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.autograd import Function
from igcnn.errors import AutogradError, DtypeError


class Cube(Function):
    """y = x³, with a backward that can be wrong at one element."""

    name = "cube"

    def __init__(self, error=0.0):
        self.error = error

    def forward(self, x):
        self.save(x)
        return x**3

    def backward(self, gy):
        (x,) = self.saved()
        gx = 3 * x * x * gy
        gx[1, 2] += self.error
        return (gx,)


def inputs():
    return Tensor(np.random.default_rng(0).standard_normal((2, 3)), requires_grad=True)


def test_right():
    report = gradcheck(lambda x: Cube()(x), inputs())
    assert report
    assert report.elements == 6
    assert report.worst_error < 1e-8
    assert str(report).startswith("gradcheck passed: 6 elements, worst error")


def test_one_wrong_element_is_found_and_named():
    with pytest.raises(AutogradError, match=r"failed: 6 elements, worst error .* input 0\[1, 2\]"):
        gradcheck(lambda x: Cube(1e-4)(x), inputs())
    report = gradcheck(lambda x: Cube(1e-4)(x), inputs(), raise_exception=False)
    assert not report
    assert report.worst_index == (1, 2)
    assert report.analytic - report.numeric == pytest.approx(1e-4, rel=1e-3)


def test_nan_fails():
    report = gradcheck(lambda x: Cube(np.nan)(x), inputs(), raise_exception=False)
    assert not report
    assert report.worst_index == (1, 2)
    assert report.elements == 6


def test_a_gradient_that_a_plain_sum_would_not_see():
    """Softmax sums to one, so the gradient of its sum is zero: a broken backward hides there."""

    class Softmax(Function):
        name = "softmax"

        def forward(self, x):
            y = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
            self.save(y)
            return y

        def backward(self, gy):
            (y,) = self.saved()
            return (2 * y * (gy - (gy * y).sum(axis=1, keepdims=True)),)

    x = inputs()
    Softmax()(x).sum().backward()
    np.testing.assert_allclose(x.grad, 0, atol=1e-15)
    assert not gradcheck(lambda x: Softmax()(x), x, raise_exception=False)


def test_a_view_of_the_input_is_no_obstacle():
    assert gradcheck(lambda x: x.reshape(3, 2), inputs()).worst_error < 1e-8


def test_inputs_are_left_as_they_were():
    x = inputs()
    before = x.data.copy()
    gradcheck(lambda x: Cube()(x), x)
    np.testing.assert_array_equal(x.data, before)


def test_bad_arguments():
    with pytest.raises(DtypeError, match="input 0 is float32, but differences need float64"):
        gradcheck(lambda x: x * 2, Tensor([1.0], requires_grad=True))
    with pytest.raises(AutogradError, match="no input requires a gradient"):
        gradcheck(lambda x: x * 2, Tensor(np.ones(3)))
