"""The documents of a database in the order of their ids: what `_all_docs` and its kin list.

Pages, not cursors: a page is one short snapshot, and the next one starts behind the last id, so that a slow
client never holds a read transaction open.
"""

from __future__ import annotations

from typing import NamedTuple

from . import keys, records
from .engine import Reader, Space

PAGE_ROWS = 1000


class DocRow(NamedTuple):
    """A document as a listing shows it."""

    id: bytes
    flags: int
    seq: int
    body: int
    rev: bytes


def doc_page(
    reader: Reader,
    start: bytes = b"",
    stop: bytes | None = None,
    *,
    reverse: bool = False,
    limit: int = PAGE_ROWS,
) -> list[DocRow]:
    """Up to `limit` documents that are not deleted, with `start <= id < stop`. The next page starts at
    `rows[-1].id + b"\\0"`, or when reversed stops at `rows[-1].id`."""
    rows: list[DocRow] = []
    if limit <= 0:
        return rows
    unpack, head_size, deleted = records.unpack_head, records.HEAD_SIZE, records.DELETED
    first = keys.bound(reader, Space.DOCS, start) if start else b""
    last = None if stop is None else keys.bound(reader, Space.DOCS, stop)
    for key, record in reader.scan(Space.DOCS, first, last, reverse=reverse):
        flags, seq, body, _size, rev_length = unpack(record)
        if flags & deleted:
            continue
        doc_id = key if len(key) <= keys.PLAIN_KEY_MAX_BYTES else keys.id_of(reader, Space.DOCS, key)
        rows.append(DocRow(doc_id, flags, seq, body, record[head_size : head_size + rev_length]))
        if len(rows) == limit:
            break
    return rows


def count(reader: Reader, start: bytes = b"", stop: bytes | None = None) -> int:
    """How many documents that are not deleted have `start <= id < stop`."""
    first = keys.bound(reader, Space.DOCS, start) if start else b""
    last = None if stop is None else keys.bound(reader, Space.DOCS, stop)
    return sum(not record[0] & records.DELETED for _key, record in reader.scan(Space.DOCS, first, last))


def find(reader: Reader, doc_id: str) -> DocRow | None:
    """The row of one document, deleted or not; None when no revision of it was ever seen."""
    id_bytes = doc_id.encode()
    key = keys.find(reader, Space.DOCS, id_bytes)
    record = reader.get(Space.DOCS, key) if key else None
    if record is None:
        return None
    head = records.decode_head(record)
    return DocRow(id_bytes, head.flags, head.seq, head.body, head.rev)
