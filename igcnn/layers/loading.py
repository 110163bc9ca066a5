"""Loading arrays by name: everything is checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..backend import copy_to, to_host
from ..errors import CheckpointError

Array = np.ndarray

SHOWN = 3  # names and problems that a message spells out


def load_arrays(
    own: Mapping[str, Array], state: Mapping[str, Any], owner: str, advice: str
) -> None:
    """Copy the values of `state` into the arrays of `own`; all or nothing.

    Values are arrays of any device, tensors or lists of numbers, of any real type: they are
    rounded to the type of the array that takes them. NaN and infinities are taken, so that the
    state of a diverged run can be looked at; a finite value that would become infinite is not.

    Args:
        own: name → array; an array of several names takes its value under any of them.
        state: name → value of the same shape.
        owner: what the arrays belong to, for the message.
        advice: its end, the way out.

    Raises:
        CheckpointError: a name is missing or unknown, or a value is not an array of numbers, has
            another shape or does not fit the type; nothing was changed.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"a state maps names to arrays, but this is {type(state).__name__}; give what "
            "state_dict() returned"
        )
    given = {id(array) for name, array in own.items() if name in state}
    first: dict[int, str] = {}
    for name, array in own.items():
        first.setdefault(id(array), name)
    missing = [name for array, name in first.items() if array not in given]
    unknown = [str(name) for name in state if name not in own]
    problems = [_listed("missing", missing), _listed(f"not in the {owner}", unknown)]
    values: dict[int, tuple[str, Array, Array]] = {}
    for name, array in own.items():
        if name not in state:
            continue
        try:
            value = _converted(state[name], array, owner)
            known, _, other = values.setdefault(id(array), (name, array, value))
            if not np.array_equal(value, other, equal_nan=True):
                raise ValueError(f"is the same array as {known}, but differs in the state")
        except ValueError as error:
            problems.append(f"{name} {error}")
    problems = [problem for problem in problems if problem]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError(
            f"the state does not match the {owner}: {'; '.join(problems[:SHOWN])}{more}; {advice}"
        )
    for _, array, value in values.values():
        copy_to(array, value)


def _converted(value: Any, like: Array, owner: str) -> Array:
    """Return a copy of a value in host memory, of the type of an array.

    Raises:
        ValueError: it does not fit; the text goes on after the name.
    """
    value = value.data if isinstance(value, Tensor) else value
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError("is a masked array")
    try:
        array = np.asarray(to_host(value))
    except (ValueError, TypeError, RuntimeError) as error:  # the latter from other libraries
        raise ValueError(f"is {type(value).__name__}, not an array of numbers") from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"is of {array.dtype}, not of real numbers")
    if array.shape != like.shape:
        raise ValueError(f"has shape {array.shape} in the state but {like.shape} in the {owner}")
    if isinstance(like, np.ndarray) and not like.flags.writeable:
        raise ValueError(f"is read-only in the {owner}")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(like.dtype)
    if np.any(np.isfinite(array) & ~np.isfinite(converted)):
        raise ValueError(f"has values beyond the range of {like.dtype}")
    return converted


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what}: {', '.join(names[:SHOWN])}{more}"
