"""gradcheck: compare a backward pass with central differences, every element, in float64.

The function's output is multiplied by a random cotangent g, not by ones: the gradient of a plain
sum is zero through batch norm or softmax whatever backward does, and so would check nothing.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..backend import to_host
from ..errors import AutogradError, DtypeError
from .function import Tensor
from .no_grad import no_grad


@dataclass(frozen=True)
class GradcheckReport:
    """The outcome of a gradient check; true in a condition if it passed.

    Attributes:
        passed: whether `worst_error` is within `tolerance`.
        worst_error: largest |analytic − numeric| / max(1, |analytic|, |numeric|).
        worst_input: position of the input where it occurs.
        worst_index: index of the element within that input.
        analytic: what backward says there.
        numeric: what the central difference says there.
        elements: how many elements were compared.
        tolerance: the largest error that passes.
    """

    passed: bool
    worst_error: float
    worst_input: int
    worst_index: tuple[int, ...]
    analytic: float
    numeric: float
    elements: int
    tolerance: float

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return (
            f"gradcheck {'passed' if self.passed else 'failed'}: {self.elements} elements, "
            f"worst error {self.worst_error:.1e} (tolerance {self.tolerance:.0e}) at input "
            f"{self.worst_input}{list(self.worst_index)}: analytic {self.analytic:.9g}, "
            f"numeric {self.numeric:.9g}"
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
) -> GradcheckReport:
    """Check the gradient of `function` at `inputs`, element by element.

    Args:
        function: takes the inputs, returns one tensor; must give the same result each time.
        inputs: tensors; those that require a gradient are checked and must be float64.
        step: half the distance of the central difference.
        tolerance: the largest error that passes.
        seed: of the random cotangent, and of the choice of elements.
        elements: how many of each input to check, chosen at random; None for all.
        raise_exception: raise on failure instead of returning the report.

    Raises:
        DtypeError: an input that requires a gradient is not float64.
        AutogradError: no input requires a gradient, or the check failed.
    """
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = [(i, x) for i, x in enumerate(tensors) if x.requires_grad]
    if not checked:
        raise AutogradError("gradcheck: no input requires a gradient; set requires_grad=True")
    for i, x in checked:
        if x.dtype != np.float64:
            raise DtypeError(f"gradcheck: input {i} is {x.dtype}, but differences need float64")
        x.zero_grad()
    output = function(*tensors)
    cotangent = _cotangent(output.shape, seed)
    output.backward(cotangent)

    report = GradcheckReport(True, -1.0, 0, (), 0.0, 0.0, 0, tolerance)
    for i, x in checked:
        gradient = np.zeros(x.shape) if x.grad is None else to_host(x.grad)
        for index in _chosen(x.shape, elements, seed):
            report = replace(report, elements=report.elements + 1)
            numeric = _central_difference(function, tensors, x, index, step, cotangent)
            analytic = float(gradient[index])
            error = _error(analytic, numeric)
            # a NaN is the worst error of all: it is taken, and nothing replaces it
            if not (error <= report.worst_error or np.isnan(report.worst_error)):
                report = replace(
                    report,
                    passed=bool(error <= tolerance),
                    worst_error=float(error),
                    worst_input=i,
                    worst_index=index,
                    analytic=analytic,
                    numeric=numeric,
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
    """Return the error at a report's worst element for central differences of several steps.

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
    with no_grad():
        cotangent = _cotangent(function(*tensors).shape, seed)
    errors = []
    for step in steps:
        x = tensors[report.worst_input]
        numeric = _central_difference(function, tensors, x, report.worst_index, step, cotangent)
        errors.append(_error(report.analytic, numeric))
    return errors


def _error(analytic: float, numeric: float) -> float:
    return abs(analytic - numeric) / max(1.0, abs(analytic), abs(numeric))


def _cotangent(shape: tuple[int, ...], seed: int) -> np.ndarray:
    # Not default_rng: with the same seed as the inputs the cotangent would equal them, and along
    # x itself the gradient of batch norm vanishes.
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


def _chosen(shape: tuple[int, ...], elements: int | None, seed: int) -> Iterable[tuple[int, ...]]:
    """Return the indices of all elements, or of so many chosen at random."""
    size = math.prod(shape)
    if elements is None or elements >= size:
        return np.ndindex(shape)
    flat = np.random.default_rng(seed).choice(size, elements, replace=False)
    return [tuple(map(int, np.unravel_index(i, shape))) for i in np.sort(flat)]


def _central_difference(
    function: Callable[..., Tensor],
    tensors: list[Tensor],
    x: Tensor,
    index: tuple[int, ...],
    step: float,
    cotangent: np.ndarray,
) -> float:
    """Return Σ cotangent · (f(x + h) − f(x − h)) / 2h, h = `step` at one element of x."""
    value = float(x.data[index])
    with no_grad():
        x.data[index] = value + step
        above = function(*tensors).numpy().copy()
        x.data[index] = value - step
        below = function(*tensors).numpy().copy()
        x.data[index] = value
    return float(np.sum(cotangent * (above - below)) / (2 * step))
