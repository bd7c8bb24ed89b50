"""What the file system is asked beside reading and writing, and what it refuses."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from pathlib import Path

from .errors import CouchliteError, DatabaseNotFound, InsufficientStorage, InternalError

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a write fails with when there is no room for it."""
PROBE_BYTES = 1 << 20
"""A disk on which so much can't be had is full."""


def storage_failure(error: OSError) -> CouchliteError:
    """A refused write to a database's directory, in our words."""
    if error.errno in NO_SPACE:
        return InsufficientStorage()
    if error.errno == errno.ENOENT:
        return DatabaseNotFound()
    return InternalError(f"the data can't be written: {error.strerror or error}")


def is_full(directory: Path) -> bool:
    """Whether the file system of a directory, or the user's share of it, has no more room."""
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            os.posix_fallocate(probe.fileno(), 0, PROBE_BYTES)
    except OSError as error:
        return error.errno in NO_SPACE
    return False


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Make a new directory durable with all that is in it; names after what they name. What is empty has
    nothing but its name."""
    for directory, names, files in os.walk(path, topdown=False):
        for name in files:
            with open(os.path.join(directory, name), "rb") as file:
                if os.fstat(file.fileno()).st_size:
                    os.fsync(file.fileno())
        if names or files:
            sync_directory(Path(directory))


def locked_directory(path: Path, operation: int) -> int:
    """A descriptor that holds a directory's lock (flock) until it is closed. :raises OSError:"""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def make_locked_directory(path: Path) -> int:
    """Make a directory whose lock tells others that it is in use; the descriptor that holds it.

    :raises OSError:
    """
    while True:
        path.mkdir()
        with contextlib.suppress(FileNotFoundError):
            descriptor = locked_directory(path, fcntl.LOCK_EX)
            if path.exists():
                return descriptor
            os.close(descriptor)
        # Somebody took it for abandoned, and removed it, before it was locked.
