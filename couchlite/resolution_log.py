"""The record of resolutions: which leaves were merged into what, when, by whom and by what means.

Written in the transaction of the resolution itself, so there is none without a record. Bounded: the oldest
records go. Layout, in the space RESOLUTIONS:

    b"n" + u64 number              CBOR of a Resolution, without its number
    b"d" + digest of id + number   nothing: the numbers of one document's records

Numbers ascend and are never given twice while a record is left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from . import records
from .engine import Batch, Reader, Space
from .errors import CouchliteError
from .revision import Rev, new_rev

RECORDS_MAX = 10_000
"""Older ones are dropped; some megabytes."""
PAGE_RECORDS = 100

_NUMBERED = b"n"
_OF_DOCUMENT = b"d"


class Resolution(NamedTuple):
    """A conflict that was resolved here, or an undoing of that."""

    number: int
    id: str
    leaves: tuple[Rev, ...]
    """What was merged, the leaf that won before first."""
    base: Rev | None
    """The youngest revision that all leaves descend from."""
    into: Rev
    """The merged revision, on top of the first leaf. The other leaves got a deletion each, see `closed`."""
    using: str
    """By what means: "document", "pick", "delete", "undo", or the name of a resolver."""
    by: str | None
    """The user; None for the program that embeds the database, or the server itself."""
    time_ms: int
    undoes: int | None = None
    """The number of the resolution that this one undid."""
    undone_by: int | None = None
    """The number of the record that undid this one."""

    @property
    def closed(self) -> tuple[Rev, ...]:
        """The deletions that closed the leaves but the first, in their order."""
        return tuple(deletion_of(leaf) for leaf in self.leaves[1:])


def deletion_of(rev: Rev) -> Rev:
    """The revision that deleting `rev` makes: the same on every server."""
    return new_rev(deleted=True, parent=rev, body={})


def add(batch: Batch, entry: Resolution) -> Resolution:
    """Append a record; it gets its number here."""
    newest = _newest(batch)
    numbered = entry._replace(number=newest + 1)
    put(batch, numbered)
    batch.put(Space.RESOLUTIONS, _document_key(numbered.id, numbered.number), b"")
    _trim(batch, numbered.number)
    return numbered


def put(batch: Batch, entry: Resolution) -> None:
    """Write a record in its place."""
    batch.put(Space.RESOLUTIONS, _key(entry.number), _encode(entry))


def get(reader: Reader, number: int) -> Resolution | None:
    if not 0 < number < 1 << 64:
        return None
    row = reader.get(Space.RESOLUTIONS, _key(number))
    return None if row is None else _decode(number, row)


def page(
    reader: Reader, *, doc_id: str | None = None, before: int | None = None, limit: int = PAGE_RECORDS
) -> list[Resolution]:
    """Up to `limit` records, newest first, with numbers less than `before`; of one document, if told."""
    stop = 1 << 63 if before is None else max(0, min(before, 1 << 63))
    if doc_id is None:
        rows = reader.scan(Space.RESOLUTIONS, _key(0), _key(stop), reverse=True)
        return [_decode(_number(key), row) for key, row in islice(rows, limit)]
    first, last = _document_key(doc_id, 0), _document_key(doc_id, stop)
    numbers = [
        _number(key) for key, _row in islice(reader.scan(Space.RESOLUTIONS, first, last, reverse=True), limit)
    ]
    return [entry for number in numbers if (entry := get(reader, number)) is not None]


def after(reader: Reader, number: int) -> Iterator[Resolution]:
    """The records with greater numbers, oldest first."""
    for key, row in reader.scan(Space.RESOLUTIONS, _key(number + 1), _key(1 << 63)):
        yield _decode(_number(key), row)


def mend(batch: Batch) -> None:
    """Let each record that is whole be listed for its document, and nothing else."""
    for key, _row in list(batch.scan(Space.RESOLUTIONS, _OF_DOCUMENT, _NUMBERED)):
        batch.delete(Space.RESOLUTIONS, key)
    for entry in list(after(batch, 0)):
        batch.put(Space.RESOLUTIONS, _document_key(entry.id, entry.number), b"")


def problems(reader: Reader) -> Iterator[str]:
    """What does not fit together in the log."""
    numbered = {entry.number: entry.id for entry in after(reader, 0)}
    for key, _row in reader.scan(Space.RESOLUTIONS, _OF_DOCUMENT, _NUMBERED):
        doc_id = numbered.pop(_number(key), None)
        if doc_id is None or key != _document_key(doc_id, _number(key)):
            yield f"resolution {_number(key)} is listed for a document, but is none of it"
    for number, doc_id in numbered.items():
        yield f"resolution {number} is not listed for its document {doc_id!r}"


def describe(entry: Resolution, obstacle: CouchliteError | None) -> dict[str, Any]:
    """A record in JSON; docs/conflicts.md explains the members.

    :param obstacle: why it can't be undone.
    """
    shown: dict[str, Any] = {
        "resolution": entry.number,
        "id": entry.id,
        "time": time_text(entry.time_ms),
        "by": entry.by,
        "using": entry.using,
        "leaves": [rev.text for rev in entry.leaves],
        "base": None if entry.base is None else entry.base.text,
        "rev": entry.into.text,
    }
    if entry.undoes is not None:
        return shown | {"undoes": entry.undoes}
    if entry.undone_by is not None:
        return shown | {"undone_by": entry.undone_by, "can_undo": False}
    if obstacle is not None:
        return shown | {"can_undo": False, "reason": obstacle.reason}
    return shown | {"can_undo": True}


def time_text(moment_ms: int | None) -> str | None:
    """A moment as ISO 8601 has it, in UTC."""
    if moment_ms is None:
        return None
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _newest(reader: Reader) -> int:
    found = next(reader.scan(Space.RESOLUTIONS, _key(0), _key(1 << 63), reverse=True), None)
    return 0 if found is None else _number(found[0])


def _trim(batch: Batch, newest: int) -> None:
    oldest_kept = newest - RECORDS_MAX + 1
    if oldest_kept <= 1:
        return
    for key, row in list(batch.scan(Space.RESOLUTIONS, _key(0), _key(oldest_kept))):
        number = _number(key)
        batch.delete(Space.RESOLUTIONS, _document_key(_decode(number, row).id, number))
        batch.delete(Space.RESOLUTIONS, key)


def _key(number: int) -> bytes:
    return _NUMBERED + records.u64(number)


def _document_key(doc_id: str, number: int) -> bytes:
    digest = hashlib.blake2b(doc_id.encode(), digest_size=16).digest()
    return _OF_DOCUMENT + digest + records.u64(number)


def _number(key: bytes) -> int:
    return records.from_u64(key[-8:])


def _encode(entry: Resolution) -> bytes:
    fields = entry._asdict()
    del fields["number"]
    return records.encode_fields(
        fields
        | {
            "leaves": [rev.text for rev in entry.leaves],
            "base": None if entry.base is None else entry.base.text,
            "into": entry.into.text,
        }
    )


def _decode(number: int, row: bytes) -> Resolution:
    fields = records.decode_fields(row)
    fields["leaves"] = tuple(Rev.parse(text) for text in fields["leaves"])
    fields["base"] = None if fields["base"] is None else Rev.parse(fields["base"])
    fields["into"] = Rev.parse(fields["into"])
    return Resolution(number, **fields)
