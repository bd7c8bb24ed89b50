"""The documents of one replicator database, each with what has become of it: CouchDB's doc processor.

    initializing -> scheduled (then its job's state is told: running, pending, crashing)
         |  ^            |
         v  |            +-> completed, written into the document
        error            +-> failed, written into the document: it can't be understood, or another one of
                             the same id came first

What must stay true here: a document that changes what it asks for, or is deleted, has its job ended before
another one begins; what is only written about it (its state) changes nothing.

Source: couch_replicator_doc_processor and its worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from couchlite.config import Config
from couchlite.errors import CouchliteError

from . import documents
from .documents import Fields, Requested, iso8601
from .errors import InvalidReplication, ReplicationError
from .jobs import NODE, Job, Origin
from .scheduler import Scheduler

ERROR_WAIT_MIN_S = 64
ERROR_DOUBLINGS_MAX = 12
"""The wait before another attempt is anything up to that, doubled with each error."""
FILTER_CHECK_MIN_S = 60
FILTER_CHECK_MAX_S = 86_400
"""How often a filter function is looked at: a changed one makes another replication."""
WRITE_AGAIN_MIN_S = 0.5
WRITE_AGAIN_MAX_S = 60.0

log = logging.getLogger("replicator")


class DocumentStore(Protocol):
    """A replicator database, wherever it is."""

    name: str

    async def update(self, doc_id: str, change: Callable[[Fields], Fields]) -> None:
        """Store what `change` makes of a document's members, if that is anything else; a document that isn't
        there stays so.

        :raises CouchliteError: it can't be done now.
        """
        ...


@dataclass(slots=True, eq=False)
class _Row:
    doc_id: str
    requested: Requested
    started_s: float = field(default_factory=time.time)
    updated_s: float = field(default_factory=time.time)
    job: Job | None = None
    error: str | None = None
    errors: int = 0
    starting: asyncio.Task[None] | None = None
    is_ending: bool = False
    """Its replication has completed, which is being written into the document."""

    @property
    def has_filter_function(self) -> bool:
        name = self.requested.options.filter
        return name is not None and not name.startswith("_")


class Requests:
    """What the documents of `store` ask for."""

    def __init__(self, scheduler: Scheduler, store: DocumentStore, config: Config) -> None:
        self._scheduler = scheduler
        self._store = store
        self._config = config
        self._rows: dict[str, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    async def changed(self, doc_id: str, fields: Fields | None) -> None:
        """A document is as given now; None: it is deleted."""
        if not documents.is_ordinary(doc_id):
            return
        state = None if fields is None else fields.get(documents.STATE)
        if fields is None or state == "failed":
            await self._remove(doc_id)
        elif state == "completed":
            row = self._rows.get(doc_id)
            if row is not None and not row.is_ending:
                await self._remove(doc_id)
        else:
            if state in ("triggered", "error") and not self._tells_all:
                await self._write(doc_id, documents.NO_STATE)
            await self._updated(doc_id, fields)

    async def close(self) -> None:
        """The database is gone, or the service stops: so do its replications."""
        await asyncio.gather(*[self._remove(doc_id) for doc_id in list(self._rows)])

    # what is shown

    def shown(self) -> dict[str, dict[str, Any]]:
        """By document id, as _scheduler/docs lists them."""
        return {
            doc_id: self._shown(row)
            for doc_id, row in self._rows.items()
            if row.job is None or self._is_scheduled(row.job)  # else somebody has cancelled it
        }

    def _shown(self, row: _Row) -> dict[str, Any]:
        if row.job is not None:
            return row.job.summary()
        return {
            "doc_id": row.doc_id,
            "database": self._store.name,
            "id": None,
            "state": "initializing" if row.error is None else "error",
            "info": None if row.error is None else {"error": row.error},
            "error_count": row.errors,
            "node": NODE,
            "last_updated": iso8601(row.updated_s),
            "start_time": iso8601(row.started_s),
        }

    # documents

    async def _updated(self, doc_id: str, fields: Fields) -> None:
        try:
            requested = documents.understand(fields, self._config)
        except InvalidReplication as error:
            await self._remove(doc_id)
            await self._fail(doc_id, error.reason)
            return
        row = self._rows.get(doc_id)
        if row is not None and row.requested == requested:
            return
        await self._remove(doc_id)
        row = self._rows[doc_id] = _Row(doc_id, requested)
        row.starting = asyncio.create_task(self._start(row))

    async def _remove(self, doc_id: str) -> None:
        row = self._rows.pop(doc_id, None)
        if row is None:
            return
        if row.starting is not None:
            row.starting.cancel()
            await asyncio.wait((row.starting,))
        if row.job is not None:
            await self._scheduler.remove(row.job)

    async def _start(self, row: _Row) -> None:
        """Find the id of the replication and have it scheduled, again and again if need be."""
        while True:
            wait_s: float = 0
            try:
                if not await self._schedule(row):
                    return
            except CouchliteError as error:
                await self._note_error(row, error.reason)
                doublings = min(row.errors, ERROR_DOUBLINGS_MAX)
                wait_s = random.uniform(1, ERROR_WAIT_MIN_S << doublings)
            except Exception:
                log.exception("the replication document %s could not be followed", ascii(row.doc_id))
                return
            else:
                if not row.has_filter_function:
                    return
                wait_s = FILTER_CHECK_MIN_S + random.uniform(
                    1, 1 + min(len(self._rows) / 5, FILTER_CHECK_MAX_S)
                )
            await asyncio.sleep(wait_s)

    async def _schedule(self, row: _Row) -> bool:
        """Whether the row's replication is scheduled; False: it has failed for good.

        :raises CouchliteError: not now.
        """
        options = row.requested.options
        replication = await self._scheduler.id_of(options)
        if row.job is not None and row.job.id == replication and self._is_scheduled(row.job):
            return True
        known = self._scheduler.find(replication.text)
        if known is not None:
            told = f"Replication `{replication.text}` specified by document `{row.doc_id}` already "
            if known.origin.doc_id is None:
                told += "running as a transient replication, started via `_replicate` API endpoint"
                raise ReplicationError("error", told)
            told += (
                f"started, triggered by document `{known.origin.doc_id}` from db `{known.origin.database}`"
            )
            if self._rows.get(row.doc_id) is row:
                del self._rows[row.doc_id]
            await self._fail(row.doc_id, told)
            return False
        if row.job is not None:  # its filter function has changed
            await self._scheduler.remove(row.job)
        origin = Origin(row.requested.user, self._store.name, row.doc_id)
        row.job = self._scheduler.add(replication, options, origin, partial(self._completed, row))
        row.error, row.errors, row.updated_s = None, 0, time.time()
        if self._tells_all:
            await self._write(row.doc_id, documents.triggered(replication.text))
        return True

    def _is_scheduled(self, job: Job) -> bool:
        return self._scheduler.find(job.id.text) is job

    async def _note_error(self, row: _Row, reason: str) -> None:
        if row.job is not None:
            await self._scheduler.remove(row.job)
            row.job = None
        row.error, row.errors, row.updated_s = reason, row.errors + 1, time.time()
        if self._tells_all:
            await self._write(row.doc_id, documents.errored(reason, None))

    # what is written back

    @property
    def _tells_all(self) -> bool:
        """Whether states that pass are written into the documents, too."""
        return self._config.boolean("replicator", "update_docs")

    async def _completed(self, row: _Row, outcome: Mapping[str, Any]) -> None:
        if self._rows.get(row.doc_id) is not row:
            return
        row.is_ending = True
        await self._write(row.doc_id, documents.completed(outcome), until_done=True)
        if self._rows.get(row.doc_id) is row:
            del self._rows[row.doc_id]
            if row.starting is not None:
                row.starting.cancel()

    async def _fail(self, doc_id: str, reason: str) -> None:
        log.error(
            "Error processing replication doc %s from `%s`: %s", ascii(doc_id), self._store.name, reason
        )
        await self._write(doc_id, documents.failed(reason))

    async def _write(self, doc_id: str, changes: Mapping[str, Any], *, until_done: bool = False) -> None:
        """Write a state into a document; what can't be written doesn't matter unless it must be known."""
        wait_s = WRITE_AGAIN_MIN_S
        while True:
            try:
                await self._store.update(doc_id, lambda fields: documents.with_state(fields, changes))
                return
            except CouchliteError as error:
                log.warning(
                    "the state of %s in `%s` could not be written: %s",
                    ascii(doc_id),
                    self._store.name,
                    error.reason,
                )
            if not until_done:
                return
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))
            wait_s = min(2 * wait_s, WRITE_AGAIN_MAX_S)


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
