"""Asks a library for the answers of cases, and keeps where it is wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .libraries import Library
from .problem import Case


@dataclass(frozen=True)
class Difference:
    """A result that is not the answer.

    Attributes:
        case: of which.
        output: name of the result, such as gw.
        words: what is wrong with it.
    """

    case: Case
    output: str
    words: str

    @property
    def name(self) -> str:
        """The operation and the output."""
        return f"{self.case.problem.op} {self.output}"

    def __str__(self) -> str:
        case = self.case
        return f"{self.name}: {self.words} ({case.problem.text}, {case.dtype}, {case.layout})"


@dataclass
class Report:
    """What was found of a library.

    Attributes:
        library: its name.
        version: as it says.
        cases: how many it was asked.
        compared: (operation, output) → how many results were compared.
        absent: likewise, how many it does not offer.
        worst: likewise, the largest share of the tolerance that was used.
        differences: the wrong results, those of the smallest cases first.
        seconds: how long that took.
    """

    library: str
    version: str
    cases: int = 0
    compared: Counter[tuple[str, str]] = field(default_factory=Counter)
    absent: Counter[tuple[str, str]] = field(default_factory=Counter)
    worst: dict[tuple[str, str], float] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def smallest(self) -> dict[str, Difference]:
        """For each kind of result that is wrong somewhere its smallest case."""
        return {d.name: d for d in reversed(self.differences)}

    def wrong(self, *kinds: tuple[str, str]) -> int:
        """Return how many results are wrong; kinds: (operation, output), all by default."""
        found = Counter((d.case.problem.op, d.output) for d in self.differences)
        return sum(found[kind] for kind in kinds or found)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        keys = sorted(self.compared | self.absent)
        return {
            "library": self.library,
            "version": self.version,
            "cases": self.cases,
            "seconds": round(self.seconds, 2),
            "results": [
                {
                    "op": op,
                    "output": output,
                    "compared": self.compared[op, output],
                    "wrong": self.wrong((op, output)),
                    "not_offered": self.absent[op, output],
                    "worst": self.worst.get((op, output)),
                }
                for op, output in keys
            ],
            "differences": [
                {
                    "op": d.case.problem.op,
                    "output": d.output,
                    "case": str(d.case),
                    "shapes": d.case.problem.shapes,
                    "options": d.case.problem.options,
                    "what": d.words,
                }
                for d in self.differences
            ],
        }


def check(
    library: Library,
    cases: Iterable[Case],
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Return what a library makes of cases, which are given the smallest first.

    Args:
        library: who is asked.
        cases: what.
        progress: called with the number of cases done.
    """
    report = Report(library.name, library.version)
    begin = time.perf_counter()
    for case in cases:
        _ask(library, case, report)
        report.cases += 1
        progress(report.cases)
    report.seconds = time.perf_counter() - begin
    return report


def _ask(library: Library, case: Case, report: Report) -> None:
    problem = case.problem
    answers = problem.answers
    try:
        results = library.function(problem.op, case.inputs(), dict(problem.options))
    except NotImplementedError:
        results = {}
    except Exception as error:  # whatever a library does
        words = f"raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        for output in answers:
            report.compared[problem.op, output] += 1
            report.differences.append(Difference(case, output, words))
        return
    for output, answer in answers.items():
        key = problem.op, output
        if output not in results:
            report.absent[key] += 1
            continue
        report.compared[key] += 1
        words, share = _compare(np.asarray(results[output]), answer, case.tolerance(output))
        report.worst[key] = max(report.worst.get(key, 0.0), share)
        if words:
            report.differences.append(Difference(case, output, words))


def _compare(result: np.ndarray, answer: np.ndarray, tolerance: float) -> tuple[str, float]:
    """Return what is wrong, "" for nothing, and the share of the tolerance that was used."""
    if result.shape != answer.shape:
        return f"has shape {result.shape}, not {answer.shape}", np.inf
    error = np.abs(result.astype(np.float64) - answer)
    error = np.where(np.isfinite(error), error, np.inf)
    wrong = int((error > tolerance).sum())
    share = float(error.max(initial=0) / tolerance)
    if not wrong:
        return "", share
    place = np.unravel_index(int(error.argmax()), error.shape)
    at = f"[{', '.join(map(str, place))}]" if place else ""
    words = f"{wrong} of {error.size} numbers are wrong, worst {at or 'value'} is "
    return f"{words}{result[place]:.7g}, not {answer[place]:.7g}", share
