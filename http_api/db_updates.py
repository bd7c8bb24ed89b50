"""GET /_db_updates: which databases were created, changed or deleted, from the server's update log.

As in CouchDB it answers only while there is a database `_global_changes`. Each database is in the log once,
with its newest event. No read is held open between two looks at the log, so that a feed may idle for days.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from aiohttp import web

from couchlite.changes import format_seq, parse_seq
from couchlite.errors import BadRequest
from couchlite.jsontext import dumps

from .request import Request
from .response import UNBUFFERED, Stream

GLOBAL_CHANGES = "_global_changes"
FEEDS = ("normal", "continuous", "longpoll", "eventsource")
HEARTBEAT_MS = 60_000

# The log is shared by the processes of a server and rings no bell; a look costs microseconds.
POLL_S = 0.5
PAGE_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Options:
    """The query of a feed; `heartbeat_ms` is None when no heartbeat is wanted."""

    feed: str
    since: int
    limit: int | None
    heartbeat_ms: int | None
    timeout_ms: int


class Updates:
    """The rest of the log, row by row, as a feed has asked for it."""

    def __init__(self, request: Request, options: Options) -> None:
        self._catalog = request.server.catalog
        self._options = options
        self._left = options.limit
        self._tag = request.server.catalog.updates_tag
        self.since = options.since

    @property
    def is_over(self) -> bool:
        """Whether `limit` rows were given."""
        return self._left is not None and self._left <= 0

    @property
    def last_seq(self) -> str:
        return format_seq(self.since, self._tag)

    def read(self) -> list[dict[str, str]]:
        """The next rows; none when there is no news."""
        if self.is_over:
            return []
        count = PAGE_ROWS if self._left is None else min(PAGE_ROWS, self._left)
        rows = self._catalog.updates(self.since, count)
        if rows:
            self.since = rows[-1][0]
        if self._left is not None:
            self._left -= len(rows)
        return [
            {"db_name": name, "type": event, "seq": format_seq(seq, self._tag)} for seq, name, event in rows
        ]


async def db_updates(request: Request) -> web.StreamResponse:
    options = _options(request)
    if options.feed not in FEEDS:
        raise BadRequest(f"Supported `feed` types: {', '.join(FEEDS)}")
    request.server.open(GLOBAL_CHANGES)
    updates = Updates(request, options)
    if options.feed in ("normal", "longpoll"):
        return await _once(request, options, updates)
    return await _endless(request, options, updates)


async def _once(request: Request, options: Options, updates: Updates) -> web.StreamResponse:
    stream = Stream(request)
    await stream.write(b'{"results":[\n')
    separator = b""
    rows = updates.read()
    if not rows and options.feed == "longpoll" and not updates.is_over:
        rows = await _wait(request, options, updates, stream, b"\n")
    while rows:
        for row in rows:
            await stream.write(separator + dumps(row))
            separator = b",\r\n"
        rows = updates.read()
    return await stream.end(b'\n],\n"last_seq":' + dumps(updates.last_seq) + b"}\n")


async def _endless(request: Request, options: Options, updates: Updates) -> web.StreamResponse:
    is_events = options.feed == "eventsource"
    headers = dict(UNBUFFERED)
    if is_events:
        headers |= {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    heartbeat = b"event: heartbeat\ndata: \n\n" if is_events else b"\n"
    stream = Stream(request, headers=headers)
    rows = updates.read()
    while not updates.is_over or rows:
        for row in rows:
            line = dumps(row)
            await stream.write(
                b"data: " + line + b"\nid: " + dumps(row["seq"]) + b"\n\n" if is_events else line + b"\n"
            )
        await stream.flush()
        rows = updates.read() or await _wait(request, options, updates, stream, heartbeat)
        if not rows:
            break
    return await stream.end(b"" if is_events else dumps({"last_seq": updates.last_seq}) + b"\n")


async def _wait(
    request: Request, options: Options, updates: Updates, stream: Stream, heartbeat: bytes
) -> list[dict[str, str]]:
    """Rows as soon as there are any; none when the time is up or the server stops. Heartbeats keep a feed
    alive.
    """
    begun = beaten = time.monotonic()
    while not request.app.stopping.is_set() and not updates.is_over:
        await asyncio.sleep(POLL_S)
        rows = updates.read()
        if rows:
            return rows
        now = time.monotonic()
        if options.heartbeat_ms is None:
            if (now - begun) * 1000 >= options.timeout_ms:
                break
        elif (now - beaten) * 1000 >= options.heartbeat_ms:
            beaten = now
            await stream.write(heartbeat)
            await stream.flush()
    return []


def _options(request: Request) -> Options:
    since = 0
    limit: int | None = None
    heartbeat_ms: int | None = None
    timeout_ms = request.server.config.integer("chttpd", "changes_timeout")
    for name, value in request.query:
        match name:
            case "since" if value == "now":
                since = request.server.catalog.last_update()
            case "since":
                since = parse_seq(value, request.server.catalog.updates_tag)
            case "limit":
                limit = _count(value)
            case "timeout":
                timeout_ms = min(timeout_ms, _count(value))
            case "heartbeat" if value == "true":
                heartbeat_ms = HEARTBEAT_MS
            case "heartbeat" if value != "false":
                heartbeat_ms = _count(value)
    return Options(request.query_value("feed") or "normal", since, limit, heartbeat_ms, timeout_ms)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise BadRequest("invalid_integer")
    return int(text)
