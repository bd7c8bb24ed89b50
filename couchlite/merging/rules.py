"""Rules for places in documents: how to merge what was changed by several leaves at once.

Written as an object of patterns and rules: `{"/tags": "set", "/items": "by:sku", "/items/*/n": "counter"}`.
A pattern is a JSON pointer in which `*` stands for any one name or element, and `**` for any number of them,
none included. Of the patterns that match a place, the most particular one counts: one without `**` before one
with it, then the one with fewer `*`, then the longer one; the order in which they are written doesn't matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import BadRequest
from .values import parse_pointer

ANY, ANY_DEPTH = "*", "**"

_PLAIN = ("value", "list", "set", "text", "lines", "counter", "max", "min", "winner")
_WITH_ARGUMENT = ("by", "newest")
NAMES = (*_PLAIN, *(f"{name}:…" for name in _WITH_ARGUMENT))


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's name, and what follows the colon: `by` has a member's name, `newest` a JSON pointer."""

    name: str
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name

    @classmethod
    def parse(cls, text: object) -> Rule:
        """:raises BadRequest:"""
        if isinstance(text, str):
            name, colon, argument = text.partition(":")
            if name in _PLAIN and not colon:
                return cls(name)
            if name in _WITH_ARGUMENT and argument and (name != "newest" or argument.startswith("/")):
                return cls(name, argument)
            if name == "newest":
                raise BadRequest(f"the rule {text!r} needs a JSON pointer, as in newest:/updated_at")
            if name == "by":
                raise BadRequest(f"the rule {text!r} needs the name of a field, as in by:id")
        raise BadRequest(f"{text!r} is not a rule; there are {', '.join(NAMES)}")


@dataclass(frozen=True)
class Rules:
    """Rules by their patterns; none by default."""

    by_pattern: Mapping[tuple[str, ...], Rule] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: object) -> Rules:
        """:raises BadRequest: it is no object, or has a pattern or a rule that can't be understood."""
        if not isinstance(value, Mapping):
            raise BadRequest("rules must be an object of JSON pointers and rules")
        found = {}
        for pattern, text in value.items():
            try:
                names = parse_pointer(pattern)
            except ValueError:
                raise BadRequest(f"the pattern {pattern!r} must begin with a slash") from None
            found[names] = Rule.parse(text)
        return cls(found)

    def at(self, path: Sequence[str | int]) -> Rule | None:
        """The rule for a place; elements of arrays match `*` and `**` only."""
        for pattern, rule in self._by_rank:
            if _matches(pattern, path):
                return rule
        return None

    @cached_property
    def has_counters(self) -> bool:
        return any(rule.name == "counter" for rule in self.by_pattern.values())

    @cached_property
    def _by_rank(self) -> Sequence[tuple[tuple[str, ...], Rule]]:
        return [(pattern, self.by_pattern[pattern]) for pattern in sorted(self.by_pattern, key=_rank)]


def _rank(pattern: tuple[str, ...]) -> tuple[int, int, int, tuple[str, ...]]:
    return pattern.count(ANY_DEPTH), pattern.count(ANY), -len(pattern), pattern


def _matches(pattern: Sequence[str], path: Sequence[str | int]) -> bool:
    """Glob matching with one point of return: the last `**` takes one more step when what follows fails."""
    at = step = 0
    resume: tuple[int, int] | None = None
    while step < len(path):
        if at < len(pattern) and pattern[at] == ANY_DEPTH:
            resume = at + 1, step
            at += 1
        elif at < len(pattern) and (pattern[at] == ANY or pattern[at] == path[step]):
            at, step = at + 1, step + 1
        elif resume is not None:
            resume = resume[0], resume[1] + 1
            at, step = resume
        else:
            return False
    return all(name == ANY_DEPTH for name in pattern[at:])
