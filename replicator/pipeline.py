"""One run of a replication: five stages joined by bounded queues, in one task group.

    read_changes -> find_missing -> fetch -> write -> checkpoint

A slow stage slows those before it instead of filling memory. Changes go through in batches; several are under
way at a time, and they may end in any order. What must stay true here:

- The sequence that is checkpointed has nothing undone before it, so what is lost by a crash is work, no
  document.
- A revision that the target won't take is recorded and counted, and the others go on; the record is on disk
  before a checkpoint passes it over.
- Memory depends neither on how much there is to do nor on the size of attachments.

Source: CouchDB's replication protocol; couch_replicator_worker for what goes singly and what is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from couchlite.errors import CouchliteError, MissingStub

from . import merge_bases
from .checkpoint import Checkpoints
from .errors import EndpointRefused, PeerFailure
from .options import Options
from .peer import Change, Doc, Missing, Peer, Refusal, Seq
from .record import Recorder, Unrecorded
from .retries import Backoff
from .stats import Stats

T = TypeVar("T")

WRITE_BYTES = 1_000_000
"""So much is gathered before it is written; a document may be larger."""
LAST_CHECKPOINT_S = 5.0
"""What a run that is told to stop may take to note how far it has come."""
SPLITTING_CODES = frozenset((400, 412, 413, 414, 415, 417, 422))
"""A request of many documents that is refused so may have only one that is at fault."""

log = logging.getLogger("replicator")


class Work:
    """A batch of changes on its way. It is done when its last document is written."""

    __slots__ = ("changes", "last_seq", "missing", "open")

    def __init__(self, changes: Sequence[Change], last_seq: Seq) -> None:
        self.changes = changes
        self.last_seq = last_seq
        self.missing: Sequence[Missing] = ()
        self.open = 1
        """Writes that are still to come; the fetching counts as one."""


class Queue(Generic[T]):
    """A bounded queue that can be closed; every consumer then ends."""

    def __init__(self, size_max: int) -> None:
        self._queue: asyncio.Queue[T | None] = asyncio.Queue(size_max)

    async def put(self, item: T) -> None:
        await self._queue.put(item)

    async def close(self) -> None:
        """To be called once nothing more is put."""
        await self._queue.put(None)

    async def __aiter__(self) -> AsyncIterator[T]:
        while (item := await self._queue.get()) is not None:
            yield item
        self._queue.put_nowait(None)  # for the next consumer


class Progress:
    """How far a run is. Batches end in any order; `through_seq` is where all before it have ended."""

    def __init__(self, start_seq: Seq, stats: Stats) -> None:
        self.stats = stats
        self.through_seq = start_seq
        self.highest_seq = start_seq
        self._under_way: dict[Work, None] = {}

    def begin(self, work: Work) -> None:
        self._under_way[work] = None

    def end_part(self, work: Work) -> None:
        work.open -= 1
        while self._under_way and (first := next(iter(self._under_way))).open == 0:
            del self._under_way[first]
            self.through_seq = first.last_seq


class Replication:
    """Moves what the target lacks from `source` to `target`, both of which are open.

    :param refused: told of every revision that was not written.
    :param moved: called whenever there is progress to be shown.
    :param recorder: told what became of every revision.
    """

    def __init__(
        self,
        source: Peer,
        target: Peer,
        options: Options,
        checkpoints: Checkpoints,
        *,
        refused: Callable[[Refusal], None],
        moved: Callable[[], None] = lambda: None,
        recorder: Recorder | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._options = options
        self.checkpoints = checkpoints
        self._refused = refused
        self._moved = moved
        self._recorder = recorder or Unrecorded()
        self._recorder.began(checkpoints.session_id, checkpoints.start_seq)
        self.progress = Progress(checkpoints.start_seq, checkpoints.stats)
        count = options.worker_processes
        self._batches: Queue[Work] = Queue(count)
        self._missing: Queue[Work] = Queue(count)
        self._fetched: Queue[tuple[Work, list[Doc]]] = Queue(count)
        self._streams = asyncio.Semaphore(options.http_connections)

    @classmethod
    async def begin(
        cls,
        source: Peer,
        target: Peer,
        base_id: str,
        options: Options,
        *,
        refused: Callable[[Refusal], None] = lambda refusal: None,
        moved: Callable[[], None] = lambda: None,
        recorder: Recorder | None = None,
    ) -> Replication:
        """Open both ends and find where to go on; `base_id` is what the checkpoints are named after.

        :raises ReplicationError:
        """
        infos = (
            await source.open(),
            await target.open(create=options.create_target, create_params=options.create_target_params),
        )
        checkpoints = await Checkpoints.read(source, target, infos, base_id, options)
        return cls(source, target, options, checkpoints, refused=refused, moved=moved, recorder=recorder)

    async def run(self) -> dict[str, Any]:
        """Run to the end (a continuous one has none); the record of the last checkpoint.

        :raises ReplicationError: it can't go on. Where it is, is recorded as well as can be.
        """
        try:
            await self._pump()
        except asyncio.CancelledError:
            with contextlib.suppress(CouchliteError, TimeoutError):
                await asyncio.wait_for(self._checkpoint(), LAST_CHECKPOINT_S)
            raise
        except BaseExceptionGroup as group:
            raise _first(group) from None
        await self._checkpoint()
        if not self._options.use_checkpoints and self.progress.highest_seq != self.checkpoints.start_seq:
            return {"use_checkpoints": False}
        return self.checkpoints.record

    async def _pump(self) -> None:
        count = self._options.worker_processes
        async with asyncio.TaskGroup() as stages:
            ticking = stages.create_task(self._checkpoint_now_and_then())
            async with asyncio.TaskGroup() as moving:
                moving.create_task(self._read_changes())
                moving.create_task(self._stage(count, self._find_missing, self._missing))
                moving.create_task(self._stage(count, self._fetch, self._fetched))
                moving.create_task(self._stage(count, self._write, None))
            ticking.cancel()

    async def _stage(self, count: int, work: Callable[[], Awaitable[None]], then: Queue[Any] | None) -> None:
        """`count` workers of one stage; when all are through, the next one is to end, too."""
        async with asyncio.TaskGroup() as workers:
            for _ in range(count):
                workers.create_task(_as_coroutine(work))
        if then is not None:
            await then.close()

    # 1: the changes of the source

    async def _read_changes(self) -> None:
        size = self._options.worker_batch_size
        start = self.checkpoints.start_seq
        async with contextlib.aclosing(self._source.changes(start, self._options.query)) as pages:
            async for page in pages:
                for at in range(0, len(page.changes), size) or (0,):
                    changes = page.changes[at : at + size]
                    is_last = at + size >= len(page.changes)
                    await self._begin(Work(changes, page.last_seq if is_last else changes[-1].seq))
        await self._batches.close()

    async def _begin(self, work: Work) -> None:
        self.progress.begin(work)
        self.progress.highest_seq = work.last_seq
        await self._batches.put(work)

    # 2: what of them the target lacks

    async def _find_missing(self) -> None:
        async for work in self._batches:
            if work.changes:
                work.missing = await self._target.revs_diff(work.changes)
                stats = self.progress.stats
                stats.missing_checked += sum(len(change.revs) for change in work.changes)
                stats.missing_found += sum(len(item.revs) for item in work.missing)
                self._recorder.skipped(work.changes, work.missing)
            work.changes = ()
            if work.missing:
                await self._missing.put(work)
            else:
                self._end_part(work)

    # 3: the documents

    async def _fetch(self) -> None:
        async for work in self._missing:
            singly = [item for item in work.missing if item.id.startswith("_design/")]
            plain = [item for item in work.missing if not item.id.startswith("_design/")]
            async with asyncio.TaskGroup() as streams:
                for item in [*singly, *await self._fetch_many(work, plain)]:
                    await self._streams.acquire()
                    streams.create_task(self._copy_singly(item))
            self._end_part(work)

    async def _fetch_many(self, work: Work, wanted: Sequence[Missing]) -> list[Missing]:
        """Fetch what has no attachments, and hand it on to be written; what has to be copied singly."""
        singly: list[Missing] = []
        left = list(wanted)
        docs: list[Doc] = []
        size = 0
        while left:
            count = self._source.batch_docs_max
            asked, left = left[:count], left[count:]
            batch = await self._source.bulk_get(asked)
            left = [*batch.left, *left]
            singly += batch.single
            stats = self.progress.stats
            stats.bulk_get_attempts += sum(len(item.revs) for item in asked) - len(batch.left)
            stats.bulk_get_docs += len(batch.docs)
            stats.docs_read += len(batch.docs)
            for doc in batch.docs:
                docs.append(doc)
                size += len(doc.text)
                if size >= WRITE_BYTES:
                    await self._hand_on(work, docs)
                    docs, size = [], 0
        if docs:
            await self._hand_on(work, docs)
        return singly

    async def _hand_on(self, work: Work, docs: list[Doc]) -> None:
        work.open += 1
        await self._fetched.put((work, docs))

    async def _copy_singly(self, item: Missing) -> None:
        """Copy revisions with their attachments: from one stream into another. When either breaks, both are
        begun again with the revisions that are left."""
        done: set[str] = set()
        try:
            backoff = Backoff(self._options.retries_per_request)
            while True:
                try:
                    await self._copy(item, done)
                    break
                except EndpointRefused:
                    raise
                except (MissingStub, PeerFailure) as error:
                    item = item._replace(revs=[rev for rev in item.revs if rev not in done])
                    if isinstance(error, MissingStub):
                        # The target has let go of an ancestor meanwhile: send all attachments.
                        item = item._replace(ancestors=())
                    if not item.revs:
                        break
                    if not await backoff.wait():
                        raise
            await merge_bases.carry(self._source, self._target, [(item.id, rev) for rev in done])
        finally:
            self._streams.release()

    async def _copy(self, item: Missing, done: set[str]) -> None:
        """:param done: takes the revisions that are dealt with, also when it breaks off then."""
        async with self._source.open_revs(item) as results:
            async for result in results:
                if isinstance(result, Refusal):
                    self._note_missed([result])
                    done.add(result.rev)
                    continue
                refusal = await self._target.put(result)
                self.progress.stats.docs_read += 1
                if refusal is None:
                    self._note([result.doc], ())
                else:
                    self._note((), [refusal])
                done.add(result.doc.rev)
        self._moved()

    # 4: into the target

    async def _write(self) -> None:
        async for work, docs in self._fetched:
            await self._write_docs(docs)
            await merge_bases.carry(self._source, self._target, [(doc.id, doc.rev) for doc in docs])
            self._end_part(work)

    async def _write_docs(self, docs: Sequence[Doc]) -> None:
        """Write documents; if one of them spoils the request of all, find it."""
        try:
            refused = await self._target.bulk_docs(docs)
        except PeerFailure as error:
            if error.code not in SPLITTING_CODES:
                raise
            if len(docs) > 1:
                middle = len(docs) // 2
                await self._write_docs(docs[:middle])
                await self._write_docs(docs[middle:])
                return
            refused = [Refusal(docs[0].id, docs[0].rev, error.error, error.reason)]
        self._note(_without(docs, refused) if refused else docs, refused)

    def _note(self, written: Sequence[Doc], refused: Sequence[Refusal]) -> None:
        self.progress.stats.docs_written += len(written)
        if written:
            self._recorder.wrote(written)
        if refused:
            self._recorder.refused(refused)
            self._count_failures(refused)

    def _note_missed(self, missed: Sequence[Refusal]) -> None:
        if missed:
            self._recorder.missed(missed)
            self._count_failures(missed)

    def _count_failures(self, refusals: Sequence[Refusal]) -> None:
        self.progress.stats.doc_write_failures += len(refusals)
        for refusal in refusals:
            self._refused(refusal)

    def _end_part(self, work: Work) -> None:
        self.progress.end_part(work)
        self._moved()

    # 5: where it has got to

    async def _checkpoint_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._options.checkpoint_interval_ms / 1000)
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        seq = self.progress.through_seq
        await self._recorder.flush(seq)
        if self._options.use_checkpoints and seq != self.checkpoints.committed_seq:
            await self.checkpoints.write(seq, self.progress.stats)
        self._moved()


def _without(docs: Sequence[Doc], refused: Sequence[Refusal]) -> list[Doc]:
    """The documents that were not refused; a server may not tell the revision that it refuses."""
    named = {(refusal.id, refusal.rev) for refusal in refused}
    return [doc for doc in docs if (doc.id, doc.rev) not in named and (doc.id, "") not in named]


async def _as_coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a group; those of the other tasks followed from it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
