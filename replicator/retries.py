"""When to ask a peer again, and how many requests it may have at a time.

Both adapt: waits double, with jitter so that many replications do not knock at once; a server that says it
has too much to do gets fewer requests at a time, and more again as it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

FIRST_WAIT_S = 0.25
WAIT_MAX_S = 60.0
BUSY_MAX_S = 300.0
"""A server may tell us to come back later for so long; then it counts as failed."""


class Backoff:
    """The repetitions of one request."""

    def __init__(self, retries: int) -> None:
        self._left = retries
        self._wait_s = FIRST_WAIT_S
        self._begun = time.monotonic()

    async def wait(self, *, retry_after_s: float | None = None, is_busy: bool = False) -> bool:
        """Wait before the next attempt; False when there is to be none. That a server is busy uses up no
        attempt."""
        if is_busy:
            if time.monotonic() - self._begun > BUSY_MAX_S:
                return False
        elif self._left <= 0:
            return False
        else:
            self._left -= 1
        wait_s = self._wait_s * random.uniform(0.5, 1.0)
        self._wait_s = min(2 * self._wait_s, WAIT_MAX_S)
        await asyncio.sleep(min(max(wait_s, retry_after_s or 0.0), WAIT_MAX_S))
        return True


def retry_after_s(text: str | None) -> float | None:
    """A Retry-After header: seconds, or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


class Slots:
    """How many requests may be under way: at most `most`, halved whenever the server is too busy."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = float(most)
        self._taken = 0
        self._freed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        async with self._freed:
            await self._freed.wait_for(lambda: self._taken < max(1, int(self._allowed)))
            self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            async with self._freed:
                self._freed.notify_all()

    def too_many(self) -> None:
        self._allowed = max(1.0, self._allowed / 2)

    def went_well(self) -> None:
        self._allowed = min(float(self._most), self._allowed + 1 / self._allowed)


class BatchSize:
    """How many documents to ask for at once: as many as take about TARGET_BYTES and TARGET_S."""

    FIRST = 50
    TARGET_BYTES = 2_000_000
    TARGET_S = 2.0

    def __init__(self, most: int) -> None:
        self._most = most
        self.docs = min(self.FIRST, most)

    def took(self, docs: int, size_bytes: int, seconds: float) -> None:
        """What a request for `docs` documents took."""
        if size_bytes > 2 * self.TARGET_BYTES or seconds > 2 * self.TARGET_S:
            self.docs = max(1, self.docs // 2)
        elif docs >= self.docs and size_bytes < self.TARGET_BYTES and seconds < self.TARGET_S:
            self.docs = min(self._most, 2 * self.docs)

    def too_much(self) -> None:
        self.docs = max(1, self.docs // 2)
