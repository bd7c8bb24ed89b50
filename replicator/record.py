"""What one run of a replication tells the ledger, gathered until it is written.

What must stay true here: the run is held up by nothing but memory's bounds, and when `flush` has returned,
all that was told before is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from couchlite.config import Config

from .ledger_rows import Block, Counts, ExceptionRow, SessionRow, now_ms
from .peer import Change, Doc, Missing, Refusal, Seq

FLUSH_S = 5.0
"""What is told is on disk so soon, also between checkpoints."""
FLUSH_OUTCOMES = 20_000
"""So many are written at once rather than gathered longer."""
BLOCK_OUTCOMES = 4_000
"""The documents of a row: many compress well, and few are dropped at a time."""
REASON_CHARACTERS_MAX = 1_000


class Limits(NamedTuple):
    """How much of a replication is kept: revisions that were not written, and documents that were written or
    skipped."""

    exceptions: int = 10_000
    outcomes: int = 100_000

    @classmethod
    def of(cls, config: Config) -> Limits:
        most = [config.integer("couchlite", key) for key in ("ledger_exceptions", "ledger_outcomes")]
        return cls(max(1, most[0]), max(1, most[1]))


class Taken(NamedTuple):
    """What is written to the ledger at once."""

    at_ms: int
    counts: Counts
    reasons: dict[str, int]
    exceptions: list[bytes]
    exceptions_dropped: int
    blocks: list[bytes]
    outcomes: int
    """Documents in `blocks`."""
    outcomes_dropped: int


class Recorder(Protocol):
    """Who is told what becomes of revisions."""

    def wrote(self, docs: Sequence[Doc]) -> None: ...

    def skipped(self, changes: Sequence[Change], missing: Sequence[Missing]) -> None:
        """Of `changes` the target lacked only `missing`."""
        ...

    def refused(self, refusals: Sequence[Refusal]) -> None:
        """The target did not take these."""
        ...

    def missed(self, refusals: Sequence[Refusal]) -> None:
        """The source doesn't have these any more."""
        ...

    def began(self, session_id: str, start_seq: Seq) -> None: ...

    async def flush(self, through_seq: Seq) -> None:
        """Let it be on disk what came of everything up to `through_seq`."""
        ...


class Unrecorded:
    """A recorder for runs that nobody asks about."""

    def wrote(self, docs: Sequence[Doc]) -> None: ...

    def skipped(self, changes: Sequence[Change], missing: Sequence[Missing]) -> None: ...

    def refused(self, refusals: Sequence[Refusal]) -> None: ...

    def missed(self, refusals: Sequence[Refusal]) -> None: ...

    def began(self, session_id: str, start_seq: Seq) -> None: ...

    async def flush(self, through_seq: Seq) -> None: ...


class Record:
    """The Recorder of a ledger's session.

    :param row: the session; kept up to date.
    :param write: puts what was taken, and `row`, on disk.
    """

    def __init__(self, row: SessionRow, limits: Limits, write: Callable[[Taken], Awaitable[None]]) -> None:
        self._row = row
        self._limits = limits
        self._write = write
        self._one_flush = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._clear()

    def _clear(self) -> None:
        self._counts = Counts()
        self._written: list[str] = []
        self._revs: list[str] = []
        self._skipped: list[str] = []
        self._outcomes_dropped = 0
        self._exceptions: deque[ExceptionRow] = deque(maxlen=self._limits.exceptions)
        self._exceptions_dropped = 0
        self._reasons: dict[str, int] = {}

    # told by the run

    def began(self, session_id: str, start_seq: Seq) -> None:
        self._row.id = session_id
        self._row.end_seq = start_seq
        if self._row.start_seq is None:
            self._row.start_seq = start_seq

    def wrote(self, docs: Sequence[Doc]) -> None:
        self._counts.written += len(docs)
        self._written += [doc.id for doc in docs]
        self._revs += [doc.rev for doc in docs]
        self._gathered()

    def skipped(self, changes: Sequence[Change], missing: Sequence[Missing]) -> None:
        revs = sum([len(change.revs) for change in changes]) - sum([len(item.revs) for item in missing])
        if revs <= 0:
            return
        self._counts.skipped += revs
        lacking = {item.id for item in missing}
        self._skipped += [change.id for change in changes if change.id not in lacking]
        self._gathered()

    def refused(self, refusals: Sequence[Refusal]) -> None:
        self._counts.refused += len(refusals)
        self._except(refusals, "refused")

    def missed(self, refusals: Sequence[Refusal]) -> None:
        self._counts.missing += len(refusals)
        self._except(refusals, "missing")

    def _except(self, refusals: Sequence[Refusal], outcome: str) -> None:
        at_ms = now_ms()
        for refusal in refusals:
            self._reasons[refusal.error] = self._reasons.get(refusal.error, 0) + 1
            self._exceptions_dropped += len(self._exceptions) == self._exceptions.maxlen
            reason = refusal.reason[:REASON_CHARACTERS_MAX]
            row = ExceptionRow(at_ms, refusal.id, refusal.rev, outcome, refusal.error, reason, self._row.id)
            self._exceptions.append(row)
        if refusals:
            self._gathered()

    def _gathered(self) -> None:
        """Have it written in a while, or now if it is much."""
        many = len(self._written) + len(self._skipped) >= FLUSH_OUTCOMES
        if many and (self._flushing is None or self._flushing.done()):
            self._start_flush()
        elif many:
            self._bound()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._start_flush)

    def _bound(self) -> None:
        """While the disk is slower than the replication, only what would be kept is gathered."""
        for ids in (self._written, self._revs, self._skipped):
            surplus = len(ids) - 2 * self._limits.outcomes
            if surplus > 0:
                del ids[:surplus]
                self._outcomes_dropped += surplus * (ids is not self._revs)

    # written

    def _start_flush(self) -> None:
        self._forget_timer()
        self._flushing = asyncio.create_task(self._write_out())

    async def flush(self, through_seq: Seq) -> None:
        """:raises CouchliteError: it can't be written, now or a moment ago."""
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            await flushing
        if self._row.end_seq != through_seq or not self._counts.is_nothing:
            self._row.end_seq = through_seq
            # What has begun to be written is written, also when the run is told to stop.
            await asyncio.shield(self._write_out())

    async def end(self, state: str, reason: str | None) -> None:
        """Write the last."""
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            with contextlib.suppress(Exception):
                await flushing
        self._row.state, self._row.reason = state, reason
        self._row.ended_ms = now_ms()
        await self._write_out()

    async def _write_out(self) -> None:
        async with self._one_flush:
            self._forget_timer()
            at_ms = now_ms()
            counts, reasons = self._counts, self._reasons
            gathered = self._written, self._revs, self._skipped
            exceptions, dropped = self._exceptions, (self._exceptions_dropped, self._outcomes_dropped)
            self._clear()
            self._row.counts.add(counts)
            rows = [row.encode() for row in exceptions]
            session = self._row.id
            blocks, outcomes, surplus = await asyncio.to_thread(
                _blocks, at_ms, session, gathered, self._limits.outcomes
            )
            await self._write(
                Taken(at_ms, counts, reasons, rows, dropped[0], blocks, outcomes, dropped[1] + surplus)
            )

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _blocks(
    at_ms: int, session: str, gathered: tuple[list[str], list[str], list[str]], most: int
) -> tuple[list[bytes], int, int]:
    """The newest `most` outcomes or so as rows, how many they are, and how many were left out."""
    written, revs, skipped = gathered
    surplus = max(0, len(written) - most) + max(0, len(skipped) - most)
    written, revs, skipped = written[-most:], revs[-most:], skipped[-most:]
    blocks = []
    for start in range(0, max(len(written), len(skipped)), BLOCK_OUTCOMES):
        part = slice(start, start + BLOCK_OUTCOMES)
        blocks.append(Block(at_ms, session, written[part], revs[part], skipped[part]).encode())
    return blocks, len(written) + len(skipped), surplus
