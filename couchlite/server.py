"""A data directory: its databases, its configuration, and the other processes that have it open."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from .catalog import Catalog, Entry
from .config import Config
from .config_defaults import Sections
from .database import BLOBS_DIRECTORY, STORE_DIRECTORY, Database
from .doorbell import Doorbell
from .engine import Space
from .errors import DatabaseNotFound
from .records import from_u64, u64
from .storage import LmdbEnvironment

OPEN_DATABASES_MAX = 200
"""Databases kept open though nobody uses them; each takes some file descriptors and its map's address space."""

_CATALOG_MOVED = bytes(16)

log = logging.getLogger("couchlite")


class Server:
    """All databases of the data directory at `path`; made when it is empty or missing. Any number of processes may
    have a directory open, each with one Server, opened after the last fork.

    :raises DataDirectoryError: the directory is foreign, of a newer format, damaged or can't be written.
    """

    def __init__(
        self, path: str | Path, *, started_with: Sections | None = None, config_file: Path | None = None
    ) -> None:
        self.path = Path(path)
        self.catalog = Catalog(self.path)
        self.config = Config(self.catalog.settings, started_with=started_with, file=config_file)
        self.uuid = self.catalog.uuid
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Database] = OrderedDict()
        self._unlogged: set[str] = set()
        self._doorbell = Doorbell(self.path / "run", self._rung, self._poll)
        self._doorbell.listen()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def names(self) -> list[str]:
        """All databases, in byte order."""
        return self.catalog.names()

    def create(self, name: str, *, partitioned: bool = False, shards: int = 2) -> Database:
        """:raises IllegalDatabaseName: :raises DatabaseExists:"""
        props: dict[str, Any] = {"q": shards}
        if partitioned:
            props["partitioned"] = True
        entry = self.catalog.add(name, props, prepare=self._lay_out)
        self._doorbell.ring(_CATALOG_MOVED)
        return self._database(entry)

    def open(self, name: str) -> Database:
        """:raises DatabaseNotFound:"""
        return self._database(self.catalog.find(name))

    def delete(self, name: str) -> None:
        """:raises DatabaseNotFound:"""
        entry = self.catalog.remove(name)
        with self._lock:
            database = self._open.pop(entry.uuid, None)
        if database is not None:
            database.mark_deleted()
            database.close()
        self._doorbell.ring(_CATALOG_MOVED)
        shutil.rmtree(self.catalog.database_path(entry.uuid), ignore_errors=True)

    def close(self) -> None:
        """Commit what is queued and close everything."""
        self._doorbell.close()
        self._log_updates()
        with self._lock:
            databases = list(self._open.values())
            self._open.clear()
        for database in databases:
            database.close()
        self.catalog.close()

    def _lay_out(self, entry: Entry) -> None:
        """Make an empty database on disk, before the catalog names it."""
        path = self.catalog.database_path(entry.uuid)
        (path / STORE_DIRECTORY).mkdir(parents=True)
        (path / BLOBS_DIRECTORY).mkdir()
        LmdbEnvironment(path / STORE_DIRECTORY, Space, create=True).close()

    def _database(self, entry: Entry) -> Database:
        database = self._open.get(entry.uuid)
        if database is not None:
            return database
        with self._lock:
            database = self._open.get(entry.uuid)
            if database is None:
                path = self.catalog.database_path(entry.uuid)
                if not path.exists():
                    raise DatabaseNotFound()
                database = self._open[entry.uuid] = Database(entry, path, moved=self._moved)
            return database

    # news

    def _moved(self, database: Database, seq: int) -> None:
        """A commit of this process; called in the writer's thread."""
        self._unlogged.add(database.name)
        self._doorbell.ring(bytes.fromhex(database.uuid) + u64(seq))

    def _rung(self, payload: bytes) -> None:
        """Another process has committed, created or deleted."""
        uuid = payload[:16]
        if uuid == _CATALOG_MOVED:
            self._drop_deleted()
            return
        database = self._open.get(uuid.hex())
        if database is not None:
            database.feed.moved(from_u64(payload[16:24]))

    def _poll(self) -> None:
        try:
            self._log_updates()
            for database in list(self._open.values()):
                if database.feed.has_waiters:
                    database.look_for_news()
            self._drop_deleted()
        except Exception:
            log.exception("looking for news failed")

    def _log_updates(self) -> None:
        if self._unlogged:
            names, self._unlogged = self._unlogged, set()
            self.catalog.log_updates(sorted(names))

    def _drop_deleted(self) -> None:
        """Close databases that another process has deleted."""
        known = self.catalog.uuids()
        with self._lock:
            gone = [uuid for uuid in self._open if uuid not in known]
            databases = [self._open.pop(uuid) for uuid in gone]
        for database in databases:
            database.mark_deleted()
            database.close()
