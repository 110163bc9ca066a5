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

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..backend import to_host
from ..errors import AutogradError, ConfigError, DtypeError
from .differences import Slopes, Subject, opened
from .function import Tensor

Array = np.ndarray

RUNGS = 5  # shorter steps to try where the first does not agree
SHORTER = 16  # so many times, each
LEAP = 1e8  # of the function at one place, in units of rounding, at least


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

    def raise_unless_passed(self) -> None:
        """Raise AutogradError if a gradient is wrong, or the function not differentiable."""
        if not self:
            raise AutogradError(str(self))
        if self.kinks:
            raise AutogradError(
                f"gradcheck: the function is not differentiable at {self.kinks} of "
                f"{self.elements} elements, as {self.first_kink}; the gradient is correct "
                "elsewhere; move the inputs"
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
    _check_constants(step, tolerance, elements)
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = _checked(tensors)
    report = GradcheckReport(True, 0.0, checked[0][0], (), 0.0, 0.0, 0, tolerance)
    with opened(function, tensors, seed) as subject:
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
    if raise_exception:
        report.raise_unless_passed()
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
    with opened(function, tensors, seed) as subject:
        slopes = [subject.slopes(x, report.worst_index, step) for step in steps]
    return [_error(report.analytic, slope.central) for slope in slopes]


def _compare(
    subject: Subject,
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


def _apart(a: Slopes, b: Slopes) -> bool:
    """Return whether the slopes to both sides stay apart when the step becomes shorter."""
    kink = not b.jump <= max(a.jump / 4, 10 * b.rounding) and not b.jump > 8 * a.jump
    leaps = zip((a.below, a.above), (b.below, b.above), strict=True)
    return kink or any(abs(v) > max(4 * abs(u), LEAP * b.rounding) for u, v in leaps)


def _check_constants(step: float, tolerance: float, elements: int | None) -> None:
    for name, value in (("step", step), ("tolerance", tolerance)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"gradcheck: {name} must be a number above 0, not {value}")
    if elements is not None and elements < 1:
        raise ConfigError(f"gradcheck: elements must be at least 1, not {elements}; None is all")


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
