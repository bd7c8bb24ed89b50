"""LMDB behind the engine seam; nothing above knows of lmdb.

What must stay true here:
- A process opens an environment once (LMDB's locks forbid twice) and only after a fork, never before.
- Every transaction is counted, because the map may only be resized while none is open in this process. A
  thread that holds a read transaction must not start a write: it could wait for itself.
- A commit is two fsyncs inside LMDB (pages, then the meta page); when it returned, the batch is on disk.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from .disk import NO_SPACE, is_full, sync_directory, sync_tree
from .engine import Batch, Keyspace, MustGrow, Reader
from .errors import CouchliteError, DataDirectoryError, InsufficientStorage, InternalError
from .lmdb_pages import is_truncated
from .page_check import examine
from .seal import SEAL_BYTES, is_whole, seal

T = TypeVar("T")

MAP_SIZE_START_BYTES = 1 << 28
"""Address space, not disk. Small, since a 39-bit kernel (Raspberry Pi) has 512 GiB for all databases
together; the map doubles whenever it is full."""
FIRST = "1"
"""The first generation's directory."""
SEAL = b"sealed"
"""Its value is the number of the generation that follows."""
SEAL_POLL_S = 0.005
RECLAIM_MIN_BYTES = 1 << 20
RECLAIM_MIN_SHARE = 0.3
"""Free pages are used again by later writes, so a little of them is no reason to copy a store."""
SCAN_CHUNK_PAIRS_MAX = 256
"""A scan to a given end reads so far ahead at most."""
MAX_READERS = 510
"""Slots for read transactions at one moment over all processes."""
LOCK_FILE_BYTES = (MAX_READERS + 2) * 64
"""As LMDB lays it out. The space is taken at once: a page of it that can't be had later, on a full disk,
would kill the process that touches it (SIGBUS)."""
DEAD_READERS_CHECK_S = 30.0
"""A killed process leaves its snapshot behind, because of which no page is used again: for so long."""

_opening = threading.Lock()
"""lmdb refuses a file that the process has open, by its inode, and forgets an inode only after the file is
closed: until then a new environment whose file got the inode of a deleted one would be refused."""


class _Transaction:
    """What can be read in a transaction of either kind."""

    __slots__ = ("_environment", "_sealed", "_spaces", "_txn")

    def __init__(self, environment: LmdbEnvironment, txn: lmdb.Transaction) -> None:
        self._environment = environment
        self._txn = txn
        self._spaces = environment.spaces
        self._sealed = environment.sealed

    def get(self, space: Keyspace, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=self._spaces[space])  # type: ignore[assignment] # no buffers
        return self._unsealed(key, value) if self._sealed[space] and value is not None else value

    def get_many(self, space: Keyspace, keys: Iterable[bytes]) -> list[bytes | None]:
        if self._sealed[space]:
            return [self.get(space, key) for key in keys]
        get, db = self._txn.get, self._spaces[space]
        return [get(key, None, db) for key in keys]  # type: ignore[misc] # no buffers

    def scan(
        self, space: Keyspace, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        pairs = _scan(self._txn.cursor(db=self._spaces[space]), start, stop, reverse)
        return ((key, self._unsealed(key, value)) for key, value in pairs) if self._sealed[space] else pairs

    def damaged(self, space: Keyspace) -> list[bytes]:
        pairs = _scan(self._txn.cursor(db=self._spaces[space]), b"", None, False)
        return [key for key, value in pairs if not is_whole(value, key)]

    def _unsealed(self, key: bytes, value: bytes) -> bytes:
        if not is_whole(value, key):
            raise InternalError(f"{self._environment.path} is damaged: a record does not fit its checksum")
        return value[:-SEAL_BYTES]


class LmdbReader(_Transaction):
    """A read transaction; also the context manager that ends it."""

    __slots__ = ()

    def __enter__(self) -> LmdbReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._txn.abort()
        self._environment.leave()


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


class LmdbBatch(_Transaction):
    """A write transaction."""

    __slots__ = ("writes",)

    def __init__(self, environment: LmdbEnvironment, txn: lmdb.Transaction) -> None:
        super().__init__(environment, txn)
        self.writes = 0

    def put(self, space: Keyspace, key: bytes, value: bytes) -> None:
        self.writes += 1
        try:
            self._txn.put(key, self._to_store(space, key, value), db=self._spaces[space])
        except lmdb.Error as error:
            raise self._environment.write_error(error) from error

    def append(self, space: Keyspace, key: bytes, value: bytes) -> None:
        self.writes += 1
        try:
            self._txn.put(key, self._to_store(space, key, value), append=True, db=self._spaces[space])
        except lmdb.Error as error:
            raise self._environment.write_error(error) from error

    def put_all(self, space: Keyspace, pairs: Sequence[tuple[bytes, bytes]], *, append: bool = False) -> None:
        self.writes += len(pairs)
        if self._sealed[space]:
            pairs = [(key, seal(value, key)) for key, value in pairs]
        try:
            self._txn.cursor(db=self._spaces[space]).putmulti(pairs, append=append)
        except lmdb.Error as error:
            raise self._environment.write_error(error) from error

    def _to_store(self, space: Keyspace, key: bytes, value: bytes) -> bytes:
        return seal(value, key) if self._sealed[space] else value

    def delete(self, space: Keyspace, key: bytes) -> bool:
        self.writes += 1
        try:
            return bool(self._txn.delete(key, db=self._spaces[space]))
        except lmdb.Error as error:
            raise self._environment.write_error(error) from error


class LmdbEnvironment:
    """LMDB environments in the directory `path`, one LMDB database for each member of `spaces`; the first of
    them also takes this class's own mark.

    LMDB never gives space back, so `reclaim` writes a compact copy, the next generation, into a numbered
    directory beside the current one: it seals the current generation (from then on nobody writes to it),
    copies, and lets the copy appear by a rename. Every transaction looks for the seal and moves on to the
    successor. A seal without a successor whose maker has died is lifted by the next writer.

    :raises DataDirectoryError: the path can't be opened or is no LMDB environment.
    """

    def __init__(self, path: Path, spaces: type[Keyspace], *, create: bool = False) -> None:
        self.path = path
        self._spaces_type = spaces
        self.sealed = [space.is_sealed for space in spaces]
        self._meta = next(iter(spaces))
        self._env: lmdb.Environment
        self._generation = 0
        self._gate = threading.Condition()
        self._open_transactions = 0
        self._busy = False
        self._must_reopen = False
        """Before the next transaction: the environment is broken, or at rest."""
        self._readers_checked_at = 0.0
        if create:
            path.mkdir(exist_ok=True)
            self._write_first()
        self._open_newest()

    def read(self) -> AbstractContextManager[Reader]:
        while True:
            if self._must_reopen:
                self._alone(self._open_newest)
            self._enter()
            if self._must_reopen:  # put to rest meanwhile
                self.leave()
                continue
            new_size: int | None = None
            try:
                txn = self._env.begin()
                mark = txn.get(SEAL, db=self.spaces[0])
                if mark is None or not (self.path / bytes(mark[:-SEAL_BYTES]).decode()).exists():
                    return LmdbReader(self, txn)
                txn.abort()
            except lmdb.MapResizedError:
                new_size = 0
            except lmdb.PanicError:
                self._must_reopen = True
            except BaseException:
                self.leave()
                raise
            self.leave()
            self._alone(self._open_newest if new_size is None else partial(self._set_map_size, new_size))

    def write(self, function: Callable[[Batch], T]) -> T:
        return self._write(function, sealed_too=False)

    def _write(self, function: Callable[[Batch], T], *, sealed_too: bool) -> T:
        while True:
            if self._must_reopen:
                self._alone(self._open_newest)
            self._enter()
            if self._must_reopen:  # put to rest meanwhile
                self.leave()
                continue
            new_size: int | None = None
            try:
                self._forget_dead_readers()
                with self._env.begin(write=True) as txn:
                    if sealed_too or txn.get(SEAL, db=self.spaces[0]) is None:
                        return function(LmdbBatch(self, txn))
            except (MustGrow, lmdb.MapFullError):
                new_size = self._env.info()["map_size"] * 2
            except lmdb.MapResizedError:
                new_size = 0
            except lmdb.PanicError:
                self._must_reopen = True
            except lmdb.Error as error:
                raise self.write_error(error) from error
            finally:
                self.leave()
            if new_size is not None:
                self._alone(partial(self._set_map_size, new_size))
            elif not self._must_reopen:
                self._await_successor()

    def size_bytes(self) -> int:
        return _file_size(self._data_file)

    def page_problems(self) -> list[str]:
        """What does not fit together in the pages, as of now, whoever writes meanwhile."""
        while True:
            with self.read(), self._env.begin() as txn, contextlib.suppress(LookupError):
                names = names_of(self._spaces_type)
                return examine(self._data_file, names, txn.id()).problems

    def copy_to(self, descriptor: int) -> None:
        """Write a compact copy of the file, as of now, to a file or pipe; it is one long snapshot.

        :raises OSError:
        """
        with self.read():  # so that nobody closes the environment meanwhile
            try:
                self._env.copyfd(descriptor, compact=True)
            except lmdb.Error as error:
                raise OSError(error.code, f"{self.path} can't be copied: {_reason(error)}") from error

    def used_bytes(self) -> int:
        """What the pages in use take."""
        with self.read(), self._env.begin() as txn:
            stats = [txn.stat(space) for space in self.spaces]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return int((pages + len(stats)) * stats[0]["psize"])

    def count(self, space: Keyspace) -> int:
        """How many records a space has; without reading them."""
        with self.read(), self._env.begin() as txn:
            return int(txn.stat(self.spaces[space])["entries"])

    def reclaim(self) -> int:
        size = self.size_bytes()
        unused = size - self.used_bytes()
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

    def rest(self) -> bool:
        """Close the files until the next transaction opens them again, unless there is one now; whether they
        are closed."""
        with self._gate:
            if not self._must_reopen and not self._busy and self._open_transactions == 0:
                _close(self._env)
                self._must_reopen = True
            return self._must_reopen

    @property
    def is_at_rest(self) -> bool:
        return self._must_reopen

    def close(self) -> None:
        with self._gate:
            self._gate.wait_for(lambda: self._open_transactions == 0)
            _close(self._env)

    # what goes wrong

    def write_error(self, error: lmdb.Error | OSError) -> CouchliteError | MustGrow:
        """A failed write, in our words. LMDB calls a write that was cut short for lack of room EIO."""
        if isinstance(error, lmdb.MapFullError):
            return MustGrow()
        code = error.errno if isinstance(error, OSError) else error.code
        if code in NO_SPACE or (code == errno.EIO and is_full(self.path)):
            return InsufficientStorage()
        return InternalError(f"{self.path} can't be written: {_reason(error)}")

    def _open_error(self, error: lmdb.Error | OSError) -> CouchliteError:
        if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
            return DataDirectoryError(f"{self.path} is not a couchlite store or is damaged: {_reason(error)}")
        told = self.write_error(error)
        if isinstance(told, InsufficientStorage):
            return told
        return DataDirectoryError(f"{self.path} can't be opened: {_reason(error)}")

    def _forget_dead_readers(self) -> None:
        now = time.monotonic()
        if now - self._readers_checked_at > DEAD_READERS_CHECK_S:
            self._readers_checked_at = now
            self._env.reader_check()

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

    def _set_map_size(self, size: int) -> None:
        if not self._must_reopen:
            self._env.set_mapsize(size)

    # generations

    def _open_newest(self) -> None:
        """Open the newest generation, instead of the one that is open; or that one again, if it is broken
        or at rest: after a failed write of its root page, LMDB refuses all work in an environment."""
        while True:
            newest = _newest_generation(self.path)
            if newest == 0:
                raise DataDirectoryError(f"{self.path} holds no store")
            if newest == self._generation:
                if not self._must_reopen:
                    return
                _close(self._env)
            env, spaces = self._open(self.path / str(newest))
            if _newest_generation(self.path) == newest:
                break
            # Its files were being removed, or it might even have been made anew, as an empty one.
            _close(env)
        if self._generation not in (0, newest):
            _close(self._env)
        self._env = env
        self.spaces: list[Any] = spaces
        self._generation = newest
        self._data_file = self.path / str(newest) / "data.mdb"
        self._must_reopen = False
        self._remove_leftovers()

    def _open(self, directory: Path) -> tuple[lmdb.Environment, list[Any]]:
        file = directory / "data.mdb"
        try:
            if is_truncated(file):
                raise DataDirectoryError(f"{self.path} is damaged: the end of its file is missing")
            with _opening:
                _reserve_lock_file(directory)
                env = lmdb.open(
                    str(directory),
                    map_size=_file_size(file) + MAP_SIZE_START_BYTES,
                    max_dbs=len(self._spaces_type),
                    max_readers=MAX_READERS,
                )
        except (lmdb.Error, OSError) as error:
            raise self._open_error(error) from error
        try:
            env.reader_check()
            # One transaction for all: each handle opened by itself would be a commit of its own.
            with env.begin(write=True) as txn:
                return env, [env.open_db(_name_of(space), txn=txn) for space in self._spaces_type]
        except lmdb.Error as error:
            _close(env)
            raise self._open_error(error) from error

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
        sync_directory(self.path)
        self._alone(self._open_newest)
        shutil.rmtree(old, ignore_errors=True)

    def _write_first(self) -> None:
        """Make the first generation, whole or not at all, unless there is one."""
        if _newest_generation(self.path):
            return
        held = self._hold_seal_lock(wait=True)
        assert held is not None
        try:
            if not _newest_generation(self.path):
                draft = self.path / "draft"
                shutil.rmtree(draft, ignore_errors=True)
                lay_out(draft, self._spaces_type)
                sync_tree(draft)
                os.rename(draft, self.path / FIRST)
                sync_directory(self.path)
        except OSError as error:
            raise self.write_error(error) from error
        finally:
            os.close(held)

    def _remove_leftovers(self) -> None:
        """Remove what a process left behind that was killed while it made a successor."""
        names = [name for name in os.listdir(self.path) if self._is_leftover(name)]
        held = self._hold_seal_lock() if names else None
        if held is not None:
            for name in names:
                shutil.rmtree(self.path / name, ignore_errors=True)
            os.close(held)

    def _mark(self, successor: bytes | None) -> None:
        def run(batch: Batch) -> None:
            if successor is None:
                batch.delete(self._meta, SEAL)
            else:
                batch.put(self._meta, SEAL, successor)

        self._write(run, sealed_too=True)

    def _is_leftover(self, name: str) -> bool:
        return name == "draft" or (name.isdigit() and int(name) < self._generation)

    def _lift_seal_of(self, draft: Path) -> None:
        env, spaces = self._open(draft)
        with env.begin(write=True) as txn:
            txn.delete(SEAL, db=spaces[0])
        _close(env)
        sync_directory(draft)

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

    def _hold_seal_lock(self, *, wait: bool = False) -> int | None:
        """A descriptor that holds the right to seal until it is closed; None when somebody else has it and is
        not to be waited for."""
        held = os.open(self.path / "seal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(held)
            return None
        return held


def lay_out(path: Path, spaces: type[Keyspace], first: Iterable[tuple[Keyspace, bytes, bytes]] = ()) -> None:
    """Make the directory of an environment's first generation, holding the pairs `first`. Nothing of it is
    synced: who calls this does that once for all that belongs together, then shows it by a rename.

    :raises OSError: the file system refuses.
    """
    path.mkdir()
    try:
        with _opening:
            env = lmdb.open(
                str(path), map_size=MAP_SIZE_START_BYTES, max_dbs=len(spaces), sync=False, lock=False
            )
        try:
            with env.begin(write=True) as txn:
                handles = {space: env.open_db(_name_of(space), txn=txn) for space in spaces}
                for space, key, value in first:
                    txn.put(key, seal(value, key) if space.is_sealed else value, db=handles[space])
        finally:
            _close(env)
    except lmdb.Error as error:
        if error.code == errno.EIO and is_full(path):  # what LMDB calls a write that was cut short
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise OSError(error.code, str(error)) from error


def _name_of(space: Keyspace) -> bytes:
    return space.name.lower().encode()


def names_of(spaces: type[Keyspace]) -> list[str]:
    """What LMDB knows the keyspaces by."""
    return [_name_of(space).decode() for space in spaces]


def data_file(path: Path) -> Path | None:
    """The file of the environment at `path`, to be looked at without opening it; None when there is none."""
    try:
        newest = _newest_generation(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return path / str(newest) / "data.mdb" if newest else None


def _newest_generation(path: Path) -> int:
    """0 when there is none."""
    return max((int(name) for name in os.listdir(path) if name.isdigit()), default=0)


def _file_size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _close(env: lmdb.Environment) -> None:
    with _opening:
        env.close()


def _reason(error: lmdb.Error | OSError) -> str:
    return (error.strerror if isinstance(error, OSError) else error.reason) or str(error)


def _reserve_lock_file(directory: Path) -> None:
    """Give LMDB's lock file its space before it is used.

    Only when it has not got it: LMDB's locks are the process's, and closing the file would undo them.
    """
    path = directory / "lock.mdb"
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_blocks * 512 >= LOCK_FILE_BYTES:
            return
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.posix_fallocate(file, 0, LOCK_FILE_BYTES)
    finally:
        os.close(file)
