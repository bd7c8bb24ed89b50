"""Where passwords are hashed, which is slow on purpose: in few threads, beside the event loop, and in an
order in which those who guess passwords come last.

What must stay true here:
- Who sends wrong passwords by the hundred waits for himself: of one account and address one hash is computed
  at a time; whoever has failed before, or has others waiting, comes after those who haven't.
- What waits is bounded; beyond, the last in the order is refused.
- The threads yield to the rest of the process wherever the system lets them.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, TypeVar

from .errors import TooManyRequests

P = ParamSpec("P")
T = TypeVar("T")

WAITING_MAX = 200
WAITING_OF_ONE_MAX = 10
NICENESS = 10
"""How far the threads step back behind others that want the processor."""

BUSY = "too many passwords are being checked at the moment; try again later"


@dataclass(frozen=True, slots=True, order=True)
class Who:
    """Whose password is checked, and for whom."""

    address: str
    name: str


@dataclass(order=True, slots=True)
class _Check:
    """One that waits, or runs. They are ordered by the first three."""

    attempts: int
    """Failures of the same account and address, and what waited of it."""
    others: int
    """What waited from the same address."""
    number: int
    who: Who = field(compare=False)
    matches: Callable[[], bool] = field(compare=False)
    begins: Callable[[], None] = field(compare=False)
    ends: Callable[[bool], None] = field(compare=False)
    future: asyncio.Future[bool] = field(compare=False)


class Hashing:
    """:param threads: how many hashes are computed at once."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords", initializer=_step_back)
        self._numbers = itertools.count()
        self._waiting: list[_Check] = []
        self._of: Counter[Who] = Counter()
        self._from: Counter[str] = Counter()
        self._running: set[Who] = set()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have something computed that nobody waits for."""
        self._pool.submit(function, *args, **kwargs)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Compute something else in the same threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(function, *args, **kwargs))

    def check(
        self,
        who: Who,
        failures: int,
        matches: Callable[[], bool],
        *,
        begins: Callable[[], None],
        ends: Callable[[bool], None],
    ) -> asyncio.Future[bool]:
        """Have `matches` computed when its turn comes.

        :param failures: of `who`, so far.
        :param begins: called just before; may raise, which is the outcome then.
        :param ends: told the outcome before the next one's turn comes.
        :raises TooManyRequests: as may the future, if others come first meanwhile.
        """
        if self._of[who] >= WAITING_OF_ONE_MAX:
            raise TooManyRequests(BUSY, headers={"Retry-After": "1"})
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(_look_at)
        others = self._from[who.address]
        check = _Check(
            failures + self._of[who], others, next(self._numbers), who, matches, begins, ends, future
        )
        bisect.insort(self._waiting, check)
        self._of[who] += 1
        self._from[who.address] += 1
        self._start()
        if len(self._waiting) > WAITING_MAX:
            last = self._waiting.pop()
            self._forget(last)
            last.future.set_exception(TooManyRequests(BUSY, headers={"Retry-After": "1"}))
        return future

    def _start(self) -> None:
        """Begin with whoever's turn it is while a thread is free."""
        while len(self._running) < self._threads:
            check = next((check for check in self._waiting if check.who not in self._running), None)
            if check is None:
                return
            self._waiting.remove(check)
            try:
                check.begins()
                computed = self._pool.submit(check.matches)
            except Exception as error:
                self._forget(check)
                check.future.set_exception(error)
                continue
            self._running.add(check.who)
            loop = check.future.get_loop()
            computed.add_done_callback(partial(_tell, loop, partial(self._ended, check)))

    def _ended(self, check: _Check, computed: Future[bool]) -> None:
        self._running.discard(check.who)
        self._forget(check)
        if computed.cancelled():  # the server stops
            check.future.cancel()
            return
        error = computed.exception()
        if error is not None:
            check.future.set_exception(error)
        else:
            check.ends(computed.result())
            check.future.set_result(computed.result())
        self._start()

    def _forget(self, check: _Check) -> None:
        _decrease(self._of, check.who)
        _decrease(self._from, check.who.address)


def _decrease(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _tell(
    loop: asyncio.AbstractEventLoop, ended: Callable[[Future[bool]], None], computed: Future[bool]
) -> None:
    """In the thread that computed: let the loop know, unless it has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(ended, computed)


def _look_at(future: asyncio.Future[bool]) -> None:
    """That nobody waits any more is no reason to complain about an exception that nobody has seen."""
    if not future.cancelled():
        future.exception()


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
