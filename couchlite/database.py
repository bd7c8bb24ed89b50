"""One database: a few lines a method; parse, hand a function to the writer or open a snapshot, return.

Reads are synchronous and short, so an event loop may call them. A write is queued for the writer's thread:
the `submit_*` methods return a future that is done when the write is durable (await it with
`asyncio.wrap_future`), the others wait for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import (
    changes,
    check,
    compact,
    compression,
    document,
    edits,
    jsontext,
    local_docs,
    purge,
    reads,
    records,
)
from .blobs import BlobStore
from .catalog import Entry
from .changes import ChangeRow
from .compact import LEAVES_ONLY, Compaction, CompactionLock, Retention
from .compression import BodyCodec
from .document import Edit
from .edits import Result
from .engine import Space
from .feed import Feed
from .records import State
from .revision import Rev
from .snapshot import Snapshot
from .storage import LmdbEnvironment
from .tasks import Task
from .writer import Writer, WriteTxn

STORE_DIRECTORY = "store.mdb"
BLOBS_DIRECTORY = "blobs"
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


class Database:
    """Made by `Server`, which sees to it that a process has one of each."""

    def __init__(self, entry: Entry, path: Path, *, moved: Callable[[Entry, int], None]) -> None:
        self.name = entry.name
        self.uuid = entry.uuid
        self.props = entry.props
        self.created_s = entry.created_s
        self.tag = entry.uuid[:12]
        """Ends the update sequences of this database, and of no other."""
        self.path = path
        self._run_path = path.parent.parent / "run"
        self.gone = False
        """Deleted, or its server was closed."""
        self._compaction = CompactionLock(path)
        self.feed = feed = Feed()
        self.engine = engine = LmdbEnvironment(path / STORE_DIRECTORY, Space)
        self.blobs = BlobStore(path / BLOBS_DIRECTORY)
        with engine.read() as reader:
            state = State.decode(reader.get(Space.META, records.STATE_KEY))
        feed.moved(state.update_seq)

        # Neither of these refers to the Database, so that it ends as soon as nobody uses it (see Server).
        def dictionary(number: int) -> bytes | None:
            with engine.read() as reader:
                return reader.get(Space.META, records.dictionary_key(number))

        def committed(state: State) -> None:
            feed.moved(state.update_seq)
            moved(entry, state.update_seq)

        self.codec = BodyCodec(dictionary, max(state.newest_codec, compression.PLAIN))
        self.writer = Writer(engine, entry.name, committed)
        self._context = edits.Context(self.codec, self.blobs)

    # reading

    def snapshot(self) -> Snapshot:
        """One consistent look; `with database.snapshot() as snapshot:`. Close it before awaiting anything."""
        return Snapshot(self.engine.read(), self.codec, self.blobs)

    def get(self, doc_id: str) -> dict[str, Any]:
        """The winning revision as a dictionary with `_id`, `_rev` and attachment stubs.

        :raises NotFound:
        """
        with self.snapshot() as snapshot:
            found: dict[str, Any] = jsontext.loads(document.render(snapshot.winner(doc_id)))
            return found

    def text(self, doc_id: str) -> tuple[str, bytes]:
        """The winning revision's id and JSON text, with attachment stubs: the quickest way to read a document.

        :raises NotFound: "missing" or "deleted".
        """
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

    def format_seq(self, seq: int) -> str:
        return changes.format_seq(seq, self.tag)

    def parse_seq(self, text: str) -> int:
        """The number in an update sequence. :raises BadRequest:"""
        return changes.parse_seq(text, self.tag)

    async def follow(
        self, since: int, *, heartbeat_s: float | None = None, limit: int = changes.PAGE_ROWS
    ) -> AsyncIterator[list[ChangeRow]]:
        """Pages of changes after `since`, for ever; an empty page whenever `heartbeat_s` went by without one.
        Ends when the database is deleted."""
        while not self.gone:
            with self.snapshot() as snapshot:
                rows = snapshot.changes(since, limit=limit)
            if rows:
                since = rows[-1].seq
                yield rows
            elif not await self.feed.wait_past(since, heartbeat_s):
                yield []

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
        """
        context = self._context
        self.stage_attachments(edit_list)
        prepared = [edits.prepare(edit, self.codec, new_edits=True) for edit in edit_list]
        future = self.writer.submit(lambda txn: edits.new_edits(txn, context, prepared))
        return _then_discard(future, edit_list)

    def submit_replicated(self, edit_list: Sequence[Edit]) -> Future[None]:
        """Graft the edits' histories (`new_edits=false`); each must have a path."""
        context = self._context
        self.stage_attachments(edit_list)
        prepared = [edits.prepare(edit, self.codec, new_edits=False) for edit in edit_list]
        future = self.writer.submit(lambda txn: edits.replicated_edits(txn, context, prepared))
        return _then_discard(future, edit_list)

    def stage_attachments(self, edit_list: Sequence[Edit]) -> None:
        """Hash, compress and spool inline attachment data; slow for large ones, so an event loop lets a
        thread do it before it submits."""
        for edit in edit_list:
            for attachment in edit.attachments:
                if attachment.data is not None and attachment.staged is None:
                    attachment.staged = self.blobs.stage_bytes(attachment.data, attachment.content_type)
                    attachment.data = None

    def submit_local(self, doc_id: str, revision: int, body: bytes) -> Future[int]:
        """Store a local document on top of 0-`revision`; its new number."""
        return self.writer.submit(lambda txn: local_docs.put(txn, doc_id, revision, body))

    def submit_local_delete(self, doc_id: str) -> Future[None]:
        return self.writer.submit(lambda txn: local_docs.delete(txn, doc_id))

    def purge(self, wanted: Mapping[str, Sequence[Rev]]) -> Future[dict[str, list[Rev]]]:
        """Remove leaves for good; what was removed of each document."""
        return self.writer.submit(lambda txn: purge.purge(txn, wanted))

    def purged_infos(self) -> list[tuple[str, list[Rev]]]:
        with self.engine.read() as reader:
            return purge.infos(reader)

    # maintenance

    def compact(self, retention: Retention = LEAVES_ONLY) -> Future[Compaction | None]:
        """Start to drop what is not needed any more; done when that is through, with None when another
        compaction of this database is under way. When this returns, the compaction shows as running."""
        future: Future[Compaction | None] = Future()
        held = self._compaction.acquire()
        if held is None:
            future.set_result(None)
            return future

        def run() -> None:
            try:
                with Task(self._run_path, "database_compaction", database=self.name, changes_done=0) as task:
                    done = compact.run(self.engine, self.writer, self.blobs, retention, task)
            except BaseException as error:
                os.close(held)
                future.set_exception(error)
            else:
                os.close(held)
                future.set_result(done)

        threading.Thread(target=run, name=f"compaction {self.name}", daemon=True).start()
        return future

    def check(self, *, deep: bool = False) -> list[str]:
        """What does not fit together in the store, one line each; `deep` also reads every attachment."""
        with self.engine.read() as reader:
            return check.problems(reader, self.codec, self.blobs, deep=deep)

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
