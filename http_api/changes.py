"""/{db}/_changes: what has changed, once or for as long as somebody listens.

All kinds of feeds run the same loop: rounds over what there is, each read and sent page by page, and
between them waiting for news. What must stay true here: while a feed waits, for news or for its client, it
holds no transaction and no more than a page; and it ends with its last line when its database is deleted or
the server stops. Semantics: chttpd_db:handle_changes_req and fabric_view_changes:keep_sending_changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any, Protocol

from aiohttp import web

from couchlite.changes_docs import DocOptions
from couchlite.changes_feed import ChangesFeed, FeedOptions, Page
from couchlite.changes_filters import SelectorFilter
from couchlite.database import Database
from couchlite.errors import BadRequest

from . import changes_socket, documents, response, system_documents
from .changes_filters import filter_of
from .changes_options import Options, parse_options
from .changes_rows import Events, Framing, Lines, Results, RowFormat
from .request import Request

CLIENTS = "couchdb.httpd.clients_requesting_changes"
FRAMINGS: dict[str, type[Framing]] = {
    "normal": Results,
    "longpoll": Results,
    "continuous": Lines,
    "eventsource": Events,
}


class Sink(Protocol):
    """Where a feed goes."""

    written_at: float
    """When something was last written, on the monotonic clock."""

    async def page(self, page: Page) -> None: ...

    async def wait(self) -> None:
        """All that is written so far shall arrive: the feed is about to wait."""
        ...

    async def heartbeat(self) -> None: ...

    async def end(self, last_seq: str, pending: int) -> web.StreamResponse: ...


async def get(request: Request) -> web.StreamResponse:
    """GET /{db}/_changes."""
    return await _changes(request, None)


async def post(request: Request) -> web.StreamResponse:
    """POST /{db}/_changes: filters may have their arguments in the body."""
    request.require_json_type()
    return await _changes(request, None if request.content_length == 0 else await request.json_object())


async def _changes(request: Request, body: dict[str, Any] | None) -> web.StreamResponse:
    database = request.database()
    options = parse_options(request)
    wanted = filter_of(request, options, body)
    if "include_docs" in options or isinstance(wanted, SelectorFilter):
        system_documents.check_reads_all(request)
    is_socket = options.feed == "websocket" and changes_socket.is_asked_for(request)
    if options.feed not in FRAMINGS and not is_socket:
        raise BadRequest("Supported `feed` types: normal, continuous, live, longpoll, eventsource")
    headers = {}
    if options.feed == "normal":
        etag = headers["ETag"] = _etag(database)
        if response.matches(request, etag):
            return response.not_modified(request, etag)
    feed = ChangesFeed(
        database,
        _since(database, options.since),
        FeedOptions(
            descending="descending" in options,
            limit=None if options.limit < 0 else options.limit,
            all_leaves=options.style == "all_docs",
            include_docs="include_docs" in options,
            as_revisions="attachments" in options,
            docs=DocOptions("conflicts" in options, "att_encoding_info" in options),
            filter=wanted,
        ),
    )

    async def send(sink: Sink) -> web.StreamResponse:
        metrics = request.app.metrics
        metrics.count(CLIENTS, 1)
        try:
            return await Delivery(request, database, options, feed, sink).run()
        finally:
            metrics.count(CLIENTS, -1)

    if is_socket:
        return await changes_socket.serve(request, database, options, send)
    return await send(StreamSink(request, database, options, headers))


def _since(database: Database, text: str) -> int:
    return database.state().update_seq if text == "now" else database.parse_seq(text)


def _etag(database: Database) -> str:
    """It changes with the database, whatever is asked for."""
    state = database.state()
    counters = f"{database.uuid} {state.update_seq} {state.purge_seq}"
    return f'"{hashlib.blake2b(counters.encode(), digest_size=16).hexdigest()}"'


class Delivery:
    """Sends a feed until it is over."""

    def __init__(
        self, request: Request, database: Database, options: Options, feed: ChangesFeed, sink: Sink
    ) -> None:
        self._request = request
        self._database = database
        self._options = options
        self._feed = feed
        self._sink = sink
        self._timeout_s = options.timeout_ms / 1000
        self._heartbeat_s = None if options.heartbeat_ms is None else options.heartbeat_ms / 1000

    async def run(self) -> web.StreamResponse:
        feed, sink = self._feed, self._sink
        while not await self._send_round():
            await sink.wait()
            if not await self._news():
                break
        return await sink.end(self._database.format_seq(feed.last_seq), feed.pending())

    async def _send_round(self) -> bool:
        """Send what there is; whether that was all the client wants."""
        feed, options = self._feed, self._options
        while (page := await feed.read()) is not None:
            if page.columns.seqs:
                await self._sink.page(page)
            if feed.has_more:
                await asyncio.sleep(0)
                await self._keep_alive()
                if options.feed != "normal" and self._must_stop():
                    return True
        if options.feed == "normal" or "descending" in options:
            return True
        if options.feed == "longpoll":
            return feed.shown > 0
        return options.limit < 0 or feed.is_full

    async def _news(self) -> bool:
        """Wait for news; False when the feed is to end without any."""
        while True:
            await self._keep_alive()
            if self._must_stop():
                return False
            if self._heartbeat_s is None:
                return await self._feed.wait(self._timeout_s)
            if await self._feed.wait(self._sink.written_at + self._heartbeat_s - time.monotonic()):
                return True

    async def _keep_alive(self) -> None:
        if self._heartbeat_s is not None and time.monotonic() - self._sink.written_at >= self._heartbeat_s:
            await self._sink.heartbeat()

    def _must_stop(self) -> bool:
        """Whether endless feeds have to end."""
        return (
            self._database.gone
            or self._request.app.stopping.is_set()
            or self._request.server.config.get("couchdb", "maintenance_mode") in ("true", "nolb")
        )


class StreamSink:
    """A feed as an HTTP response."""

    def __init__(
        self, request: Request, database: Database, options: Options, headers: dict[str, str]
    ) -> None:
        self._database = database
        self._framing = framing = FRAMINGS[options.feed]()
        self._format = RowFormat(database.tag, options, spells_seqs=framing.spells_seqs)
        if options.feed != "normal":
            headers = headers | response.UNBUFFERED
        self._stream = response.Stream(request, headers=headers | framing.headers)
        self._doc_options = documents.Options(flags=options.flags)
        self._keeps_text = framing.is_stateless and options.seq_interval is None
        """Nothing but the page and the kind of the feed decides what is sent."""
        self._began = False
        self._has_waited = False
        self.written_at = time.monotonic()

    async def page(self, page: Page) -> None:
        if self._has_waited:
            self._has_waited = False
            await self._write(self._framing.heartbeat)  # as CouchDB does before news
        if page.revisions is None:
            await self._write(self._text(page))
            return
        rows = self._format.rows(page)
        for at, (revision, meta) in enumerate(page.revisions):
            before, after = self._framing.around(rows, at)
            await self._write(before + rows.texts[at])
            for piece in documents.as_json_with_data(self._database, revision, self._doc_options, meta):
                await self._write(piece)
            await self._write(b"}" + after)

    def _text(self, page: Page) -> bytes:
        """The framed rows; of a page that several feeds show, made once for all of a kind."""
        if page.rendered is None or not self._keeps_text:
            return self._framing.join(self._format.rows(page))
        kind = type(self._framing)
        if kind not in page.rendered:
            page.rendered[kind] = self._framing.join(self._format.rows(page))
        return page.rendered[kind]

    async def wait(self) -> None:
        if not self._began:
            await self._write(b"\n")  # lets the headers go, as CouchDB does
        self._has_waited = True
        await self._stream.flush()

    async def heartbeat(self) -> None:
        await self._write(self._framing.heartbeat)
        await self._stream.flush()

    async def end(self, last_seq: str, pending: int) -> web.StreamResponse:
        await self._write(self._framing.closing(last_seq, pending))
        return await self._stream.end(b"\n")  # CouchDB ends all streams of JSON with an empty line

    async def _write(self, piece: bytes) -> None:
        if not self._began:
            self._began = True
            piece = self._framing.opening + piece
        self.written_at = time.monotonic()
        await self._stream.write(piece)
        if len(piece) >= response.PIECE_SIZE_BYTES:
            await asyncio.sleep(0)  # or a client that takes all that comes would leave no turn to others
