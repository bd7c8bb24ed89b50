"""All replications of a server: started and cancelled by their ids, listed, and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from couchlite.errors import CouchliteError, NotFound
from couchlite.security import Principal, check_server_admin
from couchlite.server import Server

from .checkpoint import ReplicationId, read_filter_code, replication_id
from .errors import ReplicationError
from .jobs import Job
from .ledger import Ledger
from .options import Asked, Options, parse
from .peers import Peers

Answer = tuple[int, dict[str, Any]]
"""A status, and the body of an answer."""


class Scheduler:
    """:param ledger: where it is noted what the replications do; closed by whoever opened it."""

    def __init__(self, server: Server, peers: Peers, ledger: Ledger) -> None:
        self._server = server
        self._ledger = ledger
        self._peers = peers
        self._jobs: dict[str, Job] = {}
        self._results: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._closed = False

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    async def replicate(self, body: Mapping[str, Any], principal: Principal) -> Answer:
        """What POST _replicate asks for. A one-shot replication is waited for; one that is under way already
        is joined.

        :raises CouchliteError:
        """
        asked = parse(body, self._server.config)
        options = asked.options
        found = await self._id(asked)
        if asked.cancel:
            await self._cancel(found if isinstance(found, str) else found.text, principal)
            return 200, {"ok": True, "_local_id": found if isinstance(found, str) else found.text}
        assert options is not None and isinstance(found, ReplicationId)
        self._check_owner(found.text, principal)
        running = self._start(found, options, principal)
        if options.continuous:
            return 202, {"ok": True, "_local_id": found.text}
        try:
            # Who stops listening doesn't stop the replication.
            return 200, {"ok": True, **await asyncio.shield(running)}
        except asyncio.CancelledError:
            if running.cancelled():
                return 200, {"ok": "stopped"}
            raise

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

    async def close(self) -> None:
        """Stop all jobs; each notes where it is."""
        self._closed = True
        await asyncio.gather(*[job.stop() for job in self._jobs.values()])

    async def _id(self, asked: Asked) -> ReplicationId | str:
        if asked.id is not None and asked.cancel:
            return asked.id
        assert asked.options is not None
        options = asked.options
        if options.filter is None or options.filter.startswith("_"):
            return replication_id(options, self._server.uuid)
        source = await self._peers.source(options)
        try:
            code = await read_filter_code(options.filter, source)
        finally:
            await source.close()
        return replication_id(options, self._server.uuid, code)

    def _check_owner(self, name: str, principal: Principal) -> bool:
        """Whether there is such a job. :raises Unauthorized: it is somebody else's."""
        job = self._jobs.get(name)
        if job is not None and job.user != principal.name:
            check_server_admin(principal)
        return job is not None

    async def _cancel(self, name: str, principal: Principal) -> None:
        if not self._check_owner(name, principal):
            raise NotFound()
        await self._jobs[name].stop()

    def _start(
        self, replication: ReplicationId, options: Options, principal: Principal
    ) -> asyncio.Task[dict[str, Any]]:
        if self._closed:
            raise ReplicationError("service unavailable", "the server is about to stop", status=503)
        name = replication.text
        if name in self._results:
            return self._results[name]
        job = Job(replication, options, principal.name, self._peers, self._tasks, self._ledger)
        running = job.start()
        self._jobs[name] = job
        self._results[name] = running

        def ended(task: asyncio.Task[dict[str, Any]]) -> None:
            del self._jobs[name], self._results[name]
            with contextlib.suppress(CouchliteError, asyncio.CancelledError):
                task.result()

        running.add_done_callback(ended)
        return running

    @property
    def _tasks(self) -> Path:
        return self._server.path / "run"
