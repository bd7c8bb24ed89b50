"""The folders of databases, db/<uuid>/: made before the catalog lists them, removed once it doesn't.

    db/<uuid>.new/          while it is filled; its maker holds a lock on the folder
    db/<uuid>/unlisted      until the catalog lists it, still locked; and from just before it doesn't any more
    db/<uuid>.deleted/      while it is removed

What must stay true here: a process may be killed at any moment, and what it was making or removing is swept
away by one that comes later. A folder that nothing explains is left alone: it may be somebody's data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .disk import locked_directory, make_locked_directory, storage_failure, sync_directory, sync_tree

MARK = "unlisted"
NEW = ".new"
DELETED = ".deleted"


class Folders:
    """All of them, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, uuid: str) -> Path:
        return self.directory / uuid

    @contextlib.contextmanager
    def new(self, uuid: str, fill: Callable[[Path], None]) -> Iterator[None]:
        """A new folder, which survives a power cut, and is to be listed in the context; gone again when that
        fails.

        :raises CouchliteError: the file system refuses.
        """
        draft = self.directory / (uuid + NEW)
        try:
            held = make_locked_directory(draft)
        except OSError as error:
            raise storage_failure(error) from error
        try:
            fill(draft)
            try:
                (draft / MARK).touch()
                sync_tree(draft)
                os.rename(draft, self.path(uuid))
                sync_directory(self.directory)
            except OSError as error:
                raise storage_failure(error) from error
            yield
            (self.path(uuid) / MARK).unlink(missing_ok=True)
        except BaseException:
            self.remove(uuid)
            shutil.rmtree(draft, ignore_errors=True)
            raise
        finally:
            os.close(held)

    def doom(self, uuid: str) -> None:
        """The catalog is about to list a folder no more. On a full disk it goes without the mark."""
        with contextlib.suppress(OSError):
            (self.path(uuid) / MARK).touch()

    def remove(self, uuid: str) -> None:
        """Remove a folder that is not listed, or not any more."""
        doomed = self.directory / (uuid + DELETED)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(uuid), doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def sweep(self, listed: Callable[[], set[str]]) -> None:
        """Remove what killed processes left; `listed` gives what the catalog lists now."""
        known = listed()
        for path in self.directory.iterdir():
            # One that vanishes meanwhile was removed by somebody else; one that is locked is being made.
            with contextlib.suppress(OSError):
                if path.name in known:
                    (path / MARK).unlink()
                elif path.suffix == DELETED:
                    shutil.rmtree(path)
                elif path.suffix == NEW or (path / MARK).exists():
                    self._remove_dead(path, listed)

    def _remove_dead(self, path: Path, listed: Callable[[], set[str]]) -> None:
        held = locked_directory(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            if path.suffix == NEW:
                shutil.rmtree(path)
            elif path.name not in listed():  # its maker may just have been through
                self.remove(path.name)
        finally:
            os.close(held)
