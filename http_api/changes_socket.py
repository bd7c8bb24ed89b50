"""A changes feed over a WebSocket (RFC 6455): each row a text message, the end of the feed one with
`last_seq`.

CouchDB has no such feed; docs/websocket.md describes it. What must stay true here: a browser sends cookies
to whatever address a page names and asks nobody (CORS does not cover WebSockets), so a page of a foreign
origin is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from couchlite.changes_feed import Page
from couchlite.database import Database
from couchlite.document import Meta, Revision
from couchlite.errors import BadRequest, Forbidden
from couchlite.jsontext import dumps

from . import cors, documents, errors, response
from .changes_options import Options
from .changes_rows import RowFormat
from .request import Request

CLIENT_MESSAGE_MAX_BYTES = 4096
"""A client has nothing to say; what it sends is dropped."""
ATTACHMENTS_MAX_BYTES = 64 * 1024 * 1024
"""A message is made in memory, so a document whose attachments are longer together shows them as stubs."""


def is_asked_for(request: Request) -> bool:
    """Whether a request wants to change the protocol to WebSocket."""
    return request.headers.get("Upgrade", "").strip().lower() == "websocket"


async def serve(
    request: Request,
    database: Database,
    options: Options,
    run: Callable[[SocketSink], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Accept the socket and let `run` send the feed, until that is over or the client leaves.

    :raises BadRequest: the handshake is malformed. :raises Forbidden: the page has a foreign origin.
    """
    _check_origin(request)
    socket = web.WebSocketResponse(compress=False, max_msg_size=CLIENT_MESSAGE_MAX_BYTES)
    if not socket.can_prepare(request.raw).ok:
        raise BadRequest("The WebSocket handshake is malformed.")
    socket.headers.update(response.plain_headers(request))
    await socket.prepare(request.raw)
    sending = asyncio.ensure_future(run(SocketSink(socket, database, options)))
    listening = asyncio.create_task(_drop_messages(socket))
    try:
        await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            await _close(request, socket, sending.exception())
    finally:
        for task in (sending, listening):
            task.cancel()
        await asyncio.gather(sending, listening, return_exceptions=True)
    return socket


async def _drop_messages(socket: web.WebSocketResponse) -> None:
    """Read what the client sends (its pings are answered by that) until it closes the socket."""
    async for _message in socket:
        pass


async def _close(request: Request, socket: web.WebSocketResponse, error: BaseException | None) -> None:
    if isinstance(error, Exception) and not isinstance(error, ConnectionError):
        await socket.send_frame(errors.in_band(request, error), WSMsgType.TEXT)
        await socket.close(code=WSCloseCode.INTERNAL_ERROR)
    elif request.app.stopping.is_set():
        await socket.close(code=WSCloseCode.GOING_AWAY)
    else:
        await socket.close()


def _check_origin(request: Request) -> None:
    origin = request.headers.get("Origin")
    if origin is None or cors.accepts_origin(request, origin):
        return
    if urlsplit(origin).netloc != urlsplit(request.absolute_uri("/")).netloc:
        raise Forbidden("The origin of the page is not allowed to connect.")


class SocketSink:
    """A feed as messages."""

    def __init__(self, socket: web.WebSocketResponse, database: Database, options: Options) -> None:
        self._socket = socket
        self._database = database
        self._format = RowFormat(database.tag, options, spells_seqs=False)
        self._doc_options = documents.Options(flags=options.flags)
        self.written_at = time.monotonic()

    async def page(self, page: Page) -> None:
        rows = self._format.rows(page)
        if page.revisions is None:
            for text in rows.texts:
                await self._send(text)
            return
        for text, (revision, meta) in zip(rows.texts, page.revisions, strict=True):
            await self._send(text + self._document(revision, meta) + b"}")

    async def wait(self) -> None:
        """Messages are sent at once."""

    async def heartbeat(self) -> None:
        self.written_at = time.monotonic()
        await self._socket.ping()

    async def end(self, last_seq: str, pending: int) -> web.StreamResponse:
        await self._send(b'{"last_seq":%b,"pending":%d}' % (dumps(last_seq), pending))
        return self._socket

    def _document(self, revision: Revision, meta: Meta) -> bytes:
        options = self._doc_options
        if sum(info.identity_length for info in revision.attachments) > ATTACHMENTS_MAX_BYTES:
            options = documents.Options(flags=options.flags - {"attachments"})
        return b"".join(documents.as_json_with_data(self._database, revision, options, meta))

    async def _send(self, message: bytes) -> None:
        self.written_at = time.monotonic()
        await self._socket.send_frame(message, WSMsgType.TEXT)
