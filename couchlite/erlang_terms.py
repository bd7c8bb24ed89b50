"""The Erlang terms that stand in CouchDB's configuration: lists, tuples, strings, atoms and integers.

`{chttpd_auth, cookie_authentication_handler}` is a tuple of two atoms, `["\\\\d+"]` a list of a string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<mark>[\[\]{},.])
      | "(?P<string>(?:[^"\\]|\\.)*)"
      | '(?P<quoted>(?:[^'\\]|\\.)*)'
      | (?P<integer>[+-]?[0-9]{1,18}(?![0-9]))
      | (?P<atom>[a-z][A-Za-z0-9_@]*)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|x\{[0-9A-Fa-f]{1,6}\}|[0-7]{1,3}|.)", re.DOTALL)
_NAMED = {
    "b": "\b",
    "d": "\x7f",
    "e": "\x1b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "s": " ",
    "t": "\t",
    "v": "\v",
}
DEPTH_MAX = 20


@dataclass(frozen=True, slots=True)
class Atom:
    name: str


Term = str | int | Atom | list["Term"] | tuple["Term", ...]


def parse(text: str) -> Term:
    """The one term that `text` is; a full stop may end it.

    :raises ValueError: it is none.
    """
    reader = _Reader(text)
    term = reader.term(0)
    if not reader.at_end():
        raise ValueError("something follows the term")
    return term


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text.rstrip()
        self._at = 0

    def at_end(self) -> bool:
        return self._at == len(self._text) or (self._mark() == "." and self._at == len(self._text))

    def term(self, depth: int) -> Term:
        token = self._next()
        kind, value = token.lastgroup, token[token.lastgroup or 0]
        if kind == "string":
            return _unescaped(value)
        if kind == "quoted":
            return Atom(_unescaped(value))
        if kind == "atom":
            return Atom(value)
        if kind == "integer":
            return int(value)
        if depth < DEPTH_MAX and value == "[":
            return self._terms("]", depth + 1)
        if depth < DEPTH_MAX and value == "{":
            return tuple(self._terms("}", depth + 1))
        raise ValueError("a term expected")

    def _terms(self, end: str, depth: int) -> list[Term]:
        found: list[Term] = []
        before = self._at
        if self._mark() == end:
            return found
        self._at = before
        while True:
            found.append(self.term(depth))
            mark = self._mark()
            if mark == end:
                return found
            if mark != ",":
                raise ValueError(f"{end!r} or a comma expected")

    def _mark(self) -> str | None:
        token = self._next()
        return token["mark"]

    def _next(self) -> re.Match[str]:
        token = _TOKEN.match(self._text, self._at)
        if token is None:
            raise ValueError(f"no Erlang term at {self._at}")
        self._at = token.end()
        return token


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_character, text)


def _character(escape: re.Match[str]) -> str:
    code = escape[1]
    if code[0] == "x" and len(code) > 1:
        number = int(code[1:].strip("{}"), 16)
        if number > 0x10FFFF:
            raise ValueError("no such character")
        return chr(number)
    if code[0] in "01234567":
        return chr(int(code, 8))
    return _NAMED.get(code, code)
