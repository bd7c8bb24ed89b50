"""The documents of a database in the order of their ids: what `_all_docs` and its kin list.

Pages, not cursors: a page is one short snapshot, and the next one starts where it says, so that a slow client
never holds a read transaction open.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from . import keys, ranks, records
from .engine import Reader, Space
from .records import SeqColumns

PAGE_ROWS = 1000
"""So many records are read for a page, those of deleted documents included."""


class DocPage(NamedTuple):
    """Some documents that are not deleted, column by column."""

    ids: list[bytes]
    records: list[bytes]
    resume: bytes | None
    """The id that the next page starts at, or when reversed stops before; None when this is the last one."""

    def revs(self) -> list[bytes]:
        """The winners' revisions as text."""
        return records.revs_of(self.records)

    def body_keys(self) -> list[bytes]:
        """The keys of the winners' bodies."""
        return records.body_keys_of(self.records)

    def columns(self) -> SeqColumns:
        """The documents as a page of changes shows them."""
        return records.decode_doc_rows(self.ids, self.records)


def page(
    reader: Reader,
    start: bytes = b"",
    stop: bytes | None = None,
    *,
    reverse: bool = False,
    limit: int = PAGE_ROWS,
) -> DocPage:
    """Up to `limit` documents with `start <= id < stop`."""
    pairs = reader.scan(Space.DOCS, _bound(reader, start), _stop(reader, stop), reverse=reverse)
    found: list[tuple[bytes, bytes]] = []
    read = 0
    last = None
    while len(found) < limit and read < PAGE_ROWS:
        chunk = list(islice(pairs, min(limit - len(found), PAGE_ROWS - read)))
        if not chunk:
            last = None
            break
        last = chunk[-1][0]
        read += len(chunk)
        found += [pair for pair in chunk if not pair[1][0] & records.DELETED]
    ids = [key for key, _record in found]
    if ids and max(map(len, ids)) > keys.PLAIN_KEY_MAX_BYTES:
        ids = [keys.id_of(reader, Space.DOCS, key) for key in ids]
    if last is not None:
        last = keys.id_of(reader, Space.DOCS, last) + (b"" if reverse else b"\0")
    return DocPage(ids, [record for _key, record in found], last)


def rank(reader: Reader, doc_id: bytes) -> int:
    """How many documents that are not deleted have an id less than `doc_id`."""
    return ranks.rank(reader, _bound(reader, doc_id))


def find_rank(reader: Reader, number: int) -> bytes | None:
    """The id of the document that `number` others come before; None when there are not so many."""
    key = ranks.find(reader, number)
    return None if key is None else keys.id_of(reader, Space.DOCS, key)


class DocRow(NamedTuple):
    """A document as a listing shows it."""

    id: bytes
    flags: int
    seq: int
    body: int
    rev: bytes


def find(reader: Reader, doc_id: str) -> DocRow | None:
    """The row of one document, deleted or not; None when no revision of it was ever seen."""
    id_bytes = doc_id.encode()
    key = keys.find(reader, Space.DOCS, id_bytes)
    record = reader.get(Space.DOCS, key) if key else None
    if record is None:
        return None
    head = records.decode_head(record)
    return DocRow(id_bytes, head.flags, head.seq, head.body, head.rev)


def _bound(reader: Reader, doc_id: bytes) -> bytes:
    return keys.bound(reader, Space.DOCS, doc_id) if doc_id else b""


def _stop(reader: Reader, doc_id: bytes | None) -> bytes | None:
    return None if doc_id is None else _bound(reader, doc_id)
