"""Who waits for news of a database, in this process.

`moved(seq)` is called after a commit here, by the doorbell when another process committed, and by the cheap
poll that makes a lost ring harmless. Correctness never depends on it: a waiter that wakes reads the sequence
index again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Any

WOKEN_AT_ONCE = 100
"""Thousands of feeds wake in turns, between which others are served: not least the answer to the write that
woke them."""


class Feed:
    """The newest update sequence known here, and the coroutines that wait for a newer one. Thread-safe."""

    def __init__(self) -> None:
        self.seq = 0
        self.shared: dict[Hashable, Any] = {}
        """What waiters that ask for the same share; it is thrown away with every move."""
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.AbstractEventLoop, set[asyncio.Future[None]]] = {}

    @property
    def has_waiters(self) -> bool:
        return bool(self._waiting)

    def moved(self, seq: int) -> None:
        with self._lock:
            if seq <= self.seq:
                return
            self.seq = seq
            self.shared = {}
        self.wake_all()

    def wake_all(self) -> None:
        """Let every waiter look again: the database was deleted, or the server stops."""
        with self._lock:
            loops, self._waiting = self._waiting, {}
        for loop, futures in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(_wake, loop, iter(futures))

    async def wait_past(self, seq: int, timeout_s: float | None = None) -> bool:
        """Wait until the database may have moved past `seq`; False when `timeout_s` went by first."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self.seq > seq:
                return True
            future = loop.create_future()
            self._waiting.setdefault(loop, set()).add(future)
        timer = None if timeout_s is None else loop.call_later(timeout_s, _time_out, future)
        try:
            await future
            return True
        except TimeoutError:
            return False
        finally:
            if timer is not None:
                timer.cancel()
            with self._lock:
                futures = self._waiting.get(loop)
                if futures is not None:
                    futures.discard(future)
                    if not futures:
                        del self._waiting[loop]


def _wake(loop: asyncio.AbstractEventLoop, waiting: Iterator[asyncio.Future[None]]) -> None:
    """Wake some of those who wait, and the others once these have had their turn."""
    some = list(islice(waiting, WOKEN_AT_ONCE))
    for future in some:
        if not future.done():
            future.set_result(None)
    if some:
        loop.call_soon(_wake, loop, waiting)


def _time_out(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
