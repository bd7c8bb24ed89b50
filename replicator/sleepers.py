"""Replications whose source rests: who tells when it moves again.

A source in this data directory is told of by its commits, whichever process makes them, and costs nothing
until then. Another server's is asked now and then, ever more seldom, by one small request.

What must stay true here: a sleeper is woken by every change after the sequence it has got to, at the latest
when LOOK_S have gone by; it is woken too when its source has gone, so that it can say so. Who is not woken
writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from functools import partial

from couchlite.errors import CouchliteError
from couchlite.moves import Moves
from couchlite.server import Server

from .jobs import Job
from .peers import Peers

LOOK_S = 900.0
"""A source is looked at after so long whatever is heard of it: see Moves for what can be lost."""
PROBE_MIN_S = 1.0
PROBE_MAX_S = 60.0
PROBES_AT_ONCE = 8


class Sleepers:
    """:param wake: called with a job whose source may have moved; it sleeps no more."""

    def __init__(self, server: Server, peers: Peers, moves: Moves, wake: Callable[[Job], None]) -> None:
        self._server = server
        self._peers = peers
        self._moves = moves
        self._wake = wake
        self._ends: dict[Job, Callable[[], None]] = {}
        """How to stop waiting for each sleeper."""
        self._probing = asyncio.Semaphore(PROBES_AT_ONCE)

    def __contains__(self, job: Job) -> bool:
        return job in self._ends

    def add(self, job: Job) -> None:
        name = job.followed
        if name is None:
            probing = asyncio.create_task(self._probe(job))

            def end() -> None:
                probing.cancel()

            self._ends[job] = end
        else:
            self._watch(job, name)

    def remove(self, job: Job) -> None:
        end = self._ends.pop(job, None)
        if end is not None:
            end()

    def close(self) -> None:
        for job in list(self._ends):
            self.remove(job)

    def _rouse(self, job: Job) -> None:
        if job in self._ends:
            self.remove(job)
            self._wake(job)

    # a source in this data directory

    def _watch(self, job: Job, name: str) -> None:
        try:
            uuid = self._server.open(name).uuid
        except CouchliteError:
            self._wake(job)  # the run will tell
            return
        moved = partial(self._look, job, name, uuid)
        self._moves.watch(job, name, uuid, moved)
        looking = asyncio.create_task(_now_and_then(moved))

        def end() -> None:
            looking.cancel()
            self._moves.unwatch(job, name, uuid)

        self._ends[job] = end
        moved(None)  # what has come before it was watched

    def _look(self, job: Job, name: str, uuid: str, seq: int | None) -> None:
        """Wake a job if its source has moved beyond where it has got to, or isn't there any more."""
        try:
            database = self._server.open(name)
            known = database.parse_seq(str(job.through_seq))
            if database.uuid == uuid and (database.state().update_seq if seq is None else seq) <= known:
                return
        except CouchliteError:
            pass
        self._rouse(job)

    # a source on another server

    async def _probe(self, job: Job) -> None:
        wait_s = PROBE_MIN_S
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))
            wait_s = min(2 * wait_s, PROBE_MAX_S)
            async with self._probing:
                if await self._has_moved(job):
                    break
        self._ends.pop(job, None)
        self._wake(job)

    async def _has_moved(self, job: Job) -> bool:
        with contextlib.suppress(CouchliteError):
            source = await self._peers.source(job.options)
            try:
                return await source.count_pending(job.through_seq) != 0
            finally:
                await source.close()
        return True


async def _now_and_then(look: Callable[[None], None]) -> None:
    while True:
        await asyncio.sleep(LOOK_S * random.uniform(0.8, 1.0))
        look(None)
