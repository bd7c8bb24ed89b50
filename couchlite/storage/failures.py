"""What LMDB and the file system refuse, in our words."""

from __future__ import annotations

import errno
from pathlib import Path

import lmdb

from ..disk import NO_SPACE, is_full
from ..engine import MustGrow
from ..errors import CouchliteError, DataDirectoryError, InsufficientStorage, InternalError


def write_error(path: Path, error: lmdb.Error | OSError) -> CouchliteError | MustGrow:
    """A failed write. LMDB calls one that was cut short for lack of room EIO."""
    if isinstance(error, lmdb.MapFullError):
        return MustGrow()
    code = error.errno if isinstance(error, OSError) else error.code
    if code in NO_SPACE or (code == errno.EIO and is_full(path)):
        return InsufficientStorage()
    return InternalError(f"{path} can't be written: {reason(error)}")


def open_error(path: Path, error: lmdb.Error | OSError) -> CouchliteError:
    """An environment that can't be opened."""
    if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
        return DataDirectoryError(f"{path} is not a couchlite store or is damaged: {reason(error)}")
    told = write_error(path, error)
    if isinstance(told, InsufficientStorage):
        return told
    return DataDirectoryError(f"{path} can't be opened: {reason(error)}")


def reason(error: lmdb.Error | OSError) -> str:
    """What the library or the system says."""
    return (error.strerror if isinstance(error, OSError) else error.reason) or str(error)
