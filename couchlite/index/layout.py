"""Bytes on disk: every key and every record of an index. Nothing else knows these layouts.

    space    key                                      value
    META     b"state"                                 counters (see State)
             b"id:" ...                               see keys.py: keys longer than LMDB's
    ROWS     row key (*)                              CRC-32 of what follows, u32 where the value begins, and
                                                      the row as JSON text: {"id":...,"key":...,"value":...}
    DOCS     document id (*)                          the sort keys of its rows, in the order of emission
    LEVELS   level as one byte + row key (*)          a node: u64 number of rows, partial reduction as JSON
    HIDDEN   document id (*)                          b"": see below

A row key is the sort key of the row's key, the document id, and which of the document's rows it is: bytes in
the order in which CouchDB shows rows. No sort key is the beginning of another one, and ids are escaped, so
that their order is kept and what follows can be told from them. In an index that keeps partitions apart, the
partition stands before all that.

A Mango index has no rows of deleted documents, of design documents and of losing leaves. Those that may have
its fields nevertheless are in HIDDEN, for who has to find them, too (see changes_selector.py): documents with
more than one leaf, and deleted and design documents that have the fields.

(*) LMDB keys are at most 511 bytes; `keys.py` keeps the order of longer ones.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from ..engine import Keyspace

FORMAT_VERSION = 3


class IndexSpace(Keyspace):
    """The keyspaces of an index; META has the number it has in a database, for keys.py."""

    META = 0
    ROWS = 1
    DOCS = 2
    LEVELS = 3
    HIDDEN = 4

    @property
    def is_sealed(self) -> bool:
        return self is not IndexSpace.ROWS


STATE_KEY = b"state"

_STATE = struct.Struct(">7Q")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
ROW_HEAD_BYTES = 2 * _U32.size
"""The row's JSON text begins after so many bytes of its record."""
COUNT_BYTES = _U64.size


@dataclass(slots=True)
class State:
    """Counters of an index, moved in the same transaction as what they count."""

    seq: int = 0
    """The index shows the database as of this update sequence."""
    purge_seq: int = 0
    rows: int = 0
    docs: int = 0
    """Documents that have rows."""
    row_bytes: int = 0
    levels: int = 1
    """0 while rows were added without keeping the levels, in a build that is not through yet."""
    hidden: int = 0
    """Documents in HIDDEN."""

    def encode(self) -> bytes:
        return _STATE.pack(*(getattr(self, name) for name in self.__slots__))

    @classmethod
    def decode(cls, data: bytes | None) -> State:
        return cls() if data is None else cls(*_STATE.unpack(data))


# --- row keys

_ORDINAL_LONG = 0xFE
ROW_END = b"\xff"
"""After a sort key, or a beginning of one: behind everything that starts so."""


def escape_id(doc_id: bytes) -> bytes:
    """A document id within a row key."""
    return doc_id.replace(b"\0", b"\0\xff") if b"\0" in doc_id else doc_id


def ordinal(number: int) -> bytes:
    """The end of a row key: which of its document's rows it is. Less than the continuation of any id."""
    if number < _ORDINAL_LONG:
        return bytes((0, number))
    return bytes((0, _ORDINAL_LONG)) + _U32.pack(number)


ORDINALS = tuple(ordinal(number) for number in range(_ORDINAL_LONG))
"""The usual ones, made once."""


def row_keys(doc_id: bytes, sort_keys: Sequence[bytes]) -> list[bytes]:
    """The row keys of a document, in the order in which its rows were emitted."""
    middle = escape_id(doc_id)
    if len(sort_keys) <= _ORDINAL_LONG:
        return [key + middle + end for key, end in zip(sort_keys, ORDINALS, strict=False)]
    return [key + middle + ordinal(number) for number, key in enumerate(sort_keys)]


def before_id(sort_key: bytes, doc_id: bytes) -> bytes:
    """Where the rows with a key begin that belong to a document, or to a greater one."""
    return sort_key + escape_id(doc_id)


def behind_id(sort_key: bytes, doc_id: bytes) -> bytes:
    """Where the rows with a key end that belong to a document."""
    return sort_key + escape_id(doc_id) + b"\0" + ROW_END


def partition_prefix(name: bytes) -> bytes:
    """What the row keys of a partition begin with, in an index that keeps partitions apart."""
    return escape_id(name) + b"\0\0"


# --- records


def encode_row(id_text: bytes, key_text: bytes, value_text: bytes) -> bytes:
    """`id_text` is a document id as JSON, likewise the others."""
    head = b'{"id":%b,"key":%b,"value":' % (id_text, key_text)
    row = b"%b%b%b}" % (_U32.pack(len(head) + ROW_HEAD_BYTES), head, value_text)
    return _U32.pack(crc32(row)) + row


def is_whole_row(record: bytes) -> bool:
    """Whether a row is what was written."""
    return int.from_bytes(record[:4], "big") == crc32(record[4:])


def value_text(record: bytes) -> bytes:
    return record[int.from_bytes(record[4:ROW_HEAD_BYTES], "big") : -1]


def encode_sort_keys(sort_keys: Sequence[bytes]) -> bytes:
    return b"".join([part for key in sort_keys for part in (_U32.pack(len(key)), key)])


def decode_sort_keys(record: bytes) -> list[bytes]:
    found = []
    at = 0
    while at < len(record):
        end = at + 4 + int.from_bytes(record[at : at + 4], "big")
        found.append(record[at + 4 : end])
        at = end
    return found


def encode_node(count: int, partial: bytes) -> bytes:
    return _U64.pack(count) + partial


def node_count(record: bytes) -> int:
    return int.from_bytes(record[:COUNT_BYTES], "big")


def level_prefix(level: int) -> bytes:
    return bytes((level,))
