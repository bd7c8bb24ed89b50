"""Reads a whole database again and says what in it does not fit together. Tests run it after every test.

One long snapshot, so meant for tests, for the command line and for after a crash, not for a busy server.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator

from . import keys, partitions, ranks, records, resolution_log, seq_counts
from .blobs import BlobStore, file_bytes
from .compression import BodyCodec
from .engine import Reader, Space
from .errors import CouchliteError
from .jsontext import loads
from .records import RevInfo, State

Advance = Callable[[int], None]
"""Called now and then with a number of records, or bytes of attachments in units of a record's size, that
have been gone through since the last call."""
STEP_RECORDS = 500
ATTACHMENT_BYTES_A_RECORD = 1000


def problems(
    reader: Reader,
    codec: BodyCodec,
    blobs: BlobStore,
    *,
    partitioned: bool = False,
    deep: bool = False,
    advance: Advance = lambda _count: None,
) -> list[str]:
    """One line for each thing that is wrong; empty when all is well. `deep` also reads every attachment."""
    damaged = [
        f"a record of {space.name.lower()} is damaged: {keys.shown(key)}"
        for space in Space
        if space.is_sealed
        for key in reader.damaged(space)
    ]
    if damaged:  # what is found after that may only be a consequence, and may not be readable
        return damaged
    checker = _Checker(reader, codec, blobs, deep, advance)
    return [
        *checker.documents(),
        *checker.sequences(),
        *checker.bodies(),
        *checker.counters(),
        *_counts(reader),
        *resolution_log.problems(reader),
        *(partitions.problems(reader) if partitioned else ()),
    ]


def _counts(reader: Reader) -> Iterator[str]:
    try:
        yield from ranks.problems(reader)
        yield from seq_counts.problems(reader)
    except struct.error as error:
        yield f"the counts of documents and sequences can't be read: {error}"


class _Checker:
    def __init__(
        self, reader: Reader, codec: BodyCodec, blobs: BlobStore, deep: bool, advance: Advance
    ) -> None:
        self._reader = reader
        self._codec = codec
        self._blobs = blobs
        self._deep = deep
        self._advance = advance
        self._gone_through = 0
        self._stored = State.decode(reader.get(Space.META, records.STATE_KEY))
        self._counted = State()
        self._body_owner: dict[int, bytes] = {}
        self._sequence_of: dict[bytes, int] = {}
        self._blobs_seen: dict[bytes, bytes | None] = {}
        """Attachment bodies by their keys, with the MD5 that they have if they were read."""

    def _step(self, records_count: int = 1) -> None:
        self._gone_through += records_count
        if self._gone_through >= STEP_RECORDS:
            self._advance(self._gone_through)
            self._gone_through = 0

    def documents(self) -> Iterator[str]:
        conflicted = {
            keys.id_of(self._reader, Space.CONFLICTS, key): records.decode_fields(row)["leaves"]
            for key, row in self._reader.scan(Space.CONFLICTS)
        }
        for key, record in self._reader.scan(Space.DOCS):
            self._step()
            doc_id = keys.id_of(self._reader, Space.DOCS, key)
            if not records.is_whole_doc(record, doc_id):
                conflicted.pop(doc_id, None)
                yield f"document {keys.shown(doc_id)}: its record is damaged"
                continue
            try:
                for problem in self._document(doc_id, record, conflicted.pop(doc_id, 0)):
                    yield f"document {keys.shown(doc_id)}: {problem}"
            except (CouchliteError, ValueError, KeyError, IndexError, struct.error) as error:
                yield f"document {keys.shown(doc_id)}: can't be read: {error!r}"
        for doc_id in conflicted:
            yield f"document {keys.shown(doc_id)}: in the conflict index, but not known"

    def _document(self, doc_id: bytes, record: bytes, conflict_leaves: int) -> Iterator[str]:
        head = records.decode_head(record)
        tree = records.decode_tree(record)
        leaves = tree.sorted_leaves(lambda info: bool(info.deleted))
        winner = leaves[0]
        live = sum(not leaf.info.deleted for leaf in leaves)
        if str(winner.rev).encode() != head.rev or winner.info.body != head.body:
            yield f"its head names {head.rev.decode()}, its tree makes {winner.rev} the winner"
        for flag, name, expected in (
            (records.DELETED, "deleted", winner.info.deleted),
            (records.CONFLICTED, "conflicted", live > 1),
            (records.BRANCHED, "branched", len(leaves) > 1),
        ):
            if bool(head.flags & flag) != expected:
                yield f"the flag {name} is wrong"
        if conflict_leaves != (live if live > 1 else 0):
            yield f"the conflict index counts {conflict_leaves} leaves, the tree has {live}"
        if head.size != sum(leaf.info.size for leaf in leaves):
            yield "its size is not the sum of its leaves' sizes"
        for node in tree.nodes():
            info: RevInfo | None = node.info
            if node.is_leaf and (info is None or not info.body):
                yield f"the body of the leaf {node.rev} is missing"
            elif info is not None and info.body:
                if info.body in self._body_owner:
                    yield f"body {info.body} belongs to {self._body_owner[info.body].decode()!r} too"
                self._body_owner[info.body] = doc_id
        self._sequence_of[doc_id] = head.seq
        self._counted.external_bytes += head.size
        if head.flags & records.DELETED:
            self._counted.deleted_count += 1
        else:
            self._counted.doc_count += 1
        row = self._reader.get(Space.SEQS, records.u64(head.seq))
        expected_row = records.encode_seq_row(head.flags, head.body, head.rev, doc_id)
        if row != expected_row:
            yield f"the sequence index does not show it at {head.seq}"

    def sequences(self) -> Iterator[str]:
        for key, value in self._reader.scan(Space.SEQS):
            self._step()
            try:
                seq, row = records.from_u64(key), records.decode_seq_row(value)
            except struct.error:
                yield f"the row {key.hex()} of the sequence index can't be read"
                continue
            if self._sequence_of.get(row.doc_id) != seq:
                yield f"sequence {seq} shows {keys.shown(row.doc_id)}, which has moved on"
            if seq > self._stored.update_seq:
                yield f"sequence {seq} is beyond the update sequence {self._stored.update_seq}"

    def bodies(self) -> Iterator[str]:
        for key, frame in self._reader.scan(Space.BODIES):
            number = int.from_bytes(key, "big")
            if self._body_owner.pop(number, None) is None:
                yield f"body {number} belongs to no revision"
            if number > self._stored.last_body:
                yield f"body {number} is beyond the last body {self._stored.last_body}"
            self._step()
            try:
                codec, data, attachments = records.decode_body(frame)
                loads(self._codec.decode(codec, data))
            except Exception as error:
                yield f"body {number} can't be read: {error!r}"
                continue
            self._counted.stored_bytes += len(frame) + sum(info.length for info in attachments)
            for info in attachments:
                name = f"attachment {info.name!r} of body {number}"
                if info.key not in self._blobs_seen:
                    yield from self._attachment(name, info.key)
                md5 = self._blobs_seen[info.key]
                if md5 is not None and md5 != info.md5:
                    yield f"{name} has another digest than its document says"
        for number, doc_id in self._body_owner.items():
            yield f"body {number} of {keys.shown(doc_id)} is missing"
        for key, _row in self._reader.scan(Space.ATTACHMENTS):
            if key not in self._blobs_seen:
                yield from self._attachment(f"attachment body {key.hex()}, which no document has,", key)

    def _attachment(self, name: str, key: bytes) -> Iterator[str]:
        self._blobs_seen[key] = None
        try:
            with self._blobs.open(self._reader, key) as source:
                if not self._deep:
                    return
                sha256, md5 = hashlib.sha256(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
                for chunk in source.chunks():
                    sha256.update(chunk)
                    md5.update(chunk)
                    self._step(1 + len(chunk) // ATTACHMENT_BYTES_A_RECORD)
                if sha256.digest() != key:
                    yield f"{name} is damaged"
                else:
                    self._blobs_seen[key] = md5.digest()
        except CouchliteError as error:
            yield f"{name}: {error.reason}"

    def counters(self) -> Iterator[str]:
        self._advance(self._gone_through)
        self._counted.blob_bytes = file_bytes(self._reader)
        for name in ("doc_count", "deleted_count", "external_bytes", "stored_bytes", "blob_bytes"):
            counted, stored = getattr(self._counted, name), getattr(self._stored, name)
            if counted != stored:
                yield f"{name} is {stored}, counted {counted}"
