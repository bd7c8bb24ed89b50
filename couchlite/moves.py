"""Which of many databases moved, for somebody who wants to hear of all of them and to have none of them open.

A feed (see feed.py) is for who follows one database: its environment stays open, and is looked at twice
a second. A thousand databases that rest would cost a thousand looks. Here a ring is heard at once, and what
no ring told of is found in the server's log of updates, which is one read for all of them.

What must stay true here: news may be late, as long as the log takes to be written and read, which is less
than POLL_S and the doorbell's period together; it is not lost unless a process dies between a commit and the
log. Who watches looks for itself after it has begun to watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from .server import Server

POLL_S = 0.4
PAGE_ROWS = 1_000

Moved = Callable[[int | None], None]
"""Called with the update sequence moved to, or None where it isn't known or the database may be gone."""

log = logging.getLogger("couchlite")


class Moves:
    """Tells of the databases of `server` in the running event loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._logged: list[Callable[[str], None]] = []
        self._loop = asyncio.get_running_loop()
        self._by_uuid: dict[str, dict[object, Moved]] = {}
        self._by_name: dict[str, dict[object, Moved]] = {}
        self._since = server.catalog.last_update()
        self._told = asyncio.Event()
        server.hear(self._heard)
        self._polling = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """May be called again, by each of several listeners."""
        if self._polling.done():
            return
        self._server.unhear(self._heard)
        self._polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._polling

    def watch(self, key: object, name: str, uuid: str, moved: Moved) -> None:
        """Call `moved` whenever the database may have moved or gone, until `unwatch(key, ...)`."""
        self._by_uuid.setdefault(uuid, {})[key] = moved
        self._by_name.setdefault(name, {})[key] = moved

    def read_log(self, logged: Callable[[str], None]) -> None:
        """Call `logged` with the name of every database that is created, changed or deleted."""
        self._logged.append(logged)

    def unwatch(self, key: object, name: str, uuid: str) -> None:
        for watched, place in ((self._by_uuid, uuid), (self._by_name, name)):
            watching = watched.get(place, {})
            watching.pop(key, None)
            if not watching:
                watched.pop(place, None)

    def _heard(self, uuid: str, seq: int) -> None:
        """In the thread of a writer or of the doorbell."""
        if uuid in self._by_uuid or not uuid:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._tell, uuid, seq)

    def _tell(self, uuid: str, seq: int) -> None:
        if not uuid:
            self._told.set()
        for moved in list(self._by_uuid.get(uuid, {}).values()):
            moved(seq)

    async def _poll(self) -> None:
        while True:
            try:
                self._read_log()
            except Exception:
                log.exception("looking for news failed")
            self._told.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), POLL_S)

    def _read_log(self) -> None:
        while rows := self._server.catalog.updates(self._since, PAGE_ROWS):
            self._since = rows[-1][0]
            for _seq, name, _event in rows:
                for logged in self._logged:
                    logged(name)
                for moved in list(self._by_name.get(name, {}).values()):
                    moved(None)
