"""A replicator database on another server: followed, and written to, over HTTP.

What must stay true here: the replications go on while that server can't be reached, and the states they come
to meanwhile are written when it is there again; a database that was made anew is read from its beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Callable

from couchlite.config import Config
from couchlite.errors import Conflict, CouchliteError
from couchlite.jsontext import dumps

from . import wire
from .documents import Fields
from .errors import EndpointRefused
from .http_client import HttpClient
from .http_peer import HttpPeer
from .options import Endpoint, Options
from .peer import ChangesQuery, PeerInfo, Seq
from .requests import Requests, stop
from .scheduler import Scheduler

CONFLICTS_MAX = 20
AGAIN_MIN_S = 1.0
AGAIN_MAX_S = 60.0
_UNKNOWN_START = "0"
"""What servers tell that don't know when a database was made."""

log = logging.getLogger("replicator")


class RemoteDocuments:
    """A replicator database, as a DocumentStore."""

    def __init__(self, name: str, endpoint: Endpoint, tls: ssl.SSLContext | bool) -> None:
        self.name = name
        self._client = HttpClient(endpoint, Options(endpoint, endpoint), tls)

    async def read(self, doc_id: str) -> Fields | None:
        """The winner; None where there is none."""
        return await self._client.read_doc(doc_id)

    async def update(self, doc_id: str, change: Callable[[Fields], Fields]) -> None:
        for _ in range(CONFLICTS_MAX):
            stored = await self.read(doc_id)
            if stored is None:
                return
            changed = change(stored)
            if changed == stored:
                return
            answer = await self._client.ask("PUT", wire.escape_id(doc_id), body=dumps(changed))
            if answer.status in (200, 201, 202):
                return
            if answer.status != 409:
                raise self._client.failure("write_failed", answer)
        raise Conflict()

    async def close(self) -> None:
        await self._client.close()


class RemoteRequests:
    """Follows the replicator database called `name` at `endpoint`."""

    def __init__(
        self, scheduler: Scheduler, config: Config, name: str, endpoint: Endpoint, tls: ssl.SSLContext | bool
    ) -> None:
        self._store = RemoteDocuments(name, endpoint, tls)
        self._peer = HttpPeer(endpoint, Options(endpoint, endpoint), tls)
        self._requests = Requests(scheduler, self._store, config)
        self._since: Seq = 0
        self._made: str | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """:raises CouchliteError: the database is not there, or can't be read."""
        self._note(await self._peer.open())
        self._following = asyncio.create_task(self._follow())

    @property
    def name(self) -> str:
        """The database's URL, without credentials."""
        return self._peer.name

    async def close(self) -> None:
        """Follow no more; the scheduler ends the jobs."""
        if self._following is not None:
            await stop(self._following)
        await self._requests.close()
        await self._peer.close()
        await self._store.close()

    async def _follow(self) -> None:
        wait_s = AGAIN_MIN_S
        while True:
            before = self._since
            try:
                if not self._note(await self._peer.open()):
                    await self._requests.close()
                await self._read()
            except EndpointRefused as error:
                log.warning("%s", error.reason)
                if error.error == "db_not_found":
                    self._made = None
                    await self._requests.close()
            except CouchliteError as error:
                log.warning("%s can't be followed: %s", self._peer.name, error.reason)
            except Exception:
                log.exception("%s can't be followed", self._peer.name)
            wait_s = AGAIN_MIN_S if self._since != before else min(2 * wait_s, AGAIN_MAX_S)
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))

    def _note(self, info: PeerInfo) -> bool:
        """Whether the database is still the one that was followed; another is read from the beginning."""
        made = info.instance_start_time
        is_same = self._made in (made, _UNKNOWN_START) or made == _UNKNOWN_START
        if not is_same:
            self._since = 0
        self._made = made
        return is_same

    async def _read(self) -> None:
        """What changes, until the feed breaks."""
        query = ChangesQuery(continuous=True, winners_only=True)
        async with contextlib.aclosing(self._peer.changes(self._since, query)) as pages:
            async for page in pages:
                for change in page.changes:
                    await self._requests.changed(change.id, await self._store.read(change.id))
                self._since = page.last_seq
