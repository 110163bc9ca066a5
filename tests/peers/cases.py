"""A case of a peer's tests: what is called with what, and what must come out.

One of three things must: the value and the gradients of the reference, in float64; a refusal by a
rule of RULES; or the case asks for an argument or a function that igcnn does not offer, and is
counted without a call.
"""

import operator
import re
import zlib
from typing import Any, NamedTuple

import numpy as np

from igcnn import Tensor
from igcnn import functional as F
from igcnn.backend import to_device
from igcnn.errors import AutogradError, ConfigError, DtypeError, ShapeError

from . import references

STEP = 1e-6  # of the central differences
DIRECTIONS = 2  # at random, in which each input moves
FLOATS = ("float16",), ("float32",), ("float64",)
SMALL = 0, -0.001, 0.001, -0.25, 0.25, -1, 1, -np.pi / 2, np.pi / 2, -np.pi, np.pi
LARGE = -501, 501, -1001.2, 1001.2, -13437.7, 13437.7, -4988429.2, 4988429.2, -1e20, 1e20
EXTREME = np.inf, -np.inf, np.nan

RULES = {
    "element type": (DtypeError, r"float32 or (all )?float64|not numbers|gradient needs"),
    "(N, C, H, W)": (ShapeError, r"must be \(N, C, H, W\)"),
    "γ and β (C,)": (ShapeError, "gamma"),
    "momentum 0 to 1, ε ≥ 0": (ConfigError, "momentum|eps"),
    "channels and groups": (ShapeError, "do not divide|x has . channels|groups must"),
    "two whole numbers": (ShapeError, "stride|padding|kernel"),
    "padding < kernel": (ShapeError, "padding"),
    "same: stride 1, odd kernel": (ShapeError, "same"),
    "window in image": (ShapeError, "smaller than"),
    "logits (N, K)": (ShapeError, "logits must be"),
    "labels (N,)": (ShapeError, "labels"),
    "labels are integers": (DtypeError, "labels"),
    "labels in range": (ShapeError, "labels (must be|run) from"),
    "linear (N, I)": (ShapeError, "linear: x must be"),
    "shapes broadcast": (ShapeError, "do not broadcast"),
    "matrices": (ShapeError, "matrices must be"),
    "axes": (ShapeError, "axis|axes|are not the"),
    "elements fit": (ShapeError, "do not fit"),
    "index": (IndexError, ""),  # the class that Python asks of x[i]
    "no NumPy function": (AutogradError, "does not support tensors"),
}


class Case(NamedTuple):
    """One call.

    Attributes:
        peer: whose test it is.
        op: a key of OPERATIONS, or what the peer calls the function that is not offered.
        shapes: of the tensors.
        options: the other arguments.
        dtypes: of the tensors; one for all, or one each.
        layout: of the tensors in memory: C, F, L (channels last) or S (with gaps).
        draw: where the numbers come from, if not as the operation says.
        refused: the rule by which it is; several with | between them where several hold.
        missing: the argument or function that is not offered.
    """

    peer: str
    op: str
    shapes: tuple = ()
    options: dict = {}  # noqa: RUF012  (nobody changes it)
    dtypes: tuple = ("float64",)
    layout: str = "C"
    draw: str = ""
    refused: str = ""
    missing: str = ""

    @property
    def rules(self):
        """The rules by which it is refused, that of the element types among them."""
        dtypes = set(self.dtypes)
        mixed = len(dtypes) > 1 or not dtypes <= {"float32", "float64"}
        return self.refused.split("|") * bool(self.refused) + ["element type"] * mixed


class Operation(NamedTuple):
    """A function of igcnn, its reference, and where the numbers of its inputs come from."""

    function: Any
    reference: Any
    draw: str = "normal"


def _binary(operate, draw="normal"):
    """An operator for two tensors, or for one and a constant; and for arrays."""

    def function(a, b=None, constant=None, reverse=False):
        b = constant if b is None else b
        return operate(b, a) if reverse else operate(a, b)

    return Operation(function, function, draw)


def _method(name, draw="normal"):
    """A method of tensors and of arrays."""

    def function(x, arguments=(), **options):
        return getattr(x, name)(*arguments, **options)

    def reference(x, axis=None, **options):
        if axis is not None:
            options["axis"] = tuple(axis) if isinstance(axis, list) else axis
        return function(x, **options)

    return Operation(function, reference, draw)


def _statistics(C, dtype):
    return np.linspace(-1, 1, C).astype(dtype), np.linspace(0.5, 1.5, C).astype(dtype)


def _batch_norm(x, gamma, beta, training=True, momentum=0.9, eps=2e-5):
    """Call it, and hold what becomes of the running statistics against NumPy."""
    before = _statistics(x.shape[1] if x.ndim > 1 else 0, x.dtype)
    after = [to_device(s.copy(), x.device) for s in before]
    y = F.batch_norm(x, gamma, beta, *after, training, momentum, eps)
    values = x.numpy().astype(float)
    batch = values.mean(axis=(0, 2, 3)), values.var(axis=(0, 2, 3))
    for new, old, of_batch in zip(after, before, batch, strict=True):
        wanted = momentum * old + (1 - momentum) * of_batch if training else old
        np.testing.assert_allclose(np.asarray(new), wanted, rtol=1e-4, atol=1e-6)
    return y


def _batch_norm_reference(x, gamma, beta, training=True, momentum=0.9, eps=2e-5):
    statistics = () if training else _statistics(x.shape[1], float)
    return references.batch_norm(x, gamma, beta, *statistics, eps=eps)


OPERATIONS = {
    "conv2d": Operation(F.conv2d, references.convolution),
    "max_pool2d": Operation(F.max_pool2d, references.max_pool, "distinct"),
    "avg_pool2d": Operation(F.avg_pool2d, references.average_pool),
    "batch_norm": Operation(_batch_norm, _batch_norm_reference),
    "cross_entropy": Operation(F.cross_entropy, references.cross_entropy),
    "permute_channels": Operation(F.permute_channels, references.permute_channels),
    "linear": Operation(F.linear, lambda x, w, b=0: x @ w.T + b),
    "relu": Operation(F.relu, lambda x: np.maximum(x, 0)),
    "add": _binary(operator.add),
    "subtract": _binary(operator.sub),
    "multiply": _binary(operator.mul),
    "divide": _binary(operator.truediv, "positive"),
    "power": _binary(operator.pow, "positive"),
    "matmul": _binary(operator.matmul),
    "negative": Operation(operator.neg, operator.neg),
    "exp": Operation(np.exp, np.exp),
    "log": Operation(np.log, np.log, "positive"),
    "sum of several": Operation(lambda *x: sum(x), lambda *x: sum(x)),
    "sum": _method("sum"),
    "mean": _method("mean"),
    "max": _method("max", "distinct"),
    "reshape": _method("reshape"),
    "transpose": _method("transpose"),
    "getitem": Operation(lambda x, index: x[index], lambda x, index: x[index]),
    "astype": _method("astype"),
    "np.sum": Operation(np.sum, np.sum),
}
ON_DEVICE = "conv2d max_pool2d avg_pool2d batch_norm cross_entropy permute_channels linear relu"
FORWARD_ONLY = {"small", "large", "extreme"}  # differences say nothing there


def inputs_of(case, rng):
    """Return the arrays of a case, in float64, with numbers that its element types have."""
    draw = case.draw or OPERATIONS[case.op].draw
    if draw in FORWARD_ONLY:
        numbers = {"small": SMALL, "large": LARGE, "extreme": EXTREME}[draw]
        return [a.ravel() for a in np.meshgrid(numbers, numbers)]
    arrays = []
    for shape in case.shapes:
        if draw == "distinct":  # no ties, and no kinks within the step
            array = rng.permutation(np.prod(shape, dtype=int)).reshape(shape) / 8.0
        elif draw in ("positive", "negative"):
            array = rng.uniform(0.5, 1.5, shape) * (-1 if draw == "negative" else 1)
        elif draw == "whole":
            array = rng.integers(-1, 2, shape)
        else:
            array = rng.standard_normal(shape)
        arrays.append(np.asarray(array).astype(np.float32).astype(float))
    return arrays


def laid_out(array, layout):
    """Return an equal array with that order in memory."""
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "L" and array.ndim == 4:
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "S" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return array.copy()


def tensors_of(case, arrays, dtypes, device="cpu", requires_grad=True):
    """Return the inputs as tensors."""
    dtypes = dtypes * (1 if len(dtypes) > 1 else len(arrays))
    data = [laid_out(a.astype(d), case.layout) for a, d in zip(arrays, dtypes, strict=True)]
    return [Tensor(to_device(a, device), requires_grad) for a in data]


def apply(case, arrays, gy, dtype, device="cpu"):
    """Return value and gradients by igcnn, after checking their shapes and element types."""
    tensors = tensors_of(case, arrays, (dtype,), device)
    options = dict(case.options)
    if isinstance(options.get("constant"), np.ndarray):
        options["constant"] = options["constant"].astype(dtype)
    y = OPERATIONS[case.op].function(*tensors, **options)
    assert y.dtype == dtype or case.op == "astype", f"the result is {y.dtype}"
    assert y.shape == gy.shape, f"the result has shape {y.shape}, not {gy.shape}"
    y.backward(gy.astype(y.dtype))
    for x, array in zip(tensors, arrays, strict=True):
        assert x.grad.shape == array.shape, f"a gradient has shape {x.grad.shape}"
        assert x.grad.dtype == dtype, f"a gradient is {x.grad.dtype}"
    return [y.numpy(), *(np.asarray(x.grad) for x in tensors)]


def run(case, device="cpu"):
    """Run a case; raise unless its outcome is the one that it must have."""
    if case.missing:
        return
    rng = np.random.default_rng(zlib.crc32(repr(case).encode()))
    with np.errstate(all="ignore"):
        arrays = inputs_of(case, rng)
        if case.rules:
            refuse(case, arrays, device)
        else:
            agree(case, arrays, rng, device)


def refuse(case, arrays, device):
    """Expect the error of one of the rules of a case."""
    rules = [RULES[rule] for rule in case.rules]
    try:
        tensors = tensors_of(case, arrays, case.dtypes, device, requires_grad=False)
        y = OPERATIONS[case.op].function(*tensors, **case.options)
    except tuple({kind for kind, _ in rules}) as error:
        if not any(isinstance(error, k) and re.search(p, str(error)) for k, p in rules):
            raise
        return
    raise AssertionError(f"not refused by {case.rules}, but a result of shape {y.shape}")


def agree(case, arrays, rng, device):
    """Compare value and gradients with the reference."""
    reference = OPERATIONS[case.op].reference
    wanted = np.asarray(reference(*arrays, **case.options))
    gy = rng.standard_normal(wanted.shape)
    y, *gradients = exact = apply(case, arrays, gy, "float64")
    np.testing.assert_allclose(y, wanted, rtol=1e-11, atol=1e-11)
    for position, gradient in enumerate(gradients * (case.draw not in FORWARD_ONLY)):
        for _ in range(DIRECTIONS):
            direction = rng.standard_normal(gradient.shape)
            ends = []
            for step in (STEP, -STEP):
                moved = list(arrays)
                moved[position] = moved[position] + step * direction
                ends.append(np.asarray(reference(*moved, **case.options)))
            numeric = np.sum(gy * (ends[0] - ends[1])) / (2 * STEP)
            analytic = np.sum(gradient * direction)
            bound = 1e-8 * np.abs(gy * wanted).sum() + 1e-7 * np.abs(gradient * direction).sum()
            assert abs(numeric - analytic) <= bound + 1e-9, (
                f"the gradient of input {position} gives {analytic}, differences {numeric}"
            )
    if case.dtypes == ("float32",) or device != "cpu":
        for single, double in zip(apply(case, arrays, gy, "float32", device), exact, strict=True):
            scale = max(1, np.abs(double).max(initial=0))
            np.testing.assert_allclose(single, double, rtol=0, atol=2e-5 * scale)
