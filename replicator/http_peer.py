"""A database on a server that is reached by HTTP. The only file that knows aiohttp's client.

What must stay true here:
- A request that is safe to repeat is repeated, with growing waits; every one is: replicated edits are
  idempotent. Streams are repeated by the pipeline, for both ends of one have to begin again.
- Nobody waits for ever: a peer that is silent for `connection_timeout` is gone, while sending too.
- Credentials go to the host they are meant for, never into errors or logs.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from couchlite.config import Config
from couchlite.errors import BadRequest, Conflict, MissingStub, TooLarge, UnsupportedMediaType
from couchlite.jsontext import dumps, loads
from couchlite.multipart import (
    MultipartReader,
    new_boundary,
    related_length,
    related_pieces,
    related_type,
)
from couchlite.version import VERSION

from . import wire
from .errors import EndpointRefused, PeerFailure
from .options import Endpoint, Options
from .peer import (
    Batch,
    Change,
    ChangesPage,
    ChangesQuery,
    Doc,
    Missing,
    PeerInfo,
    Refusal,
    Seq,
    StreamedDoc,
)
from .retries import Backoff, BatchSize, Slots, retry_after_s

CHANGES_PAGE_ROWS = 2_000
DOCUMENT_MAX_BYTES = 1 << 30
"""A document's JSON is held in memory; the target has its own, smaller limit."""
GZIP_MIN_BYTES = 2_048
REDIRECTS_MAX = 5
LINE_MAX_BYTES = 64 << 20
BUSY = (429, 503)
REDIRECTS = (301, 302, 303, 307, 308)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)

Body = bytes | Callable[[], AsyncIterator[bytes]] | None


class _Answer(NamedTuple):
    status: int
    value: Any
    """The body as JSON; None if it is none."""
    size: int


class _Repeat(Exception):
    """An answer after which a request is to be made again."""

    def __init__(self, status: int, wait_s: float | None = None) -> None:
        self.status = status
        self.wait_s = wait_s


class HttpPeer:
    def __init__(self, endpoint: Endpoint, options: Options, tls: ssl.SSLContext | bool = True) -> None:
        self.name = endpoint.url
        self._endpoint = endpoint
        self._url = endpoint.url
        self._retries = options.retries_per_request
        self._timeout_s = options.connection_timeout_ms / 1000
        # One more than CouchDB would use at least: a changes feed occupies one for good.
        self._slots = Slots(max(2, options.http_connections))
        self._batch = BatchSize(options.worker_batch_size)
        self._tls = tls
        self._bulk_get = options.use_bulk_get
        self._gzips = urlsplit(endpoint.url).hostname not in LOOPBACK
        self._cookie: str | None = None
        self._may_log_in = endpoint.username is not None
        self._logging_in = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    @property
    def batch_docs_max(self) -> int:
        return self._batch.docs

    # opening

    async def open(self, *, create: bool = False, create_params: Mapping[str, Any] | None = None) -> PeerInfo:
        if create:
            query = {name: _plain(value) for name, value in (create_params or {}).items()}
            answer = await self._ask("PUT", query=query)
            if answer.status in (401, 403):
                self._check_access(answer)
        answer = await self._ask("GET")
        self._check_access(answer)
        value = answer.value if answer.status == 200 and isinstance(answer.value, dict) else {}
        if "update_seq" not in value or "instance_start_time" not in value:
            raise EndpointRefused.missing(self.name)
        return PeerInfo(value["update_seq"], str(value["instance_start_time"]))

    def _check_access(self, answer: _Answer) -> None:
        if answer.status == 401:
            raise EndpointRefused.unauthorized(self.name)
        if answer.status == 403:
            raise EndpointRefused.forbidden(self.name)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # reading

    async def changes(self, since: Seq, query: ChangesQuery) -> AsyncGenerator[ChangesPage]:
        left: int | None = None
        while True:
            page, pending = await self._changes_page(since, query)
            if page.changes:
                since = page.last_seq
                yield page
            if left is None and pending is not None:
                left = len(page.changes) + pending
            if left is not None:
                left -= len(page.changes)
            # While the source is being written to, the newest of the beginning is as far as it goes.
            if len(page.changes) < CHANGES_PAGE_ROWS or (left is not None and left <= 0):
                break
        while query.continuous:
            async with contextlib.aclosing(self._follow(since, query)) as pages:
                async for page in pages:
                    since = page.last_seq
                    yield page

    async def _changes_page(self, since: Seq, query: ChangesQuery) -> tuple[ChangesPage, int | None]:
        asked, body = wire.changes_query(since, query)
        asked |= {"feed": "normal", "limit": str(CHANGES_PAGE_ROWS), "timeout": self._feed_timeout}
        answer = await self._ask("GET" if body is None else "POST", "_changes", query=asked, body=body)
        if answer.status != 200:
            raise self._failure("changes_req_failed", answer)
        return wire.changes_page(answer.value)

    @property
    def _feed_timeout(self) -> str:
        return str(max(1000, int(self._timeout_s * 1000 / 3)))

    async def _follow(self, since: Seq, query: ChangesQuery) -> AsyncGenerator[ChangesPage]:
        """What comes on one continuous feed, until the server or the network ends it."""
        asked, body = wire.changes_query(since, query)
        is_filtered = len(asked) > 2
        # An idle feed is kept alive; a filtered one is ended, to learn how far nothing has passed.
        asked |= {"feed": "continuous", "timeout" if is_filtered else "heartbeat": self._feed_timeout}
        begun = time.monotonic()
        with contextlib.suppress(PeerFailure):
            async with self._stream(
                "GET" if body is None else "POST", "_changes", query=asked, body=body, takes_slot=False
            ) as response:
                if response.status != 200:
                    raise self._failure("changes_req_failed", _Answer(response.status, None, 0))
                async for lines in _lines(response):
                    page = _page_of_lines(lines)
                    if page is not None and page.last_seq is not None:
                        yield page
        if time.monotonic() - begun < 1:
            # It broke at once: the next page tells whether the source is well, with the usual waits.
            await asyncio.sleep(1)
            page, _pending = await self._changes_page(since, query)
            if page.changes:
                yield page

    async def count_pending(self, since: Seq) -> int | None:
        query = {"since": wire.seq_text(since), "limit": "0"}
        answer = await self._ask("GET", "_changes", query=query)
        pending = answer.value.get("pending") if isinstance(answer.value, dict) else None
        return pending if isinstance(pending, int) else None

    async def revs_diff(self, changes: Sequence[Change]) -> list[Missing]:
        wanted: dict[str, list[str]] = {}
        for change in changes:
            wanted.setdefault(change.id, []).extend(change.revs)
        answer = await self._ask("POST", "_revs_diff", body=dumps(wanted))
        if answer.status != 200:
            raise self._failure("revs_diff_failed", answer)
        return wire.missing(answer.value)

    async def bulk_get(self, wanted: Sequence[Missing]) -> Batch:
        if not self._bulk_get:
            return Batch((), wanted)
        body, asked = wire.bulk_get_body(wanted)
        query = {"latest": "true", "revs": "true", "attachments": "false"}
        begun = time.monotonic()
        answer = await self._ask("POST", "_bulk_get", query=query, body=body, raises=False)
        if answer.status != 200:
            if answer.status in (400, 404, 405, 415, 501):
                self._bulk_get = False  # it doesn't know the address
            self._batch.too_much()
            return Batch((), wanted)
        self._batch.took(len(asked), answer.size, time.monotonic() - begun)
        return wire.bulk_got(answer.value, asked)

    @contextlib.asynccontextmanager
    async def open_revs(self, wanted: Missing) -> AsyncIterator[AsyncIterator[StreamedDoc | Refusal]]:
        async with contextlib.aclosing(self._open_revs(wanted)) as found:
            yield found

    async def _open_revs(self, wanted: Missing) -> AsyncGenerator[StreamedDoc | Refusal]:
        accept = {"Accept": "multipart/mixed, application/json;q=0.5"}
        path = wire.escape_id(wanted.id)
        for query in wire.open_revs_queries(wanted):
            async with self._stream("GET", path, query=query, headers=accept) as response:
                if response.status == 404:
                    for rev in loads(query["open_revs"]):
                        yield Refusal(wanted.id, rev, "not_found", "missing on the source")
                    continue
                if response.status != 200:
                    raise self._failure("open_revs_failed", _Answer(response.status, None, 0))
                if response.content_type == "application/json":
                    rows = loads(await response.read())
                    found = self._from_json(wanted, rows)
                else:
                    content = self._told(path, response.content.iter_any())
                    found = self._from_mixed(wanted.id, path, response.headers["Content-Type"], content)
                async for result in found:
                    yield result

    async def _from_mixed(
        self, doc_id: str, path: str, content_type: str, content: AsyncIterator[bytes]
    ) -> AsyncIterator[StreamedDoc | Refusal]:
        """The parts of a multipart/mixed answer: documents, alone or with their attachments, and errors."""
        reader = MultipartReader(content_type, content)
        while (headers := await reader.next_part()) is not None:
            content_type = headers.get("content-type", "")
            if content_type.startswith("multipart/related"):
                inner = MultipartReader(content_type, reader.body())
                value = loads(await inner.document(DOCUMENT_MAX_BYTES))
                parts = wire.following_parts(value)
                doc = Doc(doc_id, value["_rev"], value=value)
                yield StreamedDoc(doc, parts, self._bodies(path, inner, len(parts)))
                continue
            value = loads(b"".join([piece async for piece in reader.body()]))
            if "error=" in content_type or "_rev" not in value:
                yield Refusal(doc_id, str(value.get("missing")), "not_found", "missing on the source")
            else:
                doc = Doc(doc_id, value["_rev"], value=value)
                yield StreamedDoc(doc, (), self._bodies(path, reader, 0))

    async def _bodies(
        self, path: str, reader: MultipartReader, count: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        for _ in range(count):
            try:
                part = await reader.next_part()
            except BadRequest as error:
                raise self._lost("GET", path, error) from error
            if part is None:
                raise PeerFailure("missing_attachment", f"attachments are missing in {self.name}{path}")
            yield self._told(path, reader.body())

    async def _told(self, path: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What goes wrong while an answer is read comes up where it is used, which is in the other peer: so
        it must be known as a failure of this one."""
        try:
            async for piece in pieces:
                yield piece
        except (BadRequest, *_FAILURES) as error:
            raise self._lost("GET", path, error) from error

    async def _from_json(self, wanted: Missing, rows: Any) -> AsyncIterator[StreamedDoc | Refusal]:
        """A server that knows no multipart gives stubs; their attachments are asked for one by one."""
        for row in rows:
            if "ok" not in row:
                yield Refusal(wanted.id, str(row.get("missing")), "not_found", "missing on the source")
                continue
            value = row["ok"]
            names = _make_newer_follow(value, wanted.ancestors)
            doc = Doc(wanted.id, value["_rev"], value=value)
            yield StreamedDoc(doc, wire.following_parts(value), self._attachments(doc, names))

    async def _attachments(self, doc: Doc, names: Sequence[str]) -> AsyncIterator[AsyncIterator[bytes]]:
        for name in names:
            path = f"{wire.escape_id(doc.id)}/{quote(name, safe='')}"
            headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
            async with self._stream("GET", path, query={"rev": doc.rev}, headers=headers) as response:
                if response.status != 200:
                    raise self._failure("attachment_failed", _Answer(response.status, None, 0))
                yield self._told(path, response.content.iter_any())

    async def read_doc(self, doc_id: str) -> dict[str, Any] | None:
        answer = await self._ask("GET", wire.escape_id(doc_id))
        if answer.status == 404:
            return None
        if answer.status != 200 or not isinstance(answer.value, dict):
            raise self._failure("read_failed", answer)
        return answer.value

    # writing

    async def bulk_docs(self, docs: Sequence[Doc]) -> list[Refusal]:
        body = b'{"new_edits":false,"docs":[%b]}' % b",".join([doc.text for doc in docs])
        answer = await self._ask("POST", "_bulk_docs", body=body)
        if answer.status not in (200, 201, 202, 417):
            raise self._failure("bulk_docs_failed", answer)
        return wire.refusals(answer.value)

    async def put(self, streamed: StreamedDoc) -> Refusal | None:
        doc, parts = streamed.doc, streamed.parts
        boundary = new_boundary()
        length = related_length(boundary, doc.text, parts)
        headers = {"Content-Type": related_type(boundary), "Content-Length": str(length)}

        def body() -> AsyncIterator[bytes]:
            return related_pieces(boundary, doc.text, parts, streamed.bodies)

        if not parts:
            headers = {"Content-Type": "application/json"}
        path = wire.escape_id(doc.id)
        try:
            async with self._attempt(
                "PUT", path, {"new_edits": "false"}, body if parts else doc.text, headers
            ) as response:
                answer = await _read(response)
        except _Repeat as repeat:
            raise self._code_failure("PUT", path, repeat.status) from None
        except _FAILURES as error:
            raise self._lost("PUT", path, error) from error
        if answer.status in (200, 201, 202):
            return None
        word, reason = wire.told(answer.value, answer.status)
        if answer.status == 412 and word == "missing_stub":
            raise MissingStub(reason)
        if answer.status in (401, 403):
            await self.open()  # it was not the database as a whole that was refused
        elif answer.status not in (400, 412, 413, 414, 415, 417, 422):
            raise self._failure("doc_write_failed", answer)
        return Refusal(doc.id, doc.rev, word, reason)

    async def write_local(self, doc_id: str, value: dict[str, Any]) -> str:
        answer = await self._ask("PUT", wire.escape_id(doc_id), body=dumps(value))
        if answer.status == 409:
            raise Conflict()
        if answer.status not in (200, 201, 202) or not isinstance(answer.value, dict):
            raise self._failure("checkpoint_commit_failure", answer)
        return str(answer.value.get("rev"))

    async def commit(self) -> str:
        answer = await self._ask("POST", "_ensure_full_commit", body=b"{}")
        if answer.status == 201 and isinstance(answer.value, dict) and "instance_start_time" in answer.value:
            return str(answer.value["instance_start_time"])
        return (await self.open()).instance_start_time

    # requests

    async def _ask(
        self,
        method: str,
        path: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        raises: bool = True,
    ) -> _Answer:
        """One request with a whole answer, repeated as often as it takes or is allowed.

        :param raises: without it, a server's error is an answer, too.
        :raises PeerFailure: there was no answer.
        """
        backoff = Backoff(self._retries)
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
                        return _Answer(repeat.status, None, 0)
                    raise self._code_failure(method, path, repeat.status) from None
            except _FAILURES as error:
                if not await backoff.wait():
                    raise self._lost(method, path, error) from error

    @contextlib.asynccontextmanager
    async def _stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        takes_slot: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A request whose answer is read piece by piece; what goes wrong then is a PeerFailure."""
        given = dict(headers or {}) | ({} if body is None else {"Content-Type": "application/json"})
        slot = self._slots.one() if takes_slot else contextlib.nullcontext()
        try:
            async with slot, self._attempt(method, path, query, body, given) as response:
                yield response
        except _Repeat as repeat:
            if repeat.status in BUSY:
                self._slots.too_many()
            raise self._code_failure(method, path, repeat.status) from None
        except (BadRequest, UnsupportedMediaType, TooLarge, *_FAILURES) as error:
            raise self._lost(method, path, error) from error

    @contextlib.asynccontextmanager
    async def _attempt(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Body,
        headers: Mapping[str, str],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One attempt, redirections and logins included.

        :raises _Repeat: the server is busy, or failed.
        """
        url = wire.address(self._url, path, query)
        has_logged_in = False
        for _ in range(REDIRECTS_MAX):
            async with self._send(method, url, body, headers) as response:
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
        self, method: str, url: str, body: Body, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        fields = {"Accept": "application/json", "User-Agent": f"couchlite-replicator/{VERSION}"}
        if _host(url) == _host(self._url):
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
                proxy=self._endpoint.proxy,
            ) as response:
                patience.is_over()
                self._renew_cookie(response)
                yield response

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=1 << 18,
            )
        return self._session

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
            parts = urlsplit(self._url)
            path = parts.path.rstrip("/").rpartition("/")[0] + "/_session"
            url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
            form = dumps({"name": self._endpoint.username, "password": self._endpoint.password})
            headers = {"Content-Type": "application/json"}
            async with self._send("POST", url, form, headers) as response:
                self._may_log_in = response.status == 200 and self._cookie is not None
            return self._may_log_in

    def _renew_cookie(self, response: aiohttp.ClientResponse) -> None:
        found = response.cookies.get("AuthSession")
        if found is not None and self._endpoint.username is not None:
            self._cookie = found.value or None

    # failures

    def _failure(self, error: str, answer: _Answer) -> PeerFailure:
        word, reason = wire.told(answer.value, answer.status)
        if answer.status == 404 and word == "not_found" and reason != "Database does not exist.":
            return PeerFailure(error, reason, code=404)
        return PeerFailure(error, f"{word}: {reason}", code=answer.status)

    def _code_failure(self, method: str, path: str, status: int) -> PeerFailure:
        return PeerFailure(
            "http_error_code", f"{status} {method} {wire.address(self.name, path)}", code=status
        )

    def _lost(self, method: str, path: str, error: BaseException) -> PeerFailure:
        url = wire.address(self.name, path)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return PeerFailure("nxdomain", f"could not resolve {url}")
        if isinstance(error, TimeoutError):
            cause = "req_timedout"
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


async def _read(response: aiohttp.ClientResponse) -> _Answer:
    data = await response.read()
    try:
        return _Answer(response.status, loads(data), len(data))
    except BadRequest:
        return _Answer(response.status, None, len(data))


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """The complete lines of an endless answer, as many at a time as have come."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_MAX_BYTES:
            raise BadRequest("an endless line")
        if lines:
            yield lines


def _page_of_lines(lines: Sequence[bytes]) -> ChangesPage | None:
    """Heartbeats are empty lines; the last line of a feed tells its last sequence."""
    rows = [loads(line) for line in lines if line.strip()]
    if not rows:
        return None
    changes = [change for row in rows if (change := wire.read_change(row)) is not None]
    last = rows[-1] if isinstance(rows[-1], dict) else {}
    return ChangesPage(changes, last.get("last_seq", last.get("seq")))


def _make_newer_follow(value: dict[str, Any], ancestors: Sequence[str]) -> list[str]:
    """Let the stubs follow that are newer than the newest of the ancestors; their names. What comes is not
    encoded, so neither is its digest the one announced."""
    revisions = value.get("_revisions", {})
    path = [f"{revisions['start'] - at}-{digest}" for at, digest in enumerate(revisions.get("ids", ()))]
    since = next((int(rev.partition("-")[0]) for rev in path if rev in ancestors), 0)
    names = []
    for name, props in (value.get("_attachments") or {}).items():
        if props.get("stub") and props.get("revpos", 0) > since:
            kept = {key: props[key] for key in ("content_type", "revpos", "length") if key in props}
            value["_attachments"][name] = kept | {"follows": True}
            names.append(name)
    return names


def _host(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value).decode()
