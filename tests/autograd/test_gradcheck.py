"""gradcheck: passes what is right, names what is wrong, leaves everything as it was."""

import functools

import numpy as np
import pytest

from igcnn import Tensor, gradcheck, no_grad
from igcnn.autograd import Function, error_curve
from igcnn.errors import AutogradError, ConfigError, DtypeError
from igcnn.functional import max_pool2d, relu
from igcnn.layers import BatchNorm, Layer, Linear

RNG = np.random.default_rng(0)


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


def leaf(values):
    return Tensor(np.array(values, float), requires_grad=True)


def elementwise(f, derivative):
    """An operation of NumPy functions."""

    class Elementwise(Function):
        def forward(self, x):
            self.save(x)
            return f(x)

        def backward(self, gy):
            (x,) = self.saved()
            return (derivative(x) * gy,)

    return lambda x: Elementwise()(x)


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


# -- sizes

X = RNG.standard_normal(20)
SMALL = 1e-7 * np.abs(X)
RIGHT = {
    "small outputs": (lambda x: 1e-7 * x * x, lambda x: 2e-7 * x, X),
    "smaller outputs": (lambda x: 1e-12 * np.sin(x), lambda x: 1e-12 * np.cos(x), X),
    "large outputs": (lambda x: 1e8 * np.exp(x), lambda x: 1e8 * np.exp(x), X),
    "small inputs": (np.sqrt, lambda x: 0.5 / np.sqrt(x), SMALL),
    "large inputs": (np.sin, np.cos, 1e4 * X),
    "inputs of all sizes": (np.log, lambda x: 1 / x, [1e-6, 1e-3, 1, 10, 1e8]),
    "steep": (lambda x: np.sin(1e4 * x), lambda x: 1e4 * np.cos(1e4 * x), X),
    "flat places": (lambda x: x**3, lambda x: 3 * x * x, [0, 1e-8, 1e-3, 1]),
    "extrema": (np.cos, lambda x: -np.sin(x), [0, 1e-9, 1e-5, np.pi]),
    "an offset": (lambda x: 1e6 + x, np.ones_like, X),
    "cancellation": (lambda x: (x + 1e6) - 1e6, np.ones_like, X),
    "elements of all sizes": (
        lambda x: x * [1, 1e-8, 1e-15],
        lambda x: np.array([1, 1e-8, 1e-15]),
        [1, 1, 1],
    ),
    "infinite results": (lambda x: np.where(x > 1, np.inf, x), lambda x: x <= 1.0, [0.5, 2]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_rounding_is_no_error_at_any_size(name):
    f, derivative, x = RIGHT[name]
    assert gradcheck(elementwise(f, derivative), leaf(x)).worst_error < 1e-6


@pytest.mark.parametrize("name", [name for name in RIGHT if name != "infinite results"])
@pytest.mark.parametrize("factor", [0, 1.02])
def test_a_wrong_gradient_is_found_at_any_size(name, factor):
    f, derivative, x = RIGHT[name]
    wrong = elementwise(f, lambda x: factor * derivative(x))
    report = gradcheck(wrong, leaf(x), raise_exception=False)
    assert not report
    # half of the way may be what rounding explains
    assert report.worst_error > 0.5 * abs(1 - factor) / max(1, factor)


def test_each_input_and_element_is_measured_by_itself():
    class Product(Function):
        def forward(self, x, y):
            return x.sum() + 1e-9 * y.sum()

        def backward(self, gy):
            return gy * np.ones(3), 0 * gy * np.ones(3)

    report = gradcheck(
        lambda x, y: Product()(x, y), [leaf(X[:3]), leaf(X[3:6])], raise_exception=False
    )
    assert (report.passed, report.worst_input) == (False, 1)


@pytest.mark.parametrize("mean", [0, 5, 1e3, 1e6])
def test_batch_norm_far_from_zero(mean):
    x = leaf(RNG.standard_normal((3, 2, 2, 2)) + mean)
    assert gradcheck(BatchNorm(2, dtype="float64"), x)


# -- kinks

STEP = (lambda x: (x > 0) * 1.0, np.zeros_like)
RELU = (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0)
LEAKY = (lambda x: np.where(x > 0, x, 0.99 * x), lambda x: np.where(x > 0, 1, 0.99))
ROOT = (lambda x: np.sqrt(np.maximum(x, 0)), lambda x: 0.5 / np.sqrt(np.maximum(x, 1e-300)))
ABOVE = [1e-8, 1e-7, 1.65e-6, -1e-6, 3e-6, -9e-6, 1]


@pytest.mark.parametrize("operation", [RELU, LEAKY, STEP, (np.abs, np.sign)])
def test_close_to_a_kink_a_shorter_step_decides(operation):
    report = gradcheck(elementwise(*operation), leaf(ABOVE))
    assert report.kinks == 0
    if operation is not STEP:
        f, derivative = operation
        wrong = elementwise(f, lambda x: derivative(x) * 1.01)
        report = gradcheck(wrong, leaf([1e-7, -1e-7, 1]), raise_exception=False)
        assert report.worst_error == pytest.approx(0.01 / 1.01, rel=0.1)


@pytest.mark.parametrize("operation", [RELU, LEAKY, STEP, ROOT, (np.sign, np.zeros_like)])
def test_a_kink_is_no_wrong_gradient(operation):
    x = leaf([0, 1])
    with pytest.raises(
        AutogradError, match=r"not differentiable at 1 of 2 .* input 0\[0\]: the sl"
    ):
        gradcheck(elementwise(*operation), x)
    report = gradcheck(elementwise(*operation), x, raise_exception=False)
    assert report
    assert (report.kinks, report.elements) == (1, 2)
    assert "not differentiable at 1, as input 0[0]" in str(report)


def test_a_number_beyond_the_slopes_of_a_kink_or_away_from_it_is_wrong():
    f, derivative = RELU
    for error, index in ((lambda x: 5.0 * (x == 0), 0), (lambda x: 0.01 * (x == 1), 1)):
        operation = elementwise(f, lambda x, error=error: derivative(x) + error(x))
        with pytest.raises(AutogradError, match="gradcheck failed"):
            gradcheck(operation, leaf([0, 1]))
        assert gradcheck(operation, leaf([0, 1]), raise_exception=False).worst_index == (index,)


def test_ties_in_max_pooling_are_kinks():
    x = leaf(np.zeros((1, 1, 4, 4)))
    assert gradcheck(lambda x: max_pool2d(x, 2), x, raise_exception=False).kinks == 16
    with pytest.raises(AutogradError, match="not differentiable"):
        gradcheck(relu, leaf([0, 1]))


# -- functions that cannot be checked


def test_a_random_function_is_told_from_a_wrong_gradient():
    rng = np.random.default_rng(0)
    for f in (
        lambda x: x * rng.standard_normal((2, 3)),
        lambda x: x * (rng.random((2, 3)) > 0.1),
        lambda x: x + 1e-9 * rng.random((2, 3)),
        lambda x: x.reshape(6) if rng.random() > 0.5 else x,
    ):
        with pytest.raises(AutogradError, match="different results for the same inputs"):
            gradcheck(f, inputs(), raise_exception=False)


def test_a_random_backward_is_told_too():
    class Noisy(Function):
        def forward(self, x):
            return x * 1.0

        def backward(self, gy):
            return (gy * RNG.random(gy.shape),)

    with pytest.raises(AutogradError, match="different gradients for the same inputs"):
        gradcheck(lambda x: Noisy()(x), inputs())


def test_a_function_that_becomes_random_later_is_told():
    calls = []

    def f(x):
        calls.append(x)
        return x * (1.0 if len(calls) < 10 else 2.0)

    with pytest.raises(AutogradError, match="different results"):
        gradcheck(f, inputs())


def change(x):
    x.data += 1
    return x * 1.0


def within_no_grad(x):
    with no_grad():
        return x * 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (x, x * 2), "a tuple of 2, not one tensor"),
        (lambda x: [x * 2], "a list of 1, not one tensor"),
        (lambda x: None, "NoneType, not one tensor"),
        (lambda x: x.data * 2, "ndarray, not one tensor"),
        (lambda x: Tensor(x.data * 2), "depends on no input"),
        (lambda x: Tensor(np.ones(3)), "depends on no input"),
        (within_no_grad, "depends on no input"),
        (change, "changes its input 0 in place"),
        (lambda x: x.reshape(6) if x.data[0, 0] > 0.12573022 else x, "the shape of the result"),
    ],
)
def test_a_function_that_is_none_is_refused(function, message):
    x = inputs()
    before = x.data.copy()
    with pytest.raises(AutogradError, match=message):
        gradcheck(function, x)
    np.testing.assert_array_equal(x.data, before)
    assert x.grad is None


def test_bad_arguments():
    with pytest.raises(DtypeError, match="input 0 is float32, but differences need float64"):
        gradcheck(lambda x: x * 2, Tensor([1.0], requires_grad=True))
    with pytest.raises(AutogradError, match="no input requires a gradient"):
        gradcheck(lambda x: x * 2, Tensor(np.ones(3)))
    with pytest.raises(AutogradError, match="input 1 is ndarray, not a tensor"):
        gradcheck(lambda x, y: x * y, [inputs(), np.ones(3)])
    with pytest.raises(AutogradError, match="input 0 is the result of multiply; pass"):
        gradcheck(lambda x: x * 2, inputs() * 2)
    with no_grad(), pytest.raises(AutogradError, match=r"outside no_grad\(\)"):
        gradcheck(lambda x: x * 2, inputs())
    single = elementwise(lambda x: x.astype(np.float32), np.ones_like)
    with pytest.raises(DtypeError, match="the result is float32"):
        gradcheck(single, inputs())
    for name in ("step", "tolerance", "elements"):
        for value in (0, -1, *([] if name == "elements" else [np.nan, np.inf])):
            with pytest.raises(ConfigError, match=f"gradcheck: {name} must be"):
                gradcheck(lambda x: x * 2, inputs(), **{name: value})


# -- inputs


@pytest.mark.parametrize(
    "array",
    [
        np.broadcast_to(2.0, (3,)),
        np.broadcast_to(np.arange(3.0), (2, 3)),
        np.frombuffer(np.arange(4.0).tobytes()),
        np.arange(6.0).reshape(2, 3).T,
        np.arange(6.0)[::-1],
        np.arange(12.0)[::2],
        np.array(0.3),
        np.zeros((0, 3)),
    ],
)
def test_inputs_of_every_layout_are_left_as_they_were(array):
    x = Tensor(array, requires_grad=True)
    before = array.copy()
    assert gradcheck(lambda x: x * x * x, x).elements == x.size
    assert x.data is array
    np.testing.assert_array_equal(array, before)


def test_a_view_of_the_input_is_no_obstacle():
    assert gradcheck(lambda x: x.reshape(3, 2), inputs()).worst_error < 1e-8
    assert gradcheck(lambda x: x, inputs())


def test_one_tensor_as_two_inputs():
    x = inputs()
    assert gradcheck(lambda x, y: x * y, [x, x]).elements == 12


def test_inputs_of_one_array_are_checked_each():
    x = inputs()
    y = Tensor(x.data, requires_grad=True)
    assert gradcheck(lambda x, y: x * x * y, [x, y])


# -- what is left as it was


class Counting(Layer):
    """Counts its calls, and lets a buffer follow its input."""

    def __init__(self):
        self.bn = BatchNorm(2, dtype="float64")
        self.calls = 0
        self.mean = self.add_buffer("mean", np.zeros(2))
        self.seen = self.add_buffer("seen", np.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.seen[...] += 1
        self.mean = self.mean + x.data.mean()
        self.eval() if self.calls > 100 else self.train()
        return self.bn(x)


GLOBAL = Counting()


def forms(layer):
    """Ways to check a layer."""

    def by_default(x, layer=layer):
        return layer(x)

    return {
        "layer": layer,
        "method": layer.forward,
        "closure": lambda x: layer(x),
        "default": by_default,
        "global": lambda x: GLOBAL(x),
    }


@pytest.mark.parametrize("form", ["layer", "method", "closure", "default", "global"])
@pytest.mark.parametrize("fails", [False, True])
def test_layers_and_gradients_are_left_as_they_were(form, fails):
    layer = GLOBAL if form == "global" else Counting()
    x = leaf(RNG.standard_normal((3, 2, 2, 2)) + 5)
    gradients = [np.ones(p.shape) for p in (x, *layer.parameters())]
    for p, gradient in zip((x, *layer.parameters()), gradients, strict=True):
        p.grad = gradient
    state, attributes = layer.state_dict(), vars(layer).copy()
    calls = []

    def progress(done, total):
        calls.append((done, total))
        if fails and done == 5:
            raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            gradcheck(forms(layer)[form], x, progress=progress)
    else:
        assert gradcheck(forms(layer)[form], x, progress=progress)
        assert calls == [(i, 24) for i in range(1, 25)]
    assert vars(layer) == attributes
    np.testing.assert_equal(layer.state_dict(), state)
    for p, gradient in zip((x, *layer.parameters()), gradients, strict=True):
        assert p.grad is gradient
        np.testing.assert_array_equal(gradient, 1)
    assert x.requires_grad


@pytest.mark.parametrize("wrapped", [functools.partial, lambda f: {"f": f}["f"]])
def test_running_statistics_are_found_wherever_the_layer_is(wrapped):
    """By the arrays that the operations hold: nobody can see the layer within a partial."""
    layer = BatchNorm(2, dtype="float64")
    kept = {"layer": layer}
    function = wrapped(lambda x: kept["layer"](x))
    for mode in (True, False):
        layer.train(mode)
        assert gradcheck(function, leaf(RNG.standard_normal((3, 2, 2, 2)) + 5))
        assert not layer.moving_mean.any()
        np.testing.assert_array_equal(layer.moving_var, 1)
        assert layer.training is mode
        assert layer.gamma.grad is None


def test_a_function_that_raises_leaves_all_as_it_was():
    layer = BatchNorm(2, dtype="float64")
    calls = []

    def fail(x):
        calls.append(x)
        y = layer(x)
        x.requires_grad = len(calls) < 4
        if len(calls) > 4:
            raise KeyError
        return y

    x = leaf(RNG.standard_normal((3, 2, 2, 2)) + 5)
    data, before = x.data, x.data.copy()
    with pytest.raises(KeyError):
        gradcheck(fail, x)
    assert x.data is data
    np.testing.assert_array_equal(data, before)
    assert (x.grad, x.requires_grad, layer.gamma.grad) == (None, True, None)
    assert not layer.moving_mean.any()


def test_parameters_are_inputs_that_the_function_need_not_take():
    layer = Linear(3, 2, rng=np.random.default_rng(0), dtype="float64")
    report = gradcheck(lambda *_: layer(X[:6].reshape(2, 3)), layer.parameters(), elements=2)
    assert report.elements == 4
    assert layer.weight.grad is None


def test_the_error_curve_is_relative_and_leaves_no_trace():
    layer = BatchNorm(2, dtype="float64")
    x = leaf(RNG.standard_normal((3, 2, 2, 2)))
    report = gradcheck(layer, x)
    errors = error_curve(layer, [x], report, [1e-1, 1e-3, 1e-5, 1e-13])
    assert errors[0] > errors[1] > errors[2] < errors[3]
    assert not layer.moving_mean.any()
    assert x.grad is None
