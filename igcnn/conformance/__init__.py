"""Whether a library computes what it should: cases with right answers, and who is asked.

`oracles.py` has the operations by their definition, `problem.py` makes inputs and answers of them,
`cases.py` is the list, `check.py` compares. The other files each ask one library.
"""

from .cases import all_cases, fast_cases
from .check import Difference, Report, check
from .libraries import LIBRARIES, Library, find_library
from .page import render
from .problem import Case, Problem

__all__ = [
    "LIBRARIES",
    "Case",
    "Difference",
    "Library",
    "Problem",
    "Report",
    "all_cases",
    "check",
    "fast_cases",
    "find_library",
    "render",
]
