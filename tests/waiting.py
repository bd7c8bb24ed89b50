"""Waiting for what is to happen, however slow the machine is."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

PATIENCE_S = 60.0
"""Of a machine that does much else; less than what pytest gives a test."""
POLL_S = 0.02


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Until the condition is true; fails when it isn't for so long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(POLL_S)


async def until(condition: Callable[[], object | Awaitable[object]], timeout_s: float = PATIENCE_S) -> None:
    """As `wait_until`, beside the event loop; the condition may be something to await."""
    deadline = time.monotonic() + timeout_s
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(POLL_S)
