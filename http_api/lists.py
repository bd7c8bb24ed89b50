"""List functions of design documents, which write the rows of a view as they like:
/{db}/_design/{name}/_list/{function}/[{design document of the view}/]{view}.

The function runs while the rows are read: it gets a page of them at a time, and what it writes is sent before
it gets the next. Source: chttpd_show:handle_view_list_req and couch_mrview_show:list_cb.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from couchlite.index import designs
from couchlite.javascript import ListRun, Piece
from couchlite.jsontext import dumps

from . import function_response, listings, view_query, views
from .functions import InvalidPath
from .request import Request
from .request_object import request_object
from .response import Stream
from .view_options import ViewOptions, read_options

CLIENT_IDLE_S = 60.0
"""For how long a client may take nothing: meanwhile a process waits, and a database has few at a time."""


class _Ended(Exception):
    """The function wants no more rows."""


async def write(request: Request) -> web.StreamResponse:
    """GET, or POST with a body that has options of the view, and may have more, for the function."""
    path = request.segments[4:]
    if len(path) not in (2, 3):
        raise InvalidPath(error="list_error")
    function, view = path[0], path[-1]
    body: Any = "undefined"
    if request.method == "POST":
        request.require_json_type()
        body = await request.json_object()
    design = designs.find(request.database(), f"_design/{request.segments[2]}").views.functions
    design.find("lists", function)
    seen = dumps(request_object(request, request.database(), body))
    view_design = path[1] if len(path) == 3 else request.segments[2]
    async with request.app.functions.list_rows(design, function) as run:
        sink = _Listed(request, run, seen)
        try:
            if view == "_all_docs":
                await listings.write_all_docs(request, sink, await read_options(request))
            else:
                definition, state = views.find(request, view_design, view)
                options = _view_options(request, body)
                views.validate(request, definition, options)
                await view_query.write_rows(request, sink, definition, options, state)
        except _Ended:
            pass
    return await sink.finish()


def _view_options(request: Request, body: Any) -> ViewOptions:
    options = ViewOptions()
    if isinstance(body, dict):
        options.read_body(body)
    options.read_query(request.query)
    return options


class _Listed:
    """Gives rows to a list function, and what it writes to the client."""

    def __init__(self, request: Request, run: ListRun, seen: bytes) -> None:
        self._request = request
        self._run = run
        self._seen = seen
        self._head = function_response.parse({})
        self._stream: Stream | None = None
        self._last = ""

    async def head(self, members: bytes) -> None:
        await self._take(await self._run.begin(b"{%b}" % members, self._seen))

    async def rows(self, rows: Sequence[bytes]) -> None:
        if rows:
            await self._take(await self._run.give(rows))

    async def long_row(self, pieces: Iterable[bytes]) -> None:
        await self.rows([b"".join(pieces)])

    async def end(self) -> None:
        await self._take(await self._run.give(()))

    async def finish(self) -> web.StreamResponse:
        """Send the rest, when the function is over."""
        return await self._begun().end(self._last.encode())

    async def _take(self, piece: Piece) -> None:
        """Send what the function has written, until it wants rows. :raises _Ended: it doesn't."""
        while True:
            if piece.head is not None:
                self._head = function_response.parse(piece.head)
            if piece.is_last:
                self._last = piece.text
                raise _Ended()
            if piece.text:
                await self._send(piece.text)
            if piece.wants_rows:
                return
            piece = await self._run.go_on()

    async def _send(self, text: str) -> None:
        """:raises ConnectionError: the client takes nothing."""
        try:
            async with asyncio.timeout(CLIENT_IDLE_S):
                await self._begun().write(text.encode())
                await self._begun().flush()
        except TimeoutError:
            if self._request.raw.transport is not None:
                self._request.raw.transport.abort()
            raise ConnectionResetError("the client of a list takes nothing") from None

    def _begun(self) -> Stream:
        if self._stream is None:
            head = self._head
            headers = head.headers | function_response.confinement(self._request)
            self._stream = Stream(self._request, head.status, headers, is_json=False)
        return self._stream
