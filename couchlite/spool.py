"""Where a process keeps the uploads of one database until they are adopted: a directory of its own,
blobs/tmp/<random>/.

What must stay true here: a process holds a lock on its directory for as long as it may use it, so that others
can tell what a dead one has left; the kernel drops the lock however a process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import threading
import weakref
from io import FileIO
from pathlib import Path

from .disk import locked_directory, make_locked_directory


class Spool:
    """This process's directory in `parent`, which is made when the first upload needs it."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._directory: Path | None = None
        self._lock = threading.Lock()

    def new_file(self) -> tuple[Path, FileIO]:
        """An empty file, open for writing. :raises OSError:"""
        with self._lock:
            if self._directory is None:
                self._directory = self._open_directory()
        path = self._directory / secrets.token_hex(8)
        return path, FileIO(path, "xb")

    def sweep(self) -> None:
        """Remove what processes left that died."""
        try:
            directories = list(self._parent.iterdir())
        except FileNotFoundError:
            return
        for directory in directories:
            if directory != self._directory:
                # One that vanishes meanwhile was removed by its own process or by another sweep.
                with contextlib.suppress(OSError):
                    _remove_if_dead(directory)

    def _open_directory(self) -> Path:
        # Not with parents=True: it would bring back the directory of a database deleted meanwhile.
        self._parent.parent.mkdir(exist_ok=True)
        self._parent.mkdir(exist_ok=True)
        path = self._parent / secrets.token_hex(8)
        descriptor = make_locked_directory(path)
        weakref.finalize(self, _give_up, descriptor, path)
        return path


def _give_up(descriptor: int, path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()
    os.close(descriptor)


def _remove_if_dead(directory: Path) -> None:
    descriptor = locked_directory(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    shutil.rmtree(directory, ignore_errors=True)
    os.close(descriptor)
