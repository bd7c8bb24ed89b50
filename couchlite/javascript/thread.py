"""Functions of design documents for callers without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from .functions import FunctionPool
from .process import Limits

_T = TypeVar("_T")


class FunctionThread:
    """A pool in an event loop on a thread of its own.

    with FunctionThread() as functions:
        functions.run(functions.pool.check_views(design))
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.pool = FunctionPool(limits)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="functions", daemon=True)
        self._thread.start()

    def __enter__(self) -> FunctionThread:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def run(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Wait for a call of the pool's; from any thread."""
        return asyncio.run_coroutine_threadsafe(call, self.loop).result()

    def close(self) -> None:
        self.run(self.pool.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
