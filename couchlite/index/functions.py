"""What an index is made by: the map function of its definition, and its reductions, as a builder's thread
calls them.

JavaScript runs in the children of a FunctionPool, whose event loop is in another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from ..errors import InternalError
from ..javascript import FunctionPool
from ..jsontext import dumps
from . import reducers
from .definition import JAVASCRIPT, QUERY, IndexDefinition
from .layout import ROW_HEAD_BYTES
from .levels import CountsOnly, Reductions
from .native import NativeMapper

Rows = Sequence[Sequence[Any]]
"""What a document emits: pairs of a key and a value."""
T = TypeVar("T")


class Stopped(Exception):
    """The database was closed meanwhile."""


class Mapper(Protocol):
    """A map function."""

    def submit(self, documents: Sequence[bytes]) -> Future[Sequence[Rows]]:
        """Begin to map documents, given as JSON texts; for each what it emits."""
        ...


class IndexFunctions:
    """Runs the functions of indexes. `loop` is the pool's; its thread must not call what is here.

    :param reduce_limit: whether reductions must shrink ([query_server_config] reduce_limit).
    """

    def __init__(
        self, pool: FunctionPool, loop: asyncio.AbstractEventLoop, *, reduce_limit: bool = True
    ) -> None:
        self.pool = pool
        self._loop = loop
        self.reduce_limit = reduce_limit

    def mapper(self, definition: IndexDefinition) -> Mapper:
        """:raises InternalError: there are no functions in that language."""
        if definition.language == QUERY:
            return NativeMapper(definition)
        if definition.language.lower() != JAVASCRIPT:
            raise InternalError(definition.language, error="unknown_query_language")
        return _ScriptMapper(self, definition)

    def reductions(self, definition: IndexDefinition, is_stopped: Callable[[], bool]) -> Reductions:
        if definition.reduce is None:
            return CountsOnly()
        built_in = reducers.find(definition.reduce, limits=self.reduce_limit)
        return built_in or _ScriptReductions(self, definition, is_stopped)

    def start(self, call: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(call, self._loop)


class _ScriptMapper:
    def __init__(self, functions: IndexFunctions, definition: IndexDefinition) -> None:
        self._functions = functions
        self._design = definition.design

    def submit(self, documents: Sequence[bytes]) -> Future[Sequence[Rows]]:
        return self._functions.start(self._functions.pool.map_docs(self._design, documents))


class _ScriptReductions:
    def __init__(
        self, functions: IndexFunctions, definition: IndexDefinition, is_stopped: Callable[[], bool]
    ) -> None:
        self._functions = functions
        self._design = definition.design
        self._is_stopped = is_stopped

    def of_rows(self, groups: Sequence[Sequence[bytes]]) -> list[bytes]:
        return self._reduce([([row[ROW_HEAD_BYTES:] for row in group], (), ()) for group in groups])

    def of_partials(self, groups: Sequence[Sequence[bytes]]) -> list[bytes]:
        return self._reduce([((), group, ()) for group in groups])

    def _reduce(self, groups: Sequence[Any]) -> list[bytes]:
        if not groups:
            return []
        limit = self._functions.reduce_limit
        call = self._functions.pool.reduce_groups(self._design, groups, finish=False, limit=limit)
        return [dumps(value) for value in wait_for(self._functions.start(call), self._is_stopped)]


STOP_CHECK_S = 0.5


def wait_for(future: Future[T], is_stopped: Callable[[], bool]) -> T:
    """The result of a call, unless the database is closed before. :raises Stopped:"""
    while True:
        try:
            return future.result(STOP_CHECK_S)
        except TimeoutError:
            if future.done():
                raise
            if is_stopped():
                future.cancel()
                raise Stopped() from None
