"""One index on disk, as functions of a snapshot and of a batch: what documents emitted goes in, ranges of
rows come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from .. import keys
from ..engine import Batch, Reader
from . import levels
from .layout import (
    ROW_HEAD_BYTES,
    STATE_KEY,
    IndexSpace,
    State,
    decode_sort_keys,
    encode_sort_keys,
    is_whole_row,
    row_keys,
)
from .levels import Reductions

CHECK_STEP_ROWS = 500
PAGE_BYTES = 1 << 20
"""A page of rows ends with the row that passes this."""


class Emitted(NamedTuple):
    """What a document has in an index; nothing, if it is deleted or emits nothing."""

    doc_id: bytes
    sort_keys: Sequence[bytes]
    """Of its rows, in the order in which they were emitted."""
    records: Sequence[bytes]
    """The rows, see layout.py."""


def state_of(reader: Reader) -> State:
    return State.decode(reader.get(IndexSpace.META, STATE_KEY))


# --- writing


def replace(batch: Batch, state: State, documents: Iterable[Emitted], reductions: Reductions) -> None:
    """Let documents have these rows and no others; moves the counts of `state`, which is not written yet."""
    gone: set[bytes] = set()
    put: dict[bytes, bytes] = {}
    is_empty = state.docs == 0
    for doc_id, sort_keys, records in documents:
        known = None if is_empty else _sort_keys_of(batch, doc_id)
        if known is None and not sort_keys:
            continue
        fresh = dict(zip(row_keys(doc_id, sort_keys), records, strict=True))
        old = row_keys(doc_id, known or ())
        state.docs += bool(sort_keys) - (known is not None)
        if known != list(sort_keys):
            _put_sort_keys(batch, doc_id, sort_keys)
        put.update(fresh)
        gone.update(key for key in old if key not in fresh)
    _write_rows(batch, state, gone, put, reductions)


def _write_rows(
    batch: Batch, state: State, gone: set[bytes], put: dict[bytes, bytes], reductions: Reductions
) -> None:
    changed = []
    for key in gone:
        stored = keys.find(batch, IndexSpace.ROWS, key)
        if stored is not None:
            state.row_bytes -= len(batch.get(IndexSpace.ROWS, stored) or b"")
            batch.delete(IndexSpace.ROWS, stored)
            keys.forget(batch, IndexSpace.ROWS, stored)
            state.rows -= 1
            changed.append(key)
    added = []
    is_empty = state.rows == 0
    for key, record in sorted(put.items()):
        if len(key) > keys.PLAIN_KEY_MAX_BYTES:
            stored = keys.allot(batch, IndexSpace.ROWS, key)
            known = batch.get(IndexSpace.ROWS, stored)
        else:
            stored = key
            known = None if is_empty else batch.get(IndexSpace.ROWS, key)
        if known == record:
            continue
        if known is None:
            state.rows += 1
        else:
            state.row_bytes -= len(known)
        state.row_bytes += len(record)
        if stored is key:
            added.append((key, record))
        else:
            batch.put(IndexSpace.ROWS, stored, record)
        changed.append(key)
    batch.put_all(IndexSpace.ROWS, added)
    if state.levels:
        levels.update(batch, changed, reductions)


def hide(batch: Batch, state: State, documents: Mapping[bytes, bool]) -> None:
    """Note which documents are hidden, and which are not; moves the count of `state`."""
    for doc_id, is_hidden in documents.items():
        if not is_hidden and not state.hidden:
            continue
        stored = keys.find(batch, IndexSpace.HIDDEN, doc_id)
        known = stored is not None and batch.get(IndexSpace.HIDDEN, stored) is not None
        if is_hidden and not known:
            batch.put(IndexSpace.HIDDEN, keys.allot(batch, IndexSpace.HIDDEN, doc_id), b"")
            state.hidden += 1
        elif stored is not None and known and not is_hidden:
            batch.delete(IndexSpace.HIDDEN, stored)
            keys.forget(batch, IndexSpace.HIDDEN, stored)
            state.hidden -= 1


def save_state(batch: Batch, state: State) -> None:
    batch.put(IndexSpace.META, STATE_KEY, state.encode())


def _sort_keys_of(reader: Reader, doc_id: bytes) -> list[bytes] | None:
    stored = keys.find(reader, IndexSpace.DOCS, doc_id)
    record = None if stored is None else reader.get(IndexSpace.DOCS, stored)
    return None if record is None else decode_sort_keys(record)


def _put_sort_keys(batch: Batch, doc_id: bytes, sort_keys: Sequence[bytes]) -> None:
    if sort_keys:
        record = encode_sort_keys(sort_keys)
        batch.put(IndexSpace.DOCS, keys.allot(batch, IndexSpace.DOCS, doc_id), record)
        return
    stored = keys.find(batch, IndexSpace.DOCS, doc_id)
    if stored is not None:
        batch.delete(IndexSpace.DOCS, stored)
        keys.forget(batch, IndexSpace.DOCS, stored)


# --- reading


class Page(NamedTuple):
    """Some consecutive rows, in the order they were asked for."""

    keys: list[bytes]
    """Their row keys."""
    texts: list[bytes]
    """The rows as JSON."""
    ended: bool
    """The range has no more."""


def page(reader: Reader, start: bytes, stop: bytes | None, *, reverse: bool, limit: int) -> Page:
    """Up to `limit` rows with `start <= key < stop`, fewer when they are long."""
    pairs = levels.scan_rows(reader, start, stop, reverse=reverse)
    found: list[tuple[bytes, bytes]] = []
    size = 0
    while len(found) < limit and size < PAGE_BYTES:
        chunk = list(islice(pairs, min(limit - len(found), 100)))
        if not chunk:
            return _page(reader, found, ended=True)
        found += chunk
        size += sum([len(record) for _key, record in chunk])
    return _page(reader, found, ended=False)


def _page(reader: Reader, found: Sequence[tuple[bytes, bytes]], *, ended: bool) -> Page:
    row_keys = [key for key, _record in found]
    if row_keys and max(map(len, row_keys)) > keys.PLAIN_KEY_MAX_BYTES:
        row_keys = [keys.id_of(reader, IndexSpace.ROWS, key) for key in row_keys]
    return Page(row_keys, [record[ROW_HEAD_BYTES:] for _key, record in found], ended)


def hidden(reader: Reader, start: bytes, limit: int) -> list[bytes]:
    """Up to `limit` hidden documents with ids from `start` on."""
    first = keys.bound(reader, IndexSpace.HIDDEN, start) if start else b""
    found = islice(reader.scan(IndexSpace.HIDDEN, first), limit)
    return [keys.id_of(reader, IndexSpace.HIDDEN, key) for key, _record in found]


def edge(
    reader: Reader, start: bytes, stop: bytes | None, *, reverse: bool = False
) -> tuple[bytes, bytes] | None:
    """The first row of a range (reversed, the last one): its row key and its JSON text."""
    pair = next(levels.scan_rows(reader, start, stop, reverse=reverse), None)
    if pair is None:
        return None
    return keys.id_of(reader, IndexSpace.ROWS, pair[0]), pair[1][ROW_HEAD_BYTES:]


def count_before(reader: Reader, state: State, bound: bytes | None) -> int:
    """How many rows have keys less than `bound`; None is behind all of them."""
    if bound is None:
        return state.rows
    if not bound:
        return 0
    if state.levels:
        return levels.count_before(reader, bound)
    return sum(1 for _row in levels.scan_rows(reader, b"", bound))


def key_at(reader: Reader, state: State, number: int) -> bytes | None:
    """The key of the row that `number` others come before."""
    if number >= state.rows:
        return None
    if state.levels:
        return levels.key_at(reader, number)
    row = next(islice(reader.scan(IndexSpace.ROWS), number, None), None)
    return None if row is None else keys.id_of(reader, IndexSpace.ROWS, row[0])


def rows_in(reader: Reader) -> Iterator[tuple[bytes, bytes]]:
    """All rows by their row keys, as they are recorded; for checks."""
    for key, record in reader.scan(IndexSpace.ROWS):
        yield keys.id_of(reader, IndexSpace.ROWS, key), record


def problems(reader: Reader, advance: Callable[[int], None]) -> Iterator[str]:
    """What in an index does not fit together: what its documents say of its rows, counters, nodes.

    Whether the rows are those that the functions make of the documents only building it anew would tell.
    """
    for space in IndexSpace:
        if space.is_sealed and reader.damaged(space):
            yield f"a record of {space.name.lower()} is damaged"
            return
    state = state_of(reader)
    counted = State(state.seq, state.purge_seq, levels=state.levels)
    for _key, record in reader.scan(IndexSpace.ROWS):
        counted.rows += 1
        counted.row_bytes += len(record)
        if not is_whole_row(record):
            yield "a row is damaged"
        if counted.rows % CHECK_STEP_ROWS == 0:
            advance(CHECK_STEP_ROWS)
    rows_of_documents = 0
    for key, record in reader.scan(IndexSpace.DOCS):
        counted.docs += 1
        doc_id = keys.id_of(reader, IndexSpace.DOCS, key)
        for row_key in row_keys(doc_id, decode_sort_keys(record)):
            rows_of_documents += 1
            stored = keys.find(reader, IndexSpace.ROWS, row_key)
            if stored is None or reader.get(IndexSpace.ROWS, stored) is None:
                yield f"a row of {keys.shown(doc_id)} is missing"
    counted.hidden = sum(1 for _record in reader.scan(IndexSpace.HIDDEN))
    if counted != state or rows_of_documents != state.rows:
        yield f"its counters are {state}, counted {counted}"
    if state.levels:
        yield from levels.problems(reader)


def clear(batch: Batch) -> None:
    """Remove everything."""
    for space in IndexSpace:
        for key in [key for key, _record in batch.scan(space)]:
            batch.delete(space, key)
