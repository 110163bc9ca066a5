"""Kinds of values that settings take: as they are in Python and TOML, or as texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What values a setting takes.

    Attributes:
        what: in words, for errors.
        metavar: what stands for the value in a help text, "" for a switch.
        read: returns a value from a text or from TOML; raises ValueError for another kind.
    """

    what: str
    metavar: str
    read: Callable[[object], Any]


def _integer(value: object) -> int:
    if isinstance(value, str | Integral) and not isinstance(value, bool):
        return int(value)
    raise ValueError


def _integer_from(minimum: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        result = _integer(value)
        if result < minimum:
            raise ValueError
        return result

    return read


def _number(value: object) -> float:
    if isinstance(value, str | Real) and not isinstance(value, bool):
        return float(value)
    raise ValueError


def _positive_number(value: object) -> float:
    result = _number(value)
    if not result > 0:
        raise ValueError
    return result


def _text(value: object) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError


def _path(value: object) -> str:
    return _text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _integers(value: object) -> list[int]:
    if isinstance(value, str):
        return [] if value.lower() == "none" else [int(part) for part in value.split(",")]
    if isinstance(value, list | tuple):
        return [_integer(part) for part in value]
    raise ValueError


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        parts = [] if value.lower() == "none" else value.split(",")
        return [_text(part.strip()) for part in parts]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _texts(part)]
    raise ValueError


def _boolean(value: object) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool):
        return value
    raise ValueError


INTEGER = Kind("an integer", "N", _integer)
NATURAL = Kind("an integer of at least 0", "N", _integer_from(0))
POSITIVE = Kind("an integer of at least 1", "N", _integer_from(1))
NUMBER = Kind("a number", "X", _number)
POSITIVE_NUMBER = Kind("a number above 0", "X", _positive_number)
TEXT = Kind("a text", "TEXT", _text)
NAME = Kind("a text", "NAME", lambda value: _text(value).lower())
FOLDER = Kind("a path", "DIR", _path)
PATH = Kind("a path", "PATH", _path)
# in one text they are separated by commas; "none" is the empty list
INTEGERS = Kind("integers separated by commas", "N,N,…", _integers)
TEXTS = Kind("texts separated by commas", "TEXT,…", _texts)
SWITCH = Kind("true or false", "", _boolean)

# of a setting by the type of its default
BY_TYPE: dict[type, Kind] = {
    bool: SWITCH,
    int: INTEGER,
    float: NUMBER,
    str: TEXT,
    NoneType: TEXT,
}
