"""Whether the pages of an LMDB file fit together: what LMDB itself never looks at, and trusts.

LMDB has no checksums, and a damaged page can make it end the process. So a file is walked here by plain reads
before it is opened. The walk proves that LMDB will find every record: each page is what the one above it
says, keys ascend within and across pages, the counts agree, and every page of the file is used once, or free.
What the records say is for others to check; they have checksums (seal.py) or stand twice.

Not looked at is what nobody reads: free pages, gaps within pages, the root page that is not in force, and the
size of the map, which every process chooses for itself. Of the keys that only lead the way through branches
the order is checked, which is all that counts; of the free list everything but when a page became free.

The layout is that of LMDB 0.9 (mdb.c) on a 64-bit machine.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from .lmdb_pages import (
    DB,
    HAS_BIG_DATA,
    HAS_SUB_DATA,
    IS_BRANCH,
    IS_LEAF,
    IS_OVERFLOW,
    MAGIC,
    META,
    META_END,
    META_SIZE,
    NO_PAGE,
    NODE,
    PAGE,
    PAGE_NUMBER,
)

PROBLEMS_MAX = 20
"""A file with more of them is told to have more."""
DEPTH_MAX = 32
"""LMDB's own bound."""
_VERSION = 1
_IS_META = 8
_INTEGER_KEYS = 8
_USED, _FREE = 1, 2
_HEAD_RANGES = ((0, 8), (10, 16))
"""The bytes of a page's head that count: its number, flags and bounds."""


@dataclass(frozen=True, slots=True)
class PageReport:
    """What a walk has found."""

    problems: list[str]
    transaction: int
    """The number of the last commit that the file shows."""
    is_current: bool
    """Whether nobody has committed during the walk; else, unless a reader kept the pages, `problems` may
    come of that."""


class _Db(NamedTuple):
    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


class _Meta(NamedTuple):
    page: int
    flags: int
    magic: int
    version: int
    databases: tuple[_Db, _Db]
    """The free list, and the tree of the others' roots."""
    last_page: int
    transaction: int


def examine(path: Path, names: Collection[str], transaction: int | None = None) -> PageReport:
    """Walk the file as of its last commit, or as of a `transaction` that an open reader keeps. `names` are
    the keyspaces that it may have; some may be missing, since who opens it makes those.

    :raises OSError: it can't be read.
    :raises LookupError: it does not show that transaction any more; begin another reader.
    """
    with open(path, "rb") as file:
        return _Walk(file.fileno(), names, transaction).report()


def meaningful_bytes(path: Path, names: Collection[str]) -> list[tuple[int, int]]:
    """The ranges of the file, as (start, stop), in which each bit counts; of one that nobody writes to."""
    with open(path, "rb") as file:
        walk = _Walk(file.fileno(), names, None, ranges=[])
        problems = walk.report().problems
        assert not problems and walk.ranges is not None, problems
        return sorted(walk.ranges)


class _Damaged(Exception):
    """A page can't be gone through any further."""


class _Walk:
    def __init__(
        self,
        file: int,
        names: Collection[str],
        transaction: int | None,
        *,
        ranges: list[tuple[int, int]] | None = None,
    ) -> None:
        self._file = file
        self._names = names
        self._wanted = transaction
        self.ranges = ranges
        self._problems: list[str] = []
        self._page_size = 0
        self._pages = bytearray()

    def report(self) -> PageReport:
        metas = self._metas()
        if metas is None:
            return PageReport(self._problems, 0, True)
        meta = self._chosen(metas)
        self._pages = bytearray(meta.last_page + 1) if self._fits(meta) else bytearray()
        if self._pages:
            self._walk_all(meta)
        after = self._metas()
        is_current = after is not None and max(m.transaction for m in after) == meta.transaction
        return PageReport(self._problems, meta.transaction, is_current)

    def _tell(self, problem: str) -> None:
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(problem)
        elif len(self._problems) == PROBLEMS_MAX:
            self._problems.append("and more")

    # root pages

    def _metas(self) -> list[_Meta] | None:
        """Both root pages; None when the file does not begin as LMDB's do."""
        first = self._read_meta(0)
        if first is None or first.magic != MAGIC or first.version != _VERSION:
            self._tell("its first root page is damaged")
            return None
        self._page_size = first.databases[0].pad
        if self._page_size not in {1 << bits for bits in range(9, 17)}:
            self._tell(f"its first root page names a page size of {self._page_size}")
            return None
        second = self._read_meta(self._page_size)
        if second is None:
            self._tell("its second root page is missing")
            return None
        return [first, second]

    def _read_meta(self, offset: int) -> _Meta | None:
        data = os.pread(self._file, META_SIZE, offset)
        if len(data) < META_SIZE:
            return None
        number, _, flags, _, _ = PAGE.unpack_from(data)
        magic, version, _, _ = META.unpack_from(data, PAGE.size)
        at = PAGE.size + META.size
        databases = _Db(*DB.unpack_from(data, at)), _Db(*DB.unpack_from(data, at + DB.size))
        return _Meta(number, flags, magic, version, databases, *META_END.unpack_from(data, at + 2 * DB.size))

    def _chosen(self, metas: list[_Meta]) -> _Meta:
        for number, meta in enumerate(metas):
            if (meta.page, meta.flags, meta.magic, meta.version) != (number, _IS_META, MAGIC, _VERSION):
                self._tell(f"root page {number} is damaged")
            if meta.transaction & 1 != number and meta.transaction:
                self._tell(f"root page {number} shows transaction {meta.transaction}, which can't be")
        if abs(metas[0].transaction - metas[1].transaction) > 1:
            self._tell("the transactions of the root pages don't follow each other")
        newest = max(metas, key=lambda meta: meta.transaction)
        if self._wanted is None:
            chosen = newest
        else:
            chosen = next((meta for meta in metas if meta.transaction == self._wanted), None)  # type: ignore[assignment]
            if chosen is None:
                raise LookupError(self._wanted)
        if self.ranges is not None:
            self._note_metas(metas, chosen)
        return chosen

    def _note_metas(self, metas: list[_Meta], chosen: _Meta) -> None:
        for number, meta in enumerate(metas):
            start = number * self._page_size
            body = start + PAGE.size
            self._note(start, (0, 8), (10, 12))
            self._note(body, (0, 8))
            end = body + META.size + 2 * DB.size
            self._note(end, (8, 16))
            if number == 0:
                self._note(body + META.size, (0, 4))
            if meta is chosen:
                self._note(end, (0, 8))
                self._note(body + META.size, (0, 2 * DB.size))

    def _fits(self, meta: _Meta) -> bool:
        free, main = meta.databases
        if free.pad != self._page_size or main.pad or free.flags != _INTEGER_KEYS or main.flags:
            self._tell(f"the root page of transaction {meta.transaction} is damaged")
        # Pages at its end that were taken and given back are never written, but not more than that.
        size = os.fstat(self._file).st_size
        if meta.last_page < 1 or meta.last_page * self._page_size > size + (1 << 40):
            self._tell(f"the last page is said to be {meta.last_page}, in a file of {size} bytes")
            return False
        return True

    # trees

    def _walk_all(self, meta: _Meta) -> None:
        self._pages[0] = self._pages[1] = _USED
        free, main = meta.databases
        for key, value, flags in self._tree("the free list", free):
            self._free(key, value, flags, meta.transaction)
        for key, value, flags in self._tree("the list of keyspaces", main):
            name = key.decode("ascii", "replace")
            if flags != HAS_SUB_DATA or len(value) != DB.size or name not in self._names:
                self._tell(f"the list of keyspaces has something else at {name!r}")
                continue
            database = _Db(*DB.unpack(value))
            if database.pad or database.flags:
                self._tell(f"the root of {name} is damaged")
            for _ in self._tree(name, database):
                pass
        lost = self._pages.count(0)
        if lost and not self._problems:
            self._tell(f"{lost} pages are neither used nor free, the first is {self._pages.find(0)}")

    def _free(self, key: bytes, value: bytes, flags: int, transaction: int) -> None:
        """A record of the free list: the pages that a transaction has freed, as a count and their numbers."""
        if len(key) != 8 or len(value) % 8 or not value or flags:
            self._tell("a record of the free list has an odd form")
            return
        count, *numbers = struct.unpack(f"@{len(value) // 8}Q", value)
        if count > len(numbers) or int.from_bytes(key, "little") > transaction:
            self._tell("a record of the free list is damaged")
            return
        for number in numbers[:count]:
            self._take(number, _FREE, "the free list")

    def _take(self, number: int, use: int, owner: str) -> bool:
        if not 2 <= number < len(self._pages):
            self._tell(f"{owner}: page {number} does not exist")
        elif self._pages[number]:
            was = "free" if self._pages[number] == _FREE else "used elsewhere"
            self._tell(f"{owner}: page {number} is {was} at the same time")
        else:
            self._pages[number] = use
            return True
        return False

    def _tree(self, name: str, database: _Db) -> Iterator[tuple[bytes, bytes, int]]:
        """Walk a tree; the records of the two that matter here, as (key, value, flags)."""
        counts = [0, 0, 0, 0]
        integer_keys = bool(database.flags & _INTEGER_KEYS)
        wants_values = name.startswith("the ")
        if database.root != NO_PAGE:
            try:
                yield from self._below(
                    name, database.root, database.depth, None, None, integer_keys, wants_values, counts
                )
            except _Damaged as damage:
                self._tell(f"{name}: {damage}")
                return
        said = [database.branch_pages, database.leaf_pages, database.overflow_pages, database.entries]
        if counts != said or (database.depth == 0) != (database.root == NO_PAGE):
            self._tell(f"{name}: it has {counts} branch, leaf and long pages and records, and claims {said}")

    def _below(
        self,
        name: str,
        number: int,
        depth: int,
        low: bytes | None,
        high: bytes | None,
        integer_keys: bool,
        wants_values: bool,
        counts: list[int],
    ) -> Iterator[tuple[bytes, bytes, int]]:
        """The subtree of a page, whose keys must be `low <= key < high`."""
        if not 0 < depth <= DEPTH_MAX:
            raise _Damaged(f"page {number} lies too deep")
        if not self._take(number, _USED, name):
            return
        page = self._read(number, IS_LEAF if depth == 1 else IS_BRANCH)
        is_branch = depth > 1
        counts[0 if is_branch else 1] += 1
        nodes = self._nodes(number, page, is_branch, integer_keys)
        keys = [page[at + NODE.size : at + NODE.size + size] for at, _, _, _, size in nodes]
        self._check_order(number, keys[1:] if is_branch else keys, low, high, integer_keys)
        if not is_branch:
            counts[3] += len(nodes)
            for key, node in zip(keys, nodes, strict=True):
                yield from self._leaf(name, number, page, key, node, wants_values, counts)
            return
        bounds = [low, *keys[1:], high]
        for place, (_, low_bits, high_bits, flags, _) in enumerate(nodes):
            child = low_bits | high_bits << 16 | flags << 32
            yield from self._below(
                name, child, depth - 1, bounds[place], bounds[place + 1], integer_keys, wants_values, counts
            )

    def _read(self, number: int, kind: int) -> bytes:
        page = os.pread(self._file, self._page_size, number * self._page_size)
        if len(page) < self._page_size:
            raise _Damaged(f"page {number} lies beyond the end of the file")
        own, _, flags, lower, upper = PAGE.unpack_from(page)
        if own != number or flags != kind:
            raise _Damaged(f"page {number} is not what it should be")
        if not PAGE.size <= lower <= upper <= self._page_size or lower % 2:
            raise _Damaged(f"page {number} has no sensible bounds")
        self._note(number * self._page_size, *_HEAD_RANGES, (PAGE.size, lower))
        return page

    def _nodes(
        self, number: int, page: bytes, is_branch: bool, integer_keys: bool
    ) -> list[tuple[int, int, int, int, int]]:
        """(offset, two halves of a number, flags, length of the key) of each; they fill the page's end."""
        lower, upper = PAGE.unpack_from(page)[3:]
        count = (lower - PAGE.size) // 2
        if not count:
            raise _Damaged(f"page {number} is empty")
        nodes = []
        total = 0
        for at in struct.unpack_from(f"@{count}H", page, PAGE.size):
            if not upper <= at <= self._page_size - NODE.size:
                raise _Damaged(f"page {number} has a record out of bounds")
            low_bits, high_bits, flags, key_size = NODE.unpack_from(page, at)
            size = NODE.size + key_size
            if not is_branch:
                size += PAGE_NUMBER.size if flags & HAS_BIG_DATA else low_bits | high_bits << 16
            if at + size > self._page_size:
                raise _Damaged(f"page {number} has a record out of bounds")
            total += size + (size & 1)
            nodes.append((at, low_bits, high_bits, flags, key_size))
            if self.ranges is not None:
                start = number * self._page_size + at
                if is_branch:
                    self._note(start, (0, NODE.size))
                else:
                    value = NODE.size + key_size
                    self._note(start, (0, NODE.size if integer_keys else value), (value, size))
        offsets = [node[0] for node in nodes]
        if total != self._page_size - upper or len(set(offsets)) != count:
            raise _Damaged(f"page {number} does not hold its records one behind the other")
        return nodes

    def _check_order(
        self, number: int, keys: list[bytes], low: bytes | None, high: bytes | None, integer_keys: bool
    ) -> None:
        if integer_keys:
            order = [int.from_bytes(key, "little") for key in keys]
            first = None if low is None else int.from_bytes(low, "little")
            last = None if high is None else int.from_bytes(high, "little")
            is_sorted = all(a < b for a, b in pairwise(order))
            fits = not order or ((first is None or order[0] >= first) and (last is None or order[-1] < last))
        else:
            is_sorted = all(a < b for a, b in pairwise(keys))
            fits = not keys or ((low is None or keys[0] >= low) and (high is None or keys[-1] < high))
        if not is_sorted or not fits:
            raise _Damaged(f"the keys of page {number} are out of order")

    def _leaf(
        self,
        name: str,
        number: int,
        page: bytes,
        key: bytes,
        node: tuple[int, int, int, int, int],
        wants_values: bool,
        counts: list[int],
    ) -> Iterator[tuple[bytes, bytes, int]]:
        at, low_bits, high_bits, flags, key_size = node
        if flags & ~(HAS_BIG_DATA | HAS_SUB_DATA):
            raise _Damaged(f"page {number} has a record of an unknown kind")
        length = low_bits | high_bits << 16
        start = at + NODE.size + key_size
        if not flags & HAS_BIG_DATA:
            if wants_values:
                yield key, page[start : start + length], flags
            elif flags:
                raise _Damaged(f"page {number} has a record of an unknown kind")
            return
        [first] = PAGE_NUMBER.unpack_from(page, start)
        value = self._long_value(name, first, length, counts, wants_values)
        if wants_values:
            yield key, value, flags & ~HAS_BIG_DATA

    def _long_value(self, name: str, first: int, length: int, counts: list[int], wanted: bool) -> bytes:
        """Of a value in pages of its own, which follow each other."""
        offset = first * self._page_size
        head = os.pread(self._file, PAGE.size, offset)
        if len(head) < PAGE.size:
            raise _Damaged(f"page {first} lies beyond the end of the file")
        own, _, flags, lower, upper = PAGE.unpack(head)
        pages = lower | upper << 16
        if own != first or flags != IS_OVERFLOW or PAGE.size + length > pages * self._page_size:
            raise _Damaged(f"page {first} is not what it should be")
        if os.fstat(self._file).st_size < offset + PAGE.size + length:
            raise _Damaged(f"page {first} lies beyond the end of the file")
        counts[2] += pages
        for number in range(first, first + pages):
            if not self._take(number, _USED, name):
                break
        self._note(offset, *_HEAD_RANGES, (PAGE.size, PAGE.size + length))
        return os.pread(self._file, length, offset + PAGE.size) if wanted else b""

    def _note(self, offset: int, *ranges: tuple[int, int]) -> None:
        if self.ranges is not None:
            self.ranges += [(offset + start, offset + stop) for start, stop in ranges if stop > start]
