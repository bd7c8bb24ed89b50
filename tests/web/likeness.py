"""Whether a JSON value is like an expected one, in which placeholders stand for what varies from run to run.

Numbers are equal only with their type (1 is not 1.0); object members may come in any order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

Json = Any


def _is_integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Json) -> bool:
    return _is_integer(value) or isinstance(value, float)


# What stands for any text of a form, as the whole of a string or within one.
TEXTS = {
    "<seq>": r"\d+(?:-[\w-]+)?",
    "<uuid>": r"[0-9a-f]{32}",
    "<rev>": r"\d+-[0-9a-f]{32}",
    "<etag>": r'(?:W/)?"[^"]*"',
    "<hex>": r"[0-9a-f]+",
    "<time>": (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"
        r"|\w{3}, \d\d[ -]\w{3}[ -]\d{4} \d\d:\d\d:\d\d GMT"
        r"|\d{9,19}"
    ),
    "<cookie>": r"[\w%+/.=-]+",
    "<boundary>": r"[\w'()+,./:=?-]+",
    "<bookmark>": r".+",
    "<node>": r"[^\s@]+@[^\s@]+",
    "<pid>": r"<\d+\.\d+\.\d+>",
    "<version>": r"\S+",
    "<string>": r".*",
    "<any>": r".*",
    "<int>": r"-?\d+",
    "<number>": r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?",
    "<bool>": r"true|false",
}
# What stands for other values than strings, when it is the whole of one.
VALUES: dict[str, Callable[[Json], bool]] = {
    "<any>": lambda value: True,
    "<int>": _is_integer,
    "<number>": _is_number,
    "<bool>": lambda value: isinstance(value, bool),
    "<array>": lambda value: isinstance(value, list),
    "<object>": lambda value: isinstance(value, dict),
    "<time>": lambda value: _is_integer(value) and value >= 0,
}
NOT_FOR_STRINGS = frozenset({"<int>", "<number>", "<bool>"})

_PLACEHOLDER = re.compile("|".join(TEXTS))


def differences(
    expected: Json, actual: Json, *, unordered: Sequence[str] = (), ignore: Sequence[str] = ()
) -> Iterator[str]:
    """Each place where `actual` is not as expected, as text.

    `unordered` and `ignore` are JSON pointers, in which `*` matches any member or index: of arrays whose
    order does not matter, and of places that are not compared.
    """
    yield from _Comparison(unordered, ignore).differences(expected, actual, ())


def lookup(value: Json, pointer: str) -> Json:
    """The value at a JSON pointer.

    :raises LookupError: there is none.
    """
    for name in _names(pointer):
        if isinstance(value, list) and name.lstrip("-").isdigit():
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value[name]
        else:
            raise LookupError(pointer)
    return value


class _Comparison:
    def __init__(self, unordered: Sequence[str], ignore: Sequence[str]) -> None:
        self._unordered = [_names(pointer) for pointer in unordered]
        self._ignore = [_names(pointer) for pointer in ignore]

    def differences(self, expected: Json, actual: Json, place: tuple[str, ...]) -> Iterator[str]:
        if any(_matches(pattern, place) for pattern in self._ignore):
            return
        if isinstance(expected, dict) and isinstance(actual, dict):
            yield from self._of_objects(expected, actual, place)
        elif isinstance(expected, list) and isinstance(actual, list):
            if any(_matches(pattern, place) for pattern in self._unordered):
                yield from self._of_sets(expected, actual, place)
            else:
                yield from self._of_arrays(expected, actual, place)
        elif not _alike(expected, actual):
            yield _told(place, expected, actual)

    def _of_objects(
        self, expected: dict[str, Json], actual: dict[str, Json], place: tuple[str, ...]
    ) -> Iterator[str]:
        for name, value in expected.items():
            if name in actual:
                yield from self.differences(value, actual[name], (*place, name))
            elif not self._ignored((*place, name)):
                yield _told((*place, name), value, _ABSENT)
        for name, value in actual.items():
            if name not in expected and not self._ignored((*place, name)):
                yield _told((*place, name), _ABSENT, value)

    def _of_arrays(self, expected: list[Json], actual: list[Json], place: tuple[str, ...]) -> Iterator[str]:
        for index in range(max(len(expected), len(actual))):
            there = (*place, str(index))
            if index >= len(actual):
                yield _told(there, expected[index], _ABSENT)
            elif index >= len(expected):
                yield _told(there, _ABSENT, actual[index])
            else:
                yield from self.differences(expected[index], actual[index], there)

    def _of_sets(self, expected: list[Json], actual: list[Json], place: tuple[str, ...]) -> Iterator[str]:
        left = list(actual)
        for index, value in enumerate(expected):
            there = (*place, str(index))
            for candidate in left:
                if next(self.differences(value, candidate, there), None) is None:
                    left.remove(candidate)
                    break
            else:
                yield _told(there, value, _ABSENT)
        for candidate in left:
            yield _told((*place, "-"), _ABSENT, candidate)

    def _ignored(self, place: tuple[str, ...]) -> bool:
        return any(_matches(pattern, place) for pattern in self._ignore)


_ABSENT = object()


def _told(place: tuple[str, ...], expected: Json, actual: Json) -> str:
    pointer = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in place)
    return f"{pointer}: expected {_shown(expected)}, got {_shown(actual)}"


def _shown(value: Json) -> str:
    text = "nothing" if value is _ABSENT else repr(value)
    return text if len(text) <= 300 else text[:300] + "..."


def _names(pointer: str) -> tuple[str, ...]:
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:])


def _matches(pattern: tuple[str, ...], place: tuple[str, ...]) -> bool:
    return len(pattern) == len(place) and all(
        wanted in ("*", name) for wanted, name in zip(pattern, place, strict=True)
    )


def _alike(expected: Json, actual: Json) -> bool:
    if isinstance(expected, str) and expected in VALUES and VALUES[expected](actual):
        return True
    if type(expected) is not type(actual):
        return False
    if isinstance(expected, str):
        if expected == actual:
            return True
        return expected not in NOT_FOR_STRINGS and _pattern(expected).fullmatch(actual) is not None
    # Not ==, which holds 0.0 and -0.0 for equal.
    return repr(expected) == repr(actual)


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    pieces, start = [], 0
    for found in _PLACEHOLDER.finditer(text):
        pieces += [re.escape(text[start : found.start()]), f"(?:{TEXTS[found[0]]})"]
        start = found.end()
    return re.compile("".join(pieces) + re.escape(text[start:]), re.DOTALL)
