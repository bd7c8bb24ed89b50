"""GET and POST /{db}/_changes: all kinds of feeds, as bytes on a connection."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from couchlite import Database, document

from ..waiting import until
from .in_process import ADMIN, Reply, Site

CREDENTIALS = base64.b64encode(":".join(ADMIN).encode()).decode()


@pytest.fixture
def database(web: Site) -> Database:
    return web.server.create("db")


def fill(database: Database, names: str, **fields: Any) -> None:
    for name in names:
        database.put({"_id": name, **fields})


async def ask(web: Site, query: str = "", body: Any = None) -> Reply:
    return await web.ask("GET" if body is None else "POST", f"/db/_changes?{query}", body)


def ids(reply: Reply) -> list[str]:
    return [row["id"] for row in reply.json()["results"]]


class Following:
    """An endless feed as a client reads it, chunk framing removed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.head = ""

    async def begin(self) -> None:
        self.head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 30)).decode()

    async def chunk(self) -> bytes:
        """The next chunk; empty at the end of the body."""
        size = int(await asyncio.wait_for(self._reader.readline(), 30), 16)
        return (await asyncio.wait_for(self._reader.readexactly(size + 2), 30))[:-2]

    async def rest(self) -> bytes:
        """Everything until the end of the body, which must be a clean one."""
        chunks = []
        while chunk := await self.chunk():
            chunks.append(chunk)
        return b"".join(chunks)

    async def line(self) -> Any:
        """The next row of a continuous feed; blank lines are skipped."""
        while not (text := (await self.chunk()).strip()):
            pass
        return json.loads(text)


@contextlib.asynccontextmanager
async def follow(web: Site, query: str, headers: str = "") -> AsyncIterator[Following]:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    try:
        request = f"GET /db/_changes?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {CREDENTIALS}\r\n"
        writer.write(f"{request}{headers}\r\n".encode())
        following = Following(reader, writer)
        await following.begin()
        yield following
    finally:
        writer.close()


# --- normal feeds ----------------------------------------------------------------------------------------


async def test_a_normal_feed_line_by_line(web: Site, database: Database) -> None:
    """nano reads rows and last_seq by lines."""
    database.put({"_id": "a"})
    database.delete("a", database.get("a")["_rev"])
    database.put({"_id": "b"})
    tag = database.tag
    reply = await ask(web)
    assert reply.body.decode().split("\n") == [
        '{"results":[',
        f'{{"seq":"2-{tag}","id":"a","changes":[{{"rev":"2-eec205a9d413992850a6e32678485900"}}],'
        '"deleted":true},\r',
        f'{{"seq":"3-{tag}","id":"b","changes":[{{"rev":"1-967a00dff5e02add41819138abb3284d"}}]}}',
        "],",
        f'"last_seq":"3-{tag}","pending":0}}',
        "",
        "",
    ]
    assert reply.headers["content-type"] == "application/json"


async def test_an_empty_database(web: Site, database: Database) -> None:
    reply = await ask(web)
    assert reply.body == b'{"results":[\n\n],\n"last_seq":"0-%b","pending":0}\n\n' % database.tag.encode()


@pytest.mark.parametrize(
    ("query", "lines_around"),
    [("", 4), ("style=all_docs&include_docs=true", 4), ("feed=continuous&timeout=0", 2)],
)
async def test_pages_join_without_a_seam(
    web: Site, database: Database, query: str, lines_around: int
) -> None:
    database.update([document.parse({"_id": f"{number:05}"}) for number in range(2500)])
    body = (await ask(web, query)).body
    assert body.count(b'"changes":') == 2500
    assert body.count(b"\n") == 2500 + lines_around
    assert len((await ask(web, "limit=1500")).json()["results"]) == 1500


async def test_the_etag_changes_with_the_database(web: Site, database: Database) -> None:
    fill(database, "a")
    etag = (await ask(web)).headers["etag"]
    reply = await web.ask("GET", "/db/_changes?limit=1", headers={"If-None-Match": etag})
    assert (reply.status, reply.body) == (304, b"")
    fill(database, "b")
    reply = await web.ask("GET", "/db/_changes", headers={"If-None-Match": etag})
    assert ids(reply) == ["a", "b"]
    assert reply.headers["etag"] != etag


async def test_head_has_the_headers_only(web: Site, database: Database) -> None:
    fill(database, "a")
    reply = await web.ask("HEAD", "/db/_changes")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["etag"] == (await ask(web)).headers["etag"]


@pytest.mark.parametrize(
    ("query", "expected", "pending"),
    [
        pytest.param("", "abc", 0, id="all"),
        pytest.param("limit=2", "ab", 1, id="limit"),
        pytest.param("limit=-1", "abc", 0, id="a negative limit is none"),
        pytest.param("limit=%2B1", "a", 2, id="a limit with a sign"),
        pytest.param("limit=0", "", 3, id="limit 0"),
        pytest.param("descending=true", "cba", 0, id="descending"),
        pytest.param("descending=1", "abc", 0, id="a flag that isn't true is false"),
        pytest.param("since=now", "", 0, id="since now"),
        pytest.param("since=0", "abc", 0, id="since 0"),
        pytest.param("last-event-id=0", "abc", 0, id="last-event-id is another since"),
        pytest.param("SINCE=now&Limit=1", "", 0, id="names in any case"),
        pytest.param("limit=1&limit=2", "ab", 1, id="the last value counts"),
        pytest.param("heartbeat=10000&timeout=1", "abc", 0, id="heartbeats of a normal feed, as RxDB asks"),
        pytest.param("filter=", "abc", 0, id="no filter"),
        pytest.param("filter=/", "abc", 0, id="nothing but slashes is no filter"),
        pytest.param('filter=_doc_ids&doc_ids=["c","a","x"]', "ac", 1, id="ids in the query"),
        pytest.param("filter=_design", "", 3, id="design documents"),
    ],
)
async def test_options(web: Site, database: Database, query: str, expected: str, pending: int) -> None:
    fill(database, "abc")
    reply = await ask(web, query)
    assert (ids(reply), reply.json()["pending"]) == (list(expected), pending)


async def test_since_takes_up_where_the_last_request_ended(web: Site, database: Database) -> None:
    fill(database, "abc")
    first = (await ask(web, "limit=2")).json()
    assert ids(await ask(web, f"since={first['last_seq']}")) == ["c"]
    assert ids(await ask(web, f"since=%22{first['last_seq']}%22")) == ["c"]
    assert ids(await ask(web, "since=2-aaaaaaaaaaaa")) == ["a", "b", "c"], "another database's sequence"


@pytest.mark.parametrize(
    ("query", "body", "reason"),
    [
        ("feed=nope", None, "Supported `feed` types: normal, continuous, live, longpoll, eventsource"),
        ("feed=websocket", None, "Supported `feed` types: normal, continuous, live, longpoll, eventsource"),
        ("since=5", None, "Malformed sequence supplied in 'since' parameter."),
        ("feed=continuous&since=x", None, "Malformed sequence supplied in 'since' parameter."),
        ("limit=x", None, "Invalid value for limit: x"),
        ("timeout=x", None, "Invalid value for timeout: x"),
        ("style=x", None, "Invalid value for style: x"),
        ("heartbeat=0", None, "The heartbeat value should be a positive integer (in milliseconds)."),
        (
            "heartbeat=false",
            None,
            "Invalid heartbeat value. Expecting a positive integer value (in milliseconds).",
        ),
        ("seq_interval=0", None, "invalid_seq_interval"),
        ("filter=_nope", None, "unknown builtin filter name"),
        ("filter=x", None, "`filter` must be of the form `designname/filtername`"),
        ("filter=x/y/z", None, "`filter` must be of the form `designname/filtername`"),
        ("filter=_view", None, "`view` filter parameter is not provided."),
        ("filter=_view&view=x", None, "`view` must be of the form `designname/viewname`"),
        ("filter=_doc_ids", None, "`doc_ids` filter parameter is not a list of doc ids."),
        ("filter=_doc_ids", {}, "`doc_ids` filter parameter is not a list of doc ids."),
        ("filter=_doc_ids", {"doc_ids": ["a", 1]}, "`doc_ids` filter parameter is not a list of doc ids."),
        ("filter=_doc_ids", b"", "invalid UTF-8 JSON"),
        ("filter=_doc_ids", [1], "Request body must be a JSON object"),
        ("filter=_selector", None, "Selector must be specified in POST payload"),
        ("filter=_selector", {}, "Selector error: expected a JSON object"),
    ],
)
async def test_what_is_refused(web: Site, database: Database, query: str, body: Any, reason: str) -> None:
    reply = await ask(web, query, body)
    assert (reply.status, reply.json()) == (400, {"error": "bad_request", "reason": reason})


async def test_missing_functions_of_design_documents(web: Site, database: Database) -> None:
    database.put({"_id": "_design/d", "filters": {}})
    for query, reason in [
        ("filter=x/y", "missing"),
        ("filter=d/y", "missing json key: y"),
        ("filter=_view&view=d/y", "missing json key: views"),
    ]:
        reply = await ask(web, query)
        assert (reply.status, reply.json()) == (404, {"error": "not_found", "reason": reason})


async def test_methods(web: Site, database: Database) -> None:
    reply = await web.ask("PUT", "/db/_changes")
    assert (reply.status, reply.headers["allow"]) == (405, "GET,POST,HEAD")
    assert (await web.ask("POST", "/db/_changes", headers={"Content-Length": "0"})).status == 415
    reply = await ask(web, "", b"")
    assert reply.status == 200


async def test_who_may_not_read_gets_no_feed(web: Site, database: Database) -> None:
    for query in ("", "feed=continuous", "feed=websocket"):
        reply = await web.ask("GET", f"/db/_changes?{query}", auth=None)
        assert (reply.status, reply.json()["error"]) == (401, "unauthorized")


async def test_seq_interval_counts_down_from_the_limit(web: Site, database: Database) -> None:
    fill(database, "abcde")

    async def numbered(query: str) -> list[bool]:
        return [row["seq"] is not None for row in (await ask(web, query)).json()["results"]]

    assert await numbered("seq_interval=2") == [True, False, True, False, True]
    assert await numbered("seq_interval=3") == [False, True, False, False, True]
    assert await numbered("seq_interval=2&limit=3") == [False, True, False]


async def test_ids_and_revisions_are_escaped(web: Site, database: Database) -> None:
    name = 'quo"te\\ \n é\u2028'
    database.put({"_id": name})
    await web.ask("POST", "/db", {"_id": "odd"})
    [row, _odd] = (await ask(web, "include_docs=true")).json()["results"]
    assert (row["id"], row["doc"]["_id"]) == (name, name)


async def test_attachments_come_along_when_asked_for(web: Site, database: Database) -> None:
    data = base64.b64encode(b"some text").decode()
    database.put({"_id": "a", "_attachments": {"t": {"content_type": "text/plain", "data": data}}})
    fill(database, "b", v=1)
    for query in ("", "&feed=continuous&timeout=0", "&feed=eventsource&timeout=0"):
        stubs = (await ask(web, "include_docs=true" + query)).body
        assert b'"stub":true' in stubs
        whole = (await ask(web, "include_docs=true&attachments=true" + query)).body
        assert f'"data":"{data}"}}}}}}'.encode() in whole
        assert b'"v":1}}' in whole
        assert whole.count(b"\n") == stubs.count(b"\n")
    both = (await ask(web, "include_docs=true&attachments=true&att_encoding_info=true")).json()["results"]
    assert both[0]["doc"]["_attachments"]["t"]["encoding"] == "gzip"
    assert both[0]["doc"]["_attachments"]["t"]["data"] == data


async def test_selectors(web: Site, database: Database) -> None:
    fill(database, "ab", v=1)
    fill(database, "c", v=2)
    reply = await ask(web, "filter=_selector&include_docs=true", {"selector": {"v": 2}, "fields": ["v"]})
    assert [row["doc"] for row in reply.json()["results"]] == [{"v": 2}]
    assert reply.json()["pending"] == 0
    reply = await ask(web, "filter=_selector&limit=1", {"selector": {"v": 1}})
    assert (ids(reply), reply.json()["pending"]) == (["a"], 2)


FILTERS = {
    "_id": "_design/f",
    "filters": {
        "by_v": "function (doc, req) { return doc.v == req.query.v; }",
        "deleted": "function (doc) { return doc._deleted; }",
        "edited": "function (doc) { return doc._revisions.start > 1 && doc._revisions.ids.length <= 20; }",
        "posted": "function (doc, req) { return req.method == 'POST' && req.body.wanted == doc._id; }",
        "secrets": "function (doc, req) { return 'Authorization' in req.headers; }",
        "user": "function (doc, req) { return req.userCtx.name == 'adm' && req.secObj.members; }",
        "fails": "function (doc) { return doc.nothing.there; }",
    },
    "views": {"big": {"map": "function (doc) { if (doc.v > 1) { emit(doc.v); } }"}},
}


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        pytest.param("filter=f/by_v&v=2", None, "b", id="by a parameter of the query"),
        pytest.param("filter=f/deleted", None, "c", id="deletions"),
        pytest.param("filter=f/edited", None, "c", id="by the history"),
        pytest.param("filter=f/posted", {"wanted": "a"}, "a", id="by the body"),
        pytest.param("filter=f/secrets", None, "", id="credentials are not shown to functions"),
        pytest.param("filter=f/user&limit=1&descending=true", None, "c", id="by the user"),
        pytest.param("filter=_view&view=f/big", None, "b", id="by a view"),
        pytest.param("filter=_view&view=f/big&include_docs=true&attachments=true", None, "b", id="documents"),
    ],
)
async def test_functions_of_design_documents(
    web: Site, database: Database, query: str, body: Any, expected: str
) -> None:
    database.put(FILTERS)
    fill(database, "a", v=1)
    fill(database, "bc", v=2)
    database.delete("c", database.get("c")["_rev"])
    reply = await ask(web, query, body)
    assert ids(reply) == list(expected)
    assert "_revisions" not in reply.body.decode()


async def test_a_function_that_fails_fails_the_feed(web: Site, database: Database) -> None:
    database.put(FILTERS)
    for feed in ("normal", "longpoll", "continuous"):
        reply = await ask(web, f"filter=f/fails&feed={feed}")
        assert (reply.status, reply.json()["error"]) == (500, "TypeError")


async def test_a_feed_keeps_to_the_function_it_began_with(web: Site, database: Database) -> None:
    database.put(FILTERS)
    async with follow(web, "feed=continuous&since=now&filter=f/by_v&v=1") as feed:
        changed = {**FILTERS, "_rev": database.get("_design/f")["_rev"], "filters": {}}
        database.put(changed)
        fill(database, "x", v=2)
        fill(database, "y", v=1)
        assert (await feed.line())["id"] == "y"


# --- feeds that wait -------------------------------------------------------------------------------------


async def test_a_longpoll_answers_at_once_when_there_is_something(web: Site, database: Database) -> None:
    fill(database, "ab")
    assert ids(await ask(web, "feed=longpoll")) == ["a", "b"]
    reply = await ask(web, "feed=longpoll&limit=1")
    assert (ids(reply), reply.json()["pending"]) == (["a"], 1)


async def test_a_longpoll_waits_for_what_passes_its_filter(web: Site, database: Database) -> None:
    waiting = asyncio.create_task(ask(web, "feed=longpoll&since=now&filter=_doc_ids", {"doc_ids": ["b"]}))
    await asyncio.sleep(0.2)
    fill(database, "a")
    await asyncio.sleep(0.2)
    assert not waiting.done()
    fill(database, "b")
    assert ids(await waiting) == ["b"]


async def test_a_longpoll_ends_when_its_time_is_up(web: Site, database: Database) -> None:
    fill(database, "a")
    for query in ("since=now&timeout=50", "timeout=50&limit=0", "since=now&timeout=0"):
        reply = await ask(web, f"feed=longpoll&{query}")
        assert ids(reply) == []


async def test_a_continuous_feed_from_beginning_to_end(web: Site, database: Database) -> None:
    fill(database, "a")
    async with follow(web, "feed=continuous&limit=3") as feed:
        assert "Transfer-Encoding: chunked" in feed.head
        assert (await feed.line())["id"] == "a"
        fill(database, "b")
        assert (await feed.line())["id"] == "b"
        fill(database, "c")
        row, end = map(json.loads, (await feed.rest()).split())
        assert row["id"] == "c"
        assert end == {"last_seq": f"3-{database.tag}", "pending": 0}


async def test_a_continuous_feed_ends_when_nothing_comes(web: Site, database: Database) -> None:
    fill(database, "a")
    lines = (await ask(web, "feed=live&timeout=50")).body.decode().split("\n")
    assert [json.loads(line).get("id") for line in lines if line] == ["a", None]


async def test_the_headers_of_an_idle_feed_arrive_at_once(web: Site, database: Database) -> None:
    async with follow(web, "feed=continuous&since=now") as feed:
        assert await feed.chunk() == b"\n"


async def test_heartbeats(web: Site, database: Database) -> None:
    async with follow(web, "feed=continuous&heartbeat=50") as feed:
        assert [await feed.chunk() for _ in range(4)] == [b"\n"] * 4
    async with follow(web, "feed=eventsource&heartbeat=50") as feed:
        assert await feed.chunk() == b"\n"
        assert await feed.chunk() == b"event: heartbeat\ndata: \n\n"


async def test_a_busy_feed_without_hits_has_heartbeats_too(web: Site, database: Database) -> None:
    async def write() -> None:
        for number in range(1000):
            await asyncio.to_thread(database.put, {"_id": str(number)})

    writing = asyncio.create_task(write())
    query = "feed=continuous&heartbeat=50&filter=_doc_ids&doc_ids=[]&since=now"
    async with follow(web, query) as feed:
        for _ in range(4):
            assert await feed.chunk() == b"\n"
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing


async def test_events(web: Site, database: Database) -> None:
    fill(database, "ab")
    body = (await ask(web, "feed=eventsource&limit=1&include_docs=true")).body.decode()
    data, event_id, *rest = body.split("\n")
    assert json.loads(data.removeprefix("data: "))["doc"]["_id"] == "a"
    assert event_id == f'id: "1-{database.tag}"'
    assert rest == ["", "", ""]
    last = {"Last-Event-ID": f"1-{database.tag}"}
    reply = await web.ask("GET", "/db/_changes?feed=eventsource&since=0&timeout=50", headers=last)
    assert reply.headers["content-type"] == "text/event-stream"
    assert b'"id":"b"' in reply.body
    assert b'"id":"a"' not in reply.body


async def test_a_descending_feed_ends_with_its_first_round(web: Site, database: Database) -> None:
    fill(database, "ab")
    lines = (await ask(web, "feed=continuous&descending=true")).body.decode().split()
    assert [json.loads(line).get("id") for line in lines] == ["b", "a", None]


async def test_many_feeds_at_the_same_place_are_told_the_same(web: Site, database: Database) -> None:
    async with contextlib.AsyncExitStack() as stack:
        feeds = [
            await stack.enter_async_context(follow(web, query))
            for query in ["feed=continuous&since=now"] * 5
            + ["feed=continuous&since=now&seq_interval=7"]
            + ["feed=eventsource&since=now"] * 2
        ]
        fill(database, "a")
        told = [(await feed.chunk() + await feed.chunk()).strip() for feed in feeds]
    assert len(set(told[:5])) == 1
    assert json.loads(told[0])["id"] == json.loads(told[5])["id"] == "a"
    assert json.loads(told[5])["seq"] is None
    assert told[6] == told[7]
    assert told[6].endswith(f'id: "1-{database.tag}"'.encode())


# --- ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["continuous", "longpoll"])
async def test_feeds_end_with_their_last_line_when_the_database_is_deleted(
    web: Site, database: Database, kind: str
) -> None:
    async with follow(web, f"feed={kind}&since=now&heartbeat=60000") as feed:
        web.server.delete("db")
        assert b'"last_seq":"0-' in await feed.rest()


@pytest.mark.parametrize("kind", ["continuous", "longpoll"])
async def test_feeds_end_with_their_last_line_when_the_server_stops(
    web: Site, database: Database, kind: str
) -> None:
    async with follow(web, f"feed={kind}&since=now&heartbeat=60000") as feed:
        web.app.stopping.set()
        web.server.wake_feeds()
        assert b'"last_seq":"0-' in await feed.rest()


async def test_feeds_end_in_maintenance(web: Site, database: Database) -> None:
    web.server.config.set("couchdb", "maintenance_mode", "true")
    assert b'"last_seq"' in (await ask(web, "feed=continuous&heartbeat=60000")).body


async def test_a_client_that_leaves_is_noticed_while_the_feed_is_idle(web: Site, database: Database) -> None:
    async with follow(web, "feed=continuous&since=now&heartbeat=60000"):
        assert database.feed.has_waiters
    await until(lambda: not database.feed.has_waiters)


async def test_a_client_that_does_not_read_holds_no_transaction_and_little_memory(
    web: Site, database: Database
) -> None:
    text = "x" * 1000
    for start in range(0, 20_000, 1000):
        edits = [document.parse({"_id": f"{start + n:05}", "t": text}) for n in range(1000)]
        await asyncio.wrap_future(database.submit_edits(edits))
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port, limit=1024)
    request = "GET /db/_changes?include_docs=true HTTP/1.1\r\nHost: x\r\n"
    writer.write(f"{request}Authorization: Basic {CREDENTIALS}\r\n\r\n".encode())
    await asyncio.sleep(0.5)
    assert database.engine.transactions == 0
    read = 0
    while chunk := await asyncio.wait_for(reader.read(1 << 20), 30):
        read += len(chunk)
        if b'"last_seq"' in chunk:
            break
    assert read > 20_000_000
    writer.close()


async def test_a_feed_that_resumes_sees_what_another_process_wrote(web: Site, database: Database) -> None:
    """A page that is shared by those who waited must not hide news from those who come."""
    async with follow(web, "feed=continuous&since=now") as feed:
        fill(database, "a")
        assert (await feed.line())["id"] == "a"
        assert ids(await ask(web, "since=0")) == ["a"]
        fill(database, "b")
        assert ids(await ask(web, "since=0")) == ["a", "b"]
        assert (await feed.line())["id"] == "b"


# --- WebSocket -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def socket(web: Site, query: str, **headers: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers["Authorization"] = f"Basic {CREDENTIALS}"
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{web.port}/db/_changes?feed=websocket&{query}"
        async with session.ws_connect(url, headers=headers) as opened:
            yield opened


async def test_a_socket_sends_a_message_for_each_change(web: Site, database: Database) -> None:
    fill(database, "a", v=1)
    async with socket(web, "include_docs=true&limit=2") as opened:
        first = await opened.receive_json(timeout=10)
        assert (first["id"], first["doc"]["v"]) == ("a", 1)
        fill(database, "b")
        assert (await opened.receive_json(timeout=10))["id"] == "b"
        assert await opened.receive_json(timeout=10) == {"last_seq": f"2-{database.tag}", "pending": 0}
        assert (await opened.receive(timeout=10)).type == aiohttp.WSMsgType.CLOSE
    assert opened.close_code == 1000


async def test_a_socket_sends_attachments(web: Site, database: Database) -> None:
    data = base64.b64encode(b"some text").decode()
    database.put({"_id": "a", "_attachments": {"t": {"content_type": "text/plain", "data": data}}})
    async with socket(web, "include_docs=true&attachments=true") as opened:
        row = await opened.receive_json(timeout=10)
    assert row["doc"]["_attachments"]["t"]["data"] == data


async def test_a_socket_ends_when_its_time_is_up_or_the_database_is_gone(
    web: Site, database: Database
) -> None:
    async with socket(web, "timeout=50") as opened:
        assert await opened.receive_json(timeout=10) == {"last_seq": f"0-{database.tag}", "pending": 0}
    async with socket(web, "heartbeat=50") as opened:
        await asyncio.sleep(0.2)
        web.server.delete("db")
        assert "last_seq" in await opened.receive_json(timeout=10)


async def test_a_socket_whose_feed_fails_says_why(web: Site, database: Database) -> None:
    database.put(FILTERS)
    async with socket(web, "filter=f/fails") as opened:
        assert (await opened.receive_json(timeout=10))["error"] == "TypeError"
        await opened.receive(timeout=10)
    assert opened.close_code == 1011


async def test_a_socket_has_pings_for_heartbeats(web: Site, database: Database) -> None:
    headers = {"Authorization": f"Basic {CREDENTIALS}"}
    url = f"http://127.0.0.1:{web.port}/db/_changes?feed=websocket&since=now&heartbeat=50"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, headers=headers, autoping=False) as opened,
    ):
        for _ in range(3):
            assert (await opened.receive(timeout=10)).type == aiohttp.WSMsgType.PING


async def test_a_socket_whose_client_leaves_ends(web: Site, database: Database) -> None:
    async with socket(web, "since=now&heartbeat=60000") as opened:
        await opened.send_str("what a client says is dropped")
        await asyncio.sleep(0.1)
        assert database.feed.has_waiters
        started = time.monotonic()
    assert time.monotonic() - started < 5
    await until(lambda: not database.feed.has_waiters)


async def test_the_server_says_that_it_goes_away(web: Site, database: Database) -> None:
    async with socket(web, "since=now&heartbeat=60000") as opened:
        web.app.stopping.set()
        web.server.wake_feeds()
        assert "last_seq" in await opened.receive_json(timeout=10)
        await opened.receive(timeout=10)
    assert opened.close_code == 1001


async def test_pages_of_foreign_origins_get_no_socket(web: Site, database: Database) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with socket(web, "", Origin="http://evil.example"):
            pass
    assert refused.value.status == 403
    async with socket(web, "limit=0", Origin=f"http://127.0.0.1:{web.port}") as opened:
        assert "last_seq" in await opened.receive_json(timeout=10)
    web.server.config.set("chttpd", "enable_cors", "true")
    web.server.config.set("cors", "origins", "http://friend.example")
    async with socket(web, "limit=0", Origin="http://friend.example") as opened:
        assert "last_seq" in await opened.receive_json(timeout=10)


async def test_a_malformed_handshake_is_refused(web: Site, database: Database) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade, close", "Sec-WebSocket-Version": "13"}
    reply = await web.ask("GET", "/db/_changes?feed=websocket", headers=headers)
    assert (reply.status, reply.json()["error"]) == (400, "bad_request")
