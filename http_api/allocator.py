"""The C library's allocator, told to give memory back: a server must not stay as large as its largest request.

By default glibc gives each thread an arena of its own, and learns from large requests to keep ever larger
blocks on its heaps; after some bulk loads half of a worker's private memory was such (measured). Elsewhere than
on glibc nothing is done.
"""

from __future__ import annotations

import ctypes

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

ARENAS = 1
"""Python's own lock lets one thread allocate at a time anyhow."""
LARGE_BYTES = 256 * 1024
"""Blocks from here on are mapped one by one and unmapped when freed. Setting it stops glibc from raising it."""


def tune() -> None:
    """Before threads are started."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, ARENAS)
    mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, LARGE_BYTES)
