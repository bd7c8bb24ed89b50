"""The child processes of a server process.

A child is started when there is a call and none is idle, and ended when it was idle for long: a server that
uses no functions has none. What must stay true here:

1. A call has a child to itself. Nothing but that call is lost when the child is: programs are sent along
   whenever a child lacks them.
2. A database can't occupy all children, so that functions which run on and on are in the way of their own
   database only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from .child import LOAD
from .design import Program
from .process import Child, Limits

CHILDREN_MAX = 8
"""Each costs some 6 MB while it lives."""
CHILDREN_HELD_MAX = 8
"""More of them, which serve list functions for as long as a client takes to read."""
CHILDREN_PER_SCOPE_MAX = 2
"""Of either sort."""
IDLE_S_MAX = 60.0


class HeldChild:
    """A child with a program, for one call."""

    def __init__(self, child: Child, program: Program) -> None:
        self._child = child
        self._program = program

    async def call(self, operation: int, text: bytes) -> dict[str, Any]:
        """The first answer. :raises ChildLost: there is none, here as below."""
        return await _call(self._child, self._program, operation, text)

    async def tell(self, operation: int, text: bytes) -> dict[str, Any]:
        """Give what the last answer wanted; gives the next one."""
        return await self._child.call(operation, self._program.key, text)

    async def next_answer(self) -> dict[str, Any]:
        """The one after an answer that wanted nothing."""
        return await self._child.next_answer()


async def _call(child: Child, program: Program, operation: int, text: bytes) -> dict[str, Any]:
    answer = await child.call(operation, program.key, text)
    if "unknown" in answer:
        answer = await child.call(LOAD, program.key, program.text)
        if "loaded" in answer:
            child.loaded.add(program.key)
            answer = await child.call(operation, program.key, text)
    return answer


class ChildPool:
    """To be used in one event loop, and closed in it."""

    def __init__(self, limits: Callable[[], Limits], *, idle_s_max: float = IDLE_S_MAX) -> None:
        self._limits = limits
        self._idle_s_max = idle_s_max
        self._slots = asyncio.Semaphore(CHILDREN_MAX)
        self._held_slots = asyncio.Semaphore(CHILDREN_HELD_MAX)
        self._slots_of_scope: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._idle: list[Child] = []  # the one used last is last
        self._retirement: asyncio.TimerHandle | None = None
        self._closed = False
        self.started = 0
        """How many children there have been."""

    async def call(self, scope: str, program: Program, operation: int, text: bytes) -> dict[str, Any]:
        """The answer to a request (see child.py), loading the program where it isn't.

        :raises ChildLost: it has none.
        """
        async with self._child(self._slots_of(scope), self._slots, program) as child:
            return await _call(child, program, operation, text)

    @asynccontextmanager
    async def hold(self, scope: str, program: Program) -> AsyncIterator[HeldChild]:
        """A child for a call that goes back and forth.

        It doesn't count as one of those that calls wait for, since what is given to it may take such a call.
        """
        async with self._child(self._slots_of(f"held {scope}"), self._held_slots, program) as child:
            yield HeldChild(child, program)

    def close(self) -> None:
        """End all idle children, and those that are in a call when it is over."""
        self._closed = True
        if self._retirement is not None:
            self._retirement.cancel()
        self._end_idle(before=float("inf"))

    @asynccontextmanager
    async def _child(
        self, slots_of_scope: asyncio.Semaphore, slots: asyncio.Semaphore, program: Program
    ) -> AsyncIterator[Child]:
        async with slots_of_scope, slots:
            child = self._take(program) or await self._start()
            try:
                yield child
            finally:
                self._give_back(child)

    async def _start(self) -> Child:
        child = await Child.start(self._limits())
        self.started += 1
        return child

    def _slots_of(self, scope: str) -> asyncio.Semaphore:
        return self._slots_of_scope.setdefault(scope, asyncio.Semaphore(CHILDREN_PER_SCOPE_MAX))

    def _take(self, program: Program) -> Child | None:
        """An idle child, one that has loaded the program if possible."""
        limits = self._limits()
        # Those that were ended from outside, or started with limits that have changed.
        for child in [child for child in self._idle if not child.usable or child.limits != limits]:
            self._idle.remove(child)
            child.end()
        for child in self._idle:
            if program.key in child.loaded:
                self._idle.remove(child)
                return child
        return self._idle.pop() if self._idle else None

    def _give_back(self, child: Child) -> None:
        if self._closed or not child.usable:
            child.end()
            return
        self._idle.append(child)
        if self._retirement is None:
            loop = asyncio.get_running_loop()
            self._retirement = loop.call_later(self._idle_s_max, self._retire)

    def _retire(self) -> None:
        """End what was idle for long, and look again when the next one may have been."""
        self._retirement = None
        self._end_idle(before=time.monotonic() - self._idle_s_max)
        if self._idle:
            wait_s = self._idle[0].idle_since + self._idle_s_max - time.monotonic()
            self._retirement = asyncio.get_running_loop().call_later(max(wait_s, 0), self._retire)

    def _end_idle(self, before: float) -> None:
        for child in [child for child in self._idle if child.idle_since <= before]:
            self._idle.remove(child)
            child.end()
