"""One replication as a job: run, watched, and run again after a failure if it is continuous.

What must stay true here: a job that fails waits longer each time, and never spins; what it shows of itself
has no credentials in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from couchlite.errors import CouchliteError
from couchlite.tasks import Task

from .checkpoint import Checkpoints, ReplicationId
from .errors import ReplicationError
from .ledger import Ledger
from .options import Options
from .peer import Peer, Refusal, Seq
from .peers import Peers
from .pipeline import Replication
from .wire import seq_text

NODE = "couchdb@127.0.0.1"
HISTORY_MAX = 20
"""Events kept of a job, as in CouchDB."""
RETRY_MIN_S = 1.0
RETRY_MAX_S = 600.0
STEADY_S = 120.0
"""A job that ran for so long had recovered: its next failure counts as the first."""
WATCH_S = 0.6
"""What a job shows of itself is this old at most, while it moves; a task can't be updated more often."""

log = logging.getLogger("replicator")
_numbers = itertools.count(1)


class Job:
    """A replication of somebody called `user`."""

    def __init__(
        self,
        replication_id: ReplicationId,
        options: Options,
        user: str | None,
        peers: Peers,
        tasks: Path,
        ledger: Ledger,
    ) -> None:
        self.id = replication_id
        self.options = options
        self.user = user
        self._peers = peers
        self._tasks = tasks
        self._ledger = ledger
        self._number = next(_numbers)
        self._started = time.time()
        self._history: deque[dict[str, str]] = deque(maxlen=HISTORY_MAX)
        self._crashes = 0
        self._is_running = False
        self._info: dict[str, Any] | None = None
        self._running: asyncio.Task[dict[str, Any]] | None = None
        self._event("added")

    def start(self) -> asyncio.Task[dict[str, Any]]:
        """Its result is the record of the last checkpoint, or why a one-shot replication failed."""
        self._running = asyncio.create_task(self._run(), name=f"replication {self.id.text}")
        return self._running

    async def stop(self) -> None:
        """End it where it is, with a last checkpoint."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
        self._event("stopped")

    def shown(self) -> dict[str, Any]:
        """As _scheduler/jobs lists it."""
        return {
            "database": None,
            "id": self.id.text,
            "pid": f"<0.{self._number}.0>" if self._is_running else None,
            "source": self.options.source.url,
            "target": self.options.target.url,
            "user": self.user,
            "doc_id": None,
            "info": self._info,
            "history": list(self._history),
            "node": NODE,
            "start_time": _iso8601(self._started),
        }

    async def _run(self) -> dict[str, Any]:
        while True:
            begun = time.monotonic()
            self._is_running = True
            self._event("started")
            try:
                return await self._run_once()
            except CouchliteError as failure:
                error = failure
            except Exception:
                log.exception("replication %s failed", self.id.text)
                error = ReplicationError("internal_server_error", "internal error, see the log")
            finally:
                self._is_running = False
            self._crash(error)
            if not self.options.continuous:
                raise error
            if time.monotonic() - begun >= STEADY_S:
                self._crashes = 1
            wait_s = min(RETRY_MIN_S * 2 ** (self._crashes - 1), RETRY_MAX_S)
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))

    def _crash(self, error: CouchliteError) -> None:
        self._crashes += 1
        reason = f"{error.error}: {error.reason}"
        self._event("crashed", reason=reason)
        self._info = {"error": reason}
        log.error("replication %s failed: %s", self.id.text, reason)

    async def _run_once(self) -> dict[str, Any]:
        options = self.options
        async with contextlib.AsyncExitStack() as opened:
            recorder = await opened.enter_async_context(
                self._ledger.session(self.id.text, options, self.user)
            )
            source = await self._peers.source(options)
            opened.push_async_callback(source.close)
            target = await self._peers.target(options)
            opened.push_async_callback(target.close)
            infos = (
                await source.open(),
                await target.open(create=options.create_target, create_params=options.create_target_params),
            )
            checkpoints = await Checkpoints.read(source, target, infos, self.id.base, options)
            moved = asyncio.Event()
            replication = Replication(
                source,
                target,
                options,
                checkpoints,
                refused=self._note_refusal,
                moved=moved.set,
                recorder=recorder,
            )
            self._info = _info(replication, checkpoints, None)
            fields = self._task_fields() | self._info
            task = opened.enter_context(Task(self._tasks, "replication", **fields))
            watch = asyncio.create_task(self._watch(replication, checkpoints, source, task, moved))
            opened.callback(watch.cancel)
            return await replication.run()

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

    # what is shown

    async def _watch(
        self,
        replication: Replication,
        checkpoints: Checkpoints,
        source: Peer,
        task: Task,
        moved: asyncio.Event,
    ) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            moved.clear()
            pending = None
            with contextlib.suppress(CouchliteError):
                pending = await source.count_pending(replication.progress.through_seq)
            self._info = _info(replication, checkpoints, pending)
            task.update(**self._info)
            await moved.wait()

    def _task_fields(self) -> dict[str, Any]:
        return {
            "user": self.user,
            "replication_id": self.id.text,
            "database": None,
            "doc_id": None,
            "source": self.options.source.url,
            "target": self.options.target.url,
            "continuous": self.options.continuous,
            "checkpoint_interval": self.options.checkpoint_interval_ms,
        }

    def _event(self, kind: str, **more: str) -> None:
        self._history.appendleft({"timestamp": _iso8601(time.time()), "type": kind, **more})


def _info(replication: Replication, checkpoints: Checkpoints, pending: int | None) -> dict[str, Any]:
    """What is told of a replication while it runs."""
    progress = replication.progress
    return {
        **progress.stats.shown(),
        "changes_pending": pending,
        "checkpointed_source_seq": _seq(checkpoints.committed_seq),
        "source_seq": _seq(progress.highest_seq),
        "through_seq": _seq(progress.through_seq),
    }


def _seq(seq: Seq) -> str | int:
    return 0 if seq == 0 else seq_text(seq)


def _iso8601(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
