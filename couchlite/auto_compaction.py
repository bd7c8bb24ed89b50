"""Databases and indexes compacted by themselves when much of them is unused, and indexes removed that no
design document wants any more. CouchDB's smoosh and its settings:

    [smoosh]         db_channels, view_channels, cleanup_channels: names; empty to switch off
    [smoosh.NAME]    priority (ratio, slack), min_priority, min_size (bytes), from, to (HH:MM)

A channel takes what is at least `min_size` large and whose ratio of all to used bytes, or whose unused
bytes, are `min_priority` or more; between `from` and `to`, if these are given. Only databases that have
changed since they were last looked at are looked at, and those that were put off.

What must stay true here:
- One process of a server does it, whoever has the lock, and one thing at a time.
- What a compaction has left is not taken for unused again: it is kept on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from dataclasses import dataclass
from typing import NamedTuple

from .compact import Retention
from .config import Config
from .database import Database
from .engine import Space
from .errors import CouchliteError, DatabaseNotFound
from .file_lock import FileLock
from .index import designs
from .index.indexes import Index
from .server import Server
from .tasks import Task

LOOK_S = 15.0
PACE_S = 0.02
"""Between two databases that are looked at."""
PAGE_DATABASES = 100
LOCK_FILE = "auto_compaction.lock"
MIN_SIZE_BYTES = 1 << 20
MIN_PRIORITIES = {"ratio": 2.0, "slack": float(1 << 29)}
ROOM_SHARE = 1.1
"""A compact copy needs as much room as what is used, and a little more."""

logger = logging.getLogger(__name__)


class Usage(NamedTuple):
    """Bytes on the disk, and how many of them nobody needs."""

    size: int
    unused: int


@dataclass(frozen=True, slots=True)
class Channel:
    """A rule by which something is compacted."""

    priority: str
    min_priority: float
    min_size: int
    start_minute: int | None
    stop_minute: int | None

    def wants(self, usage: Usage) -> bool:
        if usage.size < self.min_size:
            return False
        ratio = usage.size / max(1, usage.size - usage.unused)
        return (usage.unused if self.priority == "slack" else ratio) >= self.min_priority

    def is_open(self, now: time.struct_time) -> bool:
        start, stop, minute = self.start_minute, self.stop_minute, 60 * now.tm_hour + now.tm_min
        if start is None or stop is None:
            return True
        return start <= minute < stop if start <= stop else minute >= start or minute < stop


def channels(config: Config, key: str) -> list[Channel]:
    """Those that `[smoosh]` names."""
    found = []
    for name in config.words("smoosh", key):
        section = f"smoosh.{name}"
        priority = config.get(section, "priority") or name.partition("_")[0]
        if priority in MIN_PRIORITIES:
            found.append(
                Channel(
                    priority,
                    _number(config.get(section, "min_priority"), MIN_PRIORITIES[priority]),
                    int(_number(config.get(section, "min_size"), MIN_SIZE_BYTES)),
                    _minute(config.get(section, "from")),
                    _minute(config.get(section, "to")),
                )
            )
    return found


def _number(text: str | None, default: float) -> float:
    with contextlib.suppress(ValueError):
        return float(text) if text else default
    return default


def _minute(text: str | None) -> int | None:
    """`HH:MM`; None for anything else."""
    hours, colon, minutes = (text or "").partition(":")
    if not (colon and hours.isdecimal() and minutes.isdecimal()):
        return None
    return 60 * int(hours) + int(minutes)


class AutoCompaction:
    """Compacts the databases of a server as long as `run` runs."""

    def __init__(self, server: Server, *, look_s: float = LOOK_S) -> None:
        self._server = server
        self._look_s = look_s
        self._lock = FileLock(server.path / "run" / LOCK_FILE)
        self._stopping = asyncio.Event()
        self._since = 0
        self._put_off: set[str] = set()
        """Databases that wait for their hour, or for room on the disk."""
        self._left: dict[str, int] = {}
        """What seemed unused after a compaction, by the uuid of the database or the path of the index."""

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Return after `stop`, with what is under way finished; or cancel it, and what is under way ends with
        the server."""
        held: int | None = None
        try:
            while not self._stopping.is_set():
                await self._pause(self._look_s)
                held = self._lock.acquire() if held is None else held
                if held is not None:
                    await self._look()
        finally:
            if held is not None:
                os.close(held)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _look(self) -> None:
        """Go through what has changed, and what was put off."""
        for name in sorted(self._put_off):
            await self._look_at(name)
        while rows := self._server.catalog.updates(self._since, PAGE_DATABASES):
            for number, name, kind in rows:
                if self._stopping.is_set():
                    return
                if kind != "deleted":
                    await self._look_at(name)
                    await self._pause(PACE_S)
                self._since = number

    async def _look_at(self, name: str) -> None:
        try:
            await asyncio.to_thread(self._care_for, name)
        except DatabaseNotFound:
            pass
        except (CouchliteError, OSError) as error:
            logger.error("the automatic compaction of %r failed: %s", name, error)

    def _care_for(self, name: str) -> None:
        self._put_off.discard(name)
        database = self._server.open(name)
        config = self._server.config
        usage = usage_of(database)
        if self._takes("db_channels", name, database.uuid, usage):
            logger.info("compacting %r: %d of %d bytes seem unused", name, usage.unused, usage.size)
            done = database.compact(Retention.configured(config), gently=True).result()
            if done is not None:
                self._left[database.uuid] = usage_of(database).unused
        self._care_for_indexes(database)

    def _care_for_indexes(self, database: Database) -> None:
        definitions = [one for views in designs.all_of(database) for one in views.definitions()]
        if self._server.config.words("smoosh", "cleanup_channels"):
            database.indexes.clean_up({one.signature for one in definitions})
        for definition in definitions:
            if database.indexes.is_made(definition) and not self._stopping.is_set():
                self._care_for_index(database, database.indexes.get(definition))

    def _care_for_index(self, database: Database, index: Index) -> None:
        size = index.engine.size_bytes()
        usage = Usage(size, size - index.engine.used_bytes())
        if self._takes("view_channels", database.name, str(index.path), usage):
            signature = index.definition.signature
            run_path = self._server.path / "run"
            with Task(run_path, "view_compaction", database=database.name, signature=signature):
                index.engine.reclaim()
            size = index.engine.size_bytes()
            self._left[str(index.path)] = size - index.engine.used_bytes()

    def _takes(self, key: str, name: str, what: str, usage: Usage) -> bool:
        counted = Usage(usage.size, max(0, usage.unused - self._left.get(what, 0)))
        wanting = [one for one in channels(self._server.config, key) if one.wants(counted)]
        if not wanting:
            return False
        room = shutil.disk_usage(self._server.path).free
        now = time.localtime()
        if room > (usage.size - usage.unused) * ROOM_SHARE and any(one.is_open(now) for one in wanting):
            return True
        self._put_off.add(name)
        return False


def usage_of(database: Database) -> Usage:
    """What a compaction would probably find: free pages, and the bodies of revisions that are no leaves."""
    state = database.state()
    size = database.engine.size_bytes()
    unused = size - database.engine.used_bytes()
    bodies = database.engine.count(Space.BODIES)
    leaves = state.doc_count + state.deleted_count
    if bodies > leaves:
        unused += state.stored_bytes * (bodies - leaves) // bodies
    total = size + state.blob_bytes
    return Usage(total, min(unused, total))
