"""Compaction: bodies that nobody needs any more are dropped, attachments nobody refers to are swept.

Kept are the bodies of all leaves and what the retention names; the body of the merge base of every open
conflict too, so that a three-way merge stays possible, and for a time what undoing a resolution takes. But
whoever asks for such a revision is told that it is missing, as by CouchDB, which keeps leaves only. A page
of documents at a time is gone through in a write transaction of its own, so that other writers wait for
milliseconds; a crash in the middle leaves a database that is merely compacted in part.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from . import keys, records, stored_documents
from .blobs import BlobStore
from .config import Config
from .conflicts import merge_bases
from .engine import Engine, Reader, Space
from .records import RevInfo
from .resolutions import UndoNeeds
from .revtree import Node, RevTree
from .tasks import Task
from .writer import Writer, WriteTxn

PAGE_DOCUMENTS = 500
"""Documents a write transaction goes through: some milliseconds during which other writers wait."""
PAGE_BODIES = 2_000
PAUSE_MAX_S = 0.5
LOCK_FILE = "compact.lock"
"""At most one compaction of a database at a time, over all processes."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Which bodies of inner revisions survive a compaction: the newest `revisions` of each branch, its leaf
    counted, and those written within the last `seconds`; the merge bases of open conflicts, and what was
    merged within the last `undo_seconds`. These two are shown to whoever asks for them only if that is
    wanted, since CouchDB would not have them."""

    revisions: int = 1
    seconds: int = 0
    show_merge_bases: bool = False
    undo_seconds: int = 7 * 24 * 3600

    @classmethod
    def configured(cls, config: Config) -> Retention:
        """What the section [couchlite] says."""
        return cls(
            config.integer("couchlite", "keep_revisions"),
            config.integer("couchlite", "keep_seconds"),
            config.boolean("couchlite", "show_merge_bases"),
            config.integer("couchlite", "keep_undo_seconds"),
        )


LEAVES_ONLY = Retention()
"""What CouchDB keeps; here the merge bases of open conflicts come on top."""


@dataclass(slots=True)
class Compaction:
    """What a compaction did."""

    bodies_dropped: int = 0
    blob_bytes_freed: int = 0
    store_bytes_freed: int = 0


def run(
    engine: Engine,
    writer: Writer,
    blobs: BlobStore,
    retention: Retention,
    task: Task,
    *,
    gently: bool = False,
) -> Compaction:
    """Compact a database; the caller holds its lock (LOCK_FILE). `gently`: with pauses as long as
    the work."""
    done = Compaction()
    oldest_kept = None
    if retention.seconds:
        with engine.read() as reader:
            oldest_kept = _first_body_since(reader, time.time() - retention.seconds)
    needs = UndoNeeds(int((time.time() - retention.undo_seconds) * 1000))
    with engine.read() as reader:
        needs.update(reader)
    _drop_bodies(engine, writer, _Kept(retention, oldest_kept, needs), task, done, gently)
    done.blob_bytes_freed = _sweep_blobs(engine, writer, blobs)
    done.store_bytes_freed = engine.reclaim()
    return done


class _Kept(NamedTuple):
    """What a compaction keeps of inner revisions."""

    retention: Retention
    oldest_body: int | None
    """The number of the oldest body that is young enough; None when age does not count."""
    undo: UndoNeeds


def _drop_bodies(
    engine: Engine, writer: Writer, kept: _Kept, task: Task, done: Compaction, gently: bool
) -> None:
    after = b""
    documents = 0
    while True:
        begun = time.monotonic()
        with engine.read() as reader:
            keys_with_history, after, count = _page(reader, after)
        documents += count
        if keys_with_history:
            drop = _DropFromPage(keys_with_history, kept)
            done.bodies_dropped += writer.submit(drop).result()
        task.update(changes_done=documents)
        if count < PAGE_DOCUMENTS:
            return
        if gently:
            time.sleep(min(PAUSE_MAX_S, time.monotonic() - begun))


def _page(reader: Reader, after: bytes) -> tuple[list[bytes], bytes, int]:
    """The keys of documents with more than one revision in the next page, its last key, and its length."""
    found, last, count = [], after, 0
    for key, record in reader.scan(Space.DOCS, after + b"\0" if after else b""):
        last, count = key, count + 1
        if record[0] & records.HAS_TREE:
            found.append(key)
        if count == PAGE_DOCUMENTS:
            break
    return found, last, count


@dataclass(slots=True)
class _DropFromPage:
    """Drops what is not to be kept of some documents, as they are when it runs."""

    page: list[bytes]
    kept: _Kept

    def __call__(self, txn: WriteTxn) -> int:
        dropped = 0
        self.kept.undo.update(txn.kv)
        for key in self.page:
            record = txn.kv.get(Space.DOCS, key)
            if record is None or not record[0] & records.HAS_TREE:
                continue
            tree = records.decode_tree(record)
            numbers, has_changed_bases = self._mark(tree, keys.id_of(txn.kv, Space.DOCS, key))
            if numbers or has_changed_bases:
                head = records.decode_head(record)
                doc_id = keys.id_of(txn.kv, Space.DOCS, key)
                txn.kv.put(Space.DOCS, key, records.encode_doc(doc_id, head, records.encode_tree(tree)))
            for number in numbers:
                stored_documents.delete_body(txn, number)
            dropped += len(numbers)
        return dropped

    def _mark(self, tree: RevTree, doc_id: bytes) -> tuple[list[int], bool]:
        """Mark in the tree which bodies are gone and which stay for merging or undoing only; the numbers of
        those that are gone, and whether that changed the latter."""
        retention = self.kept.retention
        retained = _retained(tree, retention.revisions)
        undoable = [node for rev in self.kept.undo.of(doc_id) if (node := tree.find(rev)) is not None]
        living = [leaf for leaf in tree.leaves() if not leaf.info.deleted]
        # What was merged may be living again.
        bases = merge_bases([*living, *undoable]).union(undoable)
        numbers = []
        has_changed_bases = False
        for node in tree.nodes():
            info: RevInfo | None = node.info
            if info is None or not info.body or node in retained:
                continue
            if self.kept.oldest_body is not None and info.body >= self.kept.oldest_body:
                continue
            if node not in bases:
                numbers.append(info.body)
                node.info = RevInfo(0, info.deleted, 0)
            elif info.is_merge_base == retention.show_merge_bases:
                has_changed_bases = True
                node.info = info._replace(is_merge_base=not info.is_merge_base)
        return numbers, has_changed_bases


def _retained(tree: RevTree, revisions: int) -> set[Node]:
    """The leaves, and the newest `revisions` of each branch."""
    retained: set[Node] = set()
    for leaf in tree.leaves():
        node: Node | None = leaf
        for _ in range(max(1, revisions)):
            if node is None:
                break
            retained.add(node)
            node = node.parent
    return retained


def _sweep_blobs(engine: Engine, writer: Writer, blobs: BlobStore) -> int:
    """Remove attachment bodies that no stored revision refers to; bytes of files freed."""
    with engine.read() as reader:
        if next(reader.scan(Space.ATTACHMENTS), None) is None:
            blobs.remove_dead_uploads()
            return 0
    live: set[bytes] = set()
    last = 0
    while True:
        with engine.read() as reader:
            last, count = _collect_keys(reader, last, live, PAGE_BODIES)
        if count < PAGE_BODIES:
            break

    def sweep(txn: WriteTxn) -> int:
        # What was written since the last page; nobody else can write while this runs.
        _collect_keys(txn.kv, last, live, None)
        freed = blobs.sweep(txn.kv, live)
        txn.state.blob_bytes -= freed
        return freed

    freed = writer.submit(sweep).result()
    with engine.read() as reader:
        orphans = list(blobs.orphans(reader))
    writer.submit(lambda txn: blobs.remove_orphans(txn.kv, orphans)).result()
    blobs.remove_dead_uploads()
    return freed


def _collect_keys(reader: Reader, after: int, live: set[bytes], limit: int | None) -> tuple[int, int]:
    """Add the blob addresses in the bodies after number `after`; the last number seen and how many bodies."""
    count = 0
    for key, frame in reader.scan(Space.BODIES, records.u64(after + 1)):
        after, count = records.from_u64(key), count + 1
        live.update(info.key for info in records.decode_body(frame)[2])
        if count == limit:
            break
    return after, count


def _first_body_since(reader: Reader, time_s: float) -> int:
    """The number of the first body that may have been written since `time_s`."""
    mark = next(reader.scan(Space.META, records.TIME_MARK, records.time_mark(time_s), reverse=True), None)
    return 0 if mark is None else records.from_u64(mark[1])
