"""Requests to one server, and what becomes of them. The only file that knows aiohttp's client.

What must stay true here:
- A request that is safe to repeat is repeated, with growing waits; every one is: replicated edits are
  idempotent. Streams are repeated by the pipeline, for both ends of one have to begin again.
- Nobody waits for ever: a server that is silent for `connection_timeout` is gone, while sending too.
- Credentials go to the host they are meant for, never into errors or logs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

import aiohttp
import aiohttp_socks
from yarl import URL

from couchlite.config import Config
from couchlite.errors import BadRequest, TooLarge, UnsupportedMediaType
from couchlite.jsontext import dumps, loads
from couchlite.version import VERSION

from . import wire
from .errors import PeerFailure
from .options import Endpoint, Options
from .retries import Backoff, Slots, retry_after_s

GZIP_MIN_BYTES = 2_048
REDIRECTS_MAX = 5
BUSY = (429, 503)
REDIRECTS = (301, 302, 303, 307, 308)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SOCKS = "socks5:"
_PROXY_FAILURES = (
    aiohttp_socks.ProxyError,
    aiohttp_socks.ProxyConnectionError,
    aiohttp_socks.ProxyTimeoutError,
)
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, *_PROXY_FAILURES)

Body = bytes | Callable[[], AsyncIterator[bytes]] | None
Response = aiohttp.ClientResponse


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    value: Any
    """The body as JSON; None if it is none."""
    size: int
    server: str = ""
    """How the server calls itself."""


class _Repeat(Exception):
    """An answer after which a request is to be made again."""

    def __init__(self, status: int, wait_s: float | None = None) -> None:
        self.status = status
        self.wait_s = wait_s


class HttpClient:
    """Asks the server of an endpoint about its database; paths are below that."""

    def __init__(self, endpoint: Endpoint, options: Options, tls: ssl.SSLContext | bool) -> None:
        self._endpoint = endpoint
        self.url = endpoint.url
        self.retries = options.retries_per_request
        self._timeout_s = options.connection_timeout_ms / 1000
        self._slots = Slots(options.http_connections)
        self._tls = tls
        self._gzips = urlsplit(endpoint.url).hostname not in LOOPBACK
        self._cookie: str | None = None
        self._may_log_in = endpoint.username is not None
        self.logins = 0
        """How many sessions were begun."""
        self._logging_in = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(
        self,
        method: str,
        path: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        raises: bool = True,
    ) -> Answer:
        """One request with a whole answer, repeated as often as it takes or is allowed.

        :param raises: without it, a server's error is an answer, too.
        :raises PeerFailure: there was no answer.
        """
        backoff = Backoff(self.retries)
        headers = {} if body is None else {"Content-Type": "application/json"}
        while True:
            try:
                async with self._slots.one(), self._attempt(method, path, query, body, headers) as response:
                    answer = await _read(response)
                self._slots.went_well()
                return answer
            except _Repeat as repeat:
                is_busy = repeat.status in BUSY
                if is_busy:
                    self._slots.too_many()
                if not await backoff.wait(retry_after_s=repeat.wait_s, is_busy=is_busy):
                    if not raises:
                        return Answer(repeat.status, None, 0)
                    raise self._code_failure(method, path, repeat.status) from None
            except _FAILURES as error:
                if not await backoff.wait():
                    raise self.lost(method, path, error) from error

    async def read_doc(self, doc_id: str) -> dict[str, Any] | None:
        """A document's winner; None where there is none. :raises PeerFailure:"""
        answer = await self.ask("GET", wire.escape_id(doc_id))
        if answer.status == 404:
            return None
        if answer.status != 200 or not isinstance(answer.value, dict):
            raise self.failure("read_failed", answer)
        return answer.value

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        takes_slot: bool = True,
        as_sent: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request whose answer is read piece by piece; what goes wrong then is a PeerFailure.

        :param as_sent: a body that is encoded is not to be decoded.
        """
        given = dict(headers or {}) | ({} if body is None else {"Content-Type": "application/json"})
        slot = self._slots.one() if takes_slot else contextlib.nullcontext()
        try:
            async with slot, self._attempt(method, path, query, body, given, as_sent) as response:
                yield response
        except _Repeat as repeat:
            if repeat.status in BUSY:
                self._slots.too_many()
            raise self._code_failure(method, path, repeat.status) from None
        except (BadRequest, UnsupportedMediaType, TooLarge, *_FAILURES) as error:
            raise self.lost(method, path, error) from error

    async def upload(
        self, path: str, query: Mapping[str, str], body: Body, headers: Mapping[str, str]
    ) -> Answer:
        """PUT a body that can be sent but once. :raises PeerFailure:"""
        try:
            async with self._attempt("PUT", path, query, body, headers) as response:
                return await _read(response)
        except _Repeat as repeat:
            raise self._code_failure("PUT", path, repeat.status) from None
        except _FAILURES as error:
            raise self.lost("PUT", path, error) from error

    async def told(self, path: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What goes wrong while an answer is read comes up where it is used, which is in the other peer: so
        it must be known as a failure of this one."""
        try:
            async for piece in pieces:
                yield piece
        except (BadRequest, *_FAILURES) as error:
            raise self.lost("GET", path, error) from error

    @contextlib.asynccontextmanager
    async def _attempt(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Body,
        headers: Mapping[str, str],
        as_sent: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One attempt, redirections and logins included.

        :raises _Repeat: the server is busy, or failed.
        """
        url = wire.address(self.url, path, query)
        has_logged_in = False
        for _ in range(REDIRECTS_MAX):
            async with self._send(method, url, body, headers, as_sent) as response:
                if response.status in REDIRECTS and "Location" in response.headers:
                    url = urljoin(url, response.headers["Location"])
                    if response.status == 303:
                        method, body = "GET", None
                    continue
                if response.status == 401 and not has_logged_in and not callable(body):
                    has_logged_in = await self._log_in()
                    if has_logged_in:
                        continue
                if response.status in (400, 415) and self._gzips and isinstance(body, bytes):
                    self._gzips = False
                    continue
                if response.status == 408 or response.status >= 500 or response.status in BUSY:
                    wait_s = retry_after_s(response.headers.get("Retry-After"))
                    raise _Repeat(response.status, wait_s)
                yield response
                return
        raise _Repeat(508)

    @contextlib.asynccontextmanager
    async def _send(
        self, method: str, url: str, body: Body, headers: Mapping[str, str], as_sent: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        fields = {"Accept": "application/json", "User-Agent": f"couchlite-replicator/{VERSION}"}
        if _host(url) == _host(self.url):
            fields |= dict(self._endpoint.headers) | self._credentials()
        fields |= headers
        data: Any = body
        if isinstance(body, bytes) and self._gzips and len(body) >= GZIP_MIN_BYTES:
            data = await asyncio.to_thread(gzip.compress, body, 1)
            fields["Content-Encoding"] = "gzip"
        async with _Patience(self._timeout_s) as patience:
            if isinstance(data, bytes):
                data = io.BytesIO(data)  # sent piece by piece, with turns for others
            if callable(body):
                data = patience.watched(body())
            session = self._open_session()
            async with session.request(
                method,
                URL(url, encoded=True),
                data=data,
                headers=fields,
                allow_redirects=False,
                auto_decompress=not as_sent,
                proxy=None if self._by_socks else self._endpoint.proxy,
            ) as response:
                patience.is_over()
                self._renew_cookie(response)
                yield response

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=1 << 18,
            )
        return self._session

    @property
    def _by_socks(self) -> bool:
        return (self._endpoint.proxy or "").startswith(SOCKS)

    def _connector(self) -> aiohttp.BaseConnector:
        if self._by_socks:
            assert self._endpoint.proxy is not None
            return aiohttp_socks.ProxyConnector.from_url(self._endpoint.proxy, limit=0, ssl=self._tls)
        return aiohttp.TCPConnector(limit=0, ssl=self._tls)

    async def is_couchdb(self) -> bool:
        """Whether the server says at its root that it is a CouchDB, or what calls itself so."""
        try:
            async with self._send("GET", self._server_url(""), None, {}) as response:
                answer = await _read(response)
        except _FAILURES:
            return False
        return isinstance(answer.value, dict) and answer.value.get("couchdb") == "Welcome"

    def _server_url(self, path: str) -> str:
        """An address of the server, beside its databases."""
        parts = urlsplit(self.url)
        before = parts.path.rstrip("/").rpartition("/")[0]
        return urlunsplit((parts.scheme, parts.netloc, f"{before}/{path}", "", ""))

    # who we are

    def _credentials(self) -> dict[str, str]:
        if self._cookie is not None:
            return {"Cookie": f"AuthSession={self._cookie}"}
        if self._endpoint.username is None:
            return {}
        pair = f"{self._endpoint.username}:{self._endpoint.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    async def _log_in(self) -> bool:
        """Get a session cookie, where the name and password as such were refused, or the cookie has ended;
        whether there is a new one."""
        before = self._cookie
        async with self._logging_in:
            if self._cookie != before:
                return True
            if not self._may_log_in:
                return False
            self._cookie = None
            form = dumps({"name": self._endpoint.username, "password": self._endpoint.password})
            headers = {"Content-Type": "application/json"}
            async with self._send("POST", self._server_url("_session"), form, headers) as response:
                self._may_log_in = response.status == 200 and self._cookie is not None
                self.logins += self._may_log_in
            return self._may_log_in

    def _renew_cookie(self, response: aiohttp.ClientResponse) -> None:
        found = response.cookies.get("AuthSession")
        if found is not None and self._endpoint.username is not None:
            self._cookie = found.value or None

    # failures

    def failure(self, error: str, answer: Answer) -> PeerFailure:
        word, reason = wire.told(answer.value, answer.status)
        if answer.status == 404 and word == "not_found" and reason != "Database does not exist.":
            return PeerFailure(error, reason, code=404)
        return PeerFailure(error, f"{word}: {reason}", code=answer.status)

    def _code_failure(self, method: str, path: str, status: int) -> PeerFailure:
        return PeerFailure(
            "http_error_code", f"{status} {method} {wire.address(self.url, path)}", code=status
        )

    def lost(self, method: str, path: str, error: BaseException) -> PeerFailure:
        url = wire.address(self.url, path)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return PeerFailure("nxdomain", f"could not resolve {url}")
        if isinstance(error, TimeoutError):
            cause = "req_timedout"
        elif isinstance(error, _PROXY_FAILURES):
            cause = "{conn_failed,{error,proxy}}"
        elif isinstance(error, aiohttp.ClientConnectorCertificateError):
            cause = "{conn_failed,{error,bad_certificate}}"
        elif isinstance(error, aiohttp.ClientConnectorError):
            refused = isinstance(error.os_error, ConnectionRefusedError)
            cause = f"{{conn_failed,{{error,{'econnrefused' if refused else 'ehostunreach'}}}}}"
        else:
            cause = "connection_closed"
        return PeerFailure("error", f'{{http_request_failed,"{method}","{url}",{{error,{{error,{cause}}}}}}}')


def tls_context(config: Config) -> ssl.SSLContext | bool:
    """How servers are to prove who they are, and what is shown to them: section [replicator].

    CouchDB believes every certificate unless it is told not to; here it is the other way round.

    :raises OSError: a file that is named can't be used.
    """
    section = "replicator"
    authorities = config.get(section, "ssl_trusted_certificates_file")
    context = ssl.create_default_context(cafile=authorities or None)
    if not config.boolean(section, "verify_ssl_certificates"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = config.get(section, "cert_file"), config.get(section, "key_file")
    if certificate and key:
        context.load_cert_chain(certificate, key, config.get(section, "password"))
    return context


class _Patience:
    """Gives up on a peer that takes nothing of what is sent for so long; aiohttp minds only what it reads."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> _Patience:
        await self._limit.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._limit.__aexit__(*exc)

    async def watched(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self._limit.reschedule(asyncio.get_running_loop().time() + self._most_s)
            yield piece
        self.is_over()

    def is_over(self) -> None:
        """All is sent."""
        self._limit.reschedule(None)


async def _read(response: aiohttp.ClientResponse) -> Answer:
    data = await response.read()
    value = None
    with contextlib.suppress(BadRequest):
        value = loads(data)
    return Answer(response.status, value, len(data), response.headers.get("Server", ""))


def _host(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
