"""Bytes on disk: every key and every record of a database. Nothing else knows these layouts.

    space        key                     value
    META         b"state"                counters (see State)
                 b"time:" + u64 minute   u64: how many bodies there had been when it began
                 b"dict:" + number       a zstd dictionary for bodies
                 b"security", ...        JSON text
    DOCS         document id, UTF-8 (*)  document record: head, winner's revision text, tree
    SEQS         u64 update sequence     what one _changes row needs: flags, body, revision text, document id
    BODIES       u64 body number         frame: codec, attachments, compressed JSON text without _fields
    LOCAL        local id, UTF-8 (*)     u64 revision number, JSON text
    CONFLICTS    document id (*)         CBOR {leaves, since_ms}: documents with several leaves that live
    PURGES       u64 purge sequence      CBOR [document id, [revision text, ...]]
    ATTACHMENTS  see blobs.py
    RANKS        see ranks.py and seq_counts.py
    RESOLUTIONS  see resolution_log.py

(*) LMDB keys are at most 511 bytes; `keys.py` keeps the order of longer ones.

Why redundant: a listing or a feed must be one sequential scan. A document record begins with all that
`_all_docs` and a plain GET need; the tree, CBOR of linear runs, follows only when the document has more than
one revision.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cbor2

from .errors import InternalError
from .revision import Rev
from .revtree import RevTree, Run
from .seal import SEAL_BYTES, is_whole, seal

FORMAT_VERSION = 2

DELETED = 1
"""The winner is deleted, so the document is."""
CONFLICTED = 2
"""More than one leaf is not deleted."""
BRANCHED = 4
"""More than one leaf of any kind."""
HAS_TREE = 8
"""A tree follows; else the winner is the only revision."""

_HEAD = struct.Struct(">BQQIB")
HEAD_SIZE = _HEAD.size
_ROW = struct.Struct(">BQB")
_ROW_SIZE = _ROW.size
_U64 = struct.Struct(">Q")

STATE_KEY = b"state"
SECURITY_KEY = b"security"
RESOLVING_KEY = b"resolving"
"""How far automatic resolution has come (see automatic.py)."""
TIME_MARK = b"time:"


class RevInfo(NamedTuple):
    """What a tree keeps for a revision that was stored here. `body` 0 means that the body is gone."""

    body: int
    deleted: bool
    size: int
    """Bytes of JSON text and attachments; kept for leaves, 0 for others."""
    is_merge_base: bool = False
    """A compaction kept the body for merging a conflict or undoing that, and for nothing else."""

    @property
    def is_readable(self) -> bool:
        """Whether a reader who asks for the revision gets it."""
        return bool(self.body) and not self.is_merge_base


class DocHead(NamedTuple):
    """The beginning of a document record."""

    flags: int
    seq: int
    body: int
    size: int
    """Sum of the leaves' sizes, bytes."""
    rev: bytes
    """The winner's revision as text."""


class SeqRow(NamedTuple):
    """A change, as the sequence index holds it."""

    flags: int
    body: int
    rev: bytes
    doc_id: bytes


@dataclass(slots=True)
class State:
    """Counters of a database; read at the start of a batch and written at its end."""

    update_seq: int = 0
    doc_count: int = 0
    deleted_count: int = 0
    last_body: int = 0
    purge_seq: int = 0
    external_bytes: int = 0
    revs_limit: int = 1000
    purged_infos_limit: int = 1000
    newest_codec: int = 1
    oldest_purge: int = 0
    stored_bytes: int = 0
    """What bodies and attachments take, those of inner revisions included."""
    design_seq: int = 0
    """The update sequence of the last change to a design document."""
    blob_bytes: int = 0
    """What attachments take in files of their own."""
    marked_minute: int = 0
    """The newest minute that has a time mark."""

    def encode(self) -> bytes:
        return _STATE.pack(*(getattr(self, name) for name in self.__slots__))

    @classmethod
    def decode(cls, data: bytes | None) -> State:
        return cls() if data is None else cls(*_STATE.unpack(data))


_STATE = struct.Struct(">14Q")


u64: Callable[[int], bytes] = _U64.pack
"""A number as a key: eight bytes that order as numbers do."""


def from_u64(key: bytes) -> int:
    return int(_U64.unpack(key)[0])


def time_mark(time_s: float) -> bytes:
    """The key of a minute's time mark: retention by age is reckoned in body numbers, which only grow."""
    return TIME_MARK + u64(max(0, int(time_s // 60)))


def dictionary_key(number: int) -> bytes:
    return b"dict:%d" % number


# --- documents


def encode_doc(doc_id: bytes, head: DocHead, tree: bytes = b"") -> bytes:
    flags, seq, body, size, rev = head
    return seal(_HEAD.pack(flags, seq, body, min(size, 0xFFFFFFFF), len(rev)) + rev + tree, doc_id)


def encode_single(doc_id: bytes, flags: int, seq: int, body: int, size: int, rev: bytes) -> bytes:
    """The record of a document with one revision."""
    return seal(_HEAD.pack(flags, seq, body, min(size, 0xFFFFFFFF), len(rev)) + rev, doc_id)


is_whole_doc = is_whole
"""Whether a document's record is what was written for its id."""


def decode_head(record: bytes) -> DocHead:
    flags, seq, body, size, rev_length = _HEAD.unpack_from(record)
    return DocHead(flags, seq, body, size, record[HEAD_SIZE : HEAD_SIZE + rev_length])


unpack_head = _HEAD.unpack_from
"""(flags, seq, body, size, length of the revision text that follows the head)."""


def rev_of(record: bytes) -> bytes:
    """The winner's revision as text."""
    return record[HEAD_SIZE : HEAD_SIZE + record[HEAD_SIZE - 1]]


def body_key(record: bytes) -> bytes:
    """The key of the winner's body."""
    return record[9:17]


def any_conflicted(rows: Sequence[bytes]) -> bool:
    return any(row[0] & CONFLICTED for row in rows)


def body_keys_of(rows: Sequence[bytes]) -> list[bytes]:
    """The keys of the winners' bodies."""
    return [row[9:17] for row in rows]


def revs_of(rows: Sequence[bytes]) -> list[bytes]:
    """The winners' revisions of document records."""
    return [row[HEAD_SIZE : HEAD_SIZE + row[HEAD_SIZE - 1]] for row in rows]


def tree_bytes(record: bytes) -> bytes:
    return record[HEAD_SIZE + record[HEAD_SIZE - 1] : -SEAL_BYTES]


def decode_tree(record: bytes) -> RevTree:
    """The whole revision tree of a document record, with a RevInfo on every revision stored here."""
    head = decode_head(record)
    if not head.flags & HAS_TREE:
        rev = Rev.parse(head.rev.decode())
        info = RevInfo(head.body, bool(head.flags & DELETED), head.size)
        return RevTree.from_runs([Run(-1, 0, rev.generation, [rev.digest], [info])])
    return RevTree.from_runs([_decode_run(run) for run in cbor2.loads(tree_bytes(record))])


def encode_tree(tree: RevTree) -> bytes:
    return cbor2.dumps([_encode_run(run) for run in tree.to_runs()])


_KNOWN = 1
_INFO_DELETED = 2
_INFO_MERGE_BASE = 4


def _encode_run(run: Run) -> list[Any]:
    digests = run.digests
    packed: Any = b"".join(digests) if all(len(digest) == 16 for digest in digests) else list(digests)
    infos = run.infos
    bodies = struct.pack(f">{len(infos)}Q", *[0 if info is None else info.body for info in infos])
    flags = bytes(0 if info is None else _info_flags(info) for info in infos)
    size = infos[-1].size if infos[-1] is not None else 0
    return [run.parent_run, run.parent_offset, run.first_generation, packed, bodies, flags, size]


def _info_flags(info: RevInfo) -> int:
    return _KNOWN | (_INFO_DELETED if info.deleted else 0) | (_INFO_MERGE_BASE if info.is_merge_base else 0)


def _decode_run(row: list[Any]) -> Run:
    parent_run, parent_offset, first_generation, packed, bodies, flags, size = row
    if isinstance(packed, bytes):
        digests = [packed[at : at + 16] for at in range(0, len(packed), 16)]
    else:
        digests = packed
    last = len(digests) - 1
    infos = [
        RevInfo(body, bool(flag & _INFO_DELETED), size if at == last else 0, bool(flag & _INFO_MERGE_BASE))
        if flag
        else None
        for at, (body, flag) in enumerate(zip(struct.unpack(f">{len(flags)}Q", bodies), flags, strict=True))
    ]
    return Run(parent_run, parent_offset, first_generation, digests, infos)


class Chain(NamedTuple):
    """A linear, unbranched history in packed form: what most documents are, extended without building a
    tree."""

    first_generation: int
    digests: bytes
    bodies: bytes
    flags: bytes


def decode_chain(record: bytes, head: DocHead) -> Chain | None:
    """The history of a document record, or None when it is not linear or has odd digests."""
    if head.flags & BRANCHED:
        return None
    if not head.flags & HAS_TREE:
        rev = Rev.parse(head.rev.decode())
        if len(rev.digest) != 16:
            return None
        flag = _KNOWN | (_INFO_DELETED if head.flags & DELETED else 0)
        return Chain(rev.generation, rev.digest, _U64.pack(head.body), bytes((flag,)))
    runs = cbor2.loads(tree_bytes(record))
    if len(runs) != 1 or not isinstance(runs[0][3], bytes):
        return None
    return Chain(*runs[0][2:6])


def linear_digests(record: bytes) -> bytes | None:
    """The digests of a document without branches as hexadecimal digits between `","`, newest first; None when
    one of them is odd."""
    chain = decode_chain(record, decode_head(record))
    if chain is None:
        return None
    digits = chain.digests.hex().encode()
    return b'","'.join([digits[at : at + 32] for at in range(len(digits) - 32, -1, -32)])


def extend_chain(chain: Chain, digest: bytes, info: RevInfo, limit: int) -> tuple[bytes, list[int]]:
    """The tree bytes of `chain` with one more revision, stemmed to `limit` revisions; and the numbers of the
    bodies that were stemmed away."""
    digests = chain.digests + digest
    bodies = chain.bodies + _U64.pack(info.body)
    flags = chain.flags + bytes((_info_flags(info),))
    cut = max(0, len(flags) - limit)
    dropped = [number for (number,) in _U64.iter_unpack(bodies[: cut * 8]) if number]
    row = [
        -1,
        0,
        chain.first_generation + cut,
        digests[cut * 16 :],
        bodies[cut * 8 :],
        flags[cut:],
        info.size,
    ]
    return cbor2.dumps([row]), dropped


# --- the sequence index


def encode_seq_row(flags: int, body: int, rev: bytes, doc_id: bytes) -> bytes:
    return _ROW.pack(flags, body, len(rev)) + rev + doc_id


def decode_seq_row(row: bytes) -> SeqRow:
    flags, body, rev_length = _ROW.unpack_from(row)
    end = _ROW_SIZE + rev_length
    return SeqRow(flags, body, row[_ROW_SIZE:end], row[end:])


class SeqColumns(NamedTuple):
    """Rows of the sequence index, column by column: it is decoded several times as fast as row by row."""

    seqs: tuple[int, ...]
    flags: bytes
    bodies: tuple[int, ...]
    revs: list[bytes]
    """The winners' revisions as text."""
    ids: list[bytes]

    def cut(self, start: int, stop: int | None) -> SeqColumns:
        """Some consecutive rows."""
        return SeqColumns._make(column[start:stop] for column in self)

    def pick(self, rows: Sequence[int]) -> SeqColumns:
        """The rows with these numbers."""
        seqs, flags, bodies, revs, ids = self
        return SeqColumns(
            tuple([seqs[at] for at in rows]),
            bytes([flags[at] for at in rows]),
            tuple([bodies[at] for at in rows]),
            [revs[at] for at in rows],
            [ids[at] for at in rows],
        )


def decode_seq_rows(pairs: Sequence[tuple[bytes, bytes]]) -> SeqColumns:
    rows = [row for _seq, row in pairs]
    numbers = f">{len(rows)}Q"
    return SeqColumns(
        struct.unpack(numbers, b"".join([seq for seq, _row in pairs])),
        bytes([row[0] for row in rows]),
        struct.unpack(numbers, b"".join([row[1:9] for row in rows])),
        [row[_ROW_SIZE : _ROW_SIZE + row[9]] for row in rows],
        [row[_ROW_SIZE + row[9] :] for row in rows],
    )


def decode_doc_rows(ids: list[bytes], rows: Sequence[bytes]) -> SeqColumns:
    """Document records as the sequence index shows them."""
    numbers = f">{len(rows)}Q"
    return SeqColumns(
        struct.unpack(numbers, b"".join([row[1:9] for row in rows])),
        bytes([row[0] for row in rows]),
        struct.unpack(numbers, b"".join([row[9:17] for row in rows])),
        revs_of(rows),
        ids,
    )


# --- bodies

_HAS_ATTACHMENTS = 0x80


class AttachmentInfo(NamedTuple):
    """An attachment of a stored revision. `md5` and `length` are of the stored (perhaps gzipped) bytes."""

    name: str
    content_type: str
    revpos: int
    md5: bytes
    length: int
    identity_length: int
    encoding: str | None
    key: bytes
    """Its address in the blob store."""


def encode_body(codec: int, data: bytes, attachments: tuple[AttachmentInfo, ...] = ()) -> bytes:
    if not attachments:
        return seal(bytes((codec,)) + data)
    listed = cbor2.dumps(attachments)
    return seal(bytes((codec | _HAS_ATTACHMENTS,)) + len(listed).to_bytes(4, "big") + listed + data)


def has_attachments(frame: bytes) -> bool:
    return frame[0] >= _HAS_ATTACHMENTS


def decode_body(frame: bytes) -> tuple[int, bytes, tuple[AttachmentInfo, ...]]:
    """(codec, compressed text, attachments) :raises InternalError: it is damaged."""
    codec = frame[0]
    if codec < _HAS_ATTACHMENTS:
        return codec, plain_data(frame), ()
    if not is_whole(frame):
        raise _damaged()
    end = 5 + int.from_bytes(frame[1:5], "big")
    attachments = tuple(AttachmentInfo(*fields) for fields in cbor2.loads(frame[5:end]))
    return codec & ~_HAS_ATTACHMENTS, frame[end:-SEAL_BYTES], attachments


def plain_data(frame: bytes) -> bytes:
    """The compressed text of a body without attachments. :raises InternalError: it is damaged."""
    if not is_whole(frame):
        raise _damaged()
    return frame[1:-SEAL_BYTES]


def _damaged() -> InternalError:
    return InternalError("a document's body is damaged: it does not fit its checksum")


# --- the rest


def encode_local(revision: int, text: bytes) -> bytes:
    return _U64.pack(revision) + text


def decode_local(record: bytes) -> tuple[int, bytes]:
    return from_u64(record[:8]), record[8:]


def encode_fields(value: Any) -> bytes:
    """CBOR of a small value, for records without a layout of their own."""
    return cbor2.dumps(value)


def decode_fields(data: bytes) -> Any:
    return cbor2.loads(data)
