"""Partitioned databases: document ids are `partition:id`, so that what belongs together lies together.

What each partition holds is counted in META, in the transaction that changes it, so that neither a client
who asks nor a writer who must not let a partition grow too large has to read it:

    key    b"part:" + 16 bytes of the name's hash
    value  u64 documents, u64 deleted ones, u64 bytes of their leaves

Design documents and local ones belong to no partition. Source: couch_partition.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from . import keys
from .document import validate_id
from .engine import Batch, Reader, Space
from .errors import BadRequest, IllegalDocumentId
from .records import DELETED, decode_head

COLON = b":"
BEHIND_COLON = b";"
COUNTS_PREFIX = b"part:"
_COUNTS = struct.Struct(">3Q")


def check_id(doc_id: str) -> None:
    """Whether a document may have that id in a partitioned database.

    :raises IllegalDocumentId, BadRequest: no partition, or none that is allowed.
    """
    if doc_id.startswith(("_design/", "_local/")):
        return
    check_has_partition(doc_id)
    name, _colon, rest = doc_id.partition(":")
    check_name(name)
    validate_id(rest)


def check_has_partition(doc_id: str) -> None:
    """Whether an id can be looked for in a partitioned database. :raises IllegalDocumentId:"""
    if ":" not in doc_id and not doc_id.startswith("_"):
        raise IllegalDocumentId("Doc id must be of form partition:id")


def check_name(name: str) -> None:
    """:raises BadRequest: no partition can have that name."""
    if not name:
        raise _illegal("Partition must not be empty")
    if name.startswith("_"):
        raise _illegal("Partition must not start with an underscore")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _illegal("Partition must be valid UTF-8") from None
    if ":" in name:
        raise _illegal("Partition must not contain a colon")


def _illegal(reason: str) -> BadRequest:
    return BadRequest(reason, error="illegal_partition")


def ids_of(name: str) -> tuple[bytes, bytes]:
    """The ids of a partition's documents: `start <= id < stop`."""
    name_bytes = name.encode()
    return name_bytes + COLON, name_bytes + BEHIND_COLON


def name_of(doc_id: bytes) -> bytes | None:
    """The partition that a document belongs to; None when it belongs to none."""
    name, colon, _rest = doc_id.partition(COLON)
    return None if not colon or name[:1] == b"_" else name


# --- what partitions hold


class PartitionCounts(NamedTuple):
    """What a partition holds."""

    doc_count: int = 0
    deleted_count: int = 0
    external_bytes: int = 0

    def plus(self, other: PartitionCounts) -> PartitionCounts:
        return PartitionCounts(*(one + more for one, more in zip(self, other, strict=True)))


def counts_of(reader: Reader, name: bytes) -> PartitionCounts:
    """What the partition of that name holds."""
    stored = reader.get(Space.META, _key(name))
    return PartitionCounts() if stored is None else PartitionCounts(*_COUNTS.unpack(stored))


class PartitionChanges:
    """How a group of edits changes what partitions hold."""

    __slots__ = ("_changes",)

    def __init__(self) -> None:
        self._changes: dict[bytes, PartitionCounts] = {}

    def add(self, doc_id: bytes, flags: int, size: int) -> None:
        """A document with these flags and this size is there now."""
        deleted = flags & DELETED
        self._add(doc_id, PartitionCounts(1 - deleted, deleted, size))

    def remove(self, doc_id: bytes, flags: int, size: int) -> None:
        """A document as it was is there no more."""
        deleted = flags & DELETED
        self._add(doc_id, PartitionCounts(deleted - 1, -deleted, -size))

    def full(self, reader: Reader, ids: Iterable[str], bytes_max: int) -> set[bytes]:
        """Those partitions of some documents that hold at least so much."""
        found = set()
        for name in {name_of(doc_id.encode()) for doc_id in ids}:
            if name is not None:
                counts = counts_of(reader, name).plus(self._changes.get(name, PartitionCounts()))
                if counts.external_bytes >= bytes_max:
                    found.add(name)
        return found

    def write(self, batch: Batch) -> None:
        for name, change in self._changes.items():
            counts = counts_of(batch, name).plus(change)
            if any(counts):
                batch.put(Space.META, _key(name), _COUNTS.pack(*counts))
            else:
                batch.delete(Space.META, _key(name))
        self._changes.clear()

    def _add(self, doc_id: bytes, change: PartitionCounts) -> None:
        name = name_of(doc_id)
        if name is not None:
            self._changes[name] = self._changes.get(name, PartitionCounts()).plus(change)


def _key(name: bytes) -> bytes:
    return COUNTS_PREFIX + hashlib.blake2b(name, digest_size=16).digest()


def clear_counts(batch: Batch) -> None:
    """Forget all counts, so that they can be made anew."""
    for key in [key for key, _counts in batch.scan(Space.META, COUNTS_PREFIX, b"part;")]:
        batch.delete(Space.META, key)


def problems(reader: Reader) -> Iterator[str]:
    """What is wrong with the counts of a partitioned database, by counting all documents."""
    counted: dict[bytes, PartitionCounts] = {}
    for key, record in reader.scan(Space.DOCS):
        name = name_of(keys.id_of(reader, Space.DOCS, key))
        if name is not None:
            head = decode_head(record)
            deleted = head.flags & DELETED
            one = PartitionCounts(1 - deleted, deleted, head.size)
            counted[name] = counted.get(name, PartitionCounts()).plus(one)
    for name, counts in counted.items():
        if counts_of(reader, name) != counts:
            yield f"the partition {name.decode()!r} counts {counts_of(reader, name)}, not {counts}"
    stored = sum(1 for _counts in reader.scan(Space.META, COUNTS_PREFIX, b"part;"))
    if stored > len(counted):
        yield f"counts are kept of {stored} partitions, but there are {len(counted)}"
