"""Where documents differ from a base, place by place, for people to read. Pure.

This only shows; what a merge makes of it is told by couchlite.merging. Elements of arrays are aligned as they
are there, so that an insertion at the beginning isn't shown as a change of everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from couchlite.jsontext import canonical
from couchlite.merging import MISSING
from couchlite.merging.arrays import align_list
from couchlite.merging.sequences import merged_order
from couchlite.merging.values import pointer

from .case import JsonObject

ALIGNED_MAX = 8
"""With more documents, arrays are compared as a whole: a thousand that each add an element would have a
thousand rows of a thousand values."""
DEPTH_MAX = 50

_Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A place, a JSON pointer into the base ("-" is a new element of an array), the base's value and those of
    the documents, or MISSING."""

    pointer: str
    base: Any
    values: Sequence[Any]

    def changed(self, at: int) -> bool:
        """Whether a document has another value than the base."""
        return _text(self.values[at]) != _text(self.base)

    def variants(self) -> list[tuple[Any, list[int]]]:
        """The different values, with the documents that have them; the most frequent first."""
        found: dict[bytes, tuple[Any, list[int]]] = {}
        for at, value in enumerate(self.values):
            found.setdefault(_text(value), (value, []))[1].append(at)
        return sorted(found.values(), key=lambda variant: -len(variant[1]))


def differences(base: JsonObject | None, documents: Sequence[JsonObject]) -> list[Difference]:
    """Where the documents differ from the base, or without one from each other."""
    found: list[Difference] = []
    plain = [_plain(document) for document in documents]
    _compare(None if base is None else _plain(base), plain, (), found, base is not None)
    return found


def _plain(document: JsonObject) -> JsonObject:
    """With attachments as what they are, whenever they were stored."""
    stubs = document.get("_attachments")
    if not stubs:
        return document
    shown = {
        name: {member: stub[member] for member in ("content_type", "digest", "length") if member in stub}
        for name, stub in stubs.items()
    }
    return {**document, "_attachments": shown}


def _compare(base: Any, values: Sequence[Any], path: _Path, found: list[Difference], has_base: bool) -> None:
    sides = [base, *values] if has_base else list(values)
    if len({_text(side) for side in sides}) < 2:
        return
    known = len(found)
    if len(path) < DEPTH_MAX and all(type(side) is dict for side in sides):
        names = dict.fromkeys(name for side in sides for name in side)
        for name in names:
            inner = base.get(name, MISSING) if has_base else MISSING
            _compare(inner, [value.get(name, MISSING) for value in values], (*path, name), found, has_base)
    elif has_base and len(values) <= ALIGNED_MAX and all(type(side) is list for side in sides):
        _compare_elements(base, values, path, found)
    if len(found) == known:  # they differ as a whole, or in their order
        found.append(Difference(pointer(path), base if has_base else MISSING, values))


def _compare_elements(base: Any, values: Sequence[Any], path: _Path, found: list[Difference]) -> None:
    aligned = align_list(base, values)
    index = {one: at for at, one in enumerate(aligned.base)}
    for one in merged_order(list(aligned.base), [list(leaf) for leaf in aligned.leaves]).ids:
        elements = [leaf.get(one, MISSING) for leaf in aligned.leaves]
        _compare(aligned.base.get(one, MISSING), elements, (*path, index.get(one, "-")), found, True)


def _text(value: Any) -> bytes:
    return b"" if value is MISSING else canonical(value)
