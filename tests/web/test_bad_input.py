"""Whatever a client sends, to whichever address: CouchDB's kind of answer, no fault of ours in the log, no
hang, and the server stays up. The routes are those of the application's own tables."""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import json
import re
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from couchlite import Server
from http_api import app

from ..shell.running import Served, served
from . import hostile

ANSWER_TIMEOUT_S = 10.0
"""Nothing here is work: who takes longer hangs."""
FEEDS_END_MS = 100
STATUSES = {200, 201, 202, 204, 206, 301, 302, 304, 501} | set(range(400, 500))
SERVER_ERRORS = (
    b"is not valid gzip",  # an attachment is stored as it was sent, though its Content-Encoding is not true
    b"Missing replicator database",
    b"required index service unavailable",
    b"invalid_list_index_params",
    b"Search is not available",
)
"""What is answered with 5xx on purpose, as CouchDB does."""
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "COPY",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "LOCK",
    "get",
    "X" * 50,
]
AUTHORIZATION = "Basic YWRtOnBhc3M="

# Some of what is sent is long.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def examples(times: int) -> settings:
    """So many times the usual number of examples; all have one server, which must survive them."""
    return settings(
        max_examples=times * settings().max_examples,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
    )


FILTERS = {"f": "function() { return true; }"}
VIEWS = {"v": {"map": "function (doc) { emit([doc._id, 1], 1); }", "reduce": "_sum"}}


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Victim:
    """A server, and what it has logged since the last look."""

    def __init__(self, server: Served) -> None:
        self.port = server.port
        self._server = server
        self._seen = 0
        for key, value in (("chttpd/changes_timeout", str(FEEDS_END_MS)), ("chttpd/enable_cors", "true")):
            assert self.ask("PUT", f"/_node/_local/_config/{key}", json.dumps(value).encode()).status == 200
        assert self.ask("PUT", "/_node/_local/_config/cors/origins", b'"*"').status == 200

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request that can be parsed, and read the whole answer, or of a feed the beginning."""
        complete = dict(headers or {})
        if body is not None:
            complete["Content-Length"] = str(len(body))
        with self.connection() as connection:
            return self.exchange(connection, method, target, complete, body or b"")

    def exchange(
        self,
        connection: socket.socket,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        waits: bool = False,
    ) -> Reply:
        """The same on a connection; the body is framed already. A client that `waits` sends it only if told
        to."""
        complete = {"Host": "x", "Authorization": AUTHORIZATION, **headers}
        lines = "".join(f"{name}: {text}\r\n" for name, text in complete.items())
        _send(connection, f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
        if not waits or connection.recv(12, socket.MSG_PEEK).endswith(b" 100"):
            _send(connection, body)
        with contextlib.closing(http.client.HTTPResponse(connection, method=method.upper())) as response:
            response.begin()
            is_endless = response.status == 200 and ("feed=" in target or "heartbeat=" in target)
            text = b"" if is_endless else response.read()
            return Reply(response.status, response.headers, text)

    @contextlib.contextmanager
    def connection(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_TIMEOUT_S) as connection:
            yield connection

    def is_well(self) -> None:
        """It answers, and has nothing to complain of itself."""
        assert self.ask("GET", "/_up").status == 200
        output = self._server.output
        new, self._seen = output[self._seen :], len(output)
        assert not any(word in new for word in (" error ", " critical ", "Traceback")), new

    def prepare(self) -> None:
        """The database that all examples play with; some delete it."""
        if self.ask("PUT", "/db").status == 201:
            attachment = {"content_type": "text/plain", "data": "aGVsbG8="}
            docs: list[dict[str, Any]] = [
                {"_id": "doc", "value": 1, "_attachments": {"att": attachment}},
                {"_id": "_local/doc", "value": 2},
                {"_id": "_design/doc", "filters": FILTERS, "views": VIEWS},
            ]
            body = json.dumps({"docs": docs}).encode()
            headers = {"Content-Type": "application/json"}
            assert self.ask("POST", "/db/_bulk_docs", body, headers).status == 201


def _send(connection: socket.socket, data: bytes) -> None:
    # It may answer and close before it has read all.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """One for the whole file; at the end its databases must fit together."""
    directory = tmp_path_factory.mktemp("bad-input")
    with served(directory, "--workers", "1", "--no-access-log") as running:
        yield Victim(running)
    with Server(directory / "data") as store:
        for name in store.names():
            assert store.open(name).check(deep=True) == [], name


def addresses() -> list[str]:
    """One of each kind in the route tables."""
    found = [f"/{name}" for name in app.SERVER_ROUTES]
    for name, lengths in app.NODE_ROUTES.items():
        found += ["/".join(["/_node/_local", name, "a", "b"][: 1 + length]) for length in lengths]
    found += ["/_node/_local", "/_node/_local/_stats", "/_node/_local/_stats/a", "/_node/x/_system", "/_node"]
    found += ["/db/" + "/".join(segments) for segments in app.DATABASE_ROUTES]
    for name in app.DATABASE_PREFIX_ROUTES:
        found += [f"/db/{name}", f"/db/{name}/doc", f"/db/{name}/a/b/c"]
    for document in ("doc", "other", "_local/doc", "_local/other", "_design/doc", "_design/other"):
        found += [f"/db/{document}", f"/db/{document}/att", f"/db/{document}/a/b"]
    found += [f"/db/_design/doc/{action}{rest}" for action in app.DESIGN_ROUTES for rest in ("", "/v", "/f")]
    return [*found, "/Illegal", "/missing", "/db"]


@examples(1)
@given(
    method=st.sampled_from(METHODS[:6]) | st.sampled_from(METHODS),
    payload=hostile.PAYLOADS,
    odd_headers=hostile.HEADERS,
    query=hostile.QUERIES_TEXT,
)
def test_every_address(
    server: Victim,
    method: str,
    payload: tuple[dict[str, str], bytes | None],
    odd_headers: dict[str, str],
    query: str,
) -> None:
    headers, body = payload
    server.prepare()
    for address in addresses():
        target = address + query
        begun = time.monotonic()
        response = server.ask(method, target, body, headers | odd_headers)
        _is_proper(response, method, f"{method} {target}")
        assert time.monotonic() - begun < ANSWER_TIMEOUT_S
    server.is_well()


@examples(6)
@given(data=st.data())
def test_json_that_is_nearly_right(server: Victim, data: st.DataObject) -> None:
    server.prepare()
    call = data.draw(st.sampled_from(list(hostile.CALLS)))
    method, target = call.split()
    body = hostile.encode(data.draw(hostile.nearly(hostile.CALLS[call])))
    headers = {"Content-Type": "application/json"}
    _is_proper(server.ask(method, target, body, headers), method, target)
    server.is_well()


@examples(3)
@given(method=st.sampled_from(METHODS[:6]), target=hostile.TARGETS, query=hostile.QUERIES_TEXT)
def test_hostile_targets(server: Victim, method: str, target: str, query: str) -> None:
    server.prepare()
    for prefix in ("", "/db", "/db/_design/doc", "/db/doc", "/_node/_local"):
        if (method, prefix, target) != ("DELETE", "", "/db"):
            _is_proper(server.ask(method, prefix + target + query), method, prefix + target + query)
    server.is_well()


@examples(4)
@given(garbage=hostile.GARBAGE)
def test_what_is_hardly_http(server: Victim, garbage: bytes) -> None:
    """Every answer there is to it can be read to its end, errors are told as JSON, and then the server closes
    or waits for more."""
    with server.connection() as connection:
        _send(connection, garbage)
        connection.settimeout(0.05)
        received = _received(connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(ANSWER_TIMEOUT_S)
        received += _received(connection)
    for reply in _replies(received):
        _is_proper(reply, "GET", repr(garbage[:300]))
    server.is_well()


def _received(connection: socket.socket) -> bytes:
    """All that comes until the server closes or the connection's time is over."""
    received = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while data := connection.recv(65_536):
            received += data
    return received


def _replies(received: bytes) -> Iterator[Reply]:
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        assert end, received
        status_line, _, fields = head.partition(b"\r\n")
        status = int(status_line.split()[1])
        headers = http.client.parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
        if status == 101:
            return  # what follows is no longer HTTP
        if headers["Transfer-Encoding"] == "chunked":
            body, received = _dechunked(rest)
        else:
            length = int(headers.get("Content-Length", 0))
            assert len(rest) >= length, received
            body, received = rest[:length], rest[length:]
        yield Reply(status, headers, body)


def _dechunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, end, rest = data.partition(b"\r\n")
        assert end, data
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n", data
        if length == 0:
            return body, rest[2:]
        body, data = body + rest[:length], rest[length + 2 :]


WEBSOCKET = (
    b"GET /db/_changes?feed=websocket HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@examples(1)
@given(frames=st.binary(max_size=200))
def test_what_is_hardly_a_websocket(server: Victim, frames: bytes) -> None:
    server.prepare()
    with server.connection() as connection:
        connection.sendall(WEBSOCKET + HEAD)
        assert b" 101 " in connection.recv(1000)
        _send(connection, frames)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        _received(connection)
    server.is_well()


HEAD = b"Host: x\r\nAuthorization: %s\r\n\r\n" % AUTHORIZATION.encode()
REQUESTS = {
    "a document": b"GET /db/doc?attachments=true HTTP/1.1\r\n" + HEAD,
    "an attachment": b"GET /db/doc/att HTTP/1.1\r\n" + HEAD,
    "a feed": b"GET /db/_changes?feed=continuous&timeout=50 HTTP/1.1\r\n" + HEAD,
    "JSON": b"POST /db HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 10\r\n"
    + HEAD
    + b'{"a": "b"}',
    "chunks": b"PUT /db/slow%d/att HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    + HEAD
    + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    "parts": b"PUT /db/parts%d HTTP/1.1\r\nContent-Type: multipart/related; boundary=x\r\n"
    + b"Content-Length: 61\r\n"
    + HEAD
    + b"--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x--epilogue",
}


@pytest.fixture(params=list(REQUESTS))
def message(request: pytest.FixtureRequest) -> bytes:
    """A proper request for something of its own."""
    return REQUESTS[request.param].replace(b"%d", b"%d" % next(numbers))


numbers = itertools.count()


def test_byte_by_byte(server: Victim, message: bytes) -> None:
    server.prepare()
    with server.connection() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in message:
            connection.sendall(bytes([byte]))
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status in (200, 201), response.read()
        response.read()
        response.close()
    server.is_well()


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
def test_connections_that_break_anywhere(server: Victim, message: bytes, with_reset: bool) -> None:
    server.prepare()
    for end in range(0, len(message) + 1, 3):
        with server.connection() as connection:
            connection.sendall(message[:end])
            if with_reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.is_well()


def test_many_halves_of_requests_harm_nobody(server: Victim) -> None:
    server.prepare()
    with contextlib.ExitStack() as stack:
        for number in range(300):
            connection = stack.enter_context(server.connection())
            connection.sendall(REQUESTS["chunks"][: number % len(REQUESTS["chunks"])])
        begun = time.monotonic()
        for _ in range(50):
            assert server.ask("GET", "/db/doc").status == 200
        assert time.monotonic() - begun < 5
    server.is_well()


# What is too large


LIMIT_BYTES = 100_000
LONG = b"x" * 20_000_000
TOO_LARGE = {
    "a document": ("couchdb/max_document_size", "PUT", b'{"a": "' + LONG + b'"}', "application/json"),
    "a request": ("chttpd/max_http_request_size", "PUT", b'{"a": "' + LONG + b'"}', "application/json"),
    "an attachment": ("couchdb/max_attachment_size", "PUT att", LONG, "image/png"),
    "a part": (
        "couchdb/max_attachment_size",
        "PUT",
        b'--x\r\nContent-Type: application/json\r\n\r\n{"_attachments": {"att": {"follows": true, '
        b'"content_type": "image/png"}}}\r\n--x\r\n\r\n' + LONG + b"\r\n--x--",
        "multipart/related; boundary=x",
    ),
}


@pytest.mark.parametrize("what", TOO_LARGE)
@pytest.mark.parametrize("framing", ["length", "chunks", "continue"])
def test_the_answer_to_what_is_too_large_can_be_read(server: Victim, what: str, framing: str) -> None:
    """Also by who sends everything before he listens; and a page of another origin may know, too."""
    setting, call, body, content_type = TOO_LARGE[what]
    server.prepare()
    limit = json.dumps(str(LIMIT_BYTES)).encode()
    assert server.ask("PUT", f"/_node/_local/_config/{setting}", limit).status == 200
    headers = {"Content-Type": content_type, "Origin": "http://app.example"}
    if framing == "chunks":
        headers["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        headers["Content-Length"] = str(len(body))
    if framing == "continue":
        headers["Expect"] = "100-continue"
    target = f"/db/large{next(numbers)}" + ("/att" if call.endswith("att") else "")
    try:
        with server.connection() as connection:
            reply = server.exchange(connection, "PUT", target, headers, body, waits=framing == "continue")
        assert reply.status == 413
        assert reply.headers["Access-Control-Allow-Origin"] == headers["Origin"]
        _is_proper(reply, "PUT", what)
    finally:
        assert server.ask("DELETE", f"/_node/_local/_config/{setting}").status == 200
    server.is_well()


def _is_proper(reply: Reply, method: str, what: str) -> None:
    if method.upper() == "HEAD":
        return  # as its GET; a fault would be in the log
    assert reply.status in STATUSES or _is_meant(reply), (what, reply)
    if reply.status < 400 or _PAGES.search(what):
        return
    assert reply.headers["Content-Type"] == "application/json", what
    error = json.loads(reply.body)
    if error == {"error": "not found"}:  # CouchDB's own answer for what `_scheduler` doesn't have
        return
    assert isinstance(error["error"], str) and isinstance(error["reason"], str), (what, reply)


_PAGES = re.compile(" /_utils(?![^/?])")
"""Addresses that are for people to look at."""


def _is_meant(reply: Reply) -> bool:
    return reply.status in (500, 503) and any(reason in reply.body for reason in SERVER_ERRORS)
