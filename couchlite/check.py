"""Reads a whole database again and says what in it does not fit together. Tests run it after every test.

One long snapshot, so meant for tests, for the command line and for after a crash, not for a busy server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from . import keys, partitions, ranks, records, resolution_log, seq_counts
from .blobs import BlobStore
from .compression import BodyCodec
from .engine import Reader, Space
from .errors import CouchliteError
from .jsontext import loads
from .records import RevInfo, State


def problems(
    reader: Reader, codec: BodyCodec, blobs: BlobStore, *, partitioned: bool = False, deep: bool = False
) -> list[str]:
    """One line for each thing that is wrong; empty when all is well. `deep` also reads every attachment."""
    checker = _Checker(reader, codec, blobs, deep)
    return [
        *checker.documents(),
        *checker.sequences(),
        *checker.bodies(),
        *checker.counters(),
        *ranks.problems(reader),
        *seq_counts.problems(reader),
        *resolution_log.problems(reader),
        *(partitions.problems(reader) if partitioned else ()),
    ]


class _Checker:
    def __init__(self, reader: Reader, codec: BodyCodec, blobs: BlobStore, deep: bool) -> None:
        self._reader = reader
        self._codec = codec
        self._blobs = blobs
        self._deep = deep
        self._stored = State.decode(reader.get(Space.META, records.STATE_KEY))
        self._counted = State()
        self._body_owner: dict[int, bytes] = {}
        self._sequence_of: dict[bytes, int] = {}
        self._blobs_seen: set[bytes] = set()

    def documents(self) -> Iterator[str]:
        conflicted = {
            keys.id_of(self._reader, Space.CONFLICTS, key): records.decode_fields(row)["leaves"]
            for key, row in self._reader.scan(Space.CONFLICTS)
        }
        for key, record in self._reader.scan(Space.DOCS):
            doc_id = keys.id_of(self._reader, Space.DOCS, key)
            try:
                for problem in self._document(doc_id, record, conflicted.pop(doc_id, 0)):
                    yield f"document {doc_id.decode()!r}: {problem}"
            except (CouchliteError, ValueError, KeyError, IndexError) as error:
                yield f"document {doc_id.decode()!r}: can't be read: {error!r}"
        for doc_id in conflicted:
            yield f"document {doc_id.decode()!r}: in the conflict index, but not known"

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
            seq, row = records.from_u64(key), records.decode_seq_row(value)
            if self._sequence_of.get(row.doc_id) != seq:
                yield f"sequence {seq} shows {row.doc_id.decode()!r}, which has moved on"
            if seq > self._stored.update_seq:
                yield f"sequence {seq} is beyond the update sequence {self._stored.update_seq}"

    def bodies(self) -> Iterator[str]:
        for key, frame in self._reader.scan(Space.BODIES):
            number = records.from_u64(key)
            if self._body_owner.pop(number, None) is None:
                yield f"body {number} belongs to no revision"
            if number > self._stored.last_body:
                yield f"body {number} is beyond the last body {self._stored.last_body}"
            codec, data, attachments = records.decode_body(frame)
            self._counted.stored_bytes += len(frame) + sum(info.length for info in attachments)
            try:
                loads(self._codec.decode(codec, data))
            except Exception as error:
                yield f"body {number} can't be read: {error!r}"
            for info in attachments:
                if info.key not in self._blobs_seen:
                    self._blobs_seen.add(info.key)
                    yield from self._attachment(info)
        for number, doc_id in self._body_owner.items():
            yield f"body {number} of {doc_id.decode()!r} is missing"

    def _attachment(self, info: records.AttachmentInfo) -> Iterator[str]:
        try:
            with self._blobs.open(self._reader, info.key) as source:
                if not self._deep:
                    return
                found = hashlib.sha256(usedforsecurity=False)
                for chunk in source.chunks():
                    found.update(chunk)
                if found.digest() != info.key:
                    yield f"attachment {info.name!r} ({info.key.hex()}) is damaged"
        except CouchliteError as error:
            yield f"attachment {info.name!r}: {error.reason}"

    def counters(self) -> Iterator[str]:
        for name in ("doc_count", "deleted_count", "external_bytes", "stored_bytes"):
            counted, stored = getattr(self._counted, name), getattr(self._stored, name)
            if counted != stored:
                yield f"{name} is {stored}, counted {counted}"
