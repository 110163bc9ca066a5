"""Constants of updates: numbers of a range, checked wherever they are set."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from ..errors import ConfigError


def number(owner: str, name: str, value: Any, below: float = math.inf) -> float:
    """Return a constant as a float.

    Args:
        owner: what it belongs to, for the message.
        name: what it is called.
        value: a number of Python or NumPy.
        below: what it must be smaller than.

    Raises:
        ConfigError: it is not a number in [0, below).
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    try:
        if real and 0 <= float(value) < below:
            return float(value)
    except OverflowError:  # an integer beyond the range of floats
        pass
    limit = "" if below == math.inf else f" and below {below:g}"
    raise ConfigError(f"{owner}: {name} must be a number of at least 0{limit}, not {value!r}")
