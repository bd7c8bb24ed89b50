"""A worker's memory given back: a server must not stay as large as its largest request, nor as its data.

The C library: by default glibc gives each thread an arena of its own, and learns from large requests to keep
ever larger blocks on its heaps; after some bulk loads half of a worker's private memory was such (measured).

The maps of LMDB: pages that were read stay in the process's page table as long as the kernel has no better
use for them, so that a process seems as large as what it has ever read. Letting go of them costs a soft fault
when one is read again; the data stay in the kernel's cache.

Free memory amid what is in use: glibc gives it back only when told to.

Elsewhere than on Linux with glibc nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterator

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# <sys/mman.h>
_MADV_DONTNEED = 4

ARENAS = 1
"""Python's own lock lets one thread allocate at a time anyhow."""
LARGE_BYTES = 256 * 1024
"""Blocks from here on are mapped one by one, and unmapped when freed; glibc may not raise this."""
MAPPED_MAX_BYTES = 48 * 1024 * 1024
"""More of the maps (with shared libraries) than this is not kept from one look to the next."""
IDLE_SHARE = 0.05
"""Who worked for less than this since the last look has time to tidy up."""
WORK_S = 0.3
"""After so much work there may be something to tidy up ..."""
MUCH_WORK_S = 5.0
"""... and after so much that is not put off until there is time."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def tune() -> None:
    """Set up the allocator. Before threads are started."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, ARENAS)
    mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, LARGE_BYTES)


class Tidier:
    """Gives back what is not needed any more, when that disturbs nobody: have it `look` now and then."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._worked_s = time.process_time()
        self._tidied_s = self._worked_s

    def look(self) -> None:
        """May be called while the maps are read."""
        if sys.platform != "linux":
            return
        now, worked_s = time.monotonic(), time.process_time()
        is_idle = worked_s - self._worked_s < IDLE_SHARE * (now - self._looked_at)
        self._looked_at, self._worked_s = now, worked_s
        since = worked_s - self._tidied_s
        if since > MUCH_WORK_S or (is_idle and since > WORK_S):
            self._tidied_s = worked_s
            _release_maps()
            _trim()
        elif _shared_bytes() > MAPPED_MAX_BYTES:
            _release_maps()


def _shared_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[2]) * _PAGE_BYTES


def _trim() -> None:
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _release_maps() -> None:
    madvise = ctypes.CDLL(None).madvise
    for start, end in _store_maps():
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def _store_maps() -> Iterator[tuple[int, int]]:
    """Where LMDB's data files are mapped: read-only and shared, so that nothing is lost by letting go."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if line.rstrip().endswith("/data.mdb") and " r--s " in line:
                start, end = line.split(" ", 1)[0].split("-")
                yield int(start, 16), int(end, 16)
