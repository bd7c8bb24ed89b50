"""All replications of a server: which of them run, which wait for their turn, and which rest.

    add -> due -> running -> done
            ^       |  |
            |       |  +-> asleep: its source rests (see sleepers.py); due again when the source moves
            |       +----> crashed: due again after a while that doubles each time
            +-- stopped, when others have waited for its place

At most [replicator] max_jobs run at a time. Those that wait come in the order in which they got something to
do: a source that moved first is served first, and one that rests takes nobody's turn. Where more have work
than may run, the ones that have run longest give way, max_churn of them each `interval`.

What must stay true here: every job is in exactly one of these places; a failing one waits, it never spins.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from couchlite.errors import CouchliteError, NotFound
from couchlite.moves import Moves
from couchlite.security import Principal, check_server_admin
from couchlite.server import Server

from .checkpoint import ReplicationId, read_filter_code, replication_id
from .errors import ReplicationError
from .jobs import Job, Origin, Patience
from .ledger import Ledger
from .options import Asked, Options, parse
from .peers import Peers
from .sleepers import Sleepers

RETRY_MIN_S = 1.0
RETRY_MAX_S = 600.0
IDLE_S = 3.0
"""A replication from this data directory falls asleep when its source has rested so long."""
CROWDED_IDLE_S = 0.2
"""The same while others wait for its place."""
REMOTE_IDLE_S = 5.0
"""One from another server keeps its feed until others wait for its place, and then so long."""
TICK_S = 1.0

COUNTS = ("adds", "crashes", "duplicate_adds", "removes", "starts", "stops")

Answer = tuple[int, dict[str, Any]]
"""A status, and the body of an answer."""

log = logging.getLogger("replicator")


class Scheduler:
    """Made and closed in the event loop that it is to work in.

    :param ledger: where it is noted what the replications do; closed by whoever opened it.
    :param uuid: of the server for which they are run, if it is another one; ids of replications have it in.
    """

    def __init__(
        self, server: Server, peers: Peers, ledger: Ledger, moves: Moves, uuid: str | None = None
    ) -> None:
        self._server = server
        self._uuid = uuid or server.uuid
        self._ledger = ledger
        self._peers = peers
        self._jobs: dict[str, Job] = {}
        self._due: dict[Job, None] = {}
        """First come, first served."""
        self._running: dict[Job, asyncio.Task[None]] = {}
        self._crashed: dict[Job, asyncio.TimerHandle] = {}
        self._asleep = Sleepers(server, peers, moves, self._make_due)
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        """What has happened to jobs so far, under CouchDB's names."""
        self._closed = False
        self._ticking = asyncio.create_task(self._tick())

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    # _replicate

    async def replicate(self, body: Mapping[str, Any], principal: Principal) -> Answer:
        """What POST _replicate asks for. A one-shot replication is waited for; one that is under way already
        is joined.

        :raises CouchliteError:
        """
        asked = parse(body, self._server.config)
        options = asked.options
        found = await self._id(asked)
        if asked.cancel:
            name = found if isinstance(found, str) else found.text
            if not self._check_owner(name, principal):
                raise NotFound()
            await self.remove(self._jobs[name])
            return 200, {"ok": True, "_local_id": name}
        assert options is not None and isinstance(found, ReplicationId)
        self._check_owner(found.text, principal)
        job = self._jobs.get(found.text)
        if job is None:
            job = self.add(found, options, Origin(principal.name))
        else:
            self.counts["duplicate_adds"] += 1
        result = job.result
        if options.continuous:
            return 202, {"ok": True, "_local_id": found.text}
        try:
            # Who stops listening doesn't stop the replication.
            return 200, {"ok": True, **await asyncio.shield(result)}
        except asyncio.CancelledError:
            if result.cancelled():
                return 200, {"ok": "stopped"}
            raise

    async def _id(self, asked: Asked) -> ReplicationId | str:
        if asked.id is not None and asked.cancel:
            return asked.id
        assert asked.options is not None
        return await self.id_of(asked.options)

    async def id_of(self, options: Options) -> ReplicationId:
        """:raises CouchliteError: its filter function can't be read."""
        if options.filter is None or options.filter.startswith("_"):
            return replication_id(options, self._uuid)
        source = await self._peers.source(options)
        try:
            code = await read_filter_code(options.filter, source)
        finally:
            await source.close()
        return replication_id(options, self._uuid, code)

    def _check_owner(self, name: str, principal: Principal) -> bool:
        """Whether there is such a job. :raises Unauthorized: it is somebody else's."""
        job = self._jobs.get(name)
        if job is not None and job.origin.user != principal.name:
            check_server_admin(principal)
        return job is not None

    # what there is

    def jobs(self) -> list[dict[str, Any]]:
        """By id."""
        return [self._jobs[name].shown() for name in sorted(self._jobs)]

    def job(self, name: str) -> dict[str, Any]:
        """:raises NotFound:"""
        # A "+" that was sent unescaped comes as a space.
        found = self._jobs.get(name.replace(" ", "+"))
        if found is None:
            raise NotFound()
        return found.shown()

    def tasks(self) -> list[dict[str, Any]]:
        """Those that run, resting or not, as _active_tasks lists them."""
        return [job.task() for job in self._jobs.values() if job.state == "running"]

    def numbers(self) -> dict[str, int]:
        """How many jobs are `running`, resting or not, how many wait for their turn (`pending`), how many
        have `crashed` and wait to be tried again; and the `total`."""
        states = Counter(job.state for job in self._jobs.values())
        return {
            "running": states["running"],
            "pending": states["pending"],
            "crashed": states["crashing"],
            "total": len(self._jobs),
        }

    def find(self, name: str) -> Job | None:
        return self._jobs.get(name)

    # jobs come and go

    def add(
        self,
        replication: ReplicationId,
        options: Options,
        origin: Origin,
        completed: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None,
    ) -> Job:
        """Have a replication run, of which there is no job yet.

        :raises ReplicationError: the server is about to stop.
        """
        if self._closed:
            raise ReplicationError("service unavailable", "the server is about to stop", status=503)
        job = Job(
            replication,
            options,
            origin,
            self._peers,
            self._ledger,
            patience=self._patience,
            history_max=partial(self._setting, "max_history"),
            completed=completed,
        )
        self._jobs[replication.text] = job
        self.counts["adds"] += 1
        self._make_due(job)
        return job

    async def remove(self, job: Job) -> None:
        """End a job where it is, with a last checkpoint."""
        if self._jobs.get(job.id.text) is job:
            self._forget(job)
        self._due.pop(job, None)
        self._asleep.remove(job)
        self._forget_timer(job)
        await self._stop(job)
        job.result.cancel()
        self._start_due()

    async def close(self) -> None:
        """Stop all jobs; each notes where it is."""
        self._closed = True
        self._ticking.cancel()
        self._asleep.close()
        await asyncio.gather(*[self.remove(job) for job in list(self._jobs.values())])

    def _forget(self, job: Job) -> None:
        if self._jobs.pop(job.id.text, None) is not None:
            self.counts["removes"] += 1

    # turns

    def _setting(self, name: str) -> int:
        return max(0, self._server.config.integer("replicator", name))

    def _patience(self, job: Job) -> Patience:
        is_crowded = bool(self._due)
        if job.followed is not None:
            return Patience(CROWDED_IDLE_S if is_crowded else IDLE_S, is_crowded)
        return Patience(REMOTE_IDLE_S if is_crowded else None, is_crowded)

    def _make_due(self, job: Job) -> None:
        """It has something to do."""
        self._forget_timer(job)
        if self._jobs.get(job.id.text) is job:
            was_crowded = bool(self._due)
            self._due[job] = None
            self._start_due()
            if self._due and not was_crowded:
                for running in self._running:
                    running.stir()

    def _forget_timer(self, job: Job) -> None:
        timer = self._crashed.pop(job, None)
        if timer is not None:
            timer.cancel()

    def _start_due(self) -> None:
        if self._closed:
            return
        most = self._setting("max_jobs")
        while self._due and len(self._running) < most:
            job = next(iter(self._due))
            del self._due[job]
            if job.state != "running":
                job.admit()
                self.counts["starts"] += 1
            self._running[job] = asyncio.create_task(self._run(job))

    async def _run(self, job: Job) -> None:
        try:
            record = await job.run()
            if record is not None and job.completed is not None:
                await job.completed(job.outcome())
        except CouchliteError as error:
            self._ended_badly(job, error)
        except Exception:
            log.exception("replication %s failed", job.id.text)
            self._ended_badly(job, ReplicationError("internal_server_error", "internal error, see the log"))
        else:
            self._running.pop(job, None)
            job.crashes = 0
            if record is not None:
                self._forget(job)
                if not job.result.done():
                    job.result.set_result(record)
            elif self._jobs.get(job.id.text) is job:
                self._asleep.add(job)
        finally:
            self._running.pop(job, None)
        self._start_due()

    def _ended_badly(self, job: Job, error: CouchliteError) -> None:
        self._running.pop(job, None)
        self.counts["crashes"] += 1
        job.crash(error, self._setting("health_threshold"))
        if not job.options.continuous:
            job.disappoint(error)
        if job.origin.doc_id is None and not job.options.continuous:
            self._forget(job)
        elif self._jobs.get(job.id.text) is job:
            wait_s = min(RETRY_MIN_S * 2 ** min(job.crashes - 1, 30), RETRY_MAX_S) * random.uniform(
                0.75, 1.25
            )
            self._crashed[job] = asyncio.get_running_loop().call_later(wait_s, self._make_due, job)

    async def _stop(self, job: Job) -> None:
        running = self._running.pop(job, None)
        if running is not None:
            running.cancel()
            await asyncio.wait((running,))
        self.counts["stops"] += job.state == "running"
        job.rest()

    async def _tick(self) -> None:
        turned_at = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            try:
                if time.monotonic() - turned_at >= self._setting("interval") / 1000:
                    turned_at = time.monotonic()
                    await self._take_turns()
                self._start_due()  # the settings may have changed
            except Exception:
                log.exception("replications could not be scheduled")

    async def _take_turns(self) -> None:
        """Stop those for whom there is no place any more, then some of those that have run longest."""
        most = self._setting("max_jobs")
        excess = max(0, len(self._running) - most)
        by_age = sorted(self._running, key=lambda job: job.running_since)
        continuous = [job for job in by_age if job.options.continuous]
        others = [job for job in by_age if not job.options.continuous]
        stopping = [*continuous, *others][:excess]
        free = max(0, most - len(self._running) + len(stopping))
        churn = min(len(self._due) - free, max(0, self._setting("max_churn") - excess))
        stopping += [job for job in continuous if job not in stopping][: max(0, churn)]
        await asyncio.gather(*[self._stop(job) for job in stopping])
        for job in stopping:
            if job not in self._asleep and job not in self._crashed:  # it may have ended so just then
                self._make_due(job)
