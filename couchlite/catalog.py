"""What one data directory knows beside its databases: which there are, its identity, its settings, changes.

Layout:
    catalog.mdb/            this catalog, and the beacon that tells of its changes
    db/<uuid>/store.mdb/    a database's keyspaces
    db/<uuid>/blobs/        its large attachments
    run/                    sockets of the processes that have the directory open

A database is looked up here whenever the beacon has changed, so that what another process created or deleted
is seen at once.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .beacon import Beacon
from .engine import Batch, CatalogSpace
from .errors import DatabaseExists, DatabaseNotFound, DataDirectoryError, IllegalDatabaseName
from .folders import Folders
from .records import FORMAT_VERSION, decode_fields, encode_fields, from_u64, u64
from .storage import LmdbEnvironment

T = TypeVar("T")

CATALOG_DIRECTORY = "catalog.mdb"
SYSTEM_NAMES = frozenset(("_users", "_replicator", "_global_changes", "_metadata", "_dbs", "_nodes"))
_NAME = re.compile(r"[a-z][a-z0-9_$()+/-]*(\.[0-9]{10,})?\Z")
MAX_NAME_LENGTH = 238
"""CouchDB's limit."""
UPDATES_KEPT = 10_000
"""Rows of the `_db_updates` log; it names databases, so older rows tell a reader nothing that a full look
would not."""

RESOLVERS_PREFIX = "resolvers/"
"""Of settings: how the conflicts of the database with that uuid are resolved. They go with the database."""

_VERSION = b"settings_version"
_UPDATES_TAG = b"updates_tag"


@dataclass(frozen=True, slots=True)
class Entry:
    """A database of the catalog."""

    name: str
    uuid: str
    created_s: float
    props: dict[str, Any]


def validate_name(name: str) -> None:
    if name in SYSTEM_NAMES:
        return
    last = name.rsplit("/", 1)[-1]
    if last in SYSTEM_NAMES and _NAME.match(name):
        return
    if not _NAME.match(name) or len(name) > MAX_NAME_LENGTH:
        raise IllegalDatabaseName(name)


class Catalog:
    """The catalog of the data directory at `path`, which is made one when it is empty or missing.

    :raises DataDirectoryError: the directory holds something else, a newer format, or can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        environment = path / CATALOG_DIRECTORY
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not environment.exists():
                strangers = [
                    entry for entry in os.listdir(path) if not entry.startswith((".", "run", "serve"))
                ]
                if strangers:
                    raise DataDirectoryError(
                        f"{path} is not a couchlite data directory: "
                        f"it holds {sorted(strangers)[0]!r} but no catalog"
                    )
                environment.mkdir(exist_ok=True)
            (path / "db").mkdir(exist_ok=True)
            (path / "run").mkdir(exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise DataDirectoryError(f"{path} is not a directory") from error
        except OSError as error:
            raise DataDirectoryError(f"{path} can't be written: {error.strerror}") from error
        self.folders = Folders(path / "db")
        self._engine = LmdbEnvironment(environment, CatalogSpace, create=True)
        self.uuid = self._identify()
        self.beacon = Beacon(environment / "beacon")
        self.settings = Settings(self._engine, self.beacon)
        self.folders.sweep(self.uuids)

    def _identify(self) -> str:
        def run(batch: Batch) -> tuple[int, str]:
            stored = batch.get(CatalogSpace.META, b"format")
            if stored is None:
                batch.put(CatalogSpace.META, b"format", u64(FORMAT_VERSION))
                batch.put(CatalogSpace.META, b"uuid", secrets.token_hex(16).encode())
            version = FORMAT_VERSION if stored is None else from_u64(stored)
            uuid = batch.get(CatalogSpace.META, b"uuid") or b""
            return version, uuid.decode()

        with self._engine.read() as reader:
            known = reader.get(CatalogSpace.META, b"format"), reader.get(CatalogSpace.META, b"uuid")
        version, uuid = (
            self._engine.write(run)
            if None in known
            else (from_u64(known[0] or b""), (known[1] or b"").decode())
        )
        if version != FORMAT_VERSION:
            self._engine.close()
            raise DataDirectoryError(
                f"{self.path} has format {version}; this couchlite reads format {FORMAT_VERSION} only"
            )
        return uuid

    @property
    def updates_tag(self) -> str:
        """Ends the sequences of the log behind `_db_updates`: a restored catalog counts anew."""
        with self._engine.read() as reader:
            stored = reader.get(CatalogSpace.META, _UPDATES_TAG)
        return self.uuid[:12] if stored is None else stored.decode()

    def adopt(self, uuid: str, settings: Mapping[str, str]) -> None:
        """Take over the identity and the settings of a server that is restored here."""

        def run(batch: Batch) -> None:
            batch.put(CatalogSpace.META, b"uuid", uuid.encode())
            batch.put(CatalogSpace.META, _UPDATES_TAG, secrets.token_hex(6).encode())
            for key, value in settings.items():
                batch.put(CatalogSpace.SETTINGS, key.encode(), value.encode())
            _count_version(batch)

        self._engine.write(run)
        self.uuid = uuid
        self.beacon.change()

    def find(self, name: str) -> Entry:
        """:raises DatabaseNotFound:"""
        with self._engine.read() as reader:
            row = reader.get(CatalogSpace.DATABASES, name.encode("utf-8", "replace")[:500] or b"\0")
        if row is None:
            raise DatabaseNotFound()
        return _entry(name, row)

    def names(self) -> list[str]:
        """All databases, in byte order of their names."""
        with self._engine.read() as reader:
            return [key.decode() for key, _row in reader.scan(CatalogSpace.DATABASES)]

    def uuids(self) -> set[str]:
        with self._engine.read() as reader:
            return {decode_fields(row)[0] for _key, row in reader.scan(CatalogSpace.DATABASES)}

    def add(self, name: str, props: dict[str, Any], *, fill: Callable[[Entry, Path], None]) -> Entry:
        """Register a new database; `fill` makes the files in its folder before anybody can see it.

        :raises IllegalDatabaseName: :raises DatabaseExists:
        """
        validate_name(name)
        self._refuse_known(name)
        entry = Entry(name, secrets.token_hex(16), time.time(), props)

        def run(batch: Batch) -> None:
            if batch.get(CatalogSpace.DATABASES, name.encode()) is not None:
                raise DatabaseExists()
            row = encode_fields([entry.uuid, entry.created_s, props])
            batch.put(CatalogSpace.DATABASES, name.encode(), row)
            _log(batch, name, "created")

        with self.folders.new(entry.uuid, partial(fill, entry)):
            self._engine.write(run)
        self.beacon.change()
        return entry

    def _refuse_known(self, name: str) -> None:
        with self._engine.read() as reader:
            if reader.get(CatalogSpace.DATABASES, name.encode()) is not None:
                raise DatabaseExists()

    def remove(self, name: str) -> Entry:
        """Unregister a database. :raises DatabaseNotFound:"""

        def run(batch: Batch) -> Entry:
            row = batch.get(CatalogSpace.DATABASES, name.encode("utf-8", "replace")[:500] or b"\0")
            if row is None:
                raise DatabaseNotFound()
            batch.delete(CatalogSpace.DATABASES, name.encode())
            _log(batch, name, "deleted")
            entry = _entry(name, row)
            if batch.delete(CatalogSpace.SETTINGS, (RESOLVERS_PREFIX + entry.uuid).encode()):
                _count_version(batch)
            return entry

        self.folders.doom(self.find(name).uuid)
        entry = self._engine.write(run)
        self.beacon.change()
        return entry

    def log_updates(self, names: list[str]) -> None:
        """Note for `_db_updates` that these databases have changed."""

        def run(batch: Batch) -> None:
            for name in names:
                _log(batch, name, "updated")

        self._engine.write(run)

    def updates(self, since: int, limit: int | None = None) -> list[tuple[int, str, str]]:
        """(sequence, database name, "created" | "updated" | "deleted"), oldest first, each database once."""
        rows: list[tuple[int, str, str]] = []
        with self._engine.read() as reader:
            for key, row in reader.scan(CatalogSpace.UPDATES, u64(since + 1)):
                if limit is not None and len(rows) >= limit:
                    break
                kind, name = decode_fields(row)
                rows.append((from_u64(key), name, kind))
        return rows

    def last_update(self) -> int:
        with self._engine.read() as reader:
            for key, _row in reader.scan(CatalogSpace.UPDATES, reverse=True):
                return from_u64(key)
        return 0

    def close(self) -> None:
        self._engine.close()
        self.beacon.close()


def _entry(name: str, row: bytes) -> Entry:
    uuid, created_s, props = decode_fields(row)
    return Entry(name, uuid, created_s, props)


def _log(batch: Batch, name: str, kind: str) -> None:
    """Append to the update log; a database has one row, its newest."""
    last = next(iter(batch.scan(CatalogSpace.UPDATES, reverse=True)), None)
    number = 1 if last is None else from_u64(last[0]) + 1
    key = u64(number)
    # Deleted only now: a number that was seen must not come again, even when the last row was this one's.
    previous = batch.get(CatalogSpace.META, b"update:" + name.encode())
    if previous is not None:
        batch.delete(CatalogSpace.UPDATES, previous)
    batch.append(CatalogSpace.UPDATES, key, encode_fields([kind, name]))
    batch.put(CatalogSpace.META, b"update:" + name.encode(), key)
    if number > UPDATES_KEPT:
        oldest = next(iter(batch.scan(CatalogSpace.UPDATES)))
        if from_u64(oldest[0]) <= number - UPDATES_KEPT:
            batch.delete(CatalogSpace.UPDATES, oldest[0])
            batch.delete(CatalogSpace.META, b"update:" + decode_fields(oldest[1])[1].encode())


class Settings:
    """A persistent map of short strings, shared by all processes; configuration and secrets live in it."""

    def __init__(self, engine: LmdbEnvironment, beacon: Beacon) -> None:
        self._engine = engine
        self._beacon = beacon
        self._known = (-1, 0)  # the beacon's number, and the version then

    def get(self, key: str) -> str | None:
        with self._engine.read() as reader:
            value = reader.get(CatalogSpace.SETTINGS, key.encode())
        return None if value is None else value.decode()

    def items(self, prefix: str = "") -> Iterator[tuple[str, str]]:
        with self._engine.read() as reader:
            start = prefix.encode()
            rows = list(reader.scan(CatalogSpace.SETTINGS, start, start + b"\xff" if start else None))
        return ((key.decode(), value.decode()) for key, value in rows)

    def set(self, key: str, value: str) -> None:
        def run(batch: Batch) -> None:
            batch.put(CatalogSpace.SETTINGS, key.encode(), value.encode())
            _count_version(batch)

        self._engine.write(run)
        self._beacon.change()

    def delete(self, key: str) -> bool:
        def run(batch: Batch) -> bool:
            _count_version(batch)
            return batch.delete(CatalogSpace.SETTINGS, key.encode())

        was_there = self._engine.write(run)
        self._beacon.change()
        return was_there

    def version(self) -> int:
        """Grows with every change, whichever process makes it. Cheap enough for every request."""
        number, version = self._known
        now = self._beacon.number()
        if number != now:
            version = self.stored_version()
            self._known = now, version
        return version

    def stored_version(self) -> int:
        """The same, from the store itself."""
        with self._engine.read() as reader:
            stored = reader.get(CatalogSpace.META, _VERSION)
        return 0 if stored is None else from_u64(stored)


def _count_version(batch: Batch) -> None:
    stored = batch.get(CatalogSpace.META, _VERSION)
    batch.put(CatalogSpace.META, _VERSION, u64(1 if stored is None else from_u64(stored) + 1))
