"""The replicator databases of this data directory: found, followed and written to in-process.

What must stay true here: nothing is polled but the server's log of updates; a database that is deleted ends
its replications, and one of the same name that comes after it begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from couchlite import document
from couchlite.database import Database
from couchlite.errors import Conflict, CouchliteError, NotFound
from couchlite.moves import Moves
from couchlite.records import DELETED
from couchlite.server import Server

from .documents import Fields, is_replicator
from .requests import Requests, stop
from .scheduler import Scheduler

CONFLICTS_MAX = 20
AGAIN_S = 1.0

log = logging.getLogger("replicator")


class LocalDocuments:
    """A replicator database of `server`, as a DocumentStore."""

    def __init__(self, server: Server, name: str) -> None:
        self.name = name
        self._server = server

    async def update(self, doc_id: str, change: Callable[[Fields], Fields]) -> None:
        for _ in range(CONFLICTS_MAX):
            database = self._server.open(self.name)
            try:
                stored = database.get(doc_id)
            except NotFound:
                return
            changed = change(stored)
            if changed == stored:
                return
            edits = [document.parse(dict(changed))]
            [result] = await asyncio.wrap_future(database.submit_edits(edits))
            if not isinstance(result, Conflict):
                if isinstance(result, CouchliteError):
                    raise result
                return
        raise Conflict()


class _Followed:
    def __init__(self, uuid: str, requests: Requests) -> None:
        self.uuid = uuid
        self.requests = requests
        self.seq = 0


class LocalRequests:
    """Follows all replicator databases of `server`, those that are made later included."""

    def __init__(self, server: Server, scheduler: Scheduler, moves: Moves) -> None:
        self._server = server
        self._scheduler = scheduler
        self._moves = moves
        self._followed: dict[str, _Followed] = {}
        self._news: dict[str, None] = dict.fromkeys(filter(is_replicator, server.names()))
        self._told = asyncio.Event()
        self._told.set()
        self._has_looked = False
        moves.read_log(self._logged)
        self._following = asyncio.create_task(self._follow())

    @property
    def is_idle(self) -> bool:
        return self._has_looked and not self._news and not any(map(_count, self._followed.values()))

    def _logged(self, name: str) -> None:
        """Something has happened to a database."""
        if is_replicator(name):
            self._news[name] = None
            self._told.set()

    def shown(self, name: str) -> dict[str, dict[str, Any]]:
        """The documents of a database that are being dealt with, by id."""
        followed = self._followed.get(name)
        return {} if followed is None else followed.requests.shown()

    async def close(self) -> None:
        """Follow no more; the scheduler ends the jobs."""
        await stop(self._following)
        for name in list(self._followed):
            await self._let_go(name)

    async def _follow(self) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            for name in list(self._news):
                del self._news[name]
                try:
                    await self._look(name)
                except Exception:
                    log.exception("the replicator database %s could not be read", ascii(name))
                    asyncio.get_running_loop().call_later(AGAIN_S, self._logged, name)
            self._has_looked = True

    async def _look(self, name: str) -> None:
        try:
            database = self._server.open(name)
        except NotFound:
            await self._let_go(name)
            return
        followed = self._followed.get(name)
        if followed is None or followed.uuid != database.uuid:
            await self._let_go(name)
            requests = Requests(self._scheduler, LocalDocuments(self._server, name), self._server.config)
            followed = self._followed[name] = _Followed(database.uuid, requests)
            self._moves.watch(self, name, database.uuid, lambda seq: self._logged(name))
        await self._read(database, followed)

    async def _read(self, database: Database, followed: _Followed) -> None:
        while rows := database.changes_page(followed.seq):
            for row in rows:
                doc_id = row.id.decode()
                try:
                    fields = None if row.flags & DELETED else database.get(doc_id)
                except NotFound:
                    fields = None
                await followed.requests.changed(doc_id, fields)
                followed.seq = row.seq
            await asyncio.sleep(0)

    async def _let_go(self, name: str) -> None:
        followed = self._followed.pop(name, None)
        if followed is not None:
            self._moves.unwatch(self, name, followed.uuid)
            await followed.requests.close()


def _count(followed: _Followed) -> int:
    return len(followed.requests)
