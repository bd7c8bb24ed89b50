"""One server at a time on a data directory.

Any number of processes may open a directory (see server.py), but two servers would each believe to know all
administrators, failed logins and running tasks. The lock is the kernel's, on an open file that worker
processes inherit: it is gone when the last process of the server is, however that ended.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .errors import DataDirectoryError

LOCK_FILE = "serve.lock"


class DirectoryLock:
    """Held from its making until `release` or the end of this process and all its children.

    :raises DataDirectoryError: another server holds it, or the directory can't be written.
    """

    def __init__(self, directory: Path) -> None:
        try:
            self._file = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirectoryError(f"{directory} can't be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._file, 20).decode("ascii", "replace").strip() or "?"
            os.close(self._file)
            raise DataDirectoryError(
                f"{directory} is in use by another couchlite server (process {holder})"
            ) from error
        os.truncate(self._file, 0)
        os.write(self._file, b"%d\n" % os.getpid())

    def release(self) -> None:
        os.close(self._file)
