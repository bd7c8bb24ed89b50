"""Responses with CouchDB's headers: whole JSON bodies, empty ones, and streamed rows.

What must stay true here: every response, error or not, leaves through these functions, so that each has the
request id, the CORS headers of its origin and the same framing; a HEAD has the headers of its GET and no
body.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from multidict import istr

from couchlite.jsontext import dumps

from . import cors
from .request import Request

# Rows are gathered into pieces of this size: below it, the cost of a chunk is more than that of its bytes.
PIECE_SIZE_BYTES = 65_536

UNBUFFERED = {"X-Accel-Buffering": "no"}
"""Has nginx pass a feed on at once, which otherwise waits for pages full of it."""

_ORIGIN = istr("Origin")
_PREFER = istr("Prefer")
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}

Headers = Mapping[str, str]


class Whole(web.StreamResponse):
    """A response that is complete when it is made: its head and its body leave in one write.

    aiohttp's own copies its headers twice, looks for defaults to fill in and writes in five steps. All that
    is a third of the cost of a small GET (measured).
    """

    def __init__(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self._status = status
        self._fields = headers
        self._bytes = body

    @property
    def body_length(self) -> int:
        return len(self._bytes)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send everything. Raises ConnectionResetError when the client has gone."""
        if self._eof_sent:
            return None
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        head = self._head(request)
        body = b"" if request.method == "HEAD" else self._bytes
        self._eof_sent = True
        request.writer.output_size += len(head) + len(body)
        if len(body) < PIECE_SIZE_BYTES:
            transport.write(head + body)
            return None
        transport.write(head)
        transport.write(body)
        await request.writer.drain()
        return None

    def _say_where_it_ends(self, fields: dict[str, str]) -> None:
        fields["Content-Length"] = str(len(self._bytes))

    def _head(self, request: web.BaseRequest) -> bytes:
        fields = self._fields
        fields["Date"] = _date()
        if self._status not in (204, 304):
            self._say_where_it_ends(fields)
        if not self._keep_alive:
            fields["Connection"] = "close"
        elif request.version < (1, 1):
            fields["Connection"] = "keep-alive"
        line = _STATUS_LINES.get(self._status) or f"HTTP/1.1 {self._status} \r\n"
        head = line + "".join([f"{name}: {text}\r\n" for name, text in fields.items()])
        if head.count("\n") != len(fields) + 1 or head.count("\r") != len(fields) + 1:
            raise ValueError("a line break in a header")
        # What a header of the request is repeated in goes back byte for byte.
        return f"{head}\r\n".encode("utf-8", "surrogateescape")


class WholeInOneChunk(Whole):
    """The same, in chunks, as a client of CouchDB expects rows."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(status, headers, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    def _say_where_it_ends(self, fields: dict[str, str]) -> None:
        fields["Transfer-Encoding"] = "chunked"


def json(request: Request, status: int, value: Any, headers: Headers | None = None) -> Whole:
    """A JSON response; `value` is encoded unless it is bytes that already are JSON. Ends with a newline."""
    body = (value if isinstance(value, bytes) else dumps(value)) + b"\n"
    if request.callback is not None:
        body = _call_of(request.callback) + body[:-1] + b");\n"
    return Whole(status, json_headers(request, headers), body)


def raw(request: Request, status: int, body: bytes, headers: Headers | None = None) -> Whole:
    """A response with a body that is not JSON; the caller names its Content-Type."""
    return Whole(status, plain_headers(request, headers), body)


def empty(request: Request, status: int, headers: Headers | None = None) -> Whole:
    """A response without a body and without the JSON headers (304, 301)."""
    return Whole(status, plain_headers(request, headers))


def granted(request: Request, headers: Headers) -> Whole:
    """The answer to a granted preflight; it has its CORS headers already."""
    server = request.app.settings.server
    return Whole(204, {"Server": server, "X-Couch-Request-ID": request.id, **headers})


def matches(request: Request, etag: str) -> bool:
    """Whether If-None-Match names `etag` (with its quotes), weak or not."""
    given = request.headers.get("If-None-Match")
    if given is None:
        return False
    return any(tag.removeprefix("W/") == etag for tag in given.replace(",", " ").split())


def not_modified(request: Request, etag: str) -> Whole:
    return empty(request, 304, {"ETag": etag})


def json_headers(request: Request, headers: Headers | None = None) -> dict[str, str]:
    """The headers of a JSON response; those given win over the defaults (names are spelt as here)."""
    complete = {
        "Cache-Control": "must-revalidate",
        "Content-Type": "application/json" if request.callback is None else "application/javascript",
        "Server": request.app.settings.server,
        "X-Couch-Request-ID": request.id,
        "X-CouchDB-Body-Time": str(request.body_time_ms),
    }
    return _finish(request, complete, headers)


def plain_headers(request: Request, headers: Headers | None = None) -> dict[str, str]:
    """The headers that every response has."""
    complete = {
        "Server": request.app.settings.server,
        "X-Couch-Request-ID": request.id,
        "X-CouchDB-Body-Time": str(request.body_time_ms),
    }
    return _finish(request, complete, headers)


def _finish(request: Request, complete: dict[str, str], headers: Headers | None) -> dict[str, str]:
    if request.set_cookie is not None:
        complete["Set-Cookie"] = request.set_cookie
    if headers:
        complete.update(headers)
    frames = request.app.settings.frames
    if frames is not None:
        complete["X-Frame-Options"] = frames.header(request)
    if _ORIGIN in request.headers:
        cors.expose(request, complete)
    if _PREFER in request.headers and request.headers[_PREFER].lower() == "return=minimal":
        wanted = set(request.server.config.words("chttpd", "prefer_minimal"))
        return {name: text for name, text in complete.items() if name in wanted}
    return complete


def _call_of(callback: str) -> bytes:
    """How JSON begins that is given to a function of JavaScript."""
    return f"/* CouchDB */{callback}(".encode()


_second = 0
_second_text = ""


def _date() -> str:
    """Now, for the Date header; made once a second."""
    global _second, _second_text
    now = int(time.time())
    if now != _second:
        _second, _second_text = now, formatdate(now, usegmt=True)
    return _second_text


class HeadAnswered(Exception):
    """A HEAD request needs no rows: thrown out of the handler as soon as the first would be written."""

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response
        super().__init__("headers are all that a HEAD gets")


class Stream:
    """A chunked response whose pieces are written as they come, no faster than the client reads.

    The status and the headers leave with the first full piece, so that an error before it still gets a
    status of its own. One that comes later is told in-band (see errors.py).

        stream = Stream(request, headers={"ETag": etag})
        await stream.write(b'{"rows":[\\r\\n')
        ...
        return await stream.end(b"\\r\\n]}\\n")
    """

    __slots__ = ("_callback", "_headers", "_pieces", "_request", "_response", "_size", "_status")

    def __init__(
        self,
        request: Request,
        status: int = 200,
        headers: Headers | None = None,
        *,
        is_json: bool = True,
        length: int | None = None,
    ) -> None:
        """`length`, when it is known beforehand, saves the chunks. What is not JSON needs a Content-Type."""
        complete = json_headers(request, headers) if is_json else plain_headers(request, headers)
        if length is not None:
            complete["Content-Length"] = str(length)
        self._request = request
        self._status = status
        self._headers = complete
        self._response: web.StreamResponse | None = None  # once it has begun
        self._pieces: list[bytes] = []
        self._size = 0
        self._callback = request.callback if is_json else None
        if self._callback is not None and not request.is_head:
            self._add(_call_of(self._callback))

    async def write(self, piece: bytes) -> None:
        """Add a piece; waits for the client when a full one is due."""
        self._add(piece)
        if self._size >= PIECE_SIZE_BYTES:
            await self.flush()

    async def write_all(self, pieces: Iterable[bytes]) -> None:
        """Add several pieces."""
        for piece in pieces:
            self._add(piece)
            if self._size >= PIECE_SIZE_BYTES:
                await self.flush()

    async def flush(self) -> None:
        """Send what was gathered, the headers too if they have not left yet."""
        response = self._response or await self._begin()
        if self._pieces:
            body = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            await response.write(body)

    async def end(self, piece: bytes = b"") -> web.StreamResponse:
        """Send the rest and the end of the body; returns what the handler must return."""
        self._add(piece)
        if self._callback is not None:
            self._add(b");\n")
        if self._response is None and self._is_chunked:
            return WholeInOneChunk(self._status, self._headers, b"".join(self._pieces))
        await self.flush()
        assert self._response is not None
        await self._response.write_eof()
        return self._response

    @property
    def _is_chunked(self) -> bool:
        """HTTP/1.0 knows no chunks."""
        return "Content-Length" not in self._headers and self._request.raw.version >= (1, 1)

    def _add(self, piece: bytes) -> None:
        if self._request.is_head:
            raise HeadAnswered(web.StreamResponse(status=self._status, headers=self._headers))
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)

    async def _begin(self) -> web.StreamResponse:
        response = web.StreamResponse(status=self._status, headers=self._headers)
        self._response = self._request.response = response
        if self._is_chunked:
            response.enable_chunked_encoding()
        elif "Content-Length" not in self._headers:
            response.force_close()  # the connection's end is the body's
        await response.prepare(self._request.raw)
        return response
