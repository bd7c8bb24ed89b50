"""A data directory: its databases, its configuration, and the other processes that have it open."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import jsontext, resolver_settings, security, tasks, users
from .catalog import Catalog, Entry
from .config import Config
from .config_defaults import Sections
from .counts import new_counts
from .database import BLOBS_DIRECTORY, STORE_DIRECTORY, Database
from .disk import storage_failure
from .disk_guard import DiskGuard
from .doorbell import Doorbell
from .engine import Space
from .errors import DatabaseNotFound, DataDirectoryError, InsufficientStorage
from .index import Indexes, rest_indexes
from .records import SECURITY_KEY, from_u64, u64
from .storage import FIRST, LmdbEnvironment, lay_out
from .upload import GzipPolicy
from .uuids import Uuids
from .writer import Writer

OPEN_DATABASES_MAX = 200
"""Databases kept open though nobody uses them; each takes some file descriptors and its map's address
space."""

ENTRIES_KEPT_MAX = 10_000
"""Names of databases remembered with their entries."""

_CATALOG_MOVED = bytes(16)

_Files = tuple[str, Indexes, Writer, LmdbEnvironment]
"""What is to be closed when nobody uses a database any more, and its uuid."""

log = logging.getLogger("couchlite")


class Server:
    """All databases of the data directory at `path`; made when it is empty or missing. Any number of
    processes may have a directory open, each with one Server, opened after the last fork.

    :raises DataDirectoryError: the directory is foreign, of a newer format, damaged or can't be written.
    """

    def __init__(
        self, path: str | Path, *, started_with: Sections | None = None, config_file: Path | None = None
    ) -> None:
        self.path = Path(path)
        self.catalog = Catalog(self.path)
        self.config = Config(self.catalog.settings, started_with=started_with, file=config_file)
        self.disk = DiskGuard(self.path, self.config)
        self.uuid = self.catalog.uuid
        self.uuids = Uuids(self.config)
        self.counts = new_counts()
        """What the databases did in this process; see counts.py."""
        self._open: weakref.WeakValueDictionary[str, Database] = weakref.WeakValueDictionary()
        self._recent: OrderedDict[str, Database] = OrderedDict()
        self._recent_lock = threading.Lock()
        self._files = threading.Condition()
        self._files_open: set[str] = set()
        # A Database may be let go by the garbage collector, in any thread and at any moment, also while that
        # thread holds a lock that closing needs; so a thread of its own closes the files.
        self._let_go: queue.SimpleQueue[_Files | None] = queue.SimpleQueue()
        self._closer = threading.Thread(target=self._close_what_is_let_go, name="closer", daemon=True)
        self._closer.start()
        self._unlogged: set[str] = set()
        self._hearing: list[Callable[[str, int], None]] = []
        self._catalog_seen = 0
        self._settings_seen = -1
        self._uuids_seen: set[str] = set()
        self._entries: tuple[int, dict[str, Entry]] = (-1, {})
        self._doorbell = Doorbell(self.path / "run", self._rung, self._poll)
        self._doorbell.listen()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def names(self) -> list[str]:
        """All databases, in byte order."""
        return self.catalog.names()

    @property
    def open_count(self) -> int:
        """How many databases this process has open."""
        return len(self._open)

    def create(self, name: str, *, partitioned: bool = False, shards: int = 2) -> Database:
        """:raises IllegalDatabaseName: :raises DatabaseExists:"""
        self.disk.check_write()
        props: dict[str, Any] = {"q": shards}
        if partitioned:
            props["partitioned"] = True
        entry = self.catalog.add(name, props, fill=self._lay_out)
        self._doorbell.ring(_CATALOG_MOVED)
        return self._database(entry)

    def restore(self, name: str, props: dict[str, Any], *, fill: Callable[[Entry, Path], None]) -> None:
        """Add a database whose files `fill` makes in an empty folder. :raises DatabaseExists:"""
        self.catalog.add(name, props, fill=fill)
        self._doorbell.ring(_CATALOG_MOVED)

    def open(self, name: str) -> Database:
        """:raises DatabaseNotFound:"""
        number, entries = self._entries
        now = self.catalog.beacon.number()
        if number != now or len(entries) > ENTRIES_KEPT_MAX:
            entries = {}
            self._entries = now, entries
        entry = entries.get(name)
        if entry is None:
            entry = entries[name] = self.catalog.find(name)
        return self._database(entry)

    def delete(self, name: str) -> None:
        """:raises DatabaseNotFound:"""
        entry = self.catalog.remove(name)
        self._forget(entry.uuid)
        self._doorbell.ring(_CATALOG_MOVED)
        self.catalog.folders.remove(entry.uuid)

    def _partition_bytes_max(self) -> int:
        return self.config.integer("couchdb", "max_partition_size")

    def has_deleted(self, database: Database) -> bool:
        """Whether a database that was open is no more, even if there is another of its name by now."""
        return not self._lists(database.name, database.uuid)

    def _lists(self, name: str, uuid: str) -> bool:
        try:
            return self.catalog.find(name).uuid == uuid
        except DatabaseNotFound:
            return False

    def tasks(self) -> list[dict[str, Any]]:
        """Long work under way in any process that has this directory open, oldest first."""
        return tasks.listed(self.path / "run")

    def resolvers(self, name: str) -> dict[str, Any]:
        """How the conflicts of a database are resolved; see docs/merging.md. :raises DatabaseNotFound:"""
        return resolver_settings.read(self.catalog, self.catalog.find(name))

    def set_resolvers(self, name: str, settings: Mapping[str, Any]) -> None:
        """:raises BadRequest: they can't be understood. :raises DatabaseNotFound:"""
        resolver_settings.write(self.catalog, self.catalog.find(name), settings)

    def hear(self, heard: Callable[[str, int], None]) -> None:
        """Have `heard(uuid, update sequence)` called after the commits of any process, or with "" when
        a database was created or deleted by another one. It is called in any thread and must be quick; some
        commits may never be heard (see Moves)."""
        self._hearing.append(heard)

    def unhear(self, heard: Callable[[str, int], None]) -> None:
        self._hearing.remove(heard)

    def wake_feeds(self) -> None:
        """Let every feed of this process look up from its wait: the server is about to stop."""
        for database in self._databases():
            database.feed.wake_all()

    def close(self) -> None:
        """Commit what is queued and close everything; no database may be used any more."""
        self._doorbell.close()
        for database in self._databases():
            database.mark_gone()
            self._close_files(database.uuid, database.indexes, database.writer, database.engine)
        self._log_updates()
        self._recent.clear()
        self._let_go.put(None)
        self._closer.join()
        self.catalog.close()

    def _lay_out(self, entry: Entry, path: Path) -> None:
        """Make an empty database in its folder, before the catalog names it."""
        rules = security.default(self.config.text("couchdb", "default_security"))
        has_rules = rules != security.ADMINS_ONLY and not entry.name.startswith("_")
        first = [(Space.META, SECURITY_KEY, jsontext.dumps(rules))] if has_rules else []
        try:
            (path / BLOBS_DIRECTORY).mkdir()
            (path / STORE_DIRECTORY).mkdir()
            lay_out(path / STORE_DIRECTORY / FIRST, Space, first)
        except OSError as error:
            raise storage_failure(error) from error

    def _database(self, entry: Entry) -> Database:
        """The process's one Database of an entry: kept open while it is in use or among the recent ones."""
        database = self._open.get(entry.uuid)
        if database is None:
            database = self._open_files(entry)
        if database.gone:
            raise DatabaseNotFound()
        released = None  # dropped outside the lock: closing files may wait for a commit
        with self._recent_lock:
            self._recent[entry.uuid] = database
            self._recent.move_to_end(entry.uuid)
            if len(self._recent) > OPEN_DATABASES_MAX:
                released = self._recent.popitem(last=False)
        del released
        return database

    def _open_files(self, entry: Entry) -> Database:
        path = self.catalog.folders.path(entry.uuid)
        with self._files:
            database = self._open.get(entry.uuid)
            if database is not None:
                return database
            # LMDB forbids to open files twice, so the finalizer of the last Database must be through.
            self._files.wait_for(lambda: entry.uuid not in self._files_open)
            if not path.exists():
                raise DatabaseNotFound()
            try:
                database = Database(
                    entry,
                    path,
                    moved=self._moved,
                    disk=self.disk,
                    partition_bytes_max=self._partition_bytes_max,
                    gzip_policy=self._gzip_policy,
                    counts=self.counts,
                )
            except (OSError, DataDirectoryError):
                if not self._lists(entry.name, entry.uuid):  # its files are being removed
                    raise DatabaseNotFound() from None
                raise
            self._files_open.add(entry.uuid)
            self._open[entry.uuid] = database
            files = (entry.uuid, database.indexes, database.writer, database.engine)
            weakref.finalize(database, self._let_go.put, files)
            if not self._lists(entry.name, entry.uuid):  # deleted already: nobody will tell
                database.mark_gone()
            return database

    def _gzip_policy(self) -> GzipPolicy:
        """Which attachments are compressed, by the section [attachments]."""
        level = self.config.integer("attachments", "compression_level")
        return GzipPolicy(level, self.config.text("attachments", "compressible_types"))

    def _close_what_is_let_go(self) -> None:
        while (files := self._let_go.get()) is not None:
            self._close_files(*files)

    def _close_files(self, uuid: str, indexes: Indexes, writer: Writer, engine: LmdbEnvironment) -> None:
        """Nobody uses a Database any more."""
        indexes.close()
        writer.close()
        engine.close()
        with self._files:
            self._files_open.discard(uuid)
            self._files.notify_all()

    def _forget(self, uuid: str) -> None:
        """A database was deleted: who still uses it finds out, and its files close when the last lets go.

        It stays listed as open until then. Somebody who comes with an entry read before would otherwise wait
        for its files to close: in an event loop for ever, since nobody else gets on to let go of them.
        """
        database = self._open.get(uuid)
        with self._recent_lock:
            recent = self._recent.pop(uuid, None)
        del recent
        if database is not None:
            database.mark_gone()

    # news

    def _moved(self, entry: Entry, seq: int) -> None:
        """A commit of this process; called in the writer's thread, before those who wait for it are told."""
        if entry.name == users.database_name(self.config):
            self.catalog.beacon.change()
        self._unlogged.add(entry.name)
        for heard in self._hearing:
            heard(entry.uuid, seq)
        self._doorbell.ring(bytes.fromhex(entry.uuid) + u64(seq))

    def _databases(self) -> list[Database]:
        """Those that this process has open. (To iterate over the dictionary itself would fail when another
        thread opens one meanwhile.)"""
        return [database for ref in self._open.valuerefs() if (database := ref()) is not None]

    def _rung(self, payload: bytes) -> None:
        """Another process has committed, created or deleted."""
        try:
            self._heard(payload)
        except Exception:
            log.exception("news of another process was not understood")

    def _heard(self, payload: bytes) -> None:
        uuid = payload[:16]
        if uuid == _CATALOG_MOVED:
            self._drop_deleted()
            for heard in self._hearing:
                heard("", 0)
            return
        seq = from_u64(payload[16:24])
        for heard in self._hearing:
            heard(uuid.hex(), seq)
        database = self._open.get(uuid.hex())
        if database is not None:
            database.feed.moved(seq)

    def _poll(self) -> None:
        try:
            rest_indexes(index for database in self._databases() for index in database.indexes.opened())
            self._log_updates()
            for database in self._databases():
                if database.feed.has_waiters:
                    database.look_for_news()
            self._drop_deleted()
            self._look_for_settings()
        except Exception:
            log.exception("looking for news failed")

    def _log_updates(self) -> None:
        names = set()
        while self._unlogged:
            names.add(self._unlogged.pop())
        try:
            if names:
                self.catalog.log_updates(sorted(names))
        except InsufficientStorage:
            self._unlogged |= names  # later; whoever writes is told

    def _look_for_settings(self) -> None:
        """Make up for a process that died after it had changed a setting and before it told."""
        version = self.catalog.settings.stored_version()
        if version != self._settings_seen:
            self._settings_seen = version
            self.catalog.beacon.change()

    def _drop_deleted(self) -> None:
        """Let go of databases that another process has deleted."""
        version = self.catalog.last_update()
        if version != self._catalog_seen:
            self._catalog_seen = version
            known = self.catalog.uuids()
            if known != self._uuids_seen:
                self._uuids_seen = known
                self.catalog.beacon.change()
            for database in self._databases():
                if database.uuid not in known:
                    self._forget(database.uuid)
