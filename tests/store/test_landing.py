"""Waiting in an event loop for what other threads finish."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from couchlite.landing import landed


async def test_results_and_errors_arrive() -> None:
    done: Future[int] = Future()
    done.set_result(1)
    assert await landed(done) == 1
    failed: Future[int] = Future()
    failed.set_exception(ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        await landed(failed)


async def test_none_is_lost_when_threads_finish_many_at_once() -> None:
    futures: list[Future[int]] = [Future() for _ in range(2000)]

    def finish(start: int) -> None:
        for number in range(start, len(futures), 4):
            futures[number].set_result(number)

    waiting = [asyncio.create_task(landed(future)) for future in futures]
    await asyncio.sleep(0)
    threads = [threading.Thread(target=finish, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting) == list(range(2000))
    for thread in threads:
        thread.join()


async def test_giving_up_cancels_what_has_not_begun() -> None:
    queued: Future[int] = Future()
    running: Future[int] = Future()
    running.set_running_or_notify_cancel()
    for future in (queued, running):
        waiting = asyncio.create_task(landed(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert queued.cancelled()
    running.set_result(1)  # nobody waits for it any more
    await asyncio.sleep(0.01)
