"""The folders of databases, db/<uuid>/: made before the catalog lists them, removed once it doesn't.

    db/<uuid>/unlisted      while it is made; its maker holds a lock on the folder
    db/<uuid>.deleted/      while it is removed

What must stay true here: a process may be killed at any moment, and what it was making or removing is swept
away by one that comes later. A folder that nothing explains is left alone: it may be somebody's data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .disk import locked_directory, storage_failure, sync_directory

MARK = "unlisted"
DELETED_SUFFIX = ".deleted"
EMPTY_S = 60.0
"""An empty folder this old was not just made by somebody about to lock it."""


class Folders:
    """All of them, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, uuid: str) -> Path:
        return self.directory / uuid

    @contextlib.contextmanager
    def new(self, uuid: str) -> Iterator[Path]:
        """A new folder, to be filled and listed in the context; gone again when that fails.

        :raises CouchliteError: the file system refuses.
        """
        path = self.path(uuid)
        try:
            path.mkdir()
            held = locked_directory(path, fcntl.LOCK_EX)
            (path / MARK).touch()
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise storage_failure(error) from error
        try:
            yield path
            (path / MARK).unlink(missing_ok=True)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        finally:
            os.close(held)

    def sync(self, path: Path) -> None:
        """Make a new folder, and the names in it, survive a power cut."""
        try:
            sync_directory(path)
            sync_directory(self.directory)
        except OSError as error:
            raise storage_failure(error) from error

    def remove(self, uuid: str) -> None:
        """Remove a folder that is not listed any more."""
        doomed = self.directory / (uuid + DELETED_SUFFIX)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(uuid), doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self, listed: Callable[[], set[str]]) -> None:
        """Remove what killed processes left; `listed` gives what the catalog lists now."""
        known = listed()
        for path in self.directory.iterdir():
            # One that vanishes meanwhile was removed by somebody else; one that is locked is being made.
            with contextlib.suppress(OSError):
                if path.name.endswith(DELETED_SUFFIX):
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name not in known and _is_unfinished(path):
                    _remove_unlisted(path, listed)


def _is_unfinished(path: Path) -> bool:
    names = os.listdir(path)
    return MARK in names or (not names and time.time() - path.stat().st_mtime > EMPTY_S)


def _remove_unlisted(path: Path, listed: Callable[[], set[str]]) -> None:
    held = locked_directory(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        if path.name not in listed():  # its maker may just have been through
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(held)
