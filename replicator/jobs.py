"""One replication as a job: what is asked for, what it is doing, and one run of it at a time.

A run ends with the record of the last checkpoint, with an error, or asleep: a continuous replication whose
source rests gives everything back, and its scheduler (scheduler.py) starts it again when the source moves.

What must stay true here: it falls asleep only where a checkpoint has noted how far it has come; what a job
shows of itself has no credentials in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple

from couchlite.errors import CouchliteError

from .checkpoint import Checkpoints, ReplicationId
from .documents import iso8601, without_password
from .errors import ReplicationError
from .ledger import Ledger
from .options import Options
from .peer import Peer, Refusal, Seq
from .peers import Peers
from .pipeline import Replication
from .wire import seq_text

NODE = "couchdb@127.0.0.1"
WATCH_S = 0.6
"""What a job shows of itself is this old at most, while it moves."""
CROWDED_WATCH_S = 0.25
"""The same while others wait for its place, which it is to give away as soon as its source rests."""

State = Literal["pending", "running", "crashing"]

log = logging.getLogger("replicator")
_numbers = itertools.count(1)


class Origin(NamedTuple):
    """Who wants a replication: somebody, by a document or by _replicate."""

    user: str | None
    database: str | None = None
    doc_id: str | None = None


class Patience(NamedTuple):
    """When a run whose source rests shall fall asleep: after how many seconds; None: never."""

    idle_s: float | None
    is_crowded: bool = False


class Job:
    """A replication that somebody wants.

    :param patience: asked now and then while a run's source rests.
    :param history_max: how many events are kept.
    :param completed: told of the end of a one-shot replication before the job ends; it makes sure that
        the end is known even if this process dies.
    """

    def __init__(
        self,
        replication_id: ReplicationId,
        options: Options,
        origin: Origin,
        peers: Peers,
        ledger: Ledger,
        *,
        patience: Callable[[Job], Patience] = lambda job: Patience(None),
        history_max: Callable[[], int] = lambda: 20,
        completed: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None,
    ) -> None:
        self.id = replication_id
        self.options = options
        self.origin = origin
        self.completed = completed
        self.state: State = "pending"
        self.crashes = 0
        """In a row."""
        self.reason: str | None = None
        """Why it crashed last."""
        self.through_seq: Seq = 0
        """Where the last run has got to."""
        self.running_since = 0.0
        self.result = _result()
        """Of the run that is under way or comes next."""
        self.followed = peers.database_followed(options)
        """The name of the source where it is a database of this server."""
        self._peers = peers
        self._ledger = ledger
        self._patience = patience
        self._history_max = history_max
        self._number = next(_numbers)
        self._added_s = time.time()
        self._started_s = 0.0
        self._updated_s = 0.0
        self._history: list[dict[str, str]] = []
        self._info: dict[str, Any] | None = None
        self._stirred = asyncio.Event()
        self._event("added")

    @property
    def can_sleep(self) -> bool:
        """Whether a further run goes on where the last one has ended."""
        options = self.options
        return options.continuous and options.use_checkpoints and options.since_seq is None

    # what happens to it

    def admit(self) -> None:
        """It is to be run."""
        self.state = "running"
        self._started_s = self._updated_s = time.time()
        self._event("started")

    def rest(self) -> None:
        """It was stopped: others take their turn, or it is over."""
        if self.state == "running":
            self.state = "pending"
        self._event("stopped")

    def crash(self, error: CouchliteError, steady_s: float) -> None:
        """A run has failed; one that had lasted `steady_s` had recovered from those before."""
        is_steady = time.monotonic() - self.running_since >= steady_s
        self.crashes = 1 if is_steady else self.crashes + 1
        self.state = "crashing"
        self.reason = f"{error.error}: {error.reason}"
        self._event("crashed", reason=self.reason)
        log.error("replication %s failed: %s", self.id.text, self.reason)

    def disappoint(self, error: CouchliteError) -> None:
        """Tell those who wait for the result that there is none."""
        if not self.result.done():
            self.result.set_exception(error)
            self.result = _result()

    def stir(self) -> None:
        """Let the run ask for its patience again."""
        self._stirred.set()

    # a run

    async def run(self) -> dict[str, Any] | None:
        """Run it to its end; the record of the last checkpoint, or None: it has fallen asleep.

        :raises CouchliteError: it can't go on.
        """
        options = self.options
        self.running_since = time.monotonic()
        async with contextlib.AsyncExitStack() as opened:
            recorder = await opened.enter_async_context(
                self._ledger.session(self.id.text, options, self.origin.user)
            )
            source = await self._peers.source(options)
            opened.push_async_callback(source.close)
            target = await self._peers.target(options)
            opened.push_async_callback(target.close)
            replication = await Replication.begin(
                source,
                target,
                self.id.base,
                options,
                refused=self._note_refusal,
                moved=self._stirred.set,
                recorder=recorder,
            )
            self._show(replication, replication.checkpoints, None)
            return await self._run_watched(replication, replication.checkpoints, source)

    async def _run_watched(
        self, replication: Replication, checkpoints: Checkpoints, source: Peer
    ) -> dict[str, Any] | None:
        running = asyncio.create_task(replication.run(), name=f"replication {self.id.text}")
        watching = asyncio.create_task(self._watch(replication, checkpoints, source))
        try:
            await asyncio.wait((running, watching), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                watching.result()
                running.cancel()
                await asyncio.wait((running,))
            self._show(replication, checkpoints, None)
            if not running.cancelled():
                return running.result()
            if checkpoints.committed_seq != replication.progress.through_seq:
                raise ReplicationError(
                    "checkpoint_commit_failure", "the last checkpoint could not be written"
                )
            self.through_seq = checkpoints.committed_seq
            return None
        finally:
            watching.cancel()
            if not running.done():
                running.cancel()
                await asyncio.wait((running,))  # for its last checkpoint

    def _note_refusal(self, refusal: Refusal) -> None:
        log.warning(
            "replication %s: revision %s of %s was not written to %s: %s: %s",
            self.id.text,
            refusal.rev,
            ascii(refusal.id),
            self.options.target.url,
            refusal.error,
            ascii(refusal.reason),
        )

    async def _watch(self, replication: Replication, checkpoints: Checkpoints, source: Peer) -> None:
        """Keep up to date what is shown; return when the run may fall asleep."""
        progress = replication.progress
        known: Any = None
        resting_since = time.monotonic()
        while True:
            patience = self._patience(self)
            await asyncio.sleep(CROWDED_WATCH_S if patience.is_crowded else WATCH_S)
            self._stirred.clear()
            now = (
                progress.highest_seq,
                progress.through_seq,
                checkpoints.committed_seq,
                progress.stats.shown(),
            )
            if now != known:
                if known is None or now[:2] != known[:2]:
                    resting_since = time.monotonic()
                known = now
                self._show(replication, checkpoints, await _pending(source, progress.through_seq))
            rested_s = time.monotonic() - resting_since
            patience = self._patience(self)
            if self.can_sleep and patience.idle_s is not None and rested_s >= patience.idle_s:
                through = progress.through_seq
                is_through = through == progress.highest_seq and await _pending(source, through) == 0
                if is_through and through == progress.highest_seq:
                    return
            if patience.is_crowded and self.can_sleep:
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), patience.idle_s if self.can_sleep else None)

    # what is shown

    def shown(self) -> dict[str, Any]:
        """As _scheduler/jobs lists it."""
        return {
            "database": self.origin.database,
            "id": self.id.text,
            "pid": f"<0.{self._number}.0>" if self.state == "running" else None,
            "source": self.options.source.url,
            "target": self.options.target.url,
            "user": self.origin.user,
            "doc_id": self.origin.doc_id,
            "info": self._info,
            "history": list(self._history),
            "node": NODE,
            "start_time": iso8601(self._added_s),
        }

    def summary(self) -> dict[str, Any]:
        """As _scheduler/docs lists the document that wants it."""
        return {
            "doc_id": self.origin.doc_id,
            "database": self.origin.database,
            "id": self.id.text,
            "node": NODE,
            "source": self.options.source.url,
            "target": self.options.target.url,
            "state": self.state,
            "info": {"error": self.reason} if self.state == "crashing" else self._info,
            "error_count": self.crashes,
            "last_updated": self._history[0]["timestamp"],
            "start_time": iso8601(self._added_s),
            "source_proxy": _proxy(self.options.source.proxy),
            "target_proxy": _proxy(self.options.target.proxy),
        }

    def task(self) -> dict[str, Any]:
        """As _active_tasks lists it while it is running."""
        return {
            "type": "replication",
            "started_on": int(self._started_s),
            "updated_on": int(self._updated_s),
            "pid": str(os.getpid()),
            "user": self.origin.user,
            "replication_id": self.id.text,
            "database": self.origin.database,
            "doc_id": self.origin.doc_id,
            "source": self.options.source.url,
            "target": self.options.target.url,
            "continuous": self.options.continuous,
            "checkpoint_interval": self.options.checkpoint_interval_ms,
            **(self._info or {}),
        }

    def outcome(self) -> dict[str, Any]:
        """What is told of a replication that has come to its end."""
        info = {name: value for name, value in (self._info or {}).items() if not name.endswith("_seq")}
        checkpointed = (self._info or {}).get("checkpointed_source_seq", 0)
        return {**info, "checkpointed_source_seq": checkpointed, "start_time": iso8601(self._added_s)}

    def _show(self, replication: Replication, checkpoints: Checkpoints, pending: int | None) -> None:
        progress = replication.progress
        self._updated_s = time.time()
        self._info = {
            **progress.stats.shown(),
            "changes_pending": pending,
            "checkpointed_source_seq": _seq(checkpoints.committed_seq),
            "source_seq": _seq(progress.highest_seq),
            "through_seq": _seq(progress.through_seq),
        }

    def _event(self, kind: str, **more: str) -> None:
        self._history.insert(0, {"timestamp": iso8601(time.time()), "type": kind, **more})
        del self._history[max(1, self._history_max()) :]


async def _pending(source: Peer, through_seq: Seq) -> int | None:
    with contextlib.suppress(CouchliteError):
        return await source.count_pending(through_seq)
    return None


def _result() -> asyncio.Future[dict[str, Any]]:
    future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    future.add_done_callback(_retrieve)
    return future


def _retrieve(future: asyncio.Future[Any]) -> None:
    """That nobody waits for a result is no mistake."""
    if not future.cancelled():
        future.exception()


def _proxy(url: str | None) -> str | None:
    return None if url is None else without_password(url)


def _seq(seq: Seq) -> str | int:
    return 0 if seq == 0 else seq_text(seq)
