"""Writes refused before the disk is full, so that there is room left for what makes room: deletions, purges
and compactions, which go on, as reads do.

How much must stay free is `[couchlite] min_free_disk`, bytes, but never more than a twentieth of the disk.
CouchDB's `[disk_monitor]` counts too, if it is enabled: percents of the disk in use. Source:
couch_disk_monitor.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from .config import Config
from .errors import InsufficientStorage

LOOK_S = 1.0
"""The disk is looked at this often at most, so that asking costs nothing."""
SHARE_MAX = 20

logger = logging.getLogger(__name__)


class DiskGuard:
    """Of the disk that `directory` is on."""

    def __init__(self, directory: Path, config: Config) -> None:
        self._directory = directory
        self._config = config
        self._looked_at = -LOOK_S
        self._refuses_writes = False
        self._refuses_indexing = False

    def check_write(self) -> None:
        """:raises InsufficientStorage: so little is free that nothing may be added."""
        self._look()
        if self._refuses_writes:
            raise InsufficientStorage()

    def check_indexing(self) -> None:
        """:raises InsufficientStorage: so little is free that no index may grow."""
        self._look()
        if self._refuses_indexing:
            raise InsufficientStorage("not enough room to update index")

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        try:
            disk = os.statvfs(self._directory)
        except OSError:
            return
        free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        is_low = free < min(self._config.integer("couchlite", "min_free_disk"), size // SHARE_MAX)
        refused = is_low or self._is_above("interactive_database_writes_threshold", free, size)
        if refused != self._refuses_writes:
            if refused:
                logger.warning("%s has %d bytes left: writes are refused", self._directory, free)
            else:
                logger.warning("%s has %d bytes left: writes are taken again", self._directory, free)
        self._refuses_writes = refused
        self._refuses_indexing = is_low or self._is_above("interactive_view_indexing_threshold", free, size)

    def _is_above(self, key: str, free: int, size: int) -> bool:
        if not self._config.boolean("disk_monitor", "enable"):
            return False
        return 100 * (size - free) > self._config.integer("disk_monitor", key) * size
