"""Arithmetic, sums, indices, comparison: NumPy's values, and gradients checked by differences."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.backend import to_device, to_host
from igcnn.errors import ShapeError


def leaf(shape, seed=0, low=0.5):
    rng = np.random.default_rng(seed)
    return Tensor(rng.uniform(low, 2, shape) + np.zeros(shape), requires_grad=True)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, 0.5, -2.5])
def test_powers_with_a_number(exponent):
    x = leaf((2, 3))
    np.testing.assert_array_equal((x**exponent).data, x.data**exponent)
    assert gradcheck(lambda x: x**exponent, x).worst_error < 1e-8


@pytest.mark.parametrize(
    "shapes", [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2,))]
)
def test_powers_of_tensors(shapes):
    a, b = leaf(shapes[0], 1), leaf(shapes[1], 2)
    np.testing.assert_array_equal((a**b).data, a.data**b.data)
    assert gradcheck(lambda a, b: a**b, [a, b]).worst_error < 1e-8
    assert gradcheck(lambda b: 2**b, b).worst_error < 1e-8


def test_powers_at_zero_and_below():
    x = Tensor(np.array([0.0, -2.0, 0.0]), requires_grad=True)
    (x**2 + x**1 + x**0).sum().backward()
    np.testing.assert_array_equal(x.grad, [1, -3, 1])
    b = Tensor(np.array([2.0, 3.0]), requires_grad=True)
    (np.array([0.0, 0.0]) ** b).sum().backward()
    np.testing.assert_array_equal(b.grad, [0, 0])
    base = Tensor(np.array([-2.0]), requires_grad=True)
    (base**3).backward()  # a negative base has no logarithm, and needs none
    assert base.grad.tolist() == [12]


@pytest.mark.parametrize("name", ["exp", "log"])
def test_exp_and_log(name):
    x = leaf((2, 3))
    np.testing.assert_array_equal(getattr(x, name)().data, getattr(np, name)(x.data))
    assert gradcheck(lambda x: getattr(x, name)(), x).worst_error < 1e-8


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (0, 1, 2), (-1, 0), ()])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "max"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 3, 1)])
def test_sums_means_and_maxima(name, axis, keepdims, shape):
    x = leaf(shape)
    y = getattr(x, name)(axis=axis, keepdims=keepdims)
    expected = np.asarray(getattr(x.data, name)(axis=axis, keepdims=keepdims))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.data, expected, rtol=1e-15)
    assert gradcheck(lambda x: getattr(x, name)(axis, keepdims), x).worst_error < 1e-8


def test_equal_maxima_share_the_gradient():
    x = Tensor(np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]), requires_grad=True)
    x.max(axis=1).backward([6, 6])
    assert x.grad.tolist() == [[0, 3, 3], [2, 2, 2]]


@pytest.mark.parametrize("axis", [3, -4, (0, 0), 1.5, "a", (0, 3), True, (False, 1)])
@pytest.mark.parametrize("name", ["sum", "mean", "max"])
def test_axes_that_are_not_there(name, axis):
    with pytest.raises(ShapeError, match=f"{name}: axis .* of 3 axes"):
        getattr(leaf((2, 3, 4)), name)(axis)


def test_sums_over_nothing():
    x = leaf((0, 3))
    assert x.sum().item() == 0
    assert x.sum(axis=0).data.tolist() == [0, 0, 0]
    x.sum().backward()
    assert x.grad.shape == (0, 3)
    with pytest.raises(ShapeError, match=r"max: no elements along axis 0 of shape \(0, 3\)"):
        x.max(axis=0)


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 4), (4, 2)),
        ((4,), (4,)),
        ((4,), (4, 2)),
        ((3, 4), (4,)),
        ((2, 3, 4), (4, 2)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((2, 3, 4), (4,)),
        ((0, 4), (4, 2)),
    ],
)
def test_matrix_products(shapes):
    a, b = leaf(shapes[0], 1), leaf(shapes[1], 2)
    y = a @ b
    expected = np.asarray(a.data @ b.data)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.data, expected, rtol=1e-14)
    assert gradcheck(lambda a, b: a @ b, [a, b]).worst_error < 1e-8


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 4), (3, 4)),
        ((), (3,)),
        ((2, 3), (2,)),
        ((3,), (4, 3)),
        ((2, 3, 4), (3, 4, 2)),
    ],
)
def test_matrices_that_do_not_fit(shapes):
    with pytest.raises(ShapeError, match="matmul: the matrices must be"):
        leaf(shapes[0]) @ leaf(shapes[1])


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        (1, 2),
        (1, 2, 3),
        slice(None, None, 2),
        (slice(1, None), ..., 0),
        ...,
        None,
        (0, None, slice(None)),
        [0, 0, 1],
        np.array([[1, 0], [1, 1]]),
        (np.array([0, 1, 0]), np.array([2, 2, 2])),
        (slice(None), np.array([2, 0, 2])),
        Tensor(np.array([1, 1])),
        np.random.default_rng(0).random((2, 3, 4)) > 0.5,
        (0, np.array([True, False, True])),
        (),
        np.int64(1),
    ],
    ids=str,
)
def test_indices(index):
    x = leaf((2, 3, 4))
    plain = index.data if isinstance(index, Tensor) else index
    np.testing.assert_array_equal(x[index].data, x.data[plain])
    assert gradcheck(lambda x: x[index], x).worst_error < 1e-8


def test_an_index_that_changes_before_backward():
    x, index = leaf((3,)), np.array([0, 0])
    y = x[index]
    index[:] = 2
    y.sum().backward()
    assert x.grad.tolist() == [2, 0, 0]


def test_an_empty_index_chooses_nothing():
    for index in ([], ([], slice(1)), [[]]):
        x = leaf((2, 3))
        y = x[index]
        y.sum().backward()
        assert y.shape == x.data[index].shape
        assert not x.grad.any()


def test_an_index_that_is_not_there():
    for index in (3, (0, 9), 1.5, "a"):
        with pytest.raises(IndexError):
            leaf((2, 3))[index]


def test_iteration_and_membership():
    x = Tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    first, second = x
    (first * second).sum().backward()
    assert x.grad.tolist() == [[3, 4], [1, 2]]
    assert 3.0 in x
    assert 5.0 not in x
    with pytest.raises(ShapeError, match="nothing to iterate over"):
        list(x.sum())


@pytest.mark.parametrize("axes", [(), (None,), (1, 0, 2), ((2, 0, 1),), (-1, 0, 1), ([2, 1, 0],)])
def test_transpose(axes):
    x = leaf((2, 3, 4))
    np.testing.assert_array_equal(x.transpose(*axes).data, x.data.transpose(*axes))
    assert gradcheck(lambda x: x.transpose(*axes), x).worst_error < 1e-8
    np.testing.assert_array_equal(x.T.data, x.data.T)


@pytest.mark.parametrize("axes", [((),), (0, 1), (0, 0, 1), (0, 1, 3), ("a", 0, 1), (0.5, 1, 2)])
def test_transpose_with_other_axes(axes):
    with pytest.raises(ShapeError, match="transpose: "):
        leaf((2, 3, 4)).transpose(*axes)


@pytest.mark.parametrize("shape", [(6,), (3, 2), (-1,), (2, -1), ((3, 2),), ([3, 2],), (1, 6, 1)])
def test_reshape(shape):
    x = leaf((2, 3))
    np.testing.assert_array_equal(x.reshape(*shape).data, x.data.reshape(*shape))
    assert gradcheck(lambda x: x.reshape(*shape), x).worst_error < 1e-8


@pytest.mark.parametrize("shape", [(4, 2), (-1, -1), (1.5,), ("a",)])
def test_reshape_to_what_does_not_fit(shape):
    with pytest.raises(ShapeError, match="reshape: 6 elements"):
        leaf((2, 3)).reshape(*shape)


def test_comparisons_are_arrays():
    x = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
    for got, expected in (
        (x == 2, [False, True, False]),
        (x != 2, [True, False, True]),
        (x < 2, [True, False, False]),
        (x <= np.array([1.0, 1.0, 3.0]), [True, False, True]),
        (np.array([1.0, 5.0, 3.0]) > x, [False, True, False]),
        (x >= x, [True, True, True]),
        (x > 2, [False, False, True]),
    ):
        assert type(got) is np.ndarray
        assert got.tolist() == expected
    assert x[x > 1].data.tolist() == [2, 3]
    assert (x == None) is False  # noqa: E711
    assert x != "text"
    assert len({x, x, Tensor(1.0)}) == 2
    with pytest.raises(ShapeError, match=r"equal: shapes \(3,\) and \(2,\)"):
        x == np.ones(2)  # noqa: B015


def test_one_number_is_a_number():
    loss = Tensor(np.array([[2.5]]), requires_grad=True)
    assert float(loss) == loss.item() == 2.5
    assert int(loss) == 2
    assert f"{loss:.3f}" == "2.500"
    assert f"{loss}" == str(loss)
    assert loss
    assert not Tensor(0.0)
    assert max(Tensor(1.0), Tensor(2.0)).item() == 2
    for conversion in (float, int, bool, Tensor.item, "{:.3f}".format):
        with pytest.raises(ShapeError, match=r"shape \(2,\) is not a single number"):
            conversion(Tensor([1.0, 2.0]))


def test_the_arithmetic_of_micrograd():
    """The demo of https://github.com/karpathy/micrograd and the three numbers that it prints."""
    from igcnn.functional import relu

    a, b = (Tensor(np.array(v), requires_grad=True) for v in (-4.0, 2.0))
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + relu(b + a)
    d += 3 * d + relu(b - a)
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    assert f"{g:.4f} {a.grad:.4f} {b.grad:.4f}" == "24.7041 138.8338 645.5773"


@pytest.mark.parametrize("device", ["emu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x * 2 + 1 - x / (3 + x),
        lambda x: x**2 + x**0 + 2**x + x**x,
        lambda x: -x.exp() + x.log(),
        lambda x: x.sum(axis=1) + x.mean(axis=1, keepdims=True).sum(axis=1),
        lambda x: x.max(axis=0) * x.max(),
        lambda x: x.T @ x + (x @ x.T).sum(),
        lambda x: x[1:] * x[[0, 0]] + x[0, 1],
        lambda x: x.transpose(1, 0).reshape(-1)[::2],
    ],
)
def test_arithmetic_on_other_devices(operation, device):
    x = leaf((3, 4))
    there = Tensor(to_device(x.data, device), requires_grad=True)
    results = []
    for tensor in (x, there):
        y = operation(tensor)
        y.backward(np.arange(1.0, y.size + 1).reshape(y.shape))
        assert y.device == tensor.device
        results.append((y.numpy(), to_host(tensor.grad)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-14)
