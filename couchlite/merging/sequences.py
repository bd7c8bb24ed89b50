"""What sequences have in common, and in which order the parts of several of them stand together. Pure.

The alignment is that of difflib in the standard library, whose algorithm hasn't changed in decades, so that
peers of different versions align alike, and their merges agree. (merge3, which merges two sides only, and
patiencediff are under the GPL; diff-match-patch, and three-merge with it, compare characters and stop when
their time is up.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple, TypeVar

Token = TypeVar("Token", bound=Hashable)
Id = tuple[bytes, int]
"""Of an element: a text to order by, and a number that tells apart what has the same text."""


PAIRS_MAX = 200_000
"""Of equal tokens, one of each side: difflib looks at them all for each match it finds."""
LONG = 4_000
"""Where so many tokens are left, of which none is there once only, difflib would take too long: the n-th of
each kind are taken for the same then."""


class Match(NamedTuple):
    """So many tokens are the same from here on."""

    base: int
    leaf: int
    length: int


def alignment(base: Sequence[Token], leaf: Sequence[Token]) -> list[Match]:
    """The runs of tokens that `leaf` has kept, in order; the last one is empty, at both ends.

    First the tokens that each side has once, as many as keep their order (this is called a patience diff),
    then what difflib finds between them.
    """
    head, tail = _ends(base, leaf)
    found = [Match(0, 0, head)]
    base_start = leaf_start = head
    base_end, leaf_end = len(base) - tail, len(leaf) - tail
    anchors = _anchors(base[head:base_end], leaf[head:leaf_end])
    for at, to in [*((head + at, head + to) for at, to in anchors), (base_end, leaf_end)]:
        for match in _matches(base[base_start:at], leaf[leaf_start:to]):
            found.append(Match(base_start + match.base, leaf_start + match.leaf, match.length))
        base_start, leaf_start = at, to
    found.append(Match(base_end, leaf_end, tail))
    return [*_joined(found), Match(len(base), len(leaf), 0)]


def _ends(base: Sequence[Token], leaf: Sequence[Token]) -> tuple[int, int]:
    """How much is the same at both beginnings, and at both ends."""
    shorter = min(len(base), len(leaf))
    head = 0
    while head < shorter and base[head] == leaf[head]:
        head += 1
    tail = 0
    while tail < shorter - head and base[-1 - tail] == leaf[-1 - tail]:
        tail += 1
    return head, tail


def _anchors(base: Sequence[Token], leaf: Sequence[Token]) -> list[tuple[int, int]]:
    """Where the tokens are that each side has once: the longest sequence of them that is in order in both.

    Source: patience sorting; each pile's top is the least end of an increasing sequence of its length.
    """
    in_base, in_leaf = Counter(base), Counter(leaf)
    places = {token: at for at, token in enumerate(leaf) if in_leaf[token] == 1 == in_base[token]}
    tops: list[int] = []
    pairs: list[tuple[int, int, int]] = []  # indexes in base and leaf, and of the pair before
    top_pairs: list[int] = []
    for at, token in enumerate(base):
        to = places.get(token)
        if to is None:
            continue
        pile = bisect_left(tops, to)
        pairs.append((at, to, top_pairs[pile - 1] if pile else -1))
        tops[pile : pile + 1] = [to]
        top_pairs[pile : pile + 1] = [len(pairs) - 1]
    found = []
    last = top_pairs[-1] if top_pairs else -1
    while last >= 0:
        at, to, last = pairs[last]
        found.append((at, to))
    return found[::-1]


def _matches(base: Sequence[Token], leaf: Sequence[Token]) -> Iterable[Match]:
    """The runs that are the same, between anchors."""
    head, tail = _ends(base, leaf)
    yield Match(0, 0, head)
    middle, leaf_middle = base[head : len(base) - tail], leaf[head : len(leaf) - tail]
    if len(middle) + len(leaf_middle) > LONG:
        for at, to in _anchors(_numbered(middle), _numbered(leaf_middle)):
            yield Match(at + head, to + head, 1)
    elif middle and leaf_middle:
        matcher = SequenceMatcher(None, middle, leaf_middle, autojunk=False)
        for token in _frequent(middle, leaf_middle):
            # As difflib itself does, which has another idea of what is frequent. (typeshed omits it.)
            del matcher.b2j[token]  # type: ignore[attr-defined]
        for at, to, size in matcher.get_matching_blocks():
            yield Match(at + head, to + head, size)
    yield Match(len(base) - tail, len(leaf) - tail, tail)


def _numbered(tokens: Sequence[Token]) -> list[tuple[Token, int]]:
    """Each token with how many equal ones came before it."""
    seen: Counter[Token] = Counter()
    numbered = []
    for token in tokens:
        numbered.append((token, seen[token]))
        seen[token] += 1
    return numbered


def _joined(matches: Iterable[Match]) -> list[Match]:
    """Matches without the empty ones; those that follow each other directly, as one."""
    joined: list[Match] = []
    for match in matches:
        if not match.length:
            continue
        last = joined[-1] if joined else None
        if last and (last.base + last.length, last.leaf + last.length) == match[:2]:
            joined[-1] = last._replace(length=last.length + match.length)
        else:
            joined.append(match)
    return joined


def _frequent(base: Sequence[Token], leaf: Sequence[Token]) -> set[Token]:
    """The tokens by which no match is to be found: what there is most of, if otherwise too many pairs of
    equal tokens would have to be looked at. They still belong to matches that others are found by."""
    in_leaf = Counter(leaf)
    pairs = {token: count * in_leaf[token] for token, count in Counter(base).items() if token in in_leaf}
    excess = sum(pairs.values()) - PAIRS_MAX
    frequent = set()
    for token in sorted(pairs, key=lambda token: -pairs[token]) if excess > 0 else ():
        if excess <= 0:
            break
        frequent.add(token)
        excess -= pairs[token]
    return frequent


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
