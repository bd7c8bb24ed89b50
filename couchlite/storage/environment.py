"""One LMDB environment through all its generations.

What must stay true here:
- Every transaction is counted, because the map may only be resized, and the files closed, while none is open
  in this process. A thread that holds a read transaction must not start a write: it could wait for itself.
- Nobody writes to a generation that is sealed, and every transaction looks for the seal.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TypeVar

import lmdb

from ..disk import sync_directory
from ..engine import Batch, Keyspace, MustGrow, Reader
from ..errors import DataDirectoryError, InsufficientStorage
from ..page_check import examine
from ..seal import SEAL_BYTES
from .failures import reason, write_error
from .files import close_environment, file_size, names_of, newest_generation, open_environment
from .gate import Gate
from .generations import DRAFT, SEAL, hold_seal, lift_seal, remove_leftovers, write_first
from .transactions import LmdbBatch, LmdbReader, OpenSpaces

T = TypeVar("T")

SEAL_POLL_S = 0.005
RECLAIM_MIN_BYTES = 1 << 20
RECLAIM_MIN_SHARE = 0.3
"""Free pages are used again by later writes, so a little of them is no reason to copy a store."""
DEAD_READERS_CHECK_S = 30.0
"""A killed process leaves its snapshot behind, because of which no page is used again: for so long."""


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
        self._meta = next(iter(spaces))
        self._env: lmdb.Environment
        self._generation = 0
        self._gate = Gate()
        self._must_reopen = False
        """Before the next transaction: the environment is broken, or at rest."""
        self._readers_checked_at = 0.0
        if create:
            path.mkdir(exist_ok=True)
            write_first(path, spaces)
        self._open_newest()

    def read(self) -> AbstractContextManager[Reader]:
        while True:
            self._enter()
            new_size: int | None = None
            try:
                txn = self._env.begin()
                mark = txn.get(SEAL, db=self._opened.handles[0])
                if mark is None or not (self.path / bytes(mark[:-SEAL_BYTES]).decode()).exists():
                    return LmdbReader(self._opened, txn, self._gate.leave)
                txn.abort()
            except lmdb.MapResizedError:
                new_size = 0
            except lmdb.PanicError:
                self._must_reopen = True
            except BaseException:
                self._gate.leave()
                raise
            self._gate.leave()
            self._gate.alone(self._open_newest if new_size is None else partial(self._set_map_size, new_size))

    def write(self, function: Callable[[Batch], T]) -> T:
        return self._write(function, sealed_too=False)

    def _write(self, function: Callable[[Batch], T], *, sealed_too: bool) -> T:
        while True:
            self._enter()
            new_size: int | None = None
            try:
                self._forget_dead_readers()
                with self._env.begin(write=True) as txn:
                    if sealed_too or txn.get(SEAL, db=self._opened.handles[0]) is None:
                        return function(LmdbBatch(self._opened, txn))
            except (MustGrow, lmdb.MapFullError):
                new_size = self._env.info()["map_size"] * 2
            except lmdb.MapResizedError:
                new_size = 0
            except lmdb.PanicError:
                self._must_reopen = True
            except lmdb.Error as error:
                raise write_error(self.path, error) from error
            finally:
                self._gate.leave()
            if new_size is not None:
                self._gate.alone(partial(self._set_map_size, new_size))
            elif not self._must_reopen:
                self._await_successor()

    def size_bytes(self) -> int:
        return file_size(self._data_file)

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
                raise OSError(error.code, f"{self.path} can't be copied: {reason(error)}") from error

    def used_bytes(self) -> int:
        """What the pages in use take."""
        with self.read(), self._env.begin() as txn:
            stats = [txn.stat(space) for space in self._opened.handles]
        pages = sum(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"] for stat in stats)
        return int((pages + len(stats)) * stats[0]["psize"])

    def count(self, space: Keyspace) -> int:
        """How many records a space has; without reading them."""
        with self.read(), self._env.begin() as txn:
            return int(txn.stat(self._opened.handles[space])["entries"])

    def reclaim(self) -> int:
        size = self.size_bytes()
        unused = size - self.used_bytes()
        if unused < max(RECLAIM_MIN_BYTES, size * RECLAIM_MIN_SHARE):
            return 0
        held = hold_seal(self.path)
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
        self._gate.if_idle(self._rest)
        return self._must_reopen

    def _rest(self) -> None:
        if not self._must_reopen:
            close_environment(self._env)
            self._must_reopen = True

    @property
    def is_at_rest(self) -> bool:
        return self._must_reopen

    @property
    def transactions(self) -> int:
        """How many this process has open."""
        return self._gate.inside

    def close(self) -> None:
        self._gate.when_idle(lambda: close_environment(self._env))

    def _forget_dead_readers(self) -> None:
        now = time.monotonic()
        if now - self._readers_checked_at > DEAD_READERS_CHECK_S:
            self._readers_checked_at = now
            self._env.reader_check()

    # transactions are counted, and sometimes none may be open

    def _enter(self) -> None:
        """Count a transaction that is about to begin, in an environment that is open."""
        while True:
            if self._must_reopen:
                self._gate.alone(self._open_newest)
            self._gate.enter()
            if not self._must_reopen:
                return
            self._gate.leave()  # it was put to rest meanwhile

    def _set_map_size(self, size: int) -> None:
        if not self._must_reopen:
            self._env.set_mapsize(size)

    # generations

    def _open_newest(self) -> None:
        """Open the newest generation, instead of the one that is open; or that one again, if it is broken
        or at rest: after a failed write of its root page, LMDB refuses all work in an environment."""
        while True:
            newest = newest_generation(self.path)
            if newest == 0:
                raise DataDirectoryError(f"{self.path} holds no store")
            if newest == self._generation:
                if not self._must_reopen:
                    return
                close_environment(self._env)
            env, spaces = open_environment(self.path / str(newest), self._spaces_type)
            if newest_generation(self.path) == newest:
                break
            # Its files were being removed, or it might even have been made anew, as an empty one.
            close_environment(env)
        if self._generation not in (0, newest):
            close_environment(self._env)
        self._env = env
        self._opened = OpenSpaces(self.path, spaces, [space.is_sealed for space in self._spaces_type])
        self._generation = newest
        self._data_file = self.path / str(newest) / "data.mdb"
        self._must_reopen = False
        remove_leftovers(self.path, newest)

    def _write_successor(self) -> None:
        """The lock is held: seal, copy, show the copy, move on to it, remove the old one."""
        old, successor = self.path / str(self._generation), self.path / str(self._generation + 1)
        draft = self.path / DRAFT
        shutil.rmtree(draft, ignore_errors=True)
        self._mark(str(self._generation + 1).encode())
        try:
            draft.mkdir()
            with self.read():  # so that nobody closes the environment meanwhile
                self._env.copy(str(draft), compact=True)
            lift_seal(draft, self._spaces_type)
            os.rename(draft, successor)
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            self._mark(None)
            if isinstance(error, lmdb.Error | OSError):
                raise InsufficientStorage(f"the store can't be made smaller: {error}") from error
            raise
        sync_directory(self.path)
        self._gate.alone(self._open_newest)
        shutil.rmtree(old, ignore_errors=True)

    def _mark(self, successor: bytes | None) -> None:
        def run(batch: Batch) -> None:
            if successor is None:
                batch.delete(self._meta, SEAL)
            else:
                batch.put(self._meta, SEAL, successor)

        self._write(run, sealed_too=True)

    def _await_successor(self) -> None:
        """The generation is sealed: wait for the next one, or lift the seal of a process that died."""
        if newest_generation(self.path) > self._generation:
            self._gate.alone(self._open_newest)
            return
        held = hold_seal(self.path)
        if held is None:
            time.sleep(SEAL_POLL_S)
            return
        try:
            if newest_generation(self.path) == self._generation:
                self._mark(None)
        finally:
            os.close(held)
