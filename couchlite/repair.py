"""What of a damaged store can be made anew from what is whole: the sequence index, the conflict index, the
counters; view indexes, which are built again on the next query.

Documents, bodies, attachments and dictionaries are nobody else's to know: they are left as they are, and
named. While a document's record is damaged, nothing is made anew from documents: the rest would forget it.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from . import compression, keys, ranks, records, resolution_log, seq_counts
from .blobs import file_bytes
from .engine import Batch, Space
from .errors import InternalError
from .partitions import COUNTS_PREFIX, PartitionChanges, clear_counts
from .records import State, from_u64, u64

_DERIVED = (Space.SEQS, Space.RANKS, Space.CONFLICTS)
_DICTIONARY = b"dict:"


def repair(batch: Batch, *, partitioned: bool) -> list[str]:
    """Make anew what can be, in one transaction; what was done, and what could not be, one line each."""
    told, state = _drop_damaged_records(batch)
    damaged = sum(
        not records.is_whole_doc(record, keys.id_of(batch, Space.DOCS, key))
        for key, record in batch.scan(Space.DOCS)
    )
    if damaged:
        return [
            *told,
            f"indexes and counters are left as they are, since the records of {damaged} documents are lost",
        ]
    return [*told, *_Rebuild(batch, state, PartitionChanges() if partitioned else None).run()]


def repair_index(path: Path) -> str:
    """Remove a view index; what was done."""
    shutil.rmtree(path, ignore_errors=True)
    return "removed; the next query builds it again"


def _drop_damaged_records(batch: Batch) -> tuple[list[str], State | None]:
    """Remove sealed records that can be done without; the state if it is whole."""
    told = []
    state: State | None = None
    damaged = {space: batch.damaged(space) for space in Space if space.is_sealed}
    for key in damaged[Space.META]:
        if key == records.STATE_KEY:
            told.append("the limits of revisions and purges are the defaults again")
        elif key == records.SECURITY_KEY:
            told.append(
                "the security object is lost: only server administrators have access until it is set again"
            )
        elif not key.startswith((records.TIME_MARK, COUNTS_PREFIX)):
            told.append(f"{keys.shown(key)} can't be made anew")
            continue
        batch.delete(Space.META, key)
    for space, lost in (
        (Space.LOCAL, "local documents are removed; a replication whose checkpoint that was starts over"),
        (Space.PURGES, "notes of purges are removed"),
        (Space.RESOLUTIONS, "notes of resolved conflicts are removed"),
    ):
        for key in damaged[space]:
            batch.delete(space, key)
        if damaged[space]:
            told.append(f"{len(damaged[space])} {lost}")
    if damaged[Space.RESOLUTIONS]:
        resolution_log.mend(batch)
    for key in damaged[Space.CONFLICTS]:
        batch.delete(Space.CONFLICTS, key)
    if records.STATE_KEY not in damaged[Space.META]:
        state = State.decode(batch.get(Space.META, records.STATE_KEY))
    return told, state


class _Rebuild:
    def __init__(self, batch: Batch, state: State | None, partitions: PartitionChanges | None) -> None:
        self._batch = batch
        self._before = state
        self._partitions = partitions
        known = state or State()
        self._state = replace(
            known, doc_count=0, deleted_count=0, external_bytes=0, stored_bytes=0, design_seq=0
        )
        self._ranks = ranks.RankChanges()
        self._counts = seq_counts.SeqCountChanges()
        self._since_ms: dict[bytes, int] = {}

    def run(self) -> list[str]:
        self._read_limits()
        self._since_ms = {
            keys.id_of(self._batch, Space.CONFLICTS, key): records.decode_fields(row)["since_ms"]
            for key, row in self._batch.scan(Space.CONFLICTS)
        }
        for space in _DERIVED:
            for key in [key for key, _row in self._batch.scan(space)]:
                self._batch.delete(space, key)
                if space is Space.CONFLICTS:
                    keys.forget(self._batch, space, key)
        clear_counts(self._batch)
        unreadable = 0
        for key, record in list(self._batch.scan(Space.DOCS)):
            self._document(key, record)
        for _key, frame in self._batch.scan(Space.BODIES):
            try:
                attachments = records.decode_body(frame)[2]
            except InternalError:
                unreadable += 1
                continue
            self._state.stored_bytes += len(frame) + sum(info.length for info in attachments)
        self._ranks.write(self._batch)
        self._counts.write(self._batch)
        if self._partitions is not None:
            self._partitions.write(self._batch)
        self._batch.put(Space.META, records.STATE_KEY, self._state.encode())
        told = ["sequence index, conflict index and counters are made anew"]
        if unreadable:
            told.append(f"{unreadable} bodies can't be made anew")
        return told

    def _document(self, key: bytes, record: bytes) -> None:
        state = self._state
        doc_id = keys.id_of(self._batch, Space.DOCS, key)
        head = records.decode_head(record)
        self._batch.put(
            Space.SEQS, u64(head.seq), records.encode_seq_row(head.flags, head.body, head.rev, doc_id)
        )
        self._counts.add(head.seq)
        if self._partitions is not None:
            self._partitions.add(doc_id, head.flags, head.size)
        is_deleted = bool(head.flags & records.DELETED)
        self._ranks.add(key, 0 if is_deleted else 1)
        state.deleted_count += is_deleted
        state.doc_count += not is_deleted
        state.external_bytes += head.size
        state.update_seq = max(state.update_seq, head.seq)
        if doc_id.startswith(b"_design/"):
            state.design_seq = max(state.design_seq, head.seq)
        if head.flags & records.CONFLICTED:
            self._conflict(doc_id, record)

    def _conflict(self, doc_id: bytes, record: bytes) -> None:
        leaves = sum(not leaf.info.deleted for leaf in records.decode_tree(record).leaves())
        since_ms = self._since_ms.get(doc_id, int(time.time() * 1000))
        row = records.encode_fields({"leaves": leaves, "since_ms": since_ms})
        self._batch.put(Space.CONFLICTS, keys.allot(self._batch, Space.CONFLICTS, doc_id), row)

    def _read_limits(self) -> None:
        """What of the state stands elsewhere too."""
        batch, state = self._batch, self._state
        state.blob_bytes = file_bytes(batch)
        state.last_body = max(state.last_body, _last(batch, Space.BODIES))
        if self._before is not None:
            return
        state.update_seq = _last(batch, Space.SEQS)
        state.purge_seq = _last(batch, Space.PURGES)
        oldest = next(batch.scan(Space.PURGES), None)
        state.oldest_purge = state.purge_seq if oldest is None else from_u64(oldest[0]) - 1
        damaged = set(batch.damaged(Space.META))
        dictionaries = (
            [
                int(key.removeprefix(_DICTIONARY))
                for key, _row in batch.scan(Space.META, _DICTIONARY, _DICTIONARY + b"\xff")
            ]
            if not any(key.startswith(_DICTIONARY) for key in damaged)
            else []
        )
        state.newest_codec = max([compression.PLAIN, *dictionaries])


def _last(batch: Batch, space: Space) -> int:
    """The greatest number that is a key of a space."""
    found = next(batch.scan(space, reverse=True), None)
    return 0 if found is None else from_u64(found[0])
