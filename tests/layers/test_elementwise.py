"""relu, relu6, add and cross_entropy on the tape."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.errors import ConfigError, DtypeError, ShapeError
from igcnn.functional import add, cross_entropy, relu, relu6


def leaf(shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def test_relu():
    assert gradcheck(relu, leaf((2, 3, 7, 5))).worst_error < 1e-9
    x = Tensor([-1.0, 0.0, 2.0], requires_grad=True)
    y = relu(x)
    y.backward([1, 1, 1])
    assert y.data.tolist() == [0, 0, 2]
    assert x.grad.tolist() == [0, 0, 1]


def test_relu6():
    x = leaf((2, 3, 7, 5))
    x.data *= 6
    assert gradcheck(relu6, x).worst_error < 1e-9
    x = Tensor([-1.0, 0.0, 2.0, 6.0, 7.0], requires_grad=True)
    y = relu6(x)
    y.backward([1, 1, 1, 1, 1])
    assert y.data.tolist() == [0, 0, 2, 6, 6]
    assert x.grad.tolist() == [0, 0, 1, 0, 0]


def test_add():
    assert gradcheck(add, [leaf((1, 2, 3, 1), 1), leaf((1, 2, 3, 1), 2)]).worst_error < 1e-9
    with pytest.raises(ShapeError, match=r"add: shapes \(2, 3\) and \(3,\) differ"):
        add(leaf((2, 3)), leaf((3,)))


@pytest.mark.parametrize("N", [1, 5])
@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_cross_entropy(N, smoothing):
    labels = np.random.default_rng(1).integers(0, 4, N)
    checked = gradcheck(lambda z: cross_entropy(z, labels, smoothing), leaf((N, 4)))
    assert checked.worst_error < 1e-9


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_classes():
    loss = cross_entropy(Tensor(np.zeros((3, 7))), np.array([0, 3, 6]))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(np.log(7))


def test_cross_entropy_errors():
    for smoothing in (-0.1, 1, float("nan")):
        with pytest.raises(ConfigError, match="label_smoothing must be from 0 to below 1"):
            cross_entropy(leaf((2, 4)), np.array([0, 1]), smoothing)
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        cross_entropy(leaf((2, 4)), np.zeros(3, int))
    with pytest.raises(ShapeError, match="labels run from 0 to 4, but logits have 4 classes"):
        cross_entropy(leaf((2, 4)), np.array([0, 4]))
    with pytest.raises(DtypeError, match="labels must be integers, not float64"):
        cross_entropy(leaf((2, 4)), np.zeros(2))
    for label in (-1, -100):
        with pytest.raises(ShapeError, match=f"from 0 to 3, not {label}; there is no ign"):
            cross_entropy(leaf((2, 4)), [0, label])


def test_labels_that_change_after_forward_change_no_gradient():
    labels, z = np.array([0, 1]), leaf((2, 3))
    loss = cross_entropy(z, labels)
    expected = cross_entropy(other := leaf((2, 3)), labels.copy())
    labels[:] = 2
    loss.backward()
    expected.backward()
    np.testing.assert_array_equal(z.grad, other.grad)
