"""`_local` documents: no tree, no sequence, never replicated; checkpoints live in them.

As in CouchDB there is no conflict check: an edit's revision is one above the one it names, whatever is
stored.
"""

from __future__ import annotations

from typing import NamedTuple

from . import keys, records
from .engine import Reader, Space
from .errors import NotFound
from .writer import WriteTxn


class LocalDoc(NamedTuple):
    """`id` with its "_local/"; the revision is shown as 0-N; `body` is JSON text."""

    id: str
    revision: int
    body: bytes


def get(reader: Reader, doc_id: str) -> LocalDoc:
    """:raises NotFound:"""
    key = keys.find(reader, Space.LOCAL, doc_id.encode())
    record = reader.get(Space.LOCAL, key) if key else None
    if record is None:
        raise NotFound("missing")
    return LocalDoc(doc_id, *records.decode_local(record))


def put(txn: WriteTxn, doc_id: str, revision: int, body: bytes) -> int:
    """Store `body` as the revision after `revision`; the new revision."""
    key = keys.allot(txn.kv, Space.LOCAL, doc_id.encode())
    txn.kv.put(Space.LOCAL, key, records.encode_local(revision + 1, body))
    return revision + 1


def delete(txn: WriteTxn, doc_id: str) -> None:
    """:raises NotFound:"""
    key = keys.find(txn.kv, Space.LOCAL, doc_id.encode())
    if key is None or txn.kv.get(Space.LOCAL, key) is None:
        raise NotFound("missing")
    txn.kv.delete(Space.LOCAL, key)
    keys.forget(txn.kv, Space.LOCAL, key)


def page(
    reader: Reader,
    start: bytes = b"",
    stop: bytes | None = None,
    *,
    reverse: bool = False,
    limit: int = 1000,
) -> list[LocalDoc]:
    """Up to `limit` local documents with `start <= id < stop`."""
    rows: list[LocalDoc] = []
    if limit <= 0:
        return rows
    first = keys.bound(reader, Space.LOCAL, start) if start else b""
    last = None if stop is None else keys.bound(reader, Space.LOCAL, stop)
    for key, record in reader.scan(Space.LOCAL, first, last, reverse=reverse):
        doc_id = keys.id_of(reader, Space.LOCAL, key).decode()
        rows.append(LocalDoc(doc_id, *records.decode_local(record)))
        if len(rows) == limit:
            break
    return rows
