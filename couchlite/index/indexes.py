"""The indexes of a database: opened when they are asked for, built by one process at a time, removed when no
design document wants them any more."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..disk import storage_failure
from ..engine import Reader
from ..errors import DatabaseNotFound
from ..storage import LmdbEnvironment
from . import store
from .build import Build
from .definition import IndexDefinition
from .functions import IndexFunctions, Stopped
from .layout import IndexSpace, State

if TYPE_CHECKING:
    from ..database import Database

LOCK_FILE = "build.lock"
LOCK_POLL_S = 0.01


AWAKE_MAX = 200
"""Indexes whose files a process keeps open though nobody reads them; each takes three descriptors, its map's
address space and what it remembers."""
AWAKE_IDLE_S = 60.0
"""For how long it does."""

REMEMBERED_MAX = 500
"""So much is kept of what queries have found out."""


class Remembered:
    """What queries have found out, for as long as the index stays as it is."""

    __slots__ = ("_as_of", "_found")

    def __init__(self) -> None:
        self._as_of = (0, 0)
        self._found: dict[Any, Any] = {}

    def of(self, state: State) -> dict[Any, Any]:
        """What is known of the index in that state; to be added to."""
        as_of = (state.seq, state.purge_seq)
        if self._as_of != as_of or len(self._found) >= REMEMBERED_MAX:
            self._as_of, self._found = as_of, {}
        return self._found


class Index:
    """One index, in this process."""

    def __init__(self, definition: IndexDefinition, path: Path) -> None:
        self.definition = definition
        self.path = path
        self.engine = LmdbEnvironment(path, IndexSpace, create=True)
        self._inode = os.stat(path).st_ino
        self.remembered = Remembered()
        self.used_at = time.monotonic()
        self.waiting = 0
        """How many wait for it to be built."""
        self._lock = threading.Lock()
        self._build: Future[None] | None = None
        self._stopped = False

    def read(self) -> AbstractContextManager[Reader]:
        self.used_at = time.monotonic()
        return self.engine.read()

    def state(self) -> State:
        with self.read() as reader:
            return store.state_of(reader)

    def rest(self) -> None:
        """Close its files until somebody needs them, unless somebody does now."""
        if self._build is None and self.engine.rest():
            self.remembered = Remembered()

    def is_in_place(self) -> bool:
        """Whether its files are those that other processes find: one of them may have removed them."""
        try:
            return os.stat(self.path).st_ino == self._inode
        except FileNotFoundError:
            return False

    def is_building(self) -> bool:
        """Whether any process is at it."""
        held = self._try_lock()
        if held is not None:
            os.close(held)
        return held is None

    def build(self, database: Database, functions: IndexFunctions) -> Future[None]:
        """Bring it up to date with what the database is now, or join a run that is under way (which may have
        begun before the newest changes: look again afterwards)."""
        with self._lock:
            if self._stopped:
                raise DatabaseNotFound()
            if self._build is None:
                self._build = Future()
                threading.Thread(
                    target=self._run,
                    args=(self._build, database, functions),
                    name=f"index {database.name}",
                    daemon=True,
                ).start()
            return self._build

    async def refresh(self, database: Database, functions: IndexFunctions) -> None:
        """Wait until it shows at least what the database is now.

        :raises CouchliteError: a function failed, or the disk is nearly full.
        """
        wanted = database.state()
        self.waiting += 1
        try:
            while not is_fresh(self.state(), wanted.update_seq, wanted.purge_seq):
                database.disk.check_indexing()
                await asyncio.shield(asyncio.wrap_future(self.build(database, functions)))
        finally:
            self.waiting -= 1

    def close(self) -> None:
        """Stop a run and close the files."""
        with self._lock:
            self._stopped = True
            build = self._build
        if build is not None:
            with contextlib.suppress(BaseException):
                build.result()
        self.engine.close()

    def _run(self, done: Future[None], database: Database, functions: IndexFunctions) -> None:
        error: BaseException | None = None
        try:
            held = self._hold_lock()
            try:
                Build(database, self.engine, self.definition, functions, self._is_stopped).run()
            finally:
                os.close(held)
        except Stopped:
            error = DatabaseNotFound()
        except BaseException as caught:
            error = caught
        del database
        with self._lock:
            self._build = None
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def _is_stopped(self) -> bool:
        return self._stopped

    def _hold_lock(self) -> int:
        while (held := self._try_lock()) is None:
            if self._stopped:
                raise Stopped()
            time.sleep(LOCK_POLL_S)
        return held

    def _try_lock(self) -> int | None:
        """A descriptor that holds the right to build until it is closed; None when another process has it."""
        try:
            held = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            raise DatabaseNotFound() from None
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            return None
        return held


def is_fresh(state: State, update_seq: int, purge_seq: int) -> bool:
    """Whether a build that began with the database at these sequences, or later, is through."""
    return state.seq >= update_seq and state.purge_seq >= purge_seq and state.levels > 0


def rest_indexes(
    indexes: Iterable[Index], *, idle_s: float = AWAKE_IDLE_S, awake_max: int = AWAKE_MAX
) -> None:
    """Close the files of those that nobody used for long, and of all but the ones used last."""
    awake = [index for index in indexes if not index.engine.is_at_rest]
    awake.sort(key=lambda index: index.used_at, reverse=True)
    before = time.monotonic() - idle_s
    for place, index in enumerate(awake):
        if place >= awake_max or index.used_at <= before:
            index.rest()


class Indexes:
    """Those of one database, in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open: dict[str, Index] = {}
        self._closed = False

    def get(self, definition: IndexDefinition) -> Index:
        """The index of a view; empty when it was never built. :raises DatabaseNotFound:"""
        index = self._open.get(definition.signature)
        if index is not None and index.is_in_place():
            return index
        with self._lock:
            if self._closed:
                raise DatabaseNotFound()
            index = self._open.get(definition.signature)
            if index is None or not index.is_in_place():
                path = self._path / definition.signature
                try:
                    self._path.mkdir(exist_ok=True)
                    index = Index(definition, path)
                except FileNotFoundError:
                    raise DatabaseNotFound() from None
                except OSError as error:
                    raise storage_failure(error) from error
                self._open[definition.signature] = index
            return index

    def opened(self) -> list[Index]:
        """Those that were asked for."""
        return list(self._open.values())

    def is_made(self, definition: IndexDefinition) -> bool:
        return (self._path / definition.signature).exists()

    def clean_up(self, wanted: Collection[str]) -> None:
        """Remove the indexes with other signatures."""
        try:
            names = os.listdir(self._path)
        except FileNotFoundError:
            return
        for name in names:
            if name not in wanted:
                with self._lock:
                    index = self._open.pop(name, None)
                if index is not None:
                    index.close()
                shutil.rmtree(self._path / name, ignore_errors=True)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            open_ones, self._open = self._open, {}
        for index in open_ones.values():
            index.close()
