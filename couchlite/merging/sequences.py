"""What sequences have in common, and in which order the parts of several of them stand together. Pure.

The alignment is that of difflib in the standard library: its algorithm hasn't changed in decades, so that
peers of different versions align alike, and their merges agree. (merge3, which merges two sides only, and
patiencediff are under the GPL; diff-match-patch, and three-merge with it, compare characters and stop when
their time is up.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple, TypeVar

Token = TypeVar("Token", str, bytes, tuple[bytes, int])
Id = tuple[bytes, int]
"""Of an element: a text to order by, and a number that tells apart what has the same text."""


class Match(NamedTuple):
    """So many tokens are the same from here on."""

    base: int
    leaf: int
    length: int


def alignment(base: Sequence[Token], leaf: Sequence[Token]) -> list[Match]:
    """The runs of tokens that `leaf` has kept, in order; the last one is empty, at both ends."""
    shorter = min(len(base), len(leaf))
    head = 0
    while head < shorter and base[head] == leaf[head]:
        head += 1
    tail = 0
    while tail < shorter - head and base[-1 - tail] == leaf[-1 - tail]:
        tail += 1
    found: list[Match] = [Match(0, 0, head)] if head else []
    base_end, leaf_end = len(base) - tail, len(leaf) - tail
    if head < base_end and head < leaf_end:
        # In long sequences frequent tokens don't count, or each of them would be held against all others.
        matcher = SequenceMatcher(None, base[head:base_end], leaf[head:leaf_end])
        found += [Match(at + head, to + head, size) for at, to, size in matcher.get_matching_blocks() if size]
    if tail:
        found.append(Match(base_end, leaf_end, tail))
    return [*found, Match(len(base), len(leaf), 0)]


class Order(NamedTuple):
    """All ids in order; and whether the leaves had different ideas of it."""

    ids: list[Id]
    is_disputed: bool


def merged_order(base: Sequence[Id], leaves: Iterable[Sequence[Id]]) -> Order:
    """An order of all ids of all sequences, none of which has an id twice.

    Ids of the base stay where they are unless a leaf moved them; what a leaf put somewhere (new or moved)
    follows the same id of the base as there. What several leaves put at one place keeps the order of each of
    them. The order of the leaves makes no difference.
    """
    distinct = {tuple(leaf) for leaf in leaves} - {tuple(base)}
    known = set(base)
    runs: dict[int, set[tuple[Id, ...]]] = defaultdict(set)
    places: dict[Id, set[int]] = defaultdict(set)
    for leaf in distinct:
        for place, run in _runs(base, leaf):
            runs[place].add(run)
            for one in run:
                places[one].add(place)
    is_disputed = any(len(found) > 1 for one, found in places.items() if one in known)
    ids: list[Id] = []
    for place in range(-1, len(base)):
        if place >= 0 and base[place] not in places:
            ids.append(base[place])
        if place in runs:
            here = [[one for one in run if min(places[one]) == place] for run in runs[place]]
            order = _supersequence(here)
            ids += order.ids
            is_disputed |= order.is_disputed
    return Order(ids, is_disputed)


def _runs(base: Sequence[Id], leaf: Sequence[Id]) -> Iterable[tuple[int, tuple[Id, ...]]]:
    """What the leaf put where: runs of ids, each with the index in the base of what it follows, or -1."""
    place, start = -1, 0
    for match in alignment(base, leaf):
        if match.leaf > start:
            yield place, tuple(leaf[start : match.leaf])
        place, start = match.base + match.length - 1, match.leaf + match.length


def _supersequence(runs: Sequence[Sequence[Id]]) -> Order:
    """A sequence of all ids that keeps the order of each run and, where it can, what a run has together.

    Where runs contradict each other, the smallest id goes first.
    """
    after: dict[Id, set[Id]] = {one: set() for run in runs for one in run}
    waits_for: dict[Id, set[Id]] = {one: set() for one in after}
    for run in runs:
        for one, following in pairwise(run):
            after[one].add(following)
            waits_for[following].add(one)
    ids: list[Id] = []
    is_disputed = False
    remaining = set(after)
    free = {one for one in remaining if not waits_for[one]}
    while remaining:
        if free:
            # What follows the last one directly, if it may come now, so that runs aren't interleaved.
            one = min((after[ids[-1]] & free if ids else free) or free)
        else:
            one = min(remaining)
            is_disputed = True
        remaining.discard(one)
        free.discard(one)
        ids.append(one)
        for following in after[one]:
            waits_for[following].discard(one)
            if not waits_for[following] and following in remaining:
                free.add(following)
    return Order(ids, is_disputed)
