"""Rows and reductions of an index, as a query asks for them.

A query is answered page by page; each page is one short snapshot of the index, and the query remembers where
it is. Ranges of keys become ranges of row keys, in which whichever end the rows are read from no longer
matters.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..collation import SortKey, sort_key
from ..engine import Reader
from ..jsontext import dumps, loads
from . import levels, store
from .layout import ROW_END, ROW_HEAD_BYTES, State, before_id, behind_id
from .levels import Cover, Reductions

PAGE_ROWS = 1000
PAGE_GROUPS = 200
SKIPPED_BY_READING_MAX = 100
"""To skip more rows than this, they are counted by their nodes instead of read."""


class Range(NamedTuple):
    """Row keys with `start <= key < stop`; None is behind all."""

    start: bytes
    stop: bytes | None


EVERYTHING = Range(b"", None)


def range_of_partition(prefix: bytes) -> Range:
    """All rows of the partition whose row keys begin so."""
    return Range(prefix, prefix + ROW_END)


class Bound(NamedTuple):
    """One end of a range of keys as a query gives it: a key, and maybe a document's id."""

    key: Any
    doc_id: bytes | None = None


def range_of(
    first: Bound | None,
    last: Bound | None,
    *,
    inclusive_end: bool = True,
    descending: bool = False,
    prefix: bytes = b"",
    sort_key: SortKey = sort_key,
) -> Range:
    """The rows between two bounds, of which `first` is where a reader begins; of one partition, if its
    `prefix` is given.

    :param sort_key: that of the index, here as below.
    """
    low, high = (last, first) if descending else (first, last)
    start, stop = range_of_partition(prefix) if prefix else EVERYTHING
    if low is not None:
        start = prefix + (
            _before(low, sort_key) if inclusive_end or not descending else _behind(low, sort_key)
        )
    if high is not None:
        stop = prefix + (_behind(high, sort_key) if inclusive_end or descending else _before(high, sort_key))
    return Range(start, stop)


def _before(bound: Bound, sort_key: SortKey) -> bytes:
    key = sort_key(bound.key)
    return key if bound.doc_id is None else before_id(key, bound.doc_id)


def _behind(bound: Bound, sort_key: SortKey) -> bytes:
    key = sort_key(bound.key)
    return key + ROW_END if bound.doc_id is None else behind_id(key, bound.doc_id)


def range_of_key(key: Any, prefix: bytes = b"", sort_key: SortKey = sort_key) -> Range:
    """The rows with a key; of one partition, if its `prefix` is given."""
    start = prefix + sort_key(key)
    return Range(start, start + ROW_END)


# --- rows


class Rows:
    """The rows of some ranges, one after the other."""

    def __init__(self, ranges: Sequence[Range], *, descending: bool, skip: int, limit: int) -> None:
        self._ranges = list(reversed(ranges))
        """What is left; the one read from is last."""
        self._descending = descending
        self._skip = skip
        self._limit = limit

    @property
    def is_through(self) -> bool:
        return not self._ranges or not self._limit

    @property
    def place(self) -> Hashable:
        """What the offset depends on."""
        return (self._descending, self._skip, *self._ranges)

    def offset(self, reader: Reader, state: State) -> int:
        """How many rows come before the first one that is shown; to be asked before the first page."""
        before = 0
        for one in reversed(self._ranges):
            before = self._count_before(reader, state, one)
            if len(self._ranges) == 1 or store.edge(reader, one.start, one.stop) is not None:
                break
        return min(state.rows, before + self._skip)

    def _count_before(self, reader: Reader, state: State, one: Range) -> int:
        if self._descending:
            return state.rows - store.count_before(reader, state, one.stop)
        return store.count_before(reader, state, one.start)

    def page(self, reader: Reader, state: State) -> list[bytes]:
        """The next rows as JSON; none when there are no more."""
        found: list[bytes] = []
        size = 0
        while self._ranges and self._limit and len(found) < PAGE_ROWS and size < store.PAGE_BYTES:
            one = self._ranges.pop()
            if self._skip > SKIPPED_BY_READING_MAX:
                one = self._skip_in(reader, state, one)
            wanted = min(self._limit, PAGE_ROWS - len(found)) + self._skip
            page = store.page(reader, one.start, one.stop, reverse=self._descending, limit=wanted)
            texts = page.texts[self._skip :] if self._skip else page.texts
            self._skip -= len(page.texts) - len(texts)
            self._limit -= len(texts)
            found = found + texts if found else texts
            if not page.ended:
                self._ranges.append(self._rest(one, page.keys[-1]))
            size += sum(map(len, texts))
        return found

    def _rest(self, one: Range, last: bytes) -> Range:
        return Range(one.start, last) if self._descending else Range(last + b"\0", one.stop)

    def _skip_in(self, reader: Reader, state: State, one: Range) -> Range:
        """What is left of a range."""
        first = store.count_before(reader, state, one.start)
        end = store.count_before(reader, state, one.stop)
        if self._skip >= end - first:
            self._skip -= end - first
            return Range(one.start, one.start)
        number = end - self._skip if self._descending else first + self._skip
        self._skip = 0
        edge = store.key_at(reader, state, number)
        return Range(one.start, edge) if self._descending else Range(edge or one.start, one.stop)


# --- reductions


class Group(NamedTuple):
    """Rows that are reduced to one value."""

    key: bytes
    """As JSON."""
    cover: Cover


@dataclass(slots=True)
class Groups:
    """The groups of rows in a range.

    :param level: how many elements of a key that is an array tell groups apart; None for the whole key, 0 for
        one group of all.
    """

    rest: Range
    level: int | None
    descending: bool
    skip: int
    limit: int
    shown_key: bytes | None = None
    """As JSON, instead of what the rows have."""
    prefix: bytes = b""
    """Of the partition that all rows belong to."""
    sort_key: SortKey = sort_key

    @property
    def is_through(self) -> bool:
        return not self.limit or (self.rest.stop is not None and self.rest.start >= self.rest.stop)

    def page(self, reader: Reader, state: State) -> list[Group]:
        """The next groups; none when there are no more."""
        highest = levels.top(reader) if state.levels else 0
        found = []
        for key, one in self._groups(reader):
            if self.skip:
                self.skip -= 1
                continue
            found.append(Group(key, cover(reader, state, one, highest)))
            self.limit -= 1
            if len(found) == PAGE_GROUPS:
                break
        return found

    def _groups(self, reader: Reader) -> Iterator[tuple[bytes, Range]]:
        while not self.is_through:
            start, stop = self.rest
            row = store.edge(reader, start, stop, reverse=self.descending)
            if row is None:
                self.rest = Range(start, start)
                return
            if self.level == 0:
                self.rest = Range(start, start)
                yield b"null", Range(start, stop)
                return
            key = loads(row[1])["key"]
            prefix = row[0][: self._prefix_size(key)]
            if self.level is not None and type(key) is list:
                key = key[: self.level]
            end = prefix + ROW_END
            if self.descending:
                self.rest = Range(start, prefix)
                start = max(start, prefix)
            else:
                self.rest = Range(end, stop)
                stop = end if stop is None else min(stop, end)
            yield self.shown_key or dumps(key), Range(start, stop)

    def _prefix_size(self, key: Any) -> int:
        """How much of a row key all rows of the group have in common that a key belongs to."""
        if self.level is None or type(key) is not list or len(key) < self.level:
            return len(self.prefix) + len(self.sort_key(key))
        return len(self.prefix) + len(self.sort_key(key[: self.level])) - 1  # without the end of the array


def cover(reader: Reader, state: State, one: Range, highest: int) -> Cover:
    """What the rows of a range are reduced from."""
    if state.levels:
        return levels.cover(reader, one.start, one.stop, highest)
    found = Cover()
    found.left = [record for _key, record in levels.scan_rows(reader, one.start, one.stop)]
    return found


def combine(covers: Sequence[Cover], reductions: Reductions) -> list[bytes]:
    """The partial reductions of covers, none of which is empty."""
    edges = [rows for one in covers for rows in (one.left, one.right) if rows]
    reduced = iter(reductions.of_rows(edges))
    parts = []
    for one in covers:
        left = [next(reduced)] if one.left else []
        right = [next(reduced)] if one.right else []
        parts.append(left + one.partials + right)
    return reductions.of_partials(parts)


def texts_of(one: Cover) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """A cover as FunctionPool.reduce_groups takes it."""
    return (
        [row[ROW_HEAD_BYTES:] for row in one.left],
        one.partials,
        [row[ROW_HEAD_BYTES:] for row in one.right],
    )
