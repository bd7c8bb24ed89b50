"""Texts merged by lines and, where lines clash, by words: diff3, for any number of sides. Pure.

Source: Khanna, Kunal and Pierce, "A Formal Investigation of Diff3" (2007). A token of the base that all sides
have kept is stable. What lies between stable tokens is a chunk: if only one side changed it, or all that did
changed it alike, that is the result; else it clashes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from .sequences import alignment


class Chunk(NamedTuple):
    """A piece of a text. `merged` is None where the sides clash."""

    merged: str | None
    base: str
    values: tuple[str, ...]
    """What each side has here."""


def merge_text(base: str, values: Sequence[str]) -> str | None:
    """The merged text, or None if there is a clash."""
    pieces = [chunk.merged for chunk in chunks(base, values)]
    return None if None in pieces else "".join(piece for piece in pieces if piece is not None)


def chunks(base: str, values: Sequence[str]) -> Iterator[Chunk]:
    """The text in pieces, merged by lines or words, or clashing: what conflict markers are made of.

    The pieces of each side, put together, are its text. Clashing pieces are whole lines.
    """
    for chunk in _chunks(base, values, _lines):
        if chunk.merged is None:
            pieces = [part.merged for part in _chunks(chunk.base, chunk.values, _words)]
            if None not in pieces:
                merged = "".join(piece for piece in pieces if piece is not None)
                yield chunk._replace(merged=merged)
                continue
        yield chunk


_WORD = re.compile(r"\w+|\s|[^\w\s]")


def _lines(text: str) -> list[str]:
    """With their ends. Only what ends a line in a file is an end."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _chunks(base: str, values: Sequence[str], split: Callable[[str], list[str]]) -> Iterator[Chunk]:
    tokens = split(base)
    sides = {value: split(value) for value in values}
    places = {value: _places(tokens, side) for value, side in sides.items()}
    start = 0
    starts = dict.fromkeys(sides, 0)
    for stable in range(len(tokens) + 1):
        if any(place[stable] < 0 for place in places.values()):
            continue
        before = {value: sides[value][starts[value] : place[stable]] for value, place in places.items()}
        if stable > start or any(before.values()):
            texts = {value: "".join(part) for value, part in before.items()}
            yield _chunk("".join(tokens[start:stable]), [texts[value] for value in values])
        if stable < len(tokens):
            yield Chunk(tokens[stable], tokens[stable], (tokens[stable],) * len(values))
        start = stable + 1
        starts = {value: place[stable] + 1 for value, place in places.items()}


def _places(base: Sequence[str], side: Sequence[str]) -> list[int]:
    """For each token of the base where the side has it, or -1; the ends correspond."""
    places = [-1] * len(base) + [len(side)]
    for match in alignment(base, side):
        for offset in range(match.length):
            places[match.base + offset] = match.leaf + offset
    return places


def _chunk(base: str, values: Sequence[str]) -> Chunk:
    edits = {value for value in values if value != base}
    merged = base if not edits else edits.pop() if len(edits) == 1 else None
    return Chunk(merged, base, tuple(values))
