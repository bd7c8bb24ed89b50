"""The HTTP application on a real store in a temporary folder, in the test's own process and event loop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from couchlite import passwords
from couchlite.server import Server
from couchlite.user_store import open_accounts
from http_api import App, listen

ADMIN = ("adm", "pass")


@dataclass(frozen=True, slots=True)
class Reply:
    """A response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Site:
    """A running application and a client of it, which has a connection of its own for each request."""

    server: Server
    app: App
    port: int

    async def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = ADMIN,
    ) -> Reply:
        """Send one request. A body is sent as JSON unless it is bytes already."""
        fields = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        if auth is not None:
            fields["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            fields["Content-Type"] = "application/json"
            fields["Content-Length"] = str(len(data))
        fields.update(headers or {})
        head = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
        answer = await self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + data)
        return parse(answer, is_head=method == "HEAD")

    async def send(self, data: bytes) -> bytes:
        """Send bytes as they are; everything that comes back until the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.closing(writer):
            writer.write(data)
            return await asyncio.wait_for(reader.read(), 60)


@contextlib.asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Site]:
    """Serve from `directory` with the administrator ADMIN."""
    with Server(directory) as server:
        server.config.set("chttpd_auth", "iterations", "10")  # the cost of a hash is not what is tested
        server.config.set(
            "admins", ADMIN[0], passwords.to_admin_value(passwords.derive(ADMIN[1], server.config))
        )
        accounts = open_accounts(server)
        app = App(server, accounts)
        listener = await listen(app, "127.0.0.1", 0)
        try:
            yield Site(server, app, listener.port)
        finally:
            await listener.close(1)
            accounts.close()


def parse(answer: bytes, *, is_head: bool = False) -> Reply:
    """Split a response; a chunked body must be complete."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = {}
    for line in lines:
        name, _, text = line.partition(": ")
        headers[name.lower()] = text
    if headers.get("transfer-encoding") == "chunked" and not is_head:
        body = _dechunk(body)
    return Reply(int(status_line.split()[1]), headers, body)


def _dechunk(body: bytes) -> bytes:
    pieces = []
    while True:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return b"".join(pieces)
        pieces.append(rest[:length])
        body = rest[length + 2 :]
