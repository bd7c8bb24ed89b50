"""An HTTP proxy on loopback that does what badly configured ones do. One request a connection."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "upgrade", "content-length")


@dataclass(frozen=True)
class Meddler:
    """What it does that it shouldn't."""

    decodes: bool = False
    body_max: int | None = None
    buffers: bool = False
    drops: tuple[str, ...] = ()
    """Headers of requests."""
    adds: dict[str, str] = field(default_factory=dict)
    refuses: tuple[str, ...] = ()
    """Methods."""
    clock_s: float = 0
    server: str = ""
    weakens_etags: bool = False
    page: bool = False
    """It answers everything with a page of its own."""
    redirects: bool = False


class Seen:
    """What has come by."""

    def __init__(self) -> None:
        self.port = 0
        self.authorizations = 0


@contextlib.contextmanager
def meddling(target_port: int, meddler: Meddler, tls: ssl.SSLContext | None = None) -> Iterator[Seen]:
    """A proxy before 127.0.0.1:`target_port`."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nowhere."""

        def _forward(self) -> None:
            self.close_connection = True
            seen.authorizations += "Authorization" in self.headers
            length = int(self.headers.get("Content-Length") or 0)
            if meddler.page:
                self._answer(200, {"Content-Type": "text/html"}, b"<h1>Welcome</h1>")
            elif meddler.redirects:
                self._answer(301, {"Location": f"https://elsewhere.example{self.path}"}, b"")
            elif self.command in meddler.refuses:
                self._answer(403, {}, b"")
            elif meddler.body_max is not None and length > meddler.body_max:
                self.rfile.read(length)
                self._answer(413, {}, b"too large")
            else:
                self._pass_on(length)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_COPY = do_OPTIONS = _forward

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body)), "Connection": "close"}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _pass_on(self, length: int) -> None:
            path = self.path
            if meddler.decodes:
                before, mark, query = path.partition("?")
                path = unquote(before).replace("%", "%25") + mark + query
            dropped = (*HOP_BY_HOP, *meddler.drops)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            connection = http.client.HTTPConnection("127.0.0.1", target_port, timeout=30)
            with contextlib.closing(connection):
                body = self.rfile.read(length) if length else None
                connection.request(self.command, path, body, headers)
                answer = connection.getresponse()
                held = answer.read() if meddler.buffers else None
                self._begin(answer)
                if held is not None:
                    self.wfile.write(held)
                while held is None and (piece := answer.read1(65536)):
                    self.wfile.write(piece)

        def _begin(self, answer: http.client.HTTPResponse) -> None:
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() == "date":
                    value = email.utils.formatdate(time.time() + meddler.clock_s, usegmt=True)
                if name.lower() == "server" and meddler.server:
                    value = meddler.server
                if name.lower() == "etag" and meddler.weakens_etags:
                    value = f"W/{value}"
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            for name, value in meddler.adds.items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Who is asked may hang up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        seen.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()
