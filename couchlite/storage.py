"""LMDB behind the engine seam; nothing above knows of lmdb.

What must stay true here:
- A process opens an environment once (LMDB's locks forbid twice) and only after a fork, never before.
- Every transaction is counted, because the map may only be resized while none is open in this process. A
thread that
  holds a read transaction must not start a write: it could wait for itself.
- A commit is two fsyncs inside LMDB (pages, then the meta page); when it returned, the batch is on disk.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

import lmdb

from .engine import Batch, MustGrow, Reader
from .errors import DataDirectoryError, InsufficientStorage

T = TypeVar("T")

MAP_SIZE_START_BYTES = 1 << 28
"""Address space, not disk. Small, since a 39-bit kernel (Raspberry Pi) has 512 GiB for all databases
together; the map doubles whenever it is full."""
MAX_READERS = 1024
"""Slots for read transactions at one moment over all processes; each is 64 bytes of the lock file."""


class LmdbReader:
    """A read transaction; also the context manager that ends it."""

    __slots__ = ("_environment", "_spaces", "_txn")

    def __init__(self, environment: LmdbEnvironment, txn: lmdb.Transaction) -> None:
        self._environment = environment
        self._txn = txn
        self._spaces = environment.spaces

    def __enter__(self) -> LmdbReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._txn.abort()
        self._environment.leave()

    def get(self, space: IntEnum, key: bytes) -> bytes | None:
        return self._txn.get(key, db=self._spaces[space])  # type: ignore[return-value] # no buffers

    def scan(
        self, space: IntEnum, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return _scan(self._txn.cursor(db=self._spaces[space]), start, stop, reverse)


def _scan(
    cursor: lmdb.Cursor, start: bytes, stop: bytes | None, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    pairs: Iterator[tuple[bytes, bytes]]
    if reverse:
        found = cursor.prev() if stop is not None and cursor.set_range(stop) else cursor.last()
        if not found:
            return iter(())
        pairs = cursor.iterprev(keys=True, values=True)  # type: ignore[assignment] # no buffers
        return pairs if not start else _until(pairs, lambda key: key < start)
    if start:
        if not cursor.set_range(start):
            return iter(())
    elif not cursor.first():
        return iter(())
    pairs = cursor.iternext(keys=True, values=True)  # type: ignore[assignment] # no buffers
    return pairs if stop is None else _until(pairs, lambda key: key >= stop)


def _until(
    pairs: Iterator[tuple[bytes, bytes]], ended: Callable[[bytes], bool]
) -> Iterator[tuple[bytes, bytes]]:
    for pair in pairs:
        if ended(pair[0]):
            return
        yield pair


class LmdbBatch:
    """A write transaction."""

    __slots__ = ("_spaces", "_txn", "writes")

    def __init__(self, environment: LmdbEnvironment, txn: lmdb.Transaction) -> None:
        self._txn = txn
        self._spaces = environment.spaces
        self.writes = 0

    def get(self, space: IntEnum, key: bytes) -> bytes | None:
        return self._txn.get(key, db=self._spaces[space])  # type: ignore[return-value] # no buffers

    def scan(
        self, space: IntEnum, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return _scan(self._txn.cursor(db=self._spaces[space]), start, stop, reverse)

    def put(self, space: IntEnum, key: bytes, value: bytes) -> None:
        self.writes += 1
        try:
            self._txn.put(key, value, db=self._spaces[space])
        except lmdb.MapFullError as error:
            raise MustGrow from error

    def append(self, space: IntEnum, key: bytes, value: bytes) -> None:
        self.writes += 1
        try:
            self._txn.put(key, value, append=True, db=self._spaces[space])
        except lmdb.MapFullError as error:
            raise MustGrow from error

    def delete(self, space: IntEnum, key: bytes) -> bool:
        self.writes += 1
        try:
            return bool(self._txn.delete(key, db=self._spaces[space]))
        except lmdb.MapFullError as error:
            raise MustGrow from error


class LmdbEnvironment:
    """One LMDB environment with one LMDB database per member of `spaces`.

    :raises DataDirectoryError: the path can't be opened or is no LMDB environment.
    """

    def __init__(self, path: Path, spaces: type[IntEnum], *, create: bool = False) -> None:
        self.path = path
        self._gate = threading.Condition()
        self._open_transactions = 0
        self._resizing = False
        try:
            self._env = lmdb.open(
                str(path),
                map_size=max(MAP_SIZE_START_BYTES, _file_size(path / "data.mdb")),
                max_dbs=len(spaces),
                max_readers=MAX_READERS,
                create=create,
            )
            self._env.reader_check()
            self.spaces = [self._env.open_db(space.name.lower().encode(), create=create) for space in spaces]
        except lmdb.Error as error:
            raise _open_error(path, error) from error

    def read(self) -> AbstractContextManager[Reader]:
        self._enter()
        try:
            return LmdbReader(self, self._env.begin())
        except lmdb.MapResizedError:
            self.leave()
            self._resize(0)
            return self.read()
        except BaseException:
            self.leave()
            raise

    def write(self, function: Callable[[Batch], T]) -> T:
        while True:
            self._enter()
            try:
                with self._env.begin(write=True) as txn:
                    return function(LmdbBatch(self, txn))
            except (MustGrow, lmdb.MapFullError):
                new_size = self._env.info()["map_size"] * 2
            except lmdb.MapResizedError:
                new_size = 0
            except (lmdb.DiskError, OSError) as error:
                if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
                    raise InsufficientStorage() from error
                raise
            finally:
                self.leave()
            self._resize(new_size)

    def size_bytes(self) -> int:
        return _file_size(self.path / "data.mdb")

    def close(self) -> None:
        with self._gate:
            self._gate.wait_for(lambda: self._open_transactions == 0)
            self._env.close()

    def _enter(self) -> None:
        with self._gate:
            while self._resizing:
                self._gate.wait()
            self._open_transactions += 1

    def leave(self) -> None:
        """Called by a reader when it ends."""
        with self._gate:
            self._open_transactions -= 1
            if self._open_transactions == 0:
                self._gate.notify_all()

    def _resize(self, size: int) -> None:
        """Make the map `size` bytes, or with 0 what another process has made it."""
        with self._gate:
            if self._resizing:
                self._gate.wait_for(lambda: not self._resizing)
                return
            self._resizing = True
            try:
                self._gate.wait_for(lambda: self._open_transactions == 0)
                self._env.set_mapsize(size)
            finally:
                self._resizing = False
                self._gate.notify_all()


def _file_size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _open_error(path: Path, error: lmdb.Error) -> DataDirectoryError:
    if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
        return DataDirectoryError(f"{path} is not a couchlite store or is damaged: {error}")
    return DataDirectoryError(f"{path} can't be opened: {error}")
