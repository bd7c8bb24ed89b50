"""Responses with CouchDB's headers: whole JSON bodies, empty ones, and streamed rows.

What must stay true here: every response, error or not, leaves through these functions, so that each has the
request id, the CORS headers of its origin and the same framing; a HEAD has the headers of its GET and no
body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from multidict import CIMultiDict, istr

from couchlite.jsontext import dumps

from . import cors
from .request import Request

# Rows are gathered into pieces of this size: below it, the cost of a chunk is more than that of its bytes.
PIECE_SIZE_BYTES = 65_536

SERVER = "CouchDB/3.5.0 (couchlite; Python)"

_SERVER = istr("Server")
_CACHE_CONTROL = istr("Cache-Control")
_CONTENT_TYPE = istr("Content-Type")
_REQUEST_ID = istr("X-Couch-Request-ID")
_BODY_TIME = istr("X-CouchDB-Body-Time")

Headers = Mapping[str, str]


def json(request: Request, status: int, value: Any, headers: Headers | None = None) -> web.Response:
    """A JSON response; `value` is encoded unless it is bytes that already are JSON. The body ends with a
    newline.
    """
    body = (value if isinstance(value, bytes) else dumps(value)) + b"\n"
    return web.Response(status=status, body=body, headers=json_headers(request, headers))


def raw(request: Request, status: int, body: bytes, headers: Headers | None = None) -> web.Response:
    """A response with a body that is not JSON; the caller names its Content-Type."""
    return web.Response(status=status, body=body, headers=plain_headers(request, headers))


def empty(request: Request, status: int, headers: Headers | None = None) -> web.Response:
    """A response without a body and without the JSON headers (304, 301, preflights)."""
    return web.Response(status=status, headers=plain_headers(request, headers))


def granted(request: Request, headers: Headers) -> web.Response:
    """The answer to a granted preflight: its CORS headers replace those of an ordinary response."""
    complete: CIMultiDict[str] = CIMultiDict(headers)
    complete.update({"Server": SERVER, "X-Couch-Request-ID": request.id})
    return web.Response(status=204, headers=complete)


def matches(request: Request, etag: str) -> bool:
    """Whether If-None-Match names `etag` (with its quotes), weak or not."""
    given = request.headers.get("If-None-Match")
    if given is None:
        return False
    return any(tag.removeprefix("W/") == etag for tag in given.replace(",", " ").split())


def not_modified(request: Request, etag: str) -> web.Response:
    return empty(request, 304, {"ETag": etag})


def json_headers(request: Request, headers: Headers | None = None) -> CIMultiDict[str]:
    """The headers of a JSON response; those given win over the defaults."""
    complete: CIMultiDict[str] = CIMultiDict(
        (
            (_CACHE_CONTROL, "must-revalidate"),
            (_CONTENT_TYPE, "application/json"),
            (_SERVER, SERVER),
            (_REQUEST_ID, request.id),
            (_BODY_TIME, str(request.body_time_ms)),
        )
    )
    return _finish(request, complete, headers)


def plain_headers(request: Request, headers: Headers | None = None) -> CIMultiDict[str]:
    """The headers that every response has."""
    complete: CIMultiDict[str] = CIMultiDict(
        ((_SERVER, SERVER), (_REQUEST_ID, request.id), (_BODY_TIME, str(request.body_time_ms)))
    )
    return _finish(request, complete, headers)


def _finish(request: Request, complete: CIMultiDict[str], headers: Headers | None) -> CIMultiDict[str]:
    if headers:
        complete.update(headers)
    if "Origin" in request.headers:
        cors.expose(request, complete)
    return complete


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

    __slots__ = ("_pieces", "_request", "_response", "_size")

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
        self._response = web.StreamResponse(status=status, headers=complete)
        self._pieces: list[bytes] = []
        self._size = 0

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
        if self._request.response is None:
            await self._begin()
        if self._pieces:
            body = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            await self._response.write(body)

    async def end(self, piece: bytes = b"") -> web.StreamResponse:
        """Send the rest and the end of the body; returns what the handler must return."""
        self._add(piece)
        await self.flush()
        await self._response.write_eof()
        return self._response

    def _add(self, piece: bytes) -> None:
        if self._request.is_head:
            raise HeadAnswered(self._response)
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)

    async def _begin(self) -> None:
        self._request.response = self._response
        if "Content-Length" not in self._response.headers:
            if self._request.raw.version < (1, 1):
                self._response.force_close()  # HTTP/1.0 knows no chunks: the connection's end is the body's
            else:
                self._response.enable_chunked_encoding()
        await self._response.prepare(self._request.raw)
