"""HTTP proxies on loopback: one does one thing wrong, with one of the requests that go through it; the others
make a server one that knows less."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from yarl import URL

from .databases import ADMIN

FAULTS = ("cut before", "cut after", "500", "429", "503", "truncated", "delayed")
DELAY_S = 0.7
BASIC = "Basic " + base64.b64encode(":".join(ADMIN).encode()).decode()


class FaultyProxy:
    """Passes requests on to `upstream`; the one numbered `faulty` (from 1) meets with `fault`.

    In the manner of old or other servers, it may know no _bulk_get and no multipart (`is_plain`), take
    credentials for nothing but a session (`wants_session`), which ends with the fault "401", or want a token
    in their place (`wants_token`).
    """

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self._session = session
        self.fault = ""
        self.faulty = 0
        self.count = 0
        self.url = ""
        self.is_plain = False
        self.wants_session = False
        self.wants_token: str | None = None
        self._sessions: dict[str, str] = {}
        """Cookies as the client has them -> as they are."""
        self.encodings: set[str] = set()
        """Those that requests have come in."""

    def prepare(self, fault: str, faulty: int) -> None:
        self.fault, self.faulty, self.count = fault, faulty, 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.count += 1
        fault = self.fault if self.count == self.faulty else ""
        body = await request.read()
        self.encodings.add(request.headers.get("Content-Encoding", "identity"))
        if self.is_plain and request.path.endswith("/_bulk_get"):
            return web.json_response({"error": "not_found", "reason": "missing"}, status=404)
        if fault == "cut before":
            return self._cut(request)
        if fault in ("500", "429", "503"):
            headers = {"Retry-After": "0"} if fault != "500" else {}
            return web.Response(
                status=int(fault), headers=headers, text="{}", content_type="application/json"
            )
        if fault == "401":
            self._sessions.pop(request.headers.get("Cookie", ""), None)
        if fault == "delayed":
            await asyncio.sleep(DELAY_S)
        status, headers, answer = await self._pass_on(request, body)
        if fault == "cut after":
            return self._cut(request)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(answer)
        await response.prepare(request)
        if fault == "truncated":
            await response.write(answer[: len(answer) // 2])
            return self._cut(request)
        await response.write(answer)
        await response.write_eof()
        return response

    async def _pass_on(self, request: web.BaseRequest, body: bytes) -> tuple[int, dict[str, str], bytes]:
        kept = ["Authorization", "Content-Type", "Accept", "Content-Encoding", "Cookie"]
        if self.wants_session or self.wants_token:
            kept.remove("Authorization")
        headers = {name: request.headers[name] for name in kept if name in request.headers}
        if "Cookie" in headers:
            headers["Cookie"] = self._sessions.get(headers["Cookie"], "")
        if self.wants_token and request.headers.get("Authorization") == self.wants_token:
            headers["Authorization"] = BASIC
        if self.is_plain and "multipart" in headers.get("Accept", ""):
            headers["Accept"] = "application/json"
        path = URL(request.raw_path, encoded=True).raw_path_qs  # a proxy is told the whole address
        url = URL(self._upstream + path, encoded=True)
        async with self._session.request(request.method, url, data=body, headers=headers) as answer:
            shown = {"Content-Type": answer.headers.get("Content-Type", "text/plain")}
            if "AuthSession" in answer.cookies:
                cookie = f"AuthSession=session-{len(self._sessions) + self.count}"
                self._sessions[cookie] = f"AuthSession={answer.cookies['AuthSession'].value}"
                shown["Set-Cookie"] = f"{cookie}; Path=/"
            return answer.status, shown, await answer.read()

    def _cut(self, request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@asynccontextmanager
async def faulty_proxy(upstream: str, host: str = "127.0.0.1") -> AsyncIterator[FaultyProxy]:
    async with aiohttp.ClientSession() as session:
        proxy = FaultyProxy(upstream, session)
        runner = web.ServerRunner(web.Server(proxy.handle))
        await runner.setup()
        site = web.TCPSite(runner, host, 0)
        await site.start()
        proxy.url = f"http://{host}:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            await runner.cleanup()


class Line:
    """A TCP connection to a server, as long as it is not down."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self.is_down = False
        self.bytes_max: int | None = None
        """So much comes back on a connection; then it is lost."""
        self.lost = 0
        self.came = 0
        """Bytes that came back."""

    def cut(self) -> None:
        """Lose every connection, and every new one until `is_down` is False again."""
        self.is_down = True
        for writer in self._writers:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:
            writer.transport.abort()
            return
        there = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers |= {writer, there[1]}
        await asyncio.gather(self._pump(reader, there[1]), self._pump_back(there[0], writer))
        self._writers -= {writer, there[1]}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _pump_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self.bytes_max
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536 if left is None else min(left, 65_536)):
                self.came += len(data)
                writer.write(data)
                await writer.drain()
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        self.lost += 1
                        # What was written is to arrive; then both ends learn that it was all.
                        break
        writer.close()


@asynccontextmanager
async def line(target: str) -> AsyncIterator[tuple[Line, str]]:
    """A line to the server at the URL `target`, and the URL of its end here."""
    carrier = Line(int(target.rpartition(":")[2]))
    listening = await asyncio.start_server(carrier.carry, "127.0.0.1", 0)
    try:
        yield carrier, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        carrier.cut()
        await asyncio.sleep(0.05)  # for what was cut to end
