"""The files of an environment: found, laid out, opened, closed.

What must stay true here: a process opens an environment once (LMDB's locks forbid twice) and only after a
fork, never before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lmdb

from ..disk import is_full
from ..engine import Keyspace
from ..errors import DataDirectoryError
from ..lmdb_pages import is_truncated
from ..seal import seal
from .failures import open_error

MAP_SIZE_START_BYTES = 1 << 28
"""Address space, not disk. Small, since a 39-bit kernel (Raspberry Pi) has 512 GiB for all databases
together; the map doubles whenever it is full."""
MAX_READERS = 510
"""Slots for read transactions at one moment over all processes."""
LOCK_FILE_BYTES = (MAX_READERS + 2) * 64
"""As LMDB lays it out. The space is taken at once: a page of it that can't be had later, on a full disk,
would kill the process that touches it (SIGBUS)."""

_opening = threading.Lock()
"""lmdb refuses a file that the process has open, by its inode, and forgets an inode only after the file is
closed: until then a new environment whose file got the inode of a deleted one would be refused."""


def open_environment(directory: Path, spaces: type[Keyspace]) -> tuple[lmdb.Environment, list[Any]]:
    """Open one generation of the environment in the directory above, with a handle for each keyspace; those
    that are missing are made.

    :raises DataDirectoryError: it is no LMDB environment, is damaged or can't be opened.
    :raises InsufficientStorage:
    """
    path = directory.parent
    file = directory / "data.mdb"
    try:
        if is_truncated(file):
            raise DataDirectoryError(f"{path} is damaged: the end of its file is missing")
        with _opening:
            _reserve_lock_file(directory)
            env = lmdb.open(
                str(directory),
                map_size=file_size(file) + MAP_SIZE_START_BYTES,
                max_dbs=len(spaces),
                max_readers=MAX_READERS,
            )
    except (lmdb.Error, OSError) as error:
        raise open_error(path, error) from error
    try:
        env.reader_check()
        # One transaction for all: each handle opened by itself would be a commit of its own.
        with env.begin(write=True) as txn:
            return env, [env.open_db(_name_of(space), txn=txn) for space in spaces]
    except lmdb.Error as error:
        close_environment(env)
        raise open_error(path, error) from error


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


def close_environment(env: lmdb.Environment) -> None:
    """No transaction of this process may be open."""
    with _opening:
        env.close()


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
            close_environment(env)
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
        newest = newest_generation(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return path / str(newest) / "data.mdb" if newest else None


def newest_generation(path: Path) -> int:
    """The number of the newest generation of the environment at `path`; 0 when there is none."""
    return max((int(name) for name in os.listdir(path) if name.isdigit()), default=0)


def file_size(path: Path) -> int:
    """0 for a file that is not there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
