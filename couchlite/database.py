"""One database: a few lines a method; parse, hand a function to the writer or open a snapshot, return.

Reads are synchronous and short, so an event loop may call them. A write is queued for the writer's thread:
the `submit_*` methods return a future that is done when the write is durable (await it with
`asyncio.wrap_future`), the others wait for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import (
    base_bodies,
    changes,
    check,
    compact,
    compression,
    document,
    edits,
    jsontext,
    local_docs,
    partitions,
    purge,
    reads,
    records,
    resolutions,
)
from .blobs import BlobStore
from .catalog import Entry
from .changes import ChangeRow
from .compact import LEAVES_ONLY, Compaction, Retention
from .compression import BodyCodec
from .conflicts import ConflictRow
from .counts import Counts, Mark, add_commit
from .disk_guard import DiskGuard
from .document import Edit
from .edits import Result
from .engine import Space
from .errors import NotFound
from .feed import Feed
from .file_lock import FileLock
from .index import Indexes
from .merging import Merged, Rules
from .partitions import PartitionCounts
from .prepared_edits import Context, prepare_all
from .records import State
from .resolution_log import Resolution
from .resolutions import DELETE, Plan
from .revision import Rev
from .snapshot import Snapshot
from .storage import LmdbEnvironment
from .tasks import Task
from .upload import GzipPolicy
from .writer import Writer, WriteTxn

STORE_DIRECTORY = "store.mdb"
BLOBS_DIRECTORY = "blobs"
INDEX_DIRECTORY = "index"
DEFAULT_SECURITY: dict[str, Any] = {
    "members": {"roles": ["_admin"]},
    "admins": {"roles": ["_admin"]},
}
"""CouchDB 3's default: server administrators only."""


@dataclass(frozen=True, slots=True)
class DatabaseInfo:
    """What `GET /{db}` tells. Sizes are bytes: `file` on disk, `external` the live leaves as JSON and
    attachments, `active` what live data take in the store."""

    name: str
    update_seq: str
    purge_seq: str
    doc_count: int
    doc_del_count: int
    file_bytes: int
    external_bytes: int
    active_bytes: int
    compact_running: bool
    created_s: float
    props: dict[str, Any]


class Leaf(NamedTuple):
    """A leaf of a document's revision tree."""

    rev: str
    deleted: bool


class Database:
    """Made by `Server`, which sees to it that a process has one of each."""

    def __init__(
        self,
        entry: Entry,
        path: Path,
        *,
        moved: Callable[[Entry, int], None],
        partition_bytes_max: Callable[[], int],
        gzip_policy: Callable[[], GzipPolicy] = GzipPolicy,
        counts: Counts,
        disk: DiskGuard,
    ) -> None:
        self.name = entry.name
        self.uuid = entry.uuid
        self.props = entry.props
        self.is_partitioned = bool(entry.props.get("partitioned"))
        """Document ids are `partition:id`; see partitions.py."""
        self._partition_bytes_max = partition_bytes_max
        self.disk = disk
        """Refuses what would fill the disk."""
        self.counts = counts
        """The server's; see counts.py."""
        self.created_s = entry.created_s
        self.tag = entry.uuid[:12]
        """Ends the update sequences of this database, and of no other."""
        self.path = path
        self._run_path = path.parent.parent / "run"
        self.gone = False
        """Deleted, or its server was closed."""
        self._compaction = FileLock(path / compact.LOCK_FILE)
        self.feed = feed = Feed()
        self.engine = engine = LmdbEnvironment(path / STORE_DIRECTORY, Space)
        self.blobs = BlobStore(path / BLOBS_DIRECTORY, gzip_policy, check_room=disk.check_write)
        self.blobs.remove_dead_uploads()
        self.indexes = Indexes(path / INDEX_DIRECTORY)
        with engine.read() as reader:
            state = State.decode(reader.get(Space.META, records.STATE_KEY))
        feed.moved(state.update_seq)

        # Neither of these refers to the Database, so that it ends as soon as nobody uses it (see Server).
        def dictionary(number: int) -> bytes | None:
            with engine.read() as reader:
                return reader.get(Space.META, records.dictionary_key(number))

        def committed(before: Mark, state: State, writes: int) -> None:
            add_commit(counts, before, Mark.of(state), writes)
            feed.moved(state.update_seq)
            moved(entry, state.update_seq)

        self.codec = BodyCodec(dictionary, max(state.newest_codec, compression.PLAIN))
        self.writer = Writer(engine, entry.name, committed, partitioned=self.is_partitioned)
        self._context = Context(self.codec, self.blobs)

    # reading

    def snapshot(self) -> Snapshot:
        """One consistent look; `with database.snapshot() as snapshot:`. Close it before awaiting anything."""
        return Snapshot(self.engine.read(), self.codec, self.blobs, self.counts)

    def get(self, doc_id: str, rev: str | None = None) -> dict[str, Any]:
        """A revision, by default the winning one, as a dictionary with `_id`, `_rev` and attachment stubs.

        :raises NotFound: the document, or the revision's body, is not here; "deleted" for a tombstone that
            was not asked for by its revision.
        """
        with self.snapshot() as snapshot:
            if rev is None:
                revision = snapshot.winner(doc_id)
            else:
                found = snapshot.document(doc_id)
                node = found.tree.find(Rev.parse(rev)) if found else None
                if found is None or node is None:
                    raise NotFound()
                revision = snapshot.revision(found, node)
            shown: dict[str, Any] = jsontext.loads(document.render(revision))
            return shown

    def leaves(self, doc_id: str) -> list[Leaf]:
        """The leaves of a document, the winner first: more than one that is not deleted is a conflict.

        :raises NotFound:
        """
        with self.snapshot() as snapshot:
            found = snapshot.document(doc_id)
            if found is None:
                raise NotFound()
            return [Leaf(str(node.rev), node.info.deleted) for node in found.leaves()]

    def ids(self, start: str = "", stop: str | None = None) -> Iterator[str]:
        """The ids of the documents that are not deleted, in order, with `start <= id < stop`."""
        at: bytes | None = start.encode()
        while at is not None:
            with self.snapshot() as snapshot:
                page = snapshot.docs(at, None if stop is None else stop.encode())
            yield from (doc_id.decode() for doc_id in page.ids)
            at = page.resume

    def changes(self, since: str = "0") -> Iterator[dict[str, Any]]:
        """The documents changed after the update sequence `since`, as rows of `_changes`."""
        at = self.parse_seq(since)
        while rows := self.changes_page(at):
            at = rows[-1].seq
            yield from map(self.describe_change, rows)

    def changes_page(self, since: int) -> list[ChangeRow]:
        """The first changes after the sequence number `since`; empty when there are none."""
        with self.snapshot() as snapshot:
            return snapshot.changes(since)

    def describe_change(self, row: ChangeRow) -> dict[str, Any]:
        """A change as a row of `_changes`."""
        shown: dict[str, Any] = {
            "seq": self.format_seq(row.seq),
            "id": row.id.decode(),
            "changes": [{"rev": row.rev.decode()}],
        }
        return shown | {"deleted": True} if row.flags & records.DELETED else shown

    def attachment(self, doc_id: str, name: str) -> bytes:
        """An attachment of the winning revision, whole and decoded. :raises NotFound:"""
        with self.snapshot() as snapshot:
            for info in snapshot.winner(doc_id).attachments:
                if info.name == name:
                    with snapshot.blob(info) as source:
                        return b"".join(source.gunzipped() if info.encoding else source.chunks())
        raise NotFound("Document is missing attachment")

    def text(self, doc_id: str) -> tuple[str, bytes]:
        """The winner's id and JSON text, with attachment stubs: the quickest way to read a document.

        :raises NotFound: "missing" or "deleted".
        """
        self.counts["database_reads"] += 1
        with self.engine.read() as reader:
            return reads.winner_text(reader, self.codec, doc_id)

    def state(self) -> State:
        with self.snapshot() as snapshot:
            return snapshot.state()

    def info(self) -> DatabaseInfo:
        state = self.state()
        return DatabaseInfo(
            name=self.name,
            update_seq=self.format_seq(state.update_seq),
            purge_seq=self.format_seq(state.purge_seq),
            doc_count=state.doc_count,
            doc_del_count=state.deleted_count,
            file_bytes=self.engine.size_bytes() + state.blob_bytes,
            external_bytes=state.external_bytes,
            active_bytes=state.stored_bytes,
            compact_running=self._compaction.is_held(),
            created_s=self.created_s,
            props=self.props,
        )

    def partition_counts(self, name: str) -> PartitionCounts:
        """What a partition holds."""
        with self.engine.read() as reader:
            return partitions.counts_of(reader, name.encode())

    def format_seq(self, seq: int) -> str:
        return changes.format_seq(seq, self.tag)

    def parse_seq(self, text: str) -> int:
        """The number in an update sequence. :raises BadRequest:"""
        return changes.parse_seq(text, self.tag)

    # writing

    def put(self, doc: Mapping[str, Any]) -> str:
        """Store a document by its `_id`, on top of its `_rev` if it has one; the new revision.

        :raises Conflict:
        """
        return str(self.update([document.parse(dict(doc))])[0])

    def delete(self, doc_id: str, rev: str) -> str:
        """Delete a document's revision; the tombstone's revision. :raises Conflict:"""
        return self.put({"_id": doc_id, "_rev": rev, "_deleted": True})

    def update(self, edit_list: Sequence[Edit]) -> list[Rev]:
        """Interactive edits, waited for. :raises Conflict: one of them was refused; the others are stored."""
        results = self.submit_edits(edit_list).result()
        for result in results:
            if not isinstance(result, Rev):
                raise result
        return [result for result in results if isinstance(result, Rev)]

    def submit_edits(self, edit_list: Sequence[Edit]) -> Future[list[Result]]:
        """Interactive edits (`new_edits=true`); for each its revision or the error that refused it.

        Fails as a whole with MissingStub when an attachment stub stands for nothing.

        :raises IllegalDocumentId, BadRequest: an id without a partition, where one is needed.
        :raises InsufficientStorage: the disk is nearly full, and these are not only deletions.
        """
        context = self._context
        self._check_room(edit_list)
        self._check_partitions(edit_list)
        self.stage_attachments(edit_list)
        prepared = prepare_all(edit_list, self.codec, new_edits=True)
        most = self._partition_bytes_max() if self.is_partitioned else 0
        future = self.writer.submit(
            lambda txn: edits.new_edits(txn, context, prepared, partition_bytes_max=most)
        )
        return _then_discard(future, edit_list)

    def submit_replicated(self, edit_list: Sequence[Edit]) -> Future[None]:
        """Graft the edits' histories (`new_edits=false`); each must have a path."""
        context = self._context
        self._check_room(edit_list)
        self._check_partitions(edit_list)
        self.stage_attachments(edit_list)
        prepared = prepare_all(edit_list, self.codec, new_edits=False)
        future = self.writer.submit(lambda txn: edits.replicated_edits(txn, context, prepared))
        return _then_discard(future, edit_list)

    def _check_room(self, edit_list: Sequence[Edit]) -> None:
        """Deletions are let through: they are how room is made."""
        if not all(edit.deleted for edit in edit_list):
            self.disk.check_write()

    def _check_partitions(self, edit_list: Sequence[Edit]) -> None:
        if self.is_partitioned:
            for edit in edit_list:
                partitions.check_id(edit.id)

    def stage_attachments(self, edit_list: Sequence[Edit]) -> None:
        """Hash, compress and spool inline attachment data; slow for large ones, so an event loop lets a
        thread do it before it submits."""
        self._check_room(edit_list)
        for edit in edit_list:
            for attachment in edit.attachments:
                if attachment.data is not None and attachment.staged is None:
                    attachment.staged = self.blobs.stage_bytes(attachment.data, attachment.content_type)
                    attachment.data = None

    def submit_local(self, doc_id: str, revision: int, body: bytes) -> Future[int]:
        """Store a local document on top of 0-`revision`; its new number."""
        self.counts["local_document_writes"] += 1
        return self.writer.submit(lambda txn: local_docs.put(txn, doc_id, revision, body))

    def submit_local_delete(self, doc_id: str) -> Future[None]:
        return self.writer.submit(lambda txn: local_docs.delete(txn, doc_id))

    def purge(self, wanted: Mapping[str, Sequence[Rev]]) -> Future[dict[str, list[Rev]]]:
        """Remove leaves for good; what was removed of each document."""
        return self.writer.submit(lambda txn: purge.purge(txn, wanted))

    def purged_infos(self) -> list[tuple[str, list[Rev]]]:
        with self.engine.read() as reader:
            return purge.infos(reader)

    # conflicts

    def conflicts(self, start: str = "", stop: str | None = None) -> Iterator[ConflictRow]:
        """The documents in conflict, in the order of their ids, with `start <= id < stop`. It costs what it
        lists, however many other documents there are."""
        at: bytes | None = start.encode()
        while at is not None:
            with self.snapshot() as snapshot:
                page = snapshot.conflicts(at, None if stop is None else stop.encode())
            yield from page.rows
            at = page.resume

    def merge(self, doc_id: str, rules: Rules | None = None, *, chosen: Sequence[str] = ()) -> Merged:
        """What a three-way merge of a document's leaves would give, and where they clash; nothing is written.

        :raises NotFound: :raises BadRequest: it has not two leaves to merge.
        """
        with self.snapshot() as snapshot:
            sides = snapshot.sides(doc_id, [Rev.parse(rev) for rev in chosen])
        return sides.merge(rules)

    def resolve(
        self,
        doc_id: str,
        leaves: Sequence[str],
        content: Mapping[str, Any] | str | Rules | None,
        *,
        chosen: Sequence[str] = (),
        using: str | None = None,
        by: str | None = None,
    ) -> Resolution:
        """End a conflict in one write: the merged document goes on top of the winner, the other leaves are
        deleted. What was done is recorded.

        :param leaves: the revisions that are not deleted, as far as the caller knows, in any order.
        :param content: the merged document, or the leaf whose content is to stay, or the rules of a three-way
            merge; None deletes all.
        :param chosen: merge only these leaves.
        :param using: by what means, and `by` whom, for the record.
        :raises Conflict: the document has other leaves, which the reason names, or (Clashed) they can't be
            merged by rules alone.
        :raises CouchliteError: see resolutions.plan.
        """
        merged: Edit | Rev | None = DELETE
        means = "delete"
        revs = [Rev.parse(rev) for rev in chosen]
        if isinstance(content, str):
            merged, means = Rev.parse(content), "pick"
        elif isinstance(content, Rules):
            with self.snapshot() as snapshot:
                sides = snapshot.sides(doc_id, revs)
            merged, means = sides.content(sides.merge(content)), "three-way"
        elif content is not None:
            merged, means = document.parse(dict(content), doc_id), "document"
        seen = [Rev.parse(rev) for rev in leaves]
        with self.snapshot() as snapshot:
            plan = snapshot.plan_resolution(doc_id, seen, merged, chosen=revs, using=using or means, by=by)
        return self.submit_plan(plan).result()

    def undo(self, number: int, *, by: str | None = None) -> Resolution:
        """Bring a resolved conflict back, by the number of its record.

        :raises NotFound: there is no such record, or what it needs is gone. :raises Conflict: the document
            has changed since.
        """
        with self.snapshot() as snapshot:
            plan = snapshot.plan_undo(number, by=by)
        return self.submit_plan(plan).result()

    def submit_plan(self, plan: Plan) -> Future[Resolution]:
        """Carry out a plan that a snapshot made; see resolutions.apply."""
        context = self._context
        self.stage_attachments(plan.edits)
        prepared = resolutions.prepare(plan, self.codec)
        future = self.writer.submit(lambda txn: resolutions.apply(txn, context, plan, prepared))
        return _then_discard(future, plan.edits)

    def submit_bases(self, edit_list: Sequence[Edit]) -> Future[int]:
        """Take over bodies of merge bases that are lacking here; how many were. Each edit names its revision
        as its path; see base_bodies.store."""
        context = self._context
        prepared = prepare_all(edit_list, self.codec, new_edits=False)
        return self.writer.submit(lambda txn: base_bodies.store(txn, context, prepared))

    def resolutions(self, doc_id: str | None = None) -> Iterator[Resolution]:
        """What was resolved here, newest first; of one document, if told."""
        before = None
        while True:
            with self.snapshot() as snapshot:
                page = snapshot.resolutions(doc_id=doc_id, before=before)
            yield from page
            if not page:
                return
            before = page[-1].number

    # maintenance

    def compact(
        self, retention: Retention = LEAVES_ONLY, *, gently: bool = False
    ) -> Future[Compaction | None]:
        """Start to drop what is not needed any more; done when that is through, with None when another
        compaction of this database is under way. When this returns, the compaction shows as running.
        `gently`: with pauses, so that others hardly notice."""
        future: Future[Compaction | None] = Future()
        held = self._compaction.acquire()
        if held is None:
            future.set_result(None)
            return future

        def run() -> None:
            try:
                with Task(self._run_path, "database_compaction", database=self.name, changes_done=0) as task:
                    done = compact.run(self.engine, self.writer, self.blobs, retention, task, gently=gently)
            except BaseException as error:
                os.close(held)
                future.set_exception(error)
            else:
                os.close(held)
                future.set_result(done)

        threading.Thread(target=run, name=f"compaction {self.name}", daemon=True).start()
        return future

    def without_compaction(self) -> AbstractContextManager[None]:
        """A context in which no process begins to compact the database; one that runs is waited for."""
        return self._compaction.held_off()

    def check(self, *, deep: bool = False, advance: Callable[[int], None] | None = None) -> list[str]:
        """What does not fit together in the store, one line each; `deep` also reads every attachment.
        `advance` is told now and then how many records more it has gone through."""
        with self.engine.read() as reader:
            return check.problems(
                reader,
                self.codec,
                self.blobs,
                partitioned=self.is_partitioned,
                deep=deep,
                advance=advance or (lambda _count: None),
            )

    # settings

    @property
    def security(self) -> dict[str, Any]:
        with self.engine.read() as reader:
            text = reader.get(Space.META, records.SECURITY_KEY)
        return DEFAULT_SECURITY if text is None else jsontext.loads(text)

    def set_security(self, security: dict[str, Any]) -> None:
        text = jsontext.dumps(security)
        self.writer.submit(lambda txn: txn.kv.put(Space.META, records.SECURITY_KEY, text)).result()

    @property
    def revs_limit(self) -> int:
        return self.state().revs_limit

    def set_revs_limit(self, limit: int) -> None:
        self._set(revs_limit=limit)

    @property
    def purged_infos_limit(self) -> int:
        return self.state().purged_infos_limit

    def set_purged_infos_limit(self, limit: int) -> None:
        self._set(purged_infos_limit=limit)

    def _set(self, **counters: int) -> None:
        def run(txn: WriteTxn) -> None:
            for name, value in counters.items():
                setattr(txn.state, name, value)
            txn.save_state()

        self.writer.submit(run).result()

    # life

    def mark_gone(self) -> None:
        self.gone = True
        self.feed.wake_all()

    def look_for_news(self) -> None:
        """Tell the feed what other processes committed; the cheap poll behind a lost ring."""
        self.feed.moved(self.state().update_seq)


def _then_discard(future: Future[Any], edit_list: Sequence[Edit]) -> Future[Any]:
    """Throw staged attachments away once the write is over; those adopted stay."""
    staged = [a.staged for edit in edit_list for a in edit.attachments if a.staged is not None]
    if staged:

        def discard(_future: Future[Any]) -> None:
            for blob in staged:
                blob.discard()

        future.add_done_callback(discard)
    return future
