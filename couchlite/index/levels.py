"""Partial reductions of an index in a skip list: what makes counts, offsets and reductions cost O(log n).

A node of level 1 stands for some 16 rows, a node of level n + 1 for some 16 nodes of level n. Where a node
begins is decided by the hash of the row key alone: about every 16th row begins a node of level 1, about every
256th one of level 2 as well. So the structure depends on the rows and not on their history, and a change
touches one node a level. Each level also has a node at its very beginning, whose key is empty; the topmost
level has no other.

    level 2   ""...................................... row 7 .................
    level 1   ""........... row 3 ......... row 7 .... row 9 .................
    rows      1   2         3   4   5   6   7   8      9   10   11   12

What must stay true here: nodes change in the transaction that changes their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol
from zlib import crc32

from .. import keys
from ..engine import Batch, Reader
from .layout import COUNT_BYTES, IndexSpace, encode_node, level_prefix, node_count

LEVELS_MAX = 8
"""As many as the hash has room for; the highest one is never divided."""
GROUPS_AT_ONCE = 1000
"""So many nodes are reduced by one call while all are built."""
_BITS = 4
_MASKS = [(1 << _BITS * level) - 1 for level in range(LEVELS_MAX + 1)]

Node = tuple[bytes, bytes]
"""The row key it begins at, and its record."""


class Reductions(Protocol):
    """How rows become partial reductions, and these one. Of each group, which is never empty, one."""

    def of_rows(self, groups: Sequence[Sequence[bytes]]) -> list[bytes]:
        """The partial reductions of records of rows."""
        ...

    def of_partials(self, groups: Sequence[Sequence[bytes]]) -> list[bytes]:
        """The partial reductions of partial reductions."""
        ...


class CountsOnly:
    """For an index that reduces nothing."""

    def of_rows(self, groups: Sequence[Sequence[bytes]]) -> list[bytes]:
        return [b""] * len(groups)

    of_partials = of_rows


# --- writing


def update(batch: Batch, changed: Iterable[bytes], reductions: Reductions) -> None:
    """Bring the nodes up to date after the rows with these keys were added, replaced or removed."""
    dirty = sorted(changed)
    for level in range(1, LEVELS_MAX + 1):
        if not dirty:
            return
        dirty = _update_level(batch, level, dirty, reductions)
        if level == LEVELS_MAX or not _is_divided(batch, level):
            _clear(batch, level + 1)
            return


def _update_level(batch: Batch, level: int, changed: list[bytes], reductions: Reductions) -> list[bytes]:
    """The nodes that changed, in order, when the items below (rows or nodes) with these keys did."""
    beginnings = [key for key in changed if _begins(key, level)]
    for key in beginnings:
        if _exists(batch, level - 1, key):
            _put(batch, level, key, encode_node(0, b""))
        else:
            _delete(batch, level, key)
    nodes = sorted(_nodes_around(batch, level, changed))
    groups = [_items(batch, level - 1, key, _after(batch, level, key)) for key in nodes]
    for key, record in zip(nodes, _reduced(level, groups, reductions), strict=True):
        if record is None:
            _delete(batch, level, key)
        else:
            _put(batch, level, key, record)
    return sorted({*nodes, *beginnings})


def _nodes_around(batch: Batch, level: int, changed: list[bytes]) -> set[bytes]:
    """The nodes that hold the items or would hold them; of an item that begins a node also the one before."""
    found: set[bytes] = set()
    node: bytes | None = None
    end: bytes | None = None
    for key in changed:
        if _begins(key, level):
            found.add(_node_before(batch, level, key, inclusive=False))
            if _has(batch, level, key):
                found.add(key)
        elif node is None or key < node or (end is not None and key >= end):
            node = _node_before(batch, level, key, inclusive=True)
            end = _after(batch, level, node)
            found.add(node)
    return found


def rebuild(batch: Batch, reductions: Reductions) -> None:
    """Make all nodes anew from the rows."""
    _clear(batch, 1)
    items: Iterator[Node] = (
        (keys.id_of(batch, IndexSpace.ROWS, key), record) for key, record in batch.scan(IndexSpace.ROWS)
    )
    for level in range(1, LEVELS_MAX + 1):
        nodes: list[Node] = []
        groups = _groups(items, level)
        while some := list(islice(groups, GROUPS_AT_ONCE)):
            records = _reduced(level, [group for _key, group in some], reductions)
            made = [(key, record) for (key, _group), record in zip(some, records, strict=True) if record]
            for key, record in made:
                _put(batch, level, key, record)
            nodes += made
        if len(nodes) <= 1 and (not nodes or nodes[0][0] == b""):
            return
        items = iter(nodes)


def _groups(items: Iterator[Node], level: int) -> Iterator[tuple[bytes, list[bytes]]]:
    """Items cut into nodes: where each begins, and the records in it. The first begins at the beginning."""
    mask = _MASKS[level]
    start: bytes = b""
    group: list[bytes] = []
    for key, record in items:
        if key and crc32(key) & mask == 0 and level < LEVELS_MAX:
            yield start, group
            start, group = key, []
        group.append(record)
    yield start, group


def _reduced(level: int, groups: Sequence[Sequence[bytes]], reductions: Reductions) -> list[bytes | None]:
    """The records of nodes; None for a node without items."""
    full = [group for group in groups if group]
    if level == 1:
        partials = reductions.of_rows(full)
        counts = [len(group) for group in full]
    else:
        partials = reductions.of_partials([[record[COUNT_BYTES:] for record in group] for group in full])
        counts = [sum(map(node_count, group)) for group in full]
    records = map(encode_node, counts, partials)
    return [next(records) if group else None for group in groups]


def _begins(key: bytes, level: int) -> bool:
    """Whether a node of a level begins at a row."""
    return level < LEVELS_MAX and key != b"" and crc32(key) & _MASKS[level] == 0


# --- reading


def top(reader: Reader) -> int:
    """The topmost level; 0 when there are no rows."""
    last = next(reader.scan(IndexSpace.LEVELS, reverse=True), None)
    return 0 if last is None else last[0][0]


def total(reader: Reader) -> bytes | None:
    """The record of the node that stands for all rows; None when there are none."""
    last = next(reader.scan(IndexSpace.LEVELS, reverse=True), None)
    return None if last is None else last[1]


def count_before(reader: Reader, bound: bytes) -> int:
    """How many rows have keys less than `bound`."""
    count, start = 0, b""
    for level in range(top(reader), 0, -1):
        records = list(_scan(reader, level, start, bound + b"\0"))
        count += sum([int.from_bytes(record[:COUNT_BYTES], "big") for _key, record in records[:-1]])
        if records:
            start = _row_key(reader, records[-1][0])
    return count + sum(1 for _row in scan_rows(reader, start, bound))


def key_at(reader: Reader, number: int) -> bytes | None:
    """The key of the row that `number` others come before; None when there are not so many."""
    start = b""
    for level in range(top(reader), 0, -1):
        for key, record in _scan(reader, level, start, None):
            start = key[1:]
            size = node_count(record)
            if number < size:
                break
            number -= size
        else:
            return None
        start = _row_key(reader, key)
    row = next(islice(scan_rows(reader, start, None), number, None), None)
    return None if row is None else keys.id_of(reader, IndexSpace.ROWS, row[0])


class Cover:
    """What a range of rows consists of: rows at its edges and nodes in between, in order."""

    __slots__ = ("left", "partials", "right")

    def __init__(self) -> None:
        self.left: list[bytes] = []
        """Records of rows."""
        self.partials: list[bytes] = []
        self.right: list[bytes] = []
        """Records of rows."""


def cover(reader: Reader, start: bytes, stop: bytes | None, highest: int) -> Cover:
    """Cover the rows with `start <= key < stop` by as few nodes as there are; `highest` is `top`'s level."""
    found = Cover()
    divided = _level_begun_at(reader, stop)
    level = 0
    while level < highest:  # climb, as long as a node of the next level begins within the range
        higher = next(_scan(reader, level + 1, start, stop), None)
        if higher is None:
            break
        edge = _row_key(reader, higher[0])
        if level == 0:
            passed = found.left = [record for _key, record in scan_rows(reader, start, edge)]
        else:
            passed = [record[COUNT_BYTES:] for _key, record in _scan(reader, level, start, edge)]
            found.partials += passed
        if passed:  # else the range may begin before all rows, as the first node of each level does
            start = edge
        level += 1
    while level > 0:  # descend; only the last node of a level may reach beyond the end
        nodes = list(_scan(reader, level, start, stop))
        if level > divided:
            start = _row_key(reader, nodes.pop()[0])
        found.partials += [record[COUNT_BYTES:] for _key, record in nodes]
        if level <= divided:
            return found
        level -= 1
    found.right = [record for _key, record in scan_rows(reader, start, stop)]
    return found


def _level_begun_at(reader: Reader, bound: bytes | None) -> int:
    """The highest level whose nodes end at a bound."""
    row = None if bound is None else next(scan_rows(reader, bound, None), None)
    if row is None:
        return LEVELS_MAX
    key = keys.id_of(reader, IndexSpace.ROWS, row[0])
    return next(level for level in range(LEVELS_MAX) if not _begins(key, level + 1))


def nodes(reader: Reader, level: int) -> Iterator[Node]:
    """The nodes of a level; for checks."""
    for stored, record in _scan(reader, level, b"", None):
        yield _row_key(reader, stored), record


def problems(reader: Reader) -> Iterator[str]:
    """What in the counts of the nodes does not agree with the rows and with each other."""
    highest = top(reader)
    items = ((keys.id_of(reader, IndexSpace.ROWS, key), 1) for key, _row in reader.scan(IndexSpace.ROWS))
    below = sum(1 for _item in reader.scan(IndexSpace.ROWS))
    for level in range(1, highest + 1):
        made = _counted(items, level)
        total = 0
        stored = nodes(reader, level)
        for key, record in stored:
            total += node_count(record)
            if next(made, None) != (key, node_count(record)):
                yield f"a node of level {level} is not where it should be, or counts wrongly"
                break
        if total != below and not any(True for _rest in stored):
            yield f"level {level} counts {total} rows of {below}"
        items = ((key, node_count(record)) for key, record in nodes(reader, level))
    if below and not highest:
        yield "the rows are not counted"


def _counted(items: Iterator[tuple[bytes, int]], level: int) -> Iterator[tuple[bytes, int]]:
    """The nodes of a level, with their counts, as they should be made of the items below."""
    start, count = b"", 0
    for key, size in items:
        if _begins(key, level):
            if count:
                yield start, count
            start, count = key, 0
        count += size
    if count:
        yield start, count


def scan_rows(
    reader: Reader, start: bytes, stop: bytes | None, *, reverse: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """Rows by their stored keys, from row keys."""
    first = keys.bound(reader, IndexSpace.ROWS, start) if start else b""
    last = None if stop is None else keys.bound(reader, IndexSpace.ROWS, stop)
    return reader.scan(IndexSpace.ROWS, first, last, reverse=reverse)


def _scan(reader: Reader, level: int, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    """Nodes of a level by their stored keys, which begin with the level."""
    prefix = level_prefix(level)
    first = keys.bound(reader, IndexSpace.LEVELS, prefix + start)
    last = level_prefix(level + 1) if stop is None else keys.bound(reader, IndexSpace.LEVELS, prefix + stop)
    return reader.scan(IndexSpace.LEVELS, first, last)


def _row_key(reader: Reader, stored: bytes) -> bytes:
    """The row key at which a node begins, by its stored key."""
    return keys.id_of(reader, IndexSpace.LEVELS, stored)[1:]


# --- single nodes


def _has(reader: Reader, level: int, key: bytes) -> bool:
    stored = keys.find(reader, IndexSpace.LEVELS, level_prefix(level) + key)
    return stored is not None and reader.get(IndexSpace.LEVELS, stored) is not None


def _exists(reader: Reader, level: int, key: bytes) -> bool:
    """Whether there is a row (level 0) or a node with a key."""
    if level:
        return _has(reader, level, key)
    stored = keys.find(reader, IndexSpace.ROWS, key)
    return stored is not None and reader.get(IndexSpace.ROWS, stored) is not None


def _put(batch: Batch, level: int, key: bytes, record: bytes) -> None:
    batch.put(IndexSpace.LEVELS, keys.allot(batch, IndexSpace.LEVELS, level_prefix(level) + key), record)


def _delete(batch: Batch, level: int, key: bytes) -> None:
    stored = keys.find(batch, IndexSpace.LEVELS, level_prefix(level) + key)
    if stored is not None:
        batch.delete(IndexSpace.LEVELS, stored)
        keys.forget(batch, IndexSpace.LEVELS, stored)


def _clear(batch: Batch, lowest: int) -> None:
    """Remove all nodes of a level and of those above."""
    for key in [key for key, _node in batch.scan(IndexSpace.LEVELS, level_prefix(lowest))]:
        batch.delete(IndexSpace.LEVELS, key)
        keys.forget(batch, IndexSpace.LEVELS, key)


def _node_before(reader: Reader, level: int, key: bytes, *, inclusive: bool) -> bytes:
    """The node that begins last before a key, or at it; the first one stands for what has none."""
    bound = level_prefix(level) + key + (b"\0" if inclusive else b"")
    stop = keys.bound(reader, IndexSpace.LEVELS, bound)
    start = level_prefix(level)
    node = next(reader.scan(IndexSpace.LEVELS, start, stop, reverse=True), None)
    return b"" if node is None else _row_key(reader, node[0])


def _after(reader: Reader, level: int, key: bytes) -> bytes | None:
    """Where the node that begins at a key ends; None for the last one."""
    node = next(_scan(reader, level, key + b"\0", None), None)
    return None if node is None else _row_key(reader, node[0])


def _items(reader: Reader, level: int, start: bytes, stop: bytes | None) -> list[bytes]:
    """Records of rows (level 0) or of nodes."""
    found = scan_rows(reader, start, stop) if level == 0 else _scan(reader, level, start, stop)
    return [record for _key, record in found]


def _is_divided(reader: Reader, level: int) -> bool:
    """Whether a level has more than its first node."""
    return next(_scan(reader, level, b"\0", None), None) is not None
