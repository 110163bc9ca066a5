"""Which arrays become tensors, which operands mix, which results and gradients are refused."""

import copy
import pickle

import numpy as np
import pytest

from igcnn import Tensor
from igcnn import functional as F
from igcnn.autograd import Function
from igcnn.backend import to_device
from igcnn.errors import AutogradError, DeviceError, DtypeError, ShapeError


def leaf(*numbers, dtype=np.float64):
    return Tensor(np.array(numbers, dtype), requires_grad=True)


BINARY = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "power": lambda a, b: a**b,
    "matmul": lambda a, b: a @ b,
}


@pytest.mark.parametrize("name", BINARY)
def test_arrays_mix_from_either_side(name):
    a, t = np.array([4.0, 5.0]), leaf(1.0, 2.0)
    for y, expected in (
        (BINARY[name](a, t), BINARY[name](a, t.data)),
        (BINARY[name](t, a), BINARY[name](t.data, a)),
        (getattr(np, name)(a, t), BINARY[name](a, t.data)),
    ):
        assert isinstance(y, Tensor)
        assert y.requires_grad
        np.testing.assert_array_equal(y.numpy(), expected)


@pytest.mark.parametrize("number", [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_take_the_type_of_the_tensor(number, dtype):
    t = leaf(1.0, 2.0, dtype=dtype)
    for y in (t * number, number * t, t + number, number - t, t**number, number**t, t / number):
        assert y.dtype == dtype
    assert (t * [3, 4]).dtype == dtype


def test_numpy_functions_that_have_a_backward_are_taken_and_others_refused():
    t = leaf(1.0, 2.0)
    for function in (np.exp, np.log, np.negative):
        y = function(t)
        assert isinstance(y, Tensor)
        np.testing.assert_array_equal(y.numpy(), function(t.data))
    for call in (np.sin, np.mean, np.sum, np.ones_like, lambda t: np.stack([t, t]), np.add.reduce):
        with pytest.raises(AutogradError, match=r"does not support tensors; pass x\.numpy"):
            call(t)
    array = np.ones(2)
    with pytest.raises(AutogradError, match="does not support tensors"):
        array += t
    assert array.tolist() == [1, 1]
    assert np.asarray(t).dtype == np.float64
    assert np.asarray(t, np.float32).tolist() == [1, 2]
    np.testing.assert_allclose(t, [1, 2])


@pytest.mark.parametrize(
    "operand",
    [np.ones(2, np.float32), np.arange(2), Tensor([1.0, 2.0])],
    ids=["float32", "integers", "tensor"],
)
@pytest.mark.parametrize("name", BINARY)
def test_arrays_of_another_type_do_not_mix(name, operand):
    for a, b in ((leaf(1.0, 2.0), operand), (operand, leaf(1.0, 2.0))):
        with pytest.raises(DtypeError, match=f"{name}: arguments must all be float32 or all"):
            BINARY[name](a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mask_takes_the_type_of_the_tensor(dtype):
    x = leaf(-1.0, 2.0, dtype=dtype)
    for y in (x * (x > 0), (x > 0) * x, x * np.array([False, True])):
        assert y.dtype == dtype
        assert y.data.tolist() == [0, 2]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1]


def test_integers_are_held_but_not_computed_with():
    t = Tensor(np.array([1, 2, 3]))
    assert t.dtype == np.int64
    for operation in (lambda: t * 0.5, lambda: 0.5 * t, lambda: -t, t.sum, t.mean, t.exp, t.max):
        with pytest.raises(DtypeError, match=r"float32 or all float64, not int64.*astype"):
            operation()
    assert (t.astype("float32") * 0.5).data.tolist() == [0.5, 1, 1.5]
    assert t[1].item() == 2
    assert t.reshape(3, 1).shape == (3, 1)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (None, DtypeError, "NoneType: not numbers"),
        ([1.0, None], DtypeError, "an array of object: not numbers"),
        ("text", DtypeError, "not numbers"),
        (["a", "b"], DtypeError, "not numbers"),
        (1j, DtypeError, "not numbers"),
        (np.ones(2, complex), DtypeError, "an array of complex128: not numbers"),
        (np.array([object()]), DtypeError, "not numbers"),
        (np.array(["2026-01-01"], "M8[D]"), DtypeError, "not numbers"),
        (np.zeros(2, [("x", float)]), DtypeError, "not numbers"),
        ({}, DtypeError, "not numbers"),
        ([[1.0], [2.0, 3.0]], ShapeError, "rows have different lengths"),
        ([1e300], DtypeError, "too large for float32; give float64"),
        (1e39, DtypeError, "too large for float32"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), DtypeError, "masked"),
        ([Tensor(1.0), Tensor(2.0)], AutogradError, "a tensor of tensors loses their graph"),
        (Tensor(1.0), AutogradError, "a tensor of tensors loses their graph"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        Tensor(data)
    if "too large" not in message and not isinstance(data, Tensor):
        with pytest.raises((DtypeError, ShapeError, AutogradError)):
            leaf(1.0) * data


def test_a_number_that_the_type_of_the_tensor_cannot_hold_is_refused():
    with pytest.raises(DtypeError, match="too large for float32"):
        Tensor([1.0]) * 1e300
    assert (leaf(1.0) * 1e300).item() == 1e300
    assert np.isinf((Tensor([1.0]) * np.inf).item())


def test_subclasses_and_foreign_arrays_are_read_as_plain_arrays(tmp_path):
    values = np.random.default_rng(0).standard_normal((2, 3, 5, 5))
    np.save(tmp_path / "x.npy", values)

    class Foreign:
        def __array__(self, dtype=None, copy=None):
            return np.array(values, dtype)

    class Subclass(np.ndarray):
        pass

    for data in (
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        values.view(np.recarray),
        values.view(Subclass),
        values.astype(">f8"),
        Foreign(),
    ):
        x = Tensor(data)
        assert type(x.data) is np.ndarray
        assert x.dtype == np.float64
        assert x.data.dtype.isnative
        np.testing.assert_array_equal(F.relu(x).data, np.maximum(values, 0))


def unaligned(a):
    view = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda a: a[::-1].copy()[::-1],
        lambda a: np.repeat(a, 2, -1)[..., ::2],
        read_only,
        unaligned,
        lambda a: a.astype(">f8"),
    ],
    ids=["Fortran", "reversed", "every second", "read only", "unaligned", "big-endian"],
)
def test_any_layout_in_memory_gives_the_same_values_and_gradients(layout):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 6, 5)), rng.standard_normal((6, 2, 3, 3))
    results = []
    for lay in (np.array, layout):
        a, b = Tensor(lay(x), requires_grad=True), Tensor(lay(w), requires_grad=True)
        y = F.conv2d(a, b, stride=2, padding=1, groups=2)
        y.sum().backward()
        results.append((y.data, a.grad, b.grad))
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


def test_an_array_is_kept_as_it_is():
    array = np.arange(6.0)[::-2]
    assert Tensor(array).data is array


@pytest.mark.parametrize("device", ["cpu", "emu"])
def test_arrays_without_axes_stay_arrays(device):
    x = Tensor(to_device(np.array(3.0), device), requires_grad=True)
    for y in (x * 2, x + x, x**2, x.exp(), x.log(), x.sum(), x.max(), x / 3, -x, x.mean()):
        assert isinstance(y.data, np.ndarray)
        assert y.device == device
        assert y.shape == ()
    (x * x + x * 3).backward()
    (x * 2).backward()
    assert isinstance(x.grad, np.ndarray)
    assert x.grad.shape == ()
    assert x.grad == 11
    row = Tensor(to_device(np.array([3.0, 4.0]), device), requires_grad=True)
    for y in (row[0], row.sum(), row.max(), row @ row, row.mean()):
        assert isinstance(y.data, np.ndarray)
        assert y.device == device


@pytest.mark.parametrize(
    "shapes", [((1, 3), (0, 3)), ((0, 1), (1, 3)), ((), (0,)), ((2, 0), (0,))]
)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "power"])
def test_empty_arrays_broadcast_and_differentiate(name, shapes):
    a, b = (Tensor(np.ones(shape), requires_grad=True) for shape in shapes)
    y = BINARY[name](a, b)
    assert y.shape == np.broadcast_shapes(*shapes)
    y.backward(np.ones(y.shape))
    for x in (a, b):
        np.testing.assert_array_equal(x.grad, np.zeros(x.shape))


def test_inputs_on_different_devices_are_refused():
    cpu = Tensor(np.ones((1, 1, 5, 5), np.float32))
    emu = Tensor(to_device(np.ones((1, 1, 5, 5), np.float32), "emu"))
    for operation in (
        lambda: F.conv2d(cpu, emu),
        lambda: F.add(cpu, emu),
        lambda: cpu * emu,
        lambda: emu + cpu.data,
    ):
        with pytest.raises(DeviceError, match="must all be on one device, not on cpu and emu"):
            operation()
    assert (emu * 2 + [1.0]).device == "emu"


def identity(forward=lambda x: x, backward=lambda gy: (gy,)):
    """A function of one input that does as it is told."""
    function = Function()
    function.name = "told"
    function.forward = forward
    function.backward = backward
    return function


@pytest.mark.parametrize(
    "returned", [lambda x: (x, x), lambda x: None, lambda x: [x], lambda x: 1.0, Tensor]
)
def test_forward_returns_one_array(returned):
    with pytest.raises(AutogradError, match=r"forward of told returned .*; a Function returns"):
        identity(returned)(leaf(1.0, 2.0))


def test_forward_returns_float32_or_float64():
    for dtype in ("float16", "longdouble"):
        with pytest.raises(DtypeError, match="not float32 or float64"):
            identity(lambda x, dtype=dtype: x.astype(dtype))(leaf(1.0))
    y = identity(lambda x: x.argmax(keepdims=True))(leaf(1.0, 2.0))
    assert not y.requires_grad  # integers have no gradient
    assert identity(lambda x: x.sum())(leaf(1.0, 2.0)).data.shape == ()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda gy: gy, "no tuple of gradients for 1 inputs"),
        (lambda gy: (gy, gy), "2 gradients for 1 inputs"),
        (lambda gy: (gy.astype(np.float32),), "type float32 for input 0"),
        (lambda gy: ([1.0, 2.0],), r"returned \[1.0, 2.0\] for input 0"),
        (lambda gy: (Tensor(gy),), "returned Tensor"),
        (lambda gy: (gy[:1],), r"shape \(1,\)"),
    ],
)
def test_backward_returns_one_gradient_of_its_type_for_each_input(returned, message):
    y = identity(backward=returned)(leaf(1.0, 2.0))
    with pytest.raises(AutogradError, match=message):
        y.backward(np.ones(2))


def test_the_first_gradient_has_the_type_and_shape_of_the_tensor():
    for gradient, error in (
        (np.ones(2, np.float32), DtypeError),
        (np.ones(2, int), DtypeError),
        (np.ones(3), ShapeError),
        (1.0, ShapeError),
        ("ab", DtypeError),
    ):
        with pytest.raises(error):
            (leaf(1.0, 2.0) * 2).backward(gradient)
    x = leaf(1.0, 2.0)
    (x * 2).backward([1, 10])
    (x * 2).backward(Tensor(np.array([1.0, 1.0])))
    assert x.grad.tolist() == [4, 22]


def test_astype_is_on_the_tape():
    x = leaf(1.0, 2.0)
    y = x.astype("float32")
    assert y.dtype == np.float32
    (y * y).sum().backward()
    assert x.grad.dtype == np.float64
    assert x.grad.tolist() == [2, 4]
    assert not x.astype(int).requires_grad
    for dtype in ("float16", "text", complex, object):
        with pytest.raises(DtypeError):
            x.astype(dtype)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_leaves_can_be_copied_and_results_not(duplicate):
    x = Tensor([1.0, 2.0], requires_grad=True, name="x")
    x.grad = np.ones(2, np.float32)
    y = duplicate(x)
    assert (y.name, y.requires_grad, y.record) == ("x", True, None)
    assert y.data.tolist() == [1, 2]
    assert y.grad.tolist() == [1, 1]
    assert (y.data is x.data) == (duplicate is copy.copy)
    with pytest.raises(AutogradError, match=r"result of multiply cannot.*use x\.detach"):
        duplicate(x * 2)
    assert duplicate((x * 2).detach()).data.tolist() == [2, 4]
