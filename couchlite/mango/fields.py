"""Paths to fields, as selectors, sorts and indexes name them: `address.city`, `name\\.with\\.dots`."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from ..errors import BadRequest


class Absent(Enum):
    """Why there is no value. `$exists: false` matches the one and not the other."""

    NOT_FOUND = "the object has no such member"
    BAD_PATH = "the path leads through something without members, or past the end of an array"


NOT_FOUND: Final = Absent.NOT_FOUND
BAD_PATH: Final = Absent.BAD_PATH

_DOT = re.compile(r"(?<!\\)\.")
_INDEX = re.compile(r"[+-]?[0-9]+")


def parse_field(field: str) -> tuple[str, ...]:
    """The names along a path; a backslash before a dot makes it part of the name."""
    names = _DOT.split(field)
    if "" in names:
        raise BadRequest(f"Invalid field name: {field}", error="invalid_field_name")
    return tuple(name.replace("\\", "") for name in names)


def getter(path: tuple[str, ...]) -> Callable[[Any], Any]:
    """A function that gives the value at `path` in a value, or an `Absent`."""
    if len(path) > 1:
        return lambda value: get_field(value, path)
    (name,) = path

    def get(value: Any) -> Any:
        return value.get(name, NOT_FOUND) if type(value) is dict else get_field(value, path)

    return get


def get_field(value: Any, path: tuple[str, ...]) -> Any:
    """The value at `path`, or an `Absent`. In arrays, names are indexes."""
    for name in path:
        if type(value) is dict:
            value = value.get(name, NOT_FOUND)
            if value is NOT_FOUND:
                return NOT_FOUND
        elif type(value) is list and _INDEX.fullmatch(name) and 0 <= int(name) < len(value):
            value = value[int(name)]
        else:
            return BAD_PATH
    return value
