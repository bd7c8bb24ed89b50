"""Brings the results of a writer's thread to an event loop: those of one commit at one stroke.

asyncio.wrap_future would wake the loop once for each of them, through four callbacks. A commit ends the waits
of many requests at once, and that would cost more than their share of the commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


async def landed(future: Future[T]) -> T:
    """The result of `future`; when this is cancelled, so is `future`, if it hasn't begun."""
    loop = asyncio.get_running_loop()
    landing = _landings.get(loop)
    if landing is None:
        landing = _landings[loop] = _Landing(loop)
    waiter: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda _future: landing.arrive(waiter))
    try:
        await waiter
    except asyncio.CancelledError:
        future.cancel()
        raise
    return future.result()


class _Landing:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._arrived: list[asyncio.Future[None]] = []

    def arrive(self, waiter: asyncio.Future[None]) -> None:
        """Called in any thread; the first to arrive wakes the loop."""
        with self._lock:
            self._arrived.append(waiter)
            is_first = len(self._arrived) == 1
        if is_first:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                self._loop.call_soon_threadsafe(self._land)

    def _land(self) -> None:
        with self._lock:
            arrived, self._arrived = self._arrived, []
        for waiter in arrived:
            if not waiter.done():
                waiter.set_result(None)


_landings: WeakKeyDictionary[Any, _Landing] = WeakKeyDictionary()
