"""Long work that can be watched: what `_active_tasks` lists, whichever process does it.

Each task is a small file in the data directory's `run/`, rewritten as it advances and removed at its end;
that of a process that died is recognised by its lock and removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import jsontext

UPDATE_S = 0.5
"""A task's file is rewritten at most this often."""
_SUFFIX = ".task"


class Task:
    """One piece of work under way, listed while the context manager is open. `fields` are shown as they
    are. That it can't be shown, on a full disk, is no reason not to do it."""

    def __init__(self, directory: Path, kind: str, **fields: Any) -> None:
        self._path = directory / f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
        now = int(time.time())
        self._fields = {"type": kind, "started_on": now, "updated_on": now, **fields}
        self._written_at = 0.0
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._file = open(self._path, "w+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()

    def update(self, **fields: Any) -> None:
        """Show how far the work is; cheap enough to be called often."""
        self._fields |= fields
        if time.monotonic() - self._written_at >= UPDATE_S:
            self._fields["updated_on"] = int(time.time())
            self._write()

    def _write(self) -> None:
        self._written_at = time.monotonic()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.seek(0)
                self._file.write(jsontext.dumps(self._fields))
                self._file.truncate()


def listed(directory: Path) -> list[dict[str, Any]]:
    """All tasks of the processes that have the data directory open, oldest first."""
    tasks = []
    for path in directory.glob(f"*{_SUFFIX}"):
        try:
            with open(path, "rb") as file:
                if _is_alive(file.fileno()):
                    tasks.append(jsontext.loads(file.read()) | {"pid": path.name.partition("-")[0]})
                else:
                    path.unlink(missing_ok=True)
        except (OSError, ValueError):
            continue
    return sorted(tasks, key=lambda task: int(task["started_on"]))


def _is_alive(descriptor: int) -> bool:
    """Whether the process that made the file still has it open, and so locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
