"""Tensor and the arithmetic operators: values, gradients, errors."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck, no_grad
from igcnn.errors import AutogradError, DtypeError, ShapeError


def leaf(shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape) + 3, requires_grad=True)


def test_one_multiplication_by_hand():
    x = Tensor([2.0, 3.0], requires_grad=True)
    y = x * x * 5 + 1
    y.backward([1.0, 10.0])
    assert y.data.tolist() == [21, 46]
    assert x.grad.tolist() == [20, 300]


def test_x_plus_x_of_a_leaf_and_of_a_result():
    """One array is the gradient of both operands: adding it to itself in place would change it."""
    for factor in (1, 3):
        x, gradient = leaf((2, 3)), np.random.default_rng(1).standard_normal((2, 3))
        before = gradient.copy()
        y = x if factor == 1 else 3 * x
        (y + y).backward(gradient)
        np.testing.assert_allclose(x.grad, 2 * factor * before, rtol=1e-15)
        np.testing.assert_array_equal(gradient, before)


def test_numbers_and_lists_become_float32_and_arrays_keep_their_type():
    assert Tensor([1, 2]).dtype == np.float32
    assert Tensor(1).dtype == np.float32
    assert Tensor(np.array([1.0])).dtype == np.float64
    array = np.arange(3)
    assert Tensor(array).data is array


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("add", lambda a, b: a + b),
        ("subtract", lambda a, b: a - b),
        ("multiply", lambda a, b: a * b),
        ("divide", lambda a, b: a / b),
    ],
)
@pytest.mark.parametrize(
    "shapes", [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (4, 1, 2)), ((5,), ())]
)
def test_operators_with_broadcasting(name, function, shapes):
    a, b = leaf(shapes[0], 1), leaf(shapes[1], 2)
    expected = getattr(np, name)(a.data, b.data)
    np.testing.assert_array_equal(function(a, b).data, expected)
    assert gradcheck(function, [a, b]).worst_error < 1e-8


def test_operators_with_numbers_keep_the_element_type():
    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    for y in (x + 1, 1 + x, 1 - x, 2 * x, x / 2, -x, x - np.array([1.0, 2, 3], np.float32)):
        assert y.dtype == np.float32
    assert (1 - x).data.tolist() == [0, 0, 0]


def test_matmul_sum_mean_reshape():
    a, b = leaf((3, 4)), leaf((4, 2))
    np.testing.assert_array_equal((a @ b).data, a.data @ b.data)
    assert gradcheck(lambda a, b: (a @ b).reshape(2, 3), [a, b])
    assert gradcheck(lambda a: a.sum() * a.mean(), a)


def test_gradients_of_shared_tensors_add_up():
    x = leaf((3,))
    y = x * 2
    z = y * y + y
    z.sum().backward()
    np.testing.assert_allclose(x.grad, 8 * x.data + 2)


def test_gradients_of_several_passes_add_up_and_zero_grad_forgets_them():
    x = leaf((3,))
    for _ in range(2):
        (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad, [4, 4, 4])
    x.zero_grad()
    assert x.grad is None


def test_one_gradient_array_is_never_shared_by_two_leaves():
    a, b = leaf((3,)), leaf((3,))
    (a + b).backward(np.ones(3))
    a.grad += 1
    assert b.grad.tolist() == [1, 1, 1]


def test_no_grad_records_nothing():
    x = leaf((2,))
    with no_grad():
        y = x * 2
    assert not y.requires_grad
    assert y.record is None

    @no_grad()
    def evaluate():
        return x * 2

    assert evaluate().record is None
    assert (x * 2).record is not None


def test_no_grad_ends_with_an_exception_too():
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018
    assert (leaf((2,)) * 2).requires_grad


def test_backward_of_several_elements_needs_a_gradient():
    with pytest.raises(AutogradError, match=r"shape \(2, 3\) is not a single number; give"):
        (leaf((2, 3)) * 2).backward()


def test_backward_checks_the_shape_of_the_gradient():
    with pytest.raises(ShapeError, match=r"\(3,\), but the tensor \(2,\)"):
        (leaf((2,)) * 2).backward(np.ones(3))


def test_backward_without_requires_grad():
    with pytest.raises(AutogradError, match="requires no gradient; create an input with"):
        (Tensor([1.0]) * 2).backward()


def test_second_backward():
    loss = (leaf((2,)) * 2).sum()
    loss.backward()
    with pytest.raises(AutogradError, match="backward has already freed this graph"):
        loss.backward()


def test_second_backward_through_a_shared_part():
    y = leaf((2,)) * 2
    first, second = (y * 3).sum(), (y * 4).sum()
    first.backward()
    with pytest.raises(AutogradError, match="backward has already freed this graph"):
        second.backward()


@pytest.mark.parametrize("shape", [(3,), (60, 70)])
def test_in_place_change_of_a_saved_array(shape):
    x = leaf(shape)
    y = (x * x).sum()
    x.data += 1
    with pytest.raises(AutogradError, match="backward of multiply: an array of shape"):
        y.backward()


def test_in_place_change_of_one_element_of_a_small_saved_array():
    x = leaf((10, 100))
    y = (x * x).sum()
    x.data[7, 3] = 0
    with pytest.raises(AutogradError, match="changed in place after forward"):
        y.backward()


def test_replacing_the_data_does_not_disturb_what_was_saved():
    x = leaf((3,))
    before = x.data
    y = (x * x).sum()
    x.data = x.data + 1
    y.backward()
    np.testing.assert_array_equal(x.grad, 2 * before)


def test_integers_have_no_gradient():
    with pytest.raises(DtypeError, match="float32 or float64 data, not int64"):
        Tensor(np.arange(3), requires_grad=True)


def test_operands_of_different_types_or_shapes():
    with pytest.raises(DtypeError, match="multiply: arguments must all be float32 or all float64"):
        leaf((2,)) * Tensor([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"add: shapes \(2,\) and \(3,\) do not broadcast"):
        leaf((2,)) + leaf((3,))
    with pytest.raises(ShapeError, match=r"matmul: the matrices must be"):
        leaf((2, 3)) @ leaf((2, 3))
    with pytest.raises(ShapeError, match="reshape: 6 elements"):
        leaf((2, 3)).reshape(4, 2)


def test_repr_and_small_things():
    x = Tensor([1.0, 2.0], requires_grad=True, name="x")
    assert repr(x) == "Tensor(x, shape=(2,), dtype=float32, requires_grad, [1., 2.])"
    assert repr(x * 2) == "Tensor(shape=(2,), dtype=float32, by multiply, [2., 4.])"
    assert len(x) == x.size == 2
    assert x.ndim == 1
    assert not x.detach().requires_grad
    assert x.numpy() is x.data
    assert Tensor(3.5).item() == 3.5


@pytest.mark.parametrize(
    "shape",
    [(), (0,), (7,), (10**5,), (3, 4), (300, 400), (2, 3, 4), (64, 3, 32, 32), (2,) * 6, (3, 0)],
    ids=str,
)
def test_a_repr_is_a_few_lines(shape):
    text = repr(Tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True))
    lines = text.splitlines()
    assert lines[0].startswith(f"Tensor(shape={shape}, dtype=float64, requires_grad,")
    assert len(lines) <= 9
    assert max(map(len, lines)) <= 99


def test_a_repr_shows_the_ends_of_long_axes():
    x = Tensor(np.arange(4000).reshape(40, 100))
    lines = repr(x).splitlines()
    assert lines[0] == "Tensor(shape=(40, 100), dtype=int64,"
    assert lines[1] == "[[   0,    1,    2, ...,   97,   98,   99],"
    assert lines[-1] == " [3900, 3901, 3902, ..., 3997, 3998, 3999]])"
