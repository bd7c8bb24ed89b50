"""The ledger: what each replication of a data directory did with which document, and why.

It lives in the data directory's ledger.mdb, and any process that has the directory open may read it and write
to it. What must stay true here:

- What a checkpoint passes over is in the ledger before: a refusal is never forgotten by a crash.
- Counts are kept for ever. Rows are bounded for each replication: of revisions that were not written, of
  documents that were written or skipped, and of runs; the oldest are dropped, and counted.
- A replication pays two lists of ids for it; a row is made of thousands of them, in a thread. One that is
  idle pays nothing.
- No credentials: endpoints are named by their URLs, which have none.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from couchlite.engine import Batch, Reader
from couchlite.errors import CouchliteError, DataDirectoryError, NotFound
from couchlite.jsontext import dumps, loads
from couchlite.records import decode_fields, encode_fields, from_u64, u64
from couchlite.storage import LmdbEnvironment

from .ledger_rows import (
    FORMAT_VERSION,
    ExceptionRow,
    LedgerSpace,
    SessionRow,
    Summary,
    find_in_block,
    moment,
    now_ms,
    row_key,
    size_of_block,
)
from .options import Options
from .record import Limits, Record, Taken

DIRECTORY = "ledger.mdb"
SESSIONS_KEPT = 50
"""Runs of one replication, as many as a checkpoint's history has."""
REASONS_MAX = 100
"""Errors that are told apart; a target may invent any number of words."""
DOC_IDS_KEPT_MAX = 10_000
"""A replication of more documents than that is described by their number."""
OTHER_REASONS = "other"
_EXCEPTIONS_SHOWN = 100


class _Written(NamedTuple):
    """What one write to the ledger is about."""

    number: int
    session: int
    row: SessionRow


class Ledger:
    """The ledger of the data directory `directory`; its files are made when something is first written.

    :param limits: asked at the beginning of each run.
    """

    def __init__(self, directory: Path, limits: Callable[[], Limits] = Limits) -> None:
        self._path = directory / DIRECTORY
        self._limits = limits
        self._engine: LmdbEnvironment | None = None
        self._opening = threading.Lock()
        self._queue: list[tuple[Callable[[Batch], Any], asyncio.Future[Any]]] = []
        self._committing: asyncio.Task[None] | None = None

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    # writing

    @contextlib.asynccontextmanager
    async def session(
        self, replication_id: str, options: Options, user: str | None = None
    ) -> AsyncIterator[Record]:
        """One run of a replication, from before its ends are opened until it ends, however it does. One that
        was resting goes on."""
        about = dumps(_description(options, user))
        begun_ms = now_ms()
        written = await self.commit(lambda batch: _begin(batch, replication_id, about, begun_ms))

        async def write(taken: Taken) -> None:
            await self.commit(lambda batch: _store(batch, written, taken, limits))

        limits = self._limits()
        record = Record(written.row, limits, write)
        try:
            yield record
        except asyncio.CancelledError:
            await record.end("stopped", None)
            raise
        except CouchliteError as error:
            with contextlib.suppress(CouchliteError):  # what ended the run is told, rather than this
                await record.end("failed", f"{error.error}: {error.reason}")
            raise
        except BaseException:
            with contextlib.suppress(CouchliteError):
                await record.end("failed", "internal error, see the log")
            raise
        await record.end("resting" if options.continuous else "completed", None)

    async def commit(self, function: Callable[[Batch], Any]) -> Any:
        """Run `function` in a batch and commit it; those of one moment commit together."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((function, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_queue())
        return await done

    async def _commit_queue(self) -> None:
        while self._queue:
            group, self._queue = self._queue, []

            def run(batch: Batch, group: list[Any] = group) -> list[Any]:
                return [function(batch) for function, _done in group]

            try:
                results = await asyncio.to_thread(self._write, run)
            except BaseException as error:
                self._committing = None
                for _function, done in group:
                    if not done.done():
                        done.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_function, done), result in zip(group, results, strict=True):
                if not done.done():
                    done.set_result(result)
        self._committing = None

    def _write(self, run: Callable[[Batch], Any]) -> Any:
        return self._open().write(run)

    # reading; called in threads, for it may take a while

    def replications(self) -> list[dict[str, Any]]:
        """All of them with their counts, the one that was last active first."""
        with self._read() as reader:
            if reader is None:
                return []
            found = [_shown(reader, key.decode(), row) for key, row in reader.scan(LedgerSpace.REPLICATIONS)]
        return sorted(found, key=lambda shown: str(shown["last_active"]), reverse=True)

    def show(self, name: str, *, skip: int = 0, limit: int = _EXCEPTIONS_SHOWN) -> dict[str, Any]:
        """A replication, its runs, and the revisions that were not written, newest first.

        :raises NotFound:
        """
        with self._read() as reader:
            key, row = _find(reader, name)
            assert reader is not None
            shown = _shown(reader, key, row)
            of_it = _range_of(decode_fields(row)[0])
            sessions = [
                SessionRow.decode(row).shown()
                for _key, row in reader.scan(LedgerSpace.SESSIONS, *of_it, reverse=True)
            ]
            exceptions = []
            for at, (_key, row) in enumerate(reader.scan(LedgerSpace.EXCEPTIONS, *of_it, reverse=True)):
                if at >= skip + limit:
                    break
                if at >= skip:
                    exceptions.append(ExceptionRow.decode(row).shown())
        return shown | {"sessions": sessions, "exceptions": exceptions}

    def explain(self, doc_id: str, name: str | None = None) -> list[dict[str, Any]]:
        """What each replication (or that called `name`) did with a document: its events, oldest first; and
        where there is none, why that may be so.

        :raises NotFound: there is no such replication.
        """
        with self._read() as reader:
            if name is not None:
                chosen = [_find(reader, name)]
            elif reader is None:
                chosen = []
            else:
                chosen = [(key.decode(), row) for key, row in reader.scan(LedgerSpace.REPLICATIONS)]
            return [_explained(reader, key, row, doc_id) for key, row in chosen if reader is not None]

    @contextlib.contextmanager
    def _read(self) -> Iterator[Reader | None]:
        """A snapshot; None when nothing was ever written."""
        if self._engine is None and not self._path.exists():
            yield None
            return
        with self._open().read() as reader:
            yield reader

    def _open(self) -> LmdbEnvironment:
        with self._opening:
            if self._engine is None:
                engine = LmdbEnvironment(self._path, LedgerSpace, create=True)
                version = engine.write(_check_format)
                if version != FORMAT_VERSION:
                    engine.close()
                    understood = f"this couchlite reads format {FORMAT_VERSION} only"
                    raise DataDirectoryError(f"{self._path} has format {version}; {understood}")
                self._engine = engine
            return self._engine


# --- functions of a batch


def _check_format(batch: Batch) -> int:
    stored = batch.get(LedgerSpace.META, b"format")
    if stored is None:
        batch.put(LedgerSpace.META, b"format", u64(FORMAT_VERSION))
    return FORMAT_VERSION if stored is None else from_u64(stored)


def _begin(batch: Batch, name: str, about: bytes, begun_ms: int) -> _Written:
    """What is to be written of a new session, or of the one that was resting."""
    known = batch.get(LedgerSpace.REPLICATIONS, name.encode())
    if known is None:
        next_number = batch.get(LedgerSpace.META, b"next")
        number = 1 if next_number is None else from_u64(next_number)
        batch.put(LedgerSpace.META, b"next", u64(number + 1))
    else:
        number = decode_fields(known)[0]
    batch.put(LedgerSpace.REPLICATIONS, name.encode(), encode_fields([number, about]))
    last = next(iter(batch.scan(LedgerSpace.SESSIONS, *_range_of(number), reverse=True)), None)
    before = None if last is None else SessionRow.decode(last[1])
    session = 0 if last is None else from_u64(last[0][8:])
    if last is not None and before is not None and before.state == "running":
        # Its process has died: only the newest run can still be running.
        before.state = "interrupted"
        batch.put(LedgerSpace.SESSIONS, last[0], before.encode())
    if before is not None and before.state == "resting":
        row = before
        row.state, row.ended_ms = "running", None
    else:
        row = SessionRow("", "running", begun_ms)
        session += 1
        _count_session(batch, number, begun_ms)
    batch.put(LedgerSpace.SESSIONS, row_key(number, session), row.encode())
    _keep_newest(batch, LedgerSpace.SESSIONS, number, SESSIONS_KEPT)
    return _Written(number, session, row)


def _count_session(batch: Batch, number: int, begun_ms: int) -> None:
    summary = _summary(batch, number)
    summary.sessions += 1
    summary.begun_ms = summary.begun_ms or begun_ms
    summary.active_ms = begun_ms
    batch.put(LedgerSpace.SUMMARIES, u64(number), summary.encode())


def _store(batch: Batch, written: _Written, taken: Taken, limits: Limits) -> None:
    number = written.number
    summary = _summary(batch, number)
    summary.counts.add(taken.counts)
    summary.active_ms = max(summary.active_ms, taken.at_ms)
    for error, count in taken.reasons.items():
        known = error in summary.reasons or len(summary.reasons) < REASONS_MAX
        word = error if known else OTHER_REASONS
        summary.reasons[word] = summary.reasons.get(word, 0) + count
    summary.exceptions_dropped += taken.exceptions_dropped
    if taken.exceptions:
        first = _next_row(batch, LedgerSpace.EXCEPTIONS, number)
        for at, exception in enumerate(taken.exceptions):
            batch.put(LedgerSpace.EXCEPTIONS, row_key(number, first + at), exception)
        summary.exceptions_dropped += _keep_newest(batch, LedgerSpace.EXCEPTIONS, number, limits.exceptions)
    summary.outcomes_dropped += taken.outcomes_dropped
    if taken.blocks:
        first = _next_row(batch, LedgerSpace.OUTCOMES, number)
        for at, block in enumerate(taken.blocks):
            batch.put(LedgerSpace.OUTCOMES, row_key(number, first + at), block)
        summary.outcomes_kept += taken.outcomes
        _drop_oldest_blocks(batch, number, summary, limits.outcomes)
    batch.put(LedgerSpace.SUMMARIES, u64(number), summary.encode())
    _store_session(batch, written)


def _store_session(batch: Batch, written: _Written) -> None:
    """A run that failed as the one before it, and did nothing, only counts there."""
    row, key = written.row, row_key(written.number, written.session)
    if row.state == "failed" and row.counts.is_nothing:
        start = row_key(written.number, 0)
        before = next(iter(batch.scan(LedgerSpace.SESSIONS, start, key, reverse=True)), None)
        if before is not None:
            other = SessionRow.decode(before[1])
            if (other.state, other.reason) == ("failed", row.reason):
                other.repeats += 1
                other.ended_ms = row.ended_ms
                batch.put(LedgerSpace.SESSIONS, before[0], other.encode())
                batch.delete(LedgerSpace.SESSIONS, key)
                return
    batch.put(LedgerSpace.SESSIONS, key, row.encode())


def _summary(reader: Reader, number: int) -> Summary:
    return Summary.decode(reader.get(LedgerSpace.SUMMARIES, u64(number)))


def _range_of(number: int) -> tuple[bytes, bytes]:
    return row_key(number, 0), row_key(number + 1, 0)


def _next_row(reader: Reader, space: LedgerSpace, number: int) -> int:
    last = next(iter(reader.scan(space, *_range_of(number), reverse=True)), None)
    return 1 if last is None else from_u64(last[0][8:]) + 1


def _keep_newest(batch: Batch, space: LedgerSpace, number: int, most: int) -> int:
    """Drop the oldest rows of a replication; how many."""
    surplus = []
    last = _next_row(batch, space, number) - 1
    for key, _row in batch.scan(space, *_range_of(number)):
        if from_u64(key[8:]) > last - most:
            break
        surplus.append(key)
    for key in surplus:
        batch.delete(space, key)
    return len(surplus)


def _drop_oldest_blocks(batch: Batch, number: int, summary: Summary, most: int) -> None:
    surplus = []
    kept = summary.outcomes_kept
    for key, row in batch.scan(LedgerSpace.OUTCOMES, *_range_of(number)):
        size = size_of_block(row)
        if kept - size < most:
            break
        kept -= size
        surplus.append(key)
    for key in surplus:
        batch.delete(LedgerSpace.OUTCOMES, key)
    summary.outcomes_dropped += summary.outcomes_kept - kept
    summary.outcomes_kept = kept


# --- functions of a snapshot


def _find(reader: Reader | None, name: str) -> tuple[str, bytes]:
    """The replication called `name`, or the only one whose id begins so. :raises NotFound:"""
    if reader is not None:
        name = name.replace(" ", "+")  # a "+" that was sent unescaped
        row = reader.get(LedgerSpace.REPLICATIONS, name.encode()[:500] or b"\0")
        if row is not None:
            return name, row
        begin_so: list[tuple[str, bytes]] = []
        for key, row in reader.scan(LedgerSpace.REPLICATIONS, name.encode()[:500]):
            if not key.startswith(name.encode()) or len(begin_so) > 1:
                break
            begin_so.append((key.decode(), row))
        if name and len(begin_so) == 1:
            return begin_so[0]
    raise NotFound("there is no such replication in the ledger")


def _shown(reader: Reader, name: str, row: bytes) -> dict[str, Any]:
    number, about = decode_fields(row)
    summary = _summary(reader, number)
    last = next(iter(reader.scan(LedgerSpace.SESSIONS, *_range_of(number), reverse=True)), None)
    session = None if last is None else SessionRow.decode(last[1])
    return {
        "id": name,
        **loads(about),
        **asdict(summary.counts),
        "reasons": summary.reasons,
        "runs": summary.sessions,
        "state": None if session is None else session.state,
        "reason": None if session is None else session.reason,
        "first_started": moment(summary.begun_ms),
        "last_active": moment(summary.active_ms),
        "exceptions_dropped": summary.exceptions_dropped,
        "outcomes_kept": summary.outcomes_kept,
        "outcomes_dropped": summary.outcomes_dropped,
    }


def _explained(reader: Reader, name: str, row: bytes, doc_id: str) -> dict[str, Any]:
    number, about = decode_fields(row)
    described: dict[str, Any] = loads(about)
    of_it = _range_of(number)
    id_text = dumps(doc_id)
    events: list[tuple[int, dict[str, Any]]] = []
    for _key, block in reader.scan(LedgerSpace.OUTCOMES, *of_it):
        found = find_in_block(block, doc_id, id_text)
        events += [(outcome.at_ms, outcome.shown(doc_id)) for outcome in found]
    for _key, exception in reader.scan(LedgerSpace.EXCEPTIONS, *of_it):
        decoded = ExceptionRow.decode(exception)
        if decoded.doc_id == doc_id:
            events.append((decoded.at_ms, decoded.shown()))
    events.sort(key=lambda event: event[0])
    return {
        "id": name,
        "source": described["source"],
        "target": described["target"],
        "events": [event for _at, event in events],
        "note": None if events else _why_nothing(described, _summary(reader, number), doc_id),
    }


def _why_nothing(described: Mapping[str, Any], summary: Summary, doc_id: str) -> str:
    """Why a replication may have no event of a document."""
    doc_ids = described.get("doc_ids")
    if isinstance(doc_ids, list) and doc_id not in doc_ids:
        return f"only {len(doc_ids)} documents that were named are replicated, and this is none of them"
    if summary.outcomes_dropped or summary.exceptions_dropped:
        seen = "nothing is recorded of it, but older events than those kept were dropped"
    else:
        seen = "it was never seen"
    for member, phrase in (
        ("filter", "only what passes the filter {} is replicated"),
        ("selector", "only what the selector {} matches is replicated"),
        ("since_seq", "only what changed after sequence {} is replicated"),
    ):
        value = described.get(member)
        if value is not None:
            text = value if isinstance(value, str) else dumps(value).decode()
            return f"{seen}; {phrase.format(text)}"
    return seen


def _description(options: Options, user: str | None) -> dict[str, Any]:
    """What a replication is; only what was asked for."""
    doc_ids: Any = options.doc_ids
    if doc_ids is not None and len(doc_ids) > DOC_IDS_KEPT_MAX:
        doc_ids = len(doc_ids)
    asked = {
        "filter": options.filter,
        "query_params": dict(options.query_params) or None,
        "selector": None if options.selector is None else dict(options.selector),
        "doc_ids": doc_ids,
        "since_seq": options.since_seq,
        "winning_revs_only": options.winning_revs_only or None,
        "create_target": options.create_target or None,
        "user": user,
    }
    ends = {"source": options.source.url, "target": options.target.url, "continuous": options.continuous}
    return ends | {name: value for name, value in asked.items() if value is not None}
