"""Who waits for news of a database, in this process.

`moved(seq)` is called after a commit here, by the doorbell when another process committed, and by the cheap
poll that makes a lost ring harmless. Correctness never depends on it: a waiter that wakes reads the sequence
index again.
"""

from __future__ import annotations

import asyncio
import threading


class Feed:
    """The newest update sequence known here, and the coroutines that wait for a newer one. Thread-safe."""

    def __init__(self) -> None:
        self.seq = 0
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
            loops, self._waiting = self._waiting, {}
        for loop, futures in loops.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, futures)

    def wake_all(self) -> None:
        """Let every waiter look again: the database was deleted, or the server stops."""
        with self._lock:
            loops, self._waiting = self._waiting, {}
        for loop, futures in loops.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, futures)

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


def _wake(futures: set[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _time_out(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
