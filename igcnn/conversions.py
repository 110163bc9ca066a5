"""Values of settings: from Python, TOML or JSON as they are, or as texts from a command line."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from types import NoneType
from typing import Any


def boolean(value: object) -> bool:
    """Return a truth value; in text it is "true" or "false"."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError


def integer(value: object) -> int:
    """Return a value as an integer."""
    if isinstance(value, str | Integral) and not isinstance(value, bool):
        return int(value)
    raise ValueError


def number(value: object) -> float:
    """Return a value as a floating-point number."""
    if isinstance(value, str | Real) and not isinstance(value, bool):
        return float(value)
    raise ValueError


def text(value: object) -> str:
    """Return a text that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise ValueError


# by the type of a setting's default; None is a text unless something is said
BY_TYPE: dict[type, Callable[[object], Any]] = {
    bool: boolean,
    int: integer,
    float: number,
    str: text,
    NoneType: text,
}
WORDS: dict[Callable[[object], Any], str] = {
    boolean: "true or false",
    integer: "an integer",
    number: "a number",
    text: "a text",
}
