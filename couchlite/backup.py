"""Backups: some databases, or a whole server, in one file, while others read and write.

    couchlite-backup.json         {"couchlite_backup": 1, "data_format": ..., "byte_order": ...,
                                  "made_at": ..., "made_by": ..., "whole_server": ...,
                                  "databases": [{"name", "folder", "props"}, ...]}
    server.json                   of a whole server: {"uuid": ..., "settings": {...}}
    databases/0001/blobs/<sha256> attachments that are files of their own
    databases/0001/store.mdb.zst  a compact LMDB copy of everything else, compressed by zstd
    checksums.json                see archive.py

Each database is shown as of one moment: LMDB's copy is a snapshot. It is made first, at the speed of the data
directory's own disk, into a nameless file there, so that a slow target does not keep the snapshot open, in
which time no page would be used again; only when there is no room for that it goes straight to the target.
While a database is backed up, no compaction of it begins, so that no attachment of the snapshot is swept.
View indexes are left out: they are built again.

What must stay true here: the file gets its name when it is whole, verified and on the disk. It never
replaces another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from .archive import MANIFEST, ArchiveReader, ArchiveWriter
from .compression import compressed
from .database import Database
from .disk import storage_failure, sync_directory
from .errors import BadRequest, DatabaseNotFound, InternalError
from .records import FORMAT_VERSION
from .server import Server
from .tasks import Task
from .version import VERSION

BACKUP_VERSION = 1
CHUNK_BYTES = 1 << 20
SPOOL_ROOM_SHARE = 1.1
"""Room for a copy is left alone unless there is that much more than the store takes."""
PAGE_BLOBS = 1000

Progress = Callable[[str, int, int], None]
"""Called with what is under way, how many bytes are done, and about how many there are."""


@dataclass(slots=True)
class Backup:
    """What was backed up."""

    path: Path
    databases: list[str] = field(default_factory=list)
    bytes: int = 0
    warnings: list[str] = field(default_factory=list)
    """Attachments that could not be read, and are not in the backup."""


def back_up(
    server: Server, target: Path, names: Sequence[str] | None = None, *, progress: Progress | None = None
) -> Backup:
    """Write a backup of the databases named, or of the whole server with its configuration and secrets.

    :raises BadRequest: `target` exists. :raises DatabaseNotFound: :raises CouchliteError: it can't be
        written.
    """
    wanted = server.names() if names is None else list(dict.fromkeys(names))
    for name in wanted:
        try:
            server.open(name)
        except DatabaseNotFound:
            raise DatabaseNotFound(f"there is no database {name!r}") from None
    try:
        with _named_when_whole(target) as file:
            run = _BackupRun(server, file, Backup(target), progress or (lambda _what, _done, _total: None))
            run.write(wanted, is_whole_server=names is None)
            run.verify()
        return run.done
    except OSError as error:
        raise storage_failure(error) from error


@contextlib.contextmanager
def _named_when_whole(target: Path) -> Iterator[BinaryIO]:
    """A file that appears at `target` when the context ends well; else nothing of it stays.

    A killed process leaves it under another name, where the next one takes it over.
    """
    if target.exists():
        raise BadRequest(f"{target} exists already")
    draft = target.with_name(target.name + ".partial")
    try:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadRequest(f"{draft} can't be written: {error.strerror}") from None
    with open(descriptor, "r+b", buffering=CHUNK_BYTES) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadRequest(f"{draft} is being written by another backup") from None
        try:
            file.truncate(0)
            yield file
            try:
                os.link(draft, target)
            except FileExistsError:
                raise BadRequest(f"{target} exists already") from None
            except OSError:  # a file system without links
                os.rename(draft, target)
            sync_directory(target.parent)
        finally:
            draft.unlink(missing_ok=True)


class _BackupRun:
    def __init__(self, server: Server, file: BinaryIO, done: Backup, progress: Progress) -> None:
        self._server = server
        self._file = file
        self._archive = ArchiveWriter(file)
        self.done = done
        self._progress = progress
        self._bytes = 0
        self._total = 0
        self._what = ""

    def write(self, names: Sequence[str], *, is_whole_server: bool) -> None:
        listed = []
        for number, name in enumerate(names, 1):
            with contextlib.suppress(DatabaseNotFound):
                database = self._server.open(name)
                self._total += database.info().file_bytes
                listed.append((database, f"databases/{number:04}"))
        self._archive.add_json(MANIFEST, _manifest([*listed], is_whole_server))
        if is_whole_server:
            self._archive.add_json("server.json", _server_facts(self._server))
        for database, folder in listed:
            self._what = database.name
            with Task(self._server.path / "run", "database_backup", database=database.name) as task:
                self._database(database, folder, task)
            self.done.databases.append(database.name)
        self._archive.finish()
        self.done.bytes = self._file.tell()
        self._file.flush()
        os.fsync(self._file.fileno())

    def verify(self) -> None:
        """Read all of it again. :raises DamagedBackup: the disk did not keep what it was given."""
        self._what, self._bytes, self._total = "verifying", 0, self.done.bytes
        ArchiveReader(self._file).verify(self._advance)

    def _database(self, database: Database, folder: str, task: Task) -> None:
        with database.without_compaction():
            with _copy_of_store(database) as copy:
                chunks = iter(lambda: copy.read(CHUNK_BYTES), b"")
                self._archive.add(f"{folder}/store.mdb.zst", compressed(self._watched(chunks, task)))
            # After the snapshot, so with all that it needs; what came since is swept when that is compacted.
            for keys in _blob_pages(database):
                for key in keys:
                    self._blob(database, folder, key, task)

    def _blob(self, database: Database, folder: str, key: bytes, task: Task) -> None:
        try:
            with database.engine.read() as reader:
                source = database.blobs.open(reader, key)
            with source:
                self._archive.add(f"{folder}/blobs/{key.hex()}", self._watched(source.chunks(), task))
        except InternalError as error:
            self.done.warnings.append(f"{database.name}: {error.reason}")

    def _watched(self, chunks: Iterator[bytes], task: Task) -> Iterator[bytes]:
        for chunk in chunks:
            self._advance(len(chunk))
            task.update(bytes_done=self._bytes, progress=min(99, 100 * self._bytes // max(1, self._total)))
            yield chunk

    def _advance(self, count: int) -> None:
        self._bytes += count
        self._progress(self._what, self._bytes, max(self._total, self._bytes))


def _manifest(listed: list[tuple[Database, str]], is_whole_server: bool) -> dict[str, Any]:
    return {
        "couchlite_backup": BACKUP_VERSION,
        "data_format": FORMAT_VERSION,
        "byte_order": sys.byteorder,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_by": f"couchlite {VERSION}",
        "whole_server": is_whole_server,
        "databases": [
            {"name": database.name, "folder": folder, "props": database.props} for database, folder in listed
        ],
    }


def _server_facts(server: Server) -> dict[str, Any]:
    return {"uuid": server.uuid, "settings": dict(server.catalog.settings.items())}


@contextlib.contextmanager
def _copy_of_store(database: Database) -> Iterator[BinaryIO]:
    """A compact copy of a database's store, to be read."""
    room = shutil.disk_usage(database.path).free
    if room < database.engine.size_bytes() * SPOOL_ROOM_SHARE:
        with _piped(database) as pipe:
            yield pipe
        return
    with tempfile.TemporaryFile(dir=database.path) as spool:
        database.engine.copy_to(spool.fileno())
        spool.seek(0)
        yield spool


@contextlib.contextmanager
def _piped(database: Database) -> Iterator[BinaryIO]:
    """The same, without taking any room."""
    failures: list[BaseException] = []

    def copy() -> None:
        try:
            database.engine.copy_to(sink)
        except BaseException as error:
            failures.append(error)
        finally:
            os.close(sink)

    source, sink = os.pipe()
    thread = threading.Thread(target=copy, name=f"backup {database.name}", daemon=True)
    thread.start()
    try:
        with open(source, "rb", buffering=0) as pipe:
            yield _Piped(pipe, failures, thread)  # type: ignore[misc]
    finally:
        thread.join()


class _Piped:
    """Raises what the other end met, instead of ending as if all had been said."""

    def __init__(self, pipe: Any, failures: list[BaseException], thread: threading.Thread) -> None:
        self._pipe = pipe
        self._failures = failures
        self._thread = thread

    def read(self, size: int) -> bytes:
        chunk: bytes = self._pipe.read(size)
        if not chunk:
            self._thread.join()
            if self._failures:
                raise self._failures[0]
        return chunk


def _blob_pages(database: Database) -> Iterator[list[bytes]]:
    """The addresses of the attachments that are files of their own, a short snapshot a page."""
    after = b""
    while True:
        with database.engine.read() as reader:
            keys, last = database.blobs.page_of_files(reader, after, PAGE_BLOBS)
        yield keys
        if last is None:
            return
        after = last
