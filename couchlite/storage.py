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
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from enum import IntEnum
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from .engine import Batch, MustGrow, Reader
from .errors import DataDirectoryError, InsufficientStorage

T = TypeVar("T")

MAP_SIZE_START_BYTES = 1 << 28
"""Address space, not disk. Small, since a 39-bit kernel (Raspberry Pi) has 512 GiB for all databases
together; the map doubles whenever it is full."""
SEAL = b"sealed"
"""Its value is the number of the generation that follows."""
SEAL_POLL_S = 0.005
RECLAIM_MIN_BYTES = 1 << 20
RECLAIM_MIN_SHARE = 0.3
"""Free pages are used again by later writes, so a little of them is no reason to copy a store."""
SCAN_CHUNK_PAIRS_MAX = 256
"""A scan to a given end reads so far ahead at most."""
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

    def get_many(self, space: IntEnum, keys: Iterable[bytes]) -> list[bytes | None]:
        get, db = self._txn.get, self._spaces[space]
        return [get(key, None, db) for key in keys]  # type: ignore[misc] # no buffers

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
    return chain.from_iterable(_chunks_until(pairs, ended))


def _chunks_until(
    pairs: Iterator[tuple[bytes, bytes]], ended: Callable[[bytes], bool]
) -> Iterator[Iterable[tuple[bytes, bytes]]]:
    """Pairs before the end in growing chunks: a long scan makes no Python call for each, and a short one
    reads hardly ahead."""
    size = 1
    while chunk := list(islice(pairs, size)):
        if ended(chunk[-1][0]):
            yield takewhile(lambda pair: not ended(pair[0]), chunk)
            return
        yield chunk
        size = min(2 * size, SCAN_CHUNK_PAIRS_MAX)


class LmdbBatch:
    """A write transaction."""

    __slots__ = ("_spaces", "_txn", "writes")

    def __init__(self, environment: LmdbEnvironment, txn: lmdb.Transaction) -> None:
        self._txn = txn
        self._spaces = environment.spaces
        self.writes = 0

    def get(self, space: IntEnum, key: bytes) -> bytes | None:
        return self._txn.get(key, db=self._spaces[space])  # type: ignore[return-value] # no buffers

    def get_many(self, space: IntEnum, keys: Iterable[bytes]) -> list[bytes | None]:
        get, db = self._txn.get, self._spaces[space]
        return [get(key, None, db) for key in keys]  # type: ignore[misc] # no buffers

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
    """LMDB environments in the directory `path`, one LMDB database for each member of `spaces`; the first of
    them also takes this class's own mark.

    LMDB never gives space back, so `reclaim` writes a compact copy, the next generation, into a numbered
    directory beside the current one: it seals the current generation (from then on nobody writes to it),
    copies, and lets the copy appear by a rename. Every transaction looks for the seal and moves on to the
    successor. A seal without a successor whose maker has died is lifted by the next writer.

    :raises DataDirectoryError: the path can't be opened or is no LMDB environment.
    """

    def __init__(self, path: Path, spaces: type[IntEnum], *, create: bool = False) -> None:
        self.path = path
        self._names = [space.name.lower().encode() for space in spaces]
        self._meta = next(iter(spaces))
        self._env: lmdb.Environment
        self._generation = 0
        self._gate = threading.Condition()
        self._open_transactions = 0
        self._busy = False
        if create and not _newest_generation(path):
            (path / "1").mkdir()
        self._open_newest()

    def read(self) -> AbstractContextManager[Reader]:
        while True:
            self._enter()
            try:
                txn = self._env.begin()
                seal = txn.get(SEAL, db=self.spaces[0])
                if seal is None or not (self.path / bytes(seal).decode()).exists():
                    return LmdbReader(self, txn)
                txn.abort()
            except lmdb.MapResizedError:
                new_size: int | None = 0
            except BaseException:
                self.leave()
                raise
            else:
                new_size = None
            self.leave()
            self._alone(self._open_newest if new_size is None else lambda: self._env.set_mapsize(0))

    def write(self, function: Callable[[Batch], T]) -> T:
        return self._write(function, sealed_too=False)

    def _write(self, function: Callable[[Batch], T], *, sealed_too: bool) -> T:
        while True:
            self._enter()
            new_size: int | None = None
            try:
                with self._env.begin(write=True) as txn:
                    if sealed_too or txn.get(SEAL, db=self.spaces[0]) is None:
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
            if new_size is not None:
                self._alone(partial(self._env.set_mapsize, new_size))
            else:
                self._await_successor()

    def size_bytes(self) -> int:
        return _file_size(self._data_file)

    def reclaim(self) -> int:
        size = self.size_bytes()
        unused = size - self._used_bytes()
        if unused < max(RECLAIM_MIN_BYTES, size * RECLAIM_MIN_SHARE):
            return 0
        held = self._hold_seal_lock()
        if held is None:
            return 0
        try:
            self._write_successor()
        finally:
            os.close(held)
        return size - self.size_bytes()

    def close(self) -> None:
        with self._gate:
            self._gate.wait_for(lambda: self._open_transactions == 0)
            self._env.close()

    # transactions are counted, and sometimes none may be open

    def _enter(self) -> None:
        with self._gate:
            while self._busy:
                self._gate.wait()
            self._open_transactions += 1

    def leave(self) -> None:
        """Called by a reader when it ends."""
        with self._gate:
            self._open_transactions -= 1
            if self._open_transactions == 0:
                self._gate.notify_all()

    def _alone(self, change: Callable[[], object]) -> None:
        """Run `change` while this process has no transaction; when somebody else is at it, wait for them."""
        with self._gate:
            if self._busy:
                self._gate.wait_for(lambda: not self._busy)
                return
            self._busy = True
            try:
                self._gate.wait_for(lambda: self._open_transactions == 0)
                change()
            finally:
                self._busy = False
                self._gate.notify_all()

    # generations

    def _open_newest(self) -> None:
        """Open the newest generation, instead of the one that is open."""
        newest = _newest_generation(self.path)
        if newest == 0:
            raise DataDirectoryError(f"{self.path} holds no store")
        if newest == self._generation:
            return
        if self._generation:
            self._env.close()
        directory = self.path / str(newest)
        self._generation = newest
        self._data_file = directory / "data.mdb"
        try:
            self._env = lmdb.open(
                str(directory),
                map_size=max(MAP_SIZE_START_BYTES, _file_size(self._data_file)),
                max_dbs=len(self._names),
                max_readers=MAX_READERS,
                create=newest == 1,
            )
            self._env.reader_check()
            # One transaction for all: each handle opened by itself would be a commit of its own.
            with self._env.begin(write=True) as txn:
                self.spaces: list[Any] = [self._env.open_db(name, txn=txn) for name in self._names]
        except lmdb.Error as error:
            raise _open_error(self.path, error) from error

    def _write_successor(self) -> None:
        """The lock is held: seal, copy, show the copy, move on to it, remove the old one."""
        old, successor = self.path / str(self._generation), self.path / str(self._generation + 1)
        draft = self.path / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        self._mark(str(self._generation + 1).encode())
        try:
            draft.mkdir()
            with self.read():  # so that nobody closes the environment meanwhile
                self._env.copy(str(draft), compact=True)
            self._lift_seal_of(draft)
            os.rename(draft, successor)
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            self._mark(None)
            if isinstance(error, lmdb.Error | OSError):
                raise InsufficientStorage(f"the store can't be made smaller: {error}") from error
            raise
        _sync_directory(self.path)
        self._alone(self._open_newest)
        shutil.rmtree(old, ignore_errors=True)

    def _mark(self, seal: bytes | None) -> None:
        def run(batch: Batch) -> None:
            if seal is None:
                batch.delete(self._meta, SEAL)
            else:
                batch.put(self._meta, SEAL, seal)

        self._write(run, sealed_too=True)

    def _lift_seal_of(self, draft: Path) -> None:
        size = _file_size(draft / "data.mdb") + MAP_SIZE_START_BYTES
        env = lmdb.open(str(draft), map_size=size, max_dbs=len(self._names))
        with env.begin(write=True) as txn:
            txn.delete(SEAL, db=env.open_db(self._names[0], txn=txn))
        env.close()

    def _await_successor(self) -> None:
        """The generation is sealed: wait for the next one, or lift the seal of a process that died."""
        if _newest_generation(self.path) > self._generation:
            self._alone(self._open_newest)
            return
        held = self._hold_seal_lock()
        if held is None:
            time.sleep(SEAL_POLL_S)
            return
        try:
            if _newest_generation(self.path) == self._generation:
                self._mark(None)
        finally:
            os.close(held)

    def _hold_seal_lock(self) -> int | None:
        """A descriptor that holds the right to seal until it is closed; None when somebody else has it."""
        held = os.open(self.path / "seal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            return None
        return held

    def _used_bytes(self) -> int:
        with self.read(), self._env.begin() as txn:
            stats = [txn.stat(space) for space in self.spaces]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return int((pages + len(stats)) * stats[0]["psize"])


def _newest_generation(path: Path) -> int:
    """0 when there is none."""
    return max((int(name) for name in os.listdir(path) if name.isdigit()), default=0)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _open_error(path: Path, error: lmdb.Error) -> DataDirectoryError:
    if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
        return DataDirectoryError(f"{path} is not a couchlite store or is damaged: {error}")
    return DataDirectoryError(f"{path} can't be opened: {error}")
