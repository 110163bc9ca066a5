"""gradcheck: compare a backward pass with differences of the function, every element, in float64.

The function's output is multiplied by a random cotangent g, not by ones: the gradient of a plain
sum is zero through batch norm or softmax whatever backward does, and so would check nothing. With
F = Σ g·f a derivative is

    D(h) = (F(x + h) − F(x − h)) / 2h       wrong by h²·F‴/6, and by ε·|g·f|/h of rounding

Where it is not the analytic one, shorter steps h/16, h/256, … decide. Where F is smooth the
slopes to both sides, (F(x + h) − F(x))/h and (F(x) − F(x − h))/h, approach each other as h does
0, and the best D is the one that the next shorter step changes least. Where they stay apart F is
not differentiable, as ReLU at 0: there is no gradient to be right or wrong.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..backend import is_array, to_device, to_host
from ..errors import AutogradError, ConfigError, DtypeError
from .function import Function, Tensor
from .hooks import Hook
from .no_grad import no_grad
from .tape import Tape

Array = np.ndarray

RUNGS = 5  # shorter steps to try where the first does not agree
SHORTER = 16  # so many times, each
LEAP = 1e8  # of the function at one place, in units of rounding, at least
ROUNDING = 16 * float(np.finfo(np.float64).eps)  # of a result, relative to it, at most
SAME = 1e-12  # two results of the same inputs, relative to the largest element


@dataclass(frozen=True)
class GradcheckReport:
    """The outcome of a gradient check; true in a condition if it passed.

    Attributes:
        passed: whether `worst_error` is within `tolerance`.
        worst_error: largest `|analytic − numeric|` beyond what rounding explains, relative to the
            larger of the two.
        worst_input: position of the input where it occurs.
        worst_index: index of the element within that input.
        analytic: what backward says there.
        numeric: what the difference says there.
        elements: how many elements were compared.
        tolerance: the largest error that passes.
        kinks: at how many of the elements the function is not differentiable; backward gave a
            number between the slopes to both sides there.
        first_kink: where the first of them is, and the slopes; empty if there is none.
    """

    passed: bool
    worst_error: float
    worst_input: int
    worst_index: tuple[int, ...]
    analytic: float
    numeric: float
    elements: int
    tolerance: float
    kinks: int = 0
    first_kink: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        kinks = f"; not differentiable at {self.kinks}, as {self.first_kink}" if self.kinks else ""
        return (
            f"gradcheck {'passed' if self.passed else 'failed'}: {self.elements} elements, "
            f"worst error {self.worst_error:.1e} (tolerance {self.tolerance:.0e}) at input "
            f"{self.worst_input}{list(self.worst_index)}: analytic {self.analytic:.9g}, "
            f"numeric {self.numeric:.9g}{kinks}"
        )


def gradcheck(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor] | Tensor,
    *,
    step: float = 1e-5,
    tolerance: float = 1e-6,
    seed: int = 0,
    elements: int | None = None,
    raise_exception: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> GradcheckReport:
    """Check the gradient of `function` at `inputs`, element by element.

    Inputs, gradients and running statistics are left as they were, whatever happens: the function
    is given copies of the arrays, and the arrays that operations hold and the attributes of
    layers that `function` is, belongs to or refers to are restored after each evaluation.

    Args:
        function: takes the inputs, returns one float64 tensor; must give the same result each
            time.
        inputs: tensors; those that require a gradient are checked and must be float64.
        step: half the distance of the central difference, relative to the element or, if that
            is larger, to the typical element of the input, up to 1.
        tolerance: the largest error that passes.
        seed: of the random cotangent, and of the choice of elements.
        elements: how many of each input to check, chosen at random; None for all.
        raise_exception: raise where a gradient is wrong, or the function not differentiable,
            instead of returning the report.
        progress: called with the numbers of elements done and of all.

    Raises:
        ConfigError: step, tolerance or elements is out of range.
        DtypeError: an input that requires a gradient, or the result, is not float64.
        AutogradError: no input requires a gradient, the function does not return one tensor that
            depends on them, gives different results for the same inputs or changes them, or the
            check failed.
    """
    for name, value in (("step", step), ("tolerance", tolerance)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"gradcheck: {name} must be a number above 0, not {value}")
    if elements is not None and elements < 1:
        raise ConfigError(f"gradcheck: elements must be at least 1, not {elements}; None is all")
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = _checked(tensors)
    report = GradcheckReport(True, 0.0, checked[0][0], (), 0.0, 0.0, 0, tolerance)
    with _subject(function, tensors, seed) as subject:
        gradients = subject.gradients()
        chosen = [
            (i, x, gradient, index)
            for (i, x), gradient in zip(checked, gradients, strict=True)
            for index in _chosen(x.shape, elements, seed)
        ]
        typical = {id(x): _typical(to_host(x.data)) for _, x in checked}
        worst = False, -1.0, 0.0
        for done, (i, x, gradient, index) in enumerate(chosen, 1):
            if progress is not None:
                progress(done, len(chosen))
            analytic = float(gradient[index])
            size = abs(float(x.data[index]))
            steps = step * max(size, typical[id(x)]), step * max(size, 1.0)
            numeric, error, kink = _compare(subject, x, index, steps, analytic, tolerance)
            report = replace(report, elements=done)
            if kink and not error:
                where = report.first_kink or f"input {i}{list(index)}: {kink}"
                report = replace(report, kinks=report.kinks + 1, first_kink=where)
                continue
            # a NaN is the worst error of all
            rank = math.isnan(error), error, abs(analytic - numeric)
            if rank > worst:
                worst = rank
                report = replace(
                    report,
                    passed=bool(error <= tolerance),
                    worst_error=float(error),
                    worst_input=i,
                    worst_index=index,
                    analytic=analytic,
                    numeric=numeric,
                )
        subject.expect_same(subject.evaluate())
    if raise_exception and report and report.kinks:
        raise AutogradError(
            f"gradcheck: the function is not differentiable at {report.kinks} of {len(chosen)} "
            f"elements, as {report.first_kink}; the gradient is correct elsewhere; move the inputs"
        )
    if raise_exception and not report:
        raise AutogradError(str(report))
    return report


def error_curve(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    report: GradcheckReport,
    steps: Sequence[float],
    seed: int = 0,
) -> list[float]:
    """Return the relative error at a report's worst element for central differences by steps.

    It falls like step² while the error of the formula rules and rises like 1/step when rounding
    does: a V in logarithmic axes. Where a gradient is wrong the curve has a floor instead.

    Args:
        function: as given to gradcheck.
        inputs: likewise.
        report: what gradcheck returned for them.
        steps: half the distances of the differences.
        seed: as given to gradcheck.
    """
    tensors = list(inputs)
    x = tensors[report.worst_input]
    with _subject(function, tensors, seed) as subject:
        slopes = [subject.slopes(x, report.worst_index, step) for step in steps]
    return [_error(report.analytic, slope.central) for slope in slopes]


class _Slopes(NamedTuple):
    """Differences of F over one step: to the left, to the right, and over both."""

    below: float
    above: float
    central: float
    rounding: float  # error of `central` by rounding, at most
    depends: Array  # which elements of the result the input has an effect on

    @property
    def jump(self) -> float:
        return abs(self.above - self.below)


class _State(Hook):
    """What evaluations could change: arrays that operations hold, and attributes of layers."""

    def __init__(self, function: Any, tensors: list[Tensor]) -> None:
        self.own = {id(x.data) for x in tensors}
        self.arrays: dict[int, tuple[Array, Array]] = {}
        self.attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for layer in _layers(function):
            self.attributes.append((vars(layer), dict(vars(layer))))
            for array in layer.buffers().values():
                self._keep(array)

    def before_forward(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        """Keep the content of arrays such as running statistics."""
        for name, value in vars(function).items():
            if not name.startswith("_"):
                for array in value if isinstance(value, tuple | list) else (value,):
                    self._keep(array)

    def _keep(self, array: Any) -> None:
        if is_array(array) and not (id(array) in self.arrays or id(array) in self.own):
            self.arrays[id(array)] = array, array.copy()

    def restore(self) -> None:
        """Let all be as it was."""
        for array, content in self.arrays.values():
            array[...] = content
        for attributes, before in self.attributes:
            attributes.clear()
            attributes.update(before)


class _Subject:
    """The function and its inputs, which hold copies of their arrays."""

    base: Array  # the result

    def __init__(self, function: Callable[..., Tensor], tensors: list[Tensor], seed: int) -> None:
        self.function = function
        self.tensors = tensors
        self.seed = seed
        self.state = _State(function, tensors)

    def gradients(self) -> list[Array]:
        """Return the gradient of each input that requires one, after two backward passes."""
        results = []
        for _ in range(2):
            before = [to_host(x.data).copy() for x in self.tensors]
            results.append(self._backward())
            for i, (x, array) in enumerate(zip(self.tensors, before, strict=True)):
                if not np.array_equal(to_host(x.data), array, equal_nan=True):
                    raise AutogradError(
                        f"gradcheck: the function changes its input {i} in place; use a copy"
                    )
        if not all(_same(a, b) for a, b in zip(*results, strict=True)):
            raise AutogradError(
                "gradcheck: backward gives different gradients for the same inputs; draw its "
                "random numbers in forward, and save them"
            )
        return results[0]

    def _backward(self) -> list[Array]:
        try:
            with self.state:
                output = _result(self.function(*self.tensors))
            if not output.requires_grad:
                raise AutogradError(
                    "gradcheck: the result depends on no input that requires a gradient; use "
                    "the tensors passed to the function, outside no_grad()"
                )
            self.expect_same(output.numpy())
            leaves = {id(x): x for record in Tape.of(output) for x in record.inputs}
            leaves |= {id(x): x for x in self.tensors}
            kept = [(x, x.grad) for x in leaves.values()]
            try:
                for x, _ in kept:
                    x.grad = None
                output.backward(to_device(self.cotangent, output.device))
                return [
                    np.zeros(x.shape) if x.grad is None else to_host(x.grad).copy()
                    for x in self.tensors
                    if x.requires_grad
                ]
            finally:
                for x, gradient in kept:
                    x.grad = gradient
        finally:
            self.state.restore()

    def evaluate(self) -> Array:
        """Return the result for what the inputs hold now."""
        try:
            # a step may leave the domain of the function
            with no_grad(), self.state, np.errstate(all="ignore"):
                return _result(self.function(*self.tensors)).numpy().copy()
        finally:
            self.state.restore()

    def expect_same(self, result: Array) -> None:
        """Raise AutogradError unless this is the result that there was before, if any."""
        if not hasattr(self, "base"):
            self.base = result.copy()
            # Not default_rng: with the same seed as the inputs the cotangent would equal them,
            # and along x itself the gradient of batch norm vanishes.
            rng = np.random.Generator(np.random.Philox(self.seed))
            self.cotangent = rng.standard_normal(result.shape)
        elif not _same(result, self.base):
            raise AutogradError(
                "gradcheck: the function gives different results for the same inputs; "
                "create its random generator inside, so that each call draws the same numbers"
            )

    def slopes(
        self,
        x: Tensor,
        index: tuple[int, ...],
        step: float,
        depends: Array | bool = False,
    ) -> _Slopes:
        """Return the differences of F over a step at one element of x.

        Args:
            x: the input.
            index: of the element.
            step: to each side.
            depends: elements of the result that a longer step had an effect on.
        """
        value = float(x.data[index])
        points = value - step, value + step
        results = []
        for point in points:
            x.data[index] = point
            results.append(self.evaluate())
        x.data[index] = value
        if not hasattr(self, "base"):
            self.expect_same(self.evaluate())
        below, above = results
        if not below.shape == above.shape == self.base.shape:
            raise AutogradError("gradcheck: the shape of the result depends on the inputs")
        g, base = self.cotangent, self.base
        # by subtraction: the points are rounded
        left, right = value - points[0], points[1] - value
        with np.errstate(invalid="ignore", over="ignore"):
            effect = depends | (below != above) | (below != base)
            size = g * np.maximum(np.abs(below), np.abs(above))
            terms = np.stack([base - below, above - base, above - below])
            sums = terms[:, effect] @ g[effect]
            rounding = ROUNDING * float(np.sqrt(np.sum(np.square(size[effect])))) / step
            to_left, to_right, central = (sums / (left, right, left + right)).tolist()
        return _Slopes(to_left, to_right, central, rounding, np.asarray(effect))


@contextmanager
def _subject(
    function: Callable[..., Tensor], tensors: list[Tensor], seed: int
) -> Iterator[_Subject]:
    """Context in which the tensors hold copies of their arrays; then all is as before."""
    kept = [(x, x.data, x.grad, x.requires_grad) for x in tensors]
    try:
        for x, data, _, _ in kept:
            if x.data is data:  # one tensor can be several inputs
                x.data = to_device(np.array(to_host(data)), x.device)
        yield _Subject(function, tensors, seed)
    finally:
        for x, data, gradient, requires_grad in kept:
            x.data, x.grad, x.requires_grad = data, gradient, requires_grad


def _compare(
    subject: _Subject,
    x: Tensor,
    index: tuple[int, ...],
    steps: tuple[float, float],
    analytic: float,
    tolerance: float,
) -> tuple[float, float, str]:
    """Return the numeric derivative, the error, and the slopes where they stay apart, else "".

    Args:
        subject: the function.
        x: the input.
        index: of the element.
        steps: the one to try first, and the longest.
        analytic: derivative.
        tolerance: of the error.
    """
    step, longest = steps
    first = subject.slopes(x, index, step)
    # a longer step is less uncertain
    error = _error(analytic, first.central, first.rounding if step * SHORTER > longest else 0.0)
    if error <= tolerance:
        return first.central, error, ""
    shortest = max(step / SHORTER**RUNGS, 8 * float(np.spacing(abs(float(x.data[index])))))
    rungs = [subject.slopes(x, index, longest)]
    while (longest := longest / SHORTER) > shortest:
        rungs.append(subject.slopes(x, index, longest, rungs[-1].depends))
    apart = [False, *(_apart(a, b) for a, b in itertools.pairwise(rungs))]
    best = math.inf, 0.0
    for k, (a, b) in enumerate(itertools.pairwise(rungs)):
        uncertain = a.rounding + 2 * abs(a.central - b.central)
        if apart[k] or apart[k + 1] or not math.isfinite(uncertain):
            continue
        if uncertain > 4 * best[0]:  # rounding has taken over
            break
        best = min(best, (uncertain, a.central))
    uncertain, numeric = best
    if math.isfinite(uncertain):
        return numeric, _error(analytic, numeric, uncertain), ""
    k = apart.index(True) if True in apart else len(rungs) - 1
    before, last = rungs[k - 1], rungs[k]
    kink = f"the slope is {last.below:.6g} below and {last.above:.6g} above"
    low, high = sorted((last.below, last.above))
    between = min(max(analytic, low), high)
    error = _error(analytic, between, last.rounding)
    # slopes without end are nothing to compare with
    bounded = max(abs(low), abs(high)) <= 2 * max(abs(before.below), abs(before.above))
    return between, error if bounded and not error <= tolerance else 0.0, kink


def _apart(a: _Slopes, b: _Slopes) -> bool:
    """Return whether the slopes to both sides stay apart when the step becomes shorter."""
    kink = not b.jump <= max(a.jump / 4, 10 * b.rounding) and not b.jump > 8 * a.jump
    leaps = zip((a.below, a.above), (b.below, b.above), strict=True)
    return kink or any(abs(v) > max(4 * abs(u), LEAP * b.rounding) for u, v in leaps)


def _checked(tensors: list[Any]) -> list[tuple[int, Tensor]]:
    """Return position and tensor of each input that is checked."""
    for i, x in enumerate(tensors):
        if not isinstance(x, Tensor):
            raise AutogradError(
                f"gradcheck: input {i} is {type(x).__name__}, not a tensor; give Tensor(…)"
            )
    checked = [(i, x) for i, x in enumerate(tensors) if x.requires_grad]
    if not checked:
        raise AutogradError("gradcheck: no input requires a gradient; set requires_grad=True")
    for i, x in checked:
        if x.dtype != np.float64:
            raise DtypeError(f"gradcheck: input {i} is {x.dtype}, but differences need float64")
        if x.record is not None:
            raise AutogradError(
                f"gradcheck: input {i} is the result of {x.record.function.name}; pass a new "
                "tensor: Tensor(x.data, requires_grad=True)"
            )
    return checked


def _result(output: Any) -> Tensor:
    """Return what the function returned, if it is one float64 tensor."""
    if not isinstance(output, Tensor):
        what = type(output).__name__
        if isinstance(output, tuple | list):
            what = f"a {what} of {len(output)}"
        raise AutogradError(
            f"gradcheck: the function returned {what}, not one tensor; check one result at a "
            "time: gradcheck(lambda x: f(x)[0], x)"
        )
    if output.dtype != np.float64:
        raise DtypeError(f"gradcheck: the result is {output.dtype}, but differences need float64")
    return output


def _layers(function: Any) -> list[Any]:
    """Return the layers that a function is, belongs to or refers to by its variables."""
    found = [function, getattr(function, "__self__", None)]
    if inspect.isfunction(function):
        variables = inspect.getclosurevars(function)
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        found += [*variables.nonlocals.values(), *variables.globals.values(), *defaults]
    return [
        layer
        for one in found
        if hasattr(one, "named_layers") and not isinstance(one, type)
        for _, layer in one.named_layers()
    ]


def _same(a: Array, b: Array) -> bool:
    """Return whether two results are equal but for rounding."""
    if a.shape != b.shape:
        return False
    finite = np.abs(b[np.isfinite(b)])
    return bool(np.allclose(a, b, 0, SAME * finite.max(initial=0.0), equal_nan=True))


def _typical(x: Array) -> float:
    """Return the median size of the elements, at most 1; 1 for zeros."""
    finite = np.abs(x[np.isfinite(x)])
    return min(1.0, float(np.median(finite)) if finite.size else 1.0) or 1.0


def _error(analytic: float, numeric: float, uncertain: float = 0.0) -> float:
    """Return the relative difference beyond what is uncertain."""
    beyond = abs(analytic - numeric) - uncertain
    if math.isnan(beyond):
        return math.nan
    return beyond / max(abs(analytic), abs(numeric)) if beyond > 0 else 0.0


def _chosen(shape: tuple[int, ...], elements: int | None, seed: int) -> Iterable[tuple[int, ...]]:
    """Return the indices of all elements, or of so many chosen at random."""
    size = math.prod(shape)
    if elements is None or elements >= size:
        return np.ndindex(shape)
    flat = np.random.default_rng(seed).choice(size, elements, replace=False)
    return [tuple(map(int, np.unravel_index(i, shape))) for i in np.sort(flat)]
