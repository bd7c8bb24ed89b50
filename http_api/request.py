"""One HTTP request as the handlers see it: target split and decoded as CouchDB does it, typed query values,
body.

What must stay true here:
- The raw target is split on "/" *before* anything is percent-decoded, so that `a%2Fb` is one segment; nothing
  normalises `..` or `.`, which are legal document ids.
- Nothing is read, decoded or allocated before a handler asks for it: a plain GET pays for its own path only.
- Every limit is checked while bytes arrive, before and after decompression: no body grows beyond it in
  memory.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from random import getrandbits
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy, istr

from couchlite.database import Database
from couchlite.errors import (
    BadRequest,
    CouchliteError,
    DatabaseNotFound,
    TooLarge,
    UnsupportedMediaType,
)
from couchlite.jsontext import loads
from couchlite.security import ANONYMOUS, Principal, check_member
from couchlite.server import Server

from .values import (
    UNESCAPED,
    decode,
    decompress,
    encode,
    is_text,
    json_value,
    media_ranges,
    parse_query,
    unquote,
)

if TYPE_CHECKING:
    from .app import App

BODY_IDLE_S = 300.0
"""How long a client may pause in the midst of a body."""
REQUEST_ID_LENGTH_MAX = 36
"""Longer ids are not taken over from X-Couch-Request-ID: they go into every log line."""
TARGET_LENGTH_UNCHECKED = 1_024
"""Targets up to here are never too long: nobody limits them further, and a look at the limit is not free."""

_REQUEST_ID_HEADER = istr("X-Couch-Request-ID")
_CONTENT_ENCODING = istr("Content-Encoding")
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_REQUEST_ID = re.compile(rf"[0-9a-zA-Z_-]{{1,{REQUEST_ID_LENGTH_MAX}}}")
_AUTHORITY = re.compile("[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_OVERRIDABLE = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "COPY"})


class UriTooLong(CouchliteError):
    status = 414
    error = "too_long"
    default_reason = "the request uri is too long"


class BodyTimeout(CouchliteError):
    status = 408
    error = "timeout"
    default_reason = "the rest of the request body did not come"


class Request:
    """A request with its lazily parsed parts.

    `method` is what decides the handler: HEAD counts as GET (`is_head` tells), and a POST may carry another
    method in X-HTTP-Method-Override. `doc_id` and `attachment_name` are set by the router for document
    routes.
    """

    __slots__ = (
        "_body",
        "_database",
        "_query",
        "app",
        "attachment_name",
        "authenticated_by",
        "body_time_ms",
        "callback",
        "doc_id",
        "headers",
        "id",
        "is_head",
        "method",
        "principal",
        "query_text",
        "raw",
        "response",
        "rewrites",
        "segments",
        "server",
        "set_cookie",
        "target",
    )

    def __init__(self, app: App, raw: web.BaseRequest) -> None:
        self.app = app
        self.server: Server = app.server
        self.raw = raw
        self.headers: CIMultiDictProxy[str] = raw.headers
        self.principal: Principal = ANONYMOUS
        self.authenticated_by: str | None = None  # name of the handler, as in /_session
        self.set_cookie: str | None = None  # renews the session of the request
        self.target: str = raw._message.path
        self.segments: list[str] = []
        self.query_text = ""
        self.doc_id = ""
        self.attachment_name = ""
        self.callback: str | None = None  # the function of JavaScript that gets the answer (JSONP)
        self.body_time_ms = 0
        self.rewrites = 0
        """How often it was sent elsewhere, see rewrites.py."""
        self.response: web.StreamResponse | None = None  # set once a streamed response has begun
        self._query: list[tuple[str, str]] | None = None
        self._body: bytes | None = None
        self._database: Database | None = None

        method = raw.method
        self.is_head = method == "HEAD"
        if method == "POST":
            override = self.headers.get("X-HTTP-Method-Override")
            if override in _OVERRIDABLE:
                method = override
        self.method = "GET" if method == "HEAD" else method

        given = self.headers.get(_REQUEST_ID_HEADER)
        if given is not None and _REQUEST_ID.fullmatch(given):
            self.id = given
        else:
            self.id = f"{getrandbits(40):010x}"

    def rewritten(
        self,
        target: str,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Request:
        """The same request to another target, to be answered from the start."""
        other = Request(self.app, self.raw)
        other.id = self.id
        other.target = target
        other.rewrites = self.rewrites + 1
        other._body = self._body if body is None else body
        other.headers = self.headers
        other.method = self.method
        if method is not None:
            other.method = "GET" if method == "HEAD" else method
        if headers:
            changed = CIMultiDict(self.headers)
            changed.update(headers)
            other.headers = CIMultiDictProxy(changed)
        return other

    # Target

    def split_target(self) -> None:
        """Fill `segments` (decoded, without the empty ones) and `query_text` from the raw target.

        Raises BadRequest "invalid_url_encoding" for a "%" that starts no escape, wherever it stands;
        UriTooLong beyond [chttpd] max_uri_length, if that is set.
        """
        target = self.target
        if len(target) > TARGET_LENGTH_UNCHECKED:
            self._check_length(target)
        if "%" in target and _BAD_ESCAPE.search(target):
            raise BadRequest("invalid_url_encoding")
        if "#" in target:
            target = target.partition("#")[0]
        path, _, self.query_text = target.partition("?")
        if not path.startswith("/"):
            authority = _AUTHORITY.match(path)
            path = path[authority.end() :] if authority else path
        plus_is_space = self.app.settings.plus_is_space
        self.segments = [decode(segment, plus_is_space) for segment in path.split("/") if segment]

    def _check_length(self, target: str) -> None:
        longest = self.server.config.reported("chttpd", "max_uri_length")
        if longest is not None and longest.isdecimal() and len(target) > int(longest):
            raise UriTooLong()

    @property
    def path(self) -> str:
        """The raw path, without the query: what the client asked for, escapes intact."""
        return self.target.partition("#")[0].partition("?")[0]

    def escaped_id(self) -> str:
        """The document id of the address, escaped for a Location header."""
        if "\ufffd" not in self.doc_id:
            return encode(self.doc_id)
        # It may stand for bytes that no text has; the header gives back what was sent.
        sent = [segment for segment in self.path.split("/") if segment][1:]
        plus_is_space = self.app.settings.plus_is_space
        return quote(b"/".join(unquote(part, plus_is_space) for part in sent), safe=UNESCAPED)

    # Query

    @property
    def query(self) -> list[tuple[str, str]]:
        """Decoded pairs in the order sent; separated by "&" or ";"."""
        pairs = self._query
        if pairs is None:
            pairs = self._query = parse_query(self.query_text) if self.query_text else []
        return pairs

    def query_value(self, name: str) -> str | None:
        """The first value of a parameter, as CouchDB's qs_value gives; None when it is absent."""
        if not self.query_text:
            return None
        for key, value in self.query:
            if key == name:
                return value
        return None

    def set_query_value(self, name: str, value: str) -> None:
        """Let a parameter have one value, which was not sent as such."""
        self._query = [*(pair for pair in self.query if pair[0] != name), (name, value)]
        self.query_text = self.query_text or name

    def query_json(self, name: str) -> Any:
        """The first value of a parameter parsed as JSON; None when it is absent."""
        value = self.query_value(name)
        return None if value is None else json_value(value)

    def query_flag(self, name: str) -> bool:
        """Whether the first value is exactly "true"; anything else counts as false, without an error."""
        return self.query_value(name) == "true"

    # Database

    def database(self) -> Database:
        """The database named by the first segment, open, after the membership check.

        Raises DatabaseNotFound; Unauthorized or Forbidden for those who are not members.
        """
        database = self._database
        if database is None:
            name = self.segments[0]
            if not is_text(name):
                raise DatabaseNotFound()
            database = self.server.open(name)
            if not self.principal.is_admin:  # a server administrator needs no look at the security object
                check_member(database.security, self.principal)
            self._database = database
        return database

    def has_lost_database(self) -> bool:
        """Whether the database of this request was deleted since it was opened."""
        return self._database is not None and self.server.has_deleted(self._database)

    # Body

    @property
    def content_length(self) -> int | None:
        """Bytes announced by Content-Length; None when the header is missing (chunked, or no body at all)."""
        text = self.headers.get("Content-Length")
        return int(text) if text is not None and text.isdecimal() else None

    @property
    def has_body(self) -> bool:
        """Whether a body was sent, if only an empty one."""
        return self._body is not None or self.content_length is not None or self.raw.body_exists

    def require_json_type(self) -> None:
        """Raise UnsupportedMediaType unless Content-Type is application/json, compared case-sensitively as
        there.
        """
        given = self.headers.get("Content-Type")
        if given is None or given.lstrip(";").partition(";")[0] != "application/json":
            raise UnsupportedMediaType("Content-Type must be application/json")

    async def json(self) -> Any:
        """The body as a JSON value, decompressed when it came gzipped.

        Raises BadRequest for a missing or malformed body, UnsupportedMediaType for an unknown
        Content-Encoding, TooLarge beyond [chttpd] max_http_request_size.
        """
        if not self.has_body:
            raise BadRequest("Missing request body")
        body = await self.body()
        encoding = self.headers.get(_CONTENT_ENCODING)
        return loads(body if encoding is None else decompress(body, encoding, self.body_size_max))

    async def json_object(self) -> dict[str, Any]:
        """The body as a JSON object; raises as `json` does, and BadRequest for any other value."""
        value = await self.json()
        if not isinstance(value, dict):
            raise BadRequest("Request body must be a JSON object")
        return value

    async def body(self) -> bytes:
        """The whole body as sent (not decompressed); raises TooLarge."""
        if self._body is None:
            content = self.raw.content
            if content.is_eof() and content.exception() is None:  # it came along with the head
                self._body = content.read_nowait()
                if len(self._body) > self.body_size_max:
                    raise TooLarge()
            else:
                self._body = b"".join([chunk async for chunk in self.body_chunks()])
        return self._body

    async def body_chunks(self, size_max: int | None = None) -> AsyncIterator[bytes]:
        """The body piece by piece, as it arrives and not faster than it is consumed; raises TooLarge.

        Nothing is asked of a client that waits for "100 Continue" before this is called, so that a request
        that is refused anyway never sends its body.
        """
        limit = self.body_size_max if size_max is None else size_max
        if self._body is not None:  # read before, by a function that has rewritten the request
            if len(self._body) > limit:
                raise TooLarge()
            yield self._body
            return
        announced = self.content_length
        if announced is not None and announced > limit:
            raise TooLarge()
        begun = time.monotonic()
        received = 0
        await self._send_continue()
        try:
            while chunk := await self._next_chunk():
                received += len(chunk)
                if received > limit:
                    raise TooLarge()
                yield chunk
        except (HttpProcessingError, web.RequestPayloadError) as error:
            raise BadRequest("The request body is malformed.") from error
        finally:
            self.body_time_ms = int((time.monotonic() - begun) * 1000)

    async def _next_chunk(self) -> bytes:
        content = self.raw.content
        if content.at_eof():
            return b""
        if chunk := content.read_nowait():
            return chunk
        try:
            async with asyncio.timeout(BODY_IDLE_S):
                return await content.readany()
        except TimeoutError:
            raise BodyTimeout() from None

    @property
    def body_size_max(self) -> int:
        """[chttpd] max_http_request_size in bytes."""
        return self.server.config.integer("chttpd", "max_http_request_size")

    @property
    def awaits_continue(self) -> bool:
        """Whether the client holds its body back until it is told to send it (Expect: 100-continue)."""
        expect = self.headers.get("Expect")
        return expect is not None and expect.lower() == "100-continue" and self.raw.version >= (1, 1)

    async def _send_continue(self) -> None:
        if self.awaits_continue and not self.raw.content.is_eof() and not self.raw.content.total_bytes:
            await self.raw.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.raw.writer.output_size = 0  # what was written is not part of the response

    # Negotiation

    def accepts(self, content_type: str) -> bool:
        """Whether Accept covers a media type; without the header everything is accepted. Order means
        nothing.
        """
        accept = self.headers.get("Accept")
        if accept is None:
            return True
        ranges = media_ranges(accept)
        family = content_type.partition("/")[0] + "/*"
        if ranges.get(content_type) == 0 or ranges.get(family) == 0:
            return False
        return any(ranges.get(name, 0) > 0 for name in (content_type, family, "*/*"))

    # Addresses

    def absolute_uri(self, path: str) -> str:
        """`path` behind the scheme and host by which the client (or its proxy) reached this server."""
        headers = self.headers
        config = self.server.config
        host = headers.get(config.text("chttpd", "x_forwarded_host")) or headers.get("Host")
        if host is None:
            address = self.raw.transport.get_extra_info("sockname") if self.raw.transport else None
            host = f"{address[0]}:{address[1]}" if address else "localhost"
        is_https = (
            self.raw.secure
            or headers.get(config.text("chttpd", "x_forwarded_ssl")) == "on"
            or headers.get(config.text("chttpd", "x_forwarded_proto")) == "https"
        )
        scheme = "https" if is_https else "http"
        return f"{scheme}://{host}{path}"
