"""The HTTP/1.1 connection: aiohttp's, but what it can't parse is answered in CouchDB's JSON too, and methods
that nobody has heard of are answered as any that doesn't fit."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler

from couchlite.jsontext import dumps

if TYPE_CHECKING:
    from .app import App

# A GET with `keys` in its query gets long; beyond this it should have been a POST.
TARGET_LENGTH_MAX = 1_048_576
# One header line, and how many of them: what mochiweb takes.
HEADER_SIZE_MAX_BYTES = 65_536
HEADERS_MAX = 1_000
# What is read ahead of a handler that consumes a body: enough to keep a fast upload going, small enough for
# hundreds.
READ_AHEAD_BYTES = 262_144
# How long the rest of a refused body is read and dropped, so that its client gets to the response.
LINGER_S = 30.0
# How long a connection may idle, and a request's head take to arrive; longer than proxies and clients keep
# theirs.
KEEPALIVE_S = 300.0

# How often a server that stops looks whether requests have finished, and what a cut one gets to notice it.
BUSY_CHECK_S = 0.02
CUT_S = 0.5

METHODS_PARSED = frozenset(
    b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE "
    b"NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE "
    b"TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
"""What aiohttp's parser takes, but CONNECT, after which it would hand on bytes instead of requests."""
UNKNOWN_METHOD = b"UNLINK"
_USUAL = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) [^ \r\n]+ HTTP/1\.[01]\r\n")

logger = logging.getLogger(__name__)


class Connection(RequestHandler):
    """One connection. Errors of the protocol are answered as CouchDB words errors, and a target may hold
    UTF-8 that is not percent-encoded, which CouchDB takes and aiohttp's parser doesn't."""

    __slots__ = ("_is_in_head", "_latest_body")

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._latest_body: StreamReader = EMPTY_PAYLOAD
        self._is_in_head = False
        """Whether what came last is the beginning of a request, whose rest is to come."""

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered, or was read and waits for it."""
        return self._request_in_progress or bool(self._messages)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the parser; a request line's bytes beyond ASCII are escaped on the way, and a method
        that the parser doesn't know becomes one that it knows and no address has.

        What is, or may be, the body of a request is left alone, and so is what follows a request to change
        the protocol. If such a body turns out to be malformed, its reader is told, who would otherwise wait
        for the rest of it (aiohttp leaves him waiting).
        """
        body = self._latest_body
        if body.is_eof() and not self._upgraded:
            if not data.isascii():
                data = _escape_target(data)
            if not self._is_in_head and not data.startswith(_USUAL):
                data = _with_known_method(data)
        known = len(self._messages)
        super().data_received(data)
        self._is_in_head = len(self._messages) == known and body.is_eof()
        if not self._messages:
            return
        message, self._latest_body = self._messages[-1]
        if not body.is_eof() and not isinstance(message, RawRequestMessage):
            self._messages.pop()
            body.set_exception(web.RequestPayloadError("malformed chunks"))
            self.close()  # after the response; what else this client sends means nothing

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response to what is not a request, or to an exception that came out of the application."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun; the error can only cut it")
        if isinstance(exc, LineTooLong) and exc.args[1] == TARGET_LENGTH_MAX:
            status, error, reason = 414, "too_long", "the request uri is too long"
        elif status == 400:
            error, reason = "bad_request", "the HTTP request is malformed"
        else:
            logger.error("a request from %s failed", request.remote, exc_info=exc)
            error, reason = "internal_server_error", "internal error"
        response = web.Response(
            status=status,
            body=dumps({"error": error, "reason": reason}) + b"\n",
            headers={"Content-Type": "application/json", "Cache-Control": "must-revalidate"},
        )
        response.force_close()
        return response


def _escape_target(data: bytes) -> bytes:
    line, end, rest = data.partition(b"\r\n")
    if line.isascii():
        return data
    return b"".join(b"%%%02X" % byte if byte > 127 else bytes((byte,)) for byte in line) + end + rest


def _with_known_method(data: bytes) -> bytes:
    line = _REQUEST_LINE.match(data)
    if line is None or line[1] in METHODS_PARSED:
        return data
    return UNKNOWN_METHOD + data[line.end(1) :]


class WebServer(web.Server):
    """Makes a `Connection` for each accepted socket."""

    def __init__(self, app: App) -> None:
        # A handler is cancelled when its client goes away: idle feeds must not outlive their clients.
        super().__init__(app.handle, handler_cancellation=True)

    def __call__(self) -> RequestHandler:
        options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,  # attachments are stored as they come
            "keepalive_timeout": KEEPALIVE_S,
            "lingering_time": LINGER_S,
            "max_line_size": TARGET_LENGTH_MAX,
            "max_field_size": HEADER_SIZE_MAX_BYTES,
            "max_headers": HEADERS_MAX,
            "read_bufsize": READ_AHEAD_BYTES,
        }
        return Connection(self, loop=self._loop, **options)


class Listener:
    """A listening socket and its connections."""

    def __init__(self, app: App, web_server: WebServer, listening: asyncio.Server) -> None:
        self._app = app
        self._web_server = web_server
        self._listening = listening

    @property
    def port(self) -> int:
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    async def close(self, grace_s: float = 10.0) -> None:
        """Stop accepting, let feeds end and requests finish for `grace_s`, then cut what is left.

        aiohttp's own way to end would no longer read the bodies of requests that are under way.
        """
        self._listening.close()
        self._app.stopping.set()
        self._app.server.wake_feeds()
        if self._app.replications is not None:
            await self._app.replications.close()
        deadline = time.monotonic() + grace_s
        while self._close_idle() and time.monotonic() < deadline:
            await asyncio.sleep(BUSY_CHECK_S)
        await self._web_server.shutdown(CUT_S)
        await self._app.functions.close()
        await self._app.authentication.close()
        await self._listening.wait_closed()

    def _close_idle(self) -> bool:
        """Close the connections that have no request; whether there are others."""
        busy = False
        for connection in self._web_server.connections:
            if isinstance(connection, Connection) and connection.is_busy:
                busy = True
            else:
                connection.close()
        return busy


async def listen(
    app: App,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    reuse_port: bool = False,
    backlog: int = 4096,
) -> Listener:
    """Serve `app` on an address; port 0 takes a free one. Several processes may share it with `reuse_port`.

    :raises OSError: the address can't be used.
    """
    web_server = WebServer(app)
    listening = await asyncio.get_running_loop().create_server(
        web_server, host, port, ssl=tls, reuse_port=reuse_port or None, backlog=backlog
    )
    return Listener(app, web_server, listening)
