"""The connection itself: what no handler ever sees."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from http_api import protocol, request

from .in_process import Site, parse

ADMIN_HEADER = b"Authorization: Basic YWRtOnBhc3M=\r\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GARBAGE\r\n\r\n", id="garbage"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS on a plain port"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="a version there is not"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", id="a header without colon"),
        pytest.param(b"PUT /db HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", id="a negative length"),
        pytest.param(
            b"PUT /db HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", id="a length that is no number"
        ),
        pytest.param(
            b"PUT /db HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            id="two kinds of length",
        ),
        pytest.param(b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", id="a blank in the target"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", id="a huge header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 1_100 + b"\r\n", id="too many headers"),
    ],
)
async def test_what_is_no_request_is_answered_in_json(web: Site, data: bytes) -> None:
    reply = parse(await web.send(data))
    assert reply.status == 400
    assert reply.json() == {"error": "bad_request", "reason": "the HTTP request is malformed"}
    assert reply.headers["content-type"] == "application/json"


async def test_targets_may_be_long_but_not_endless(web: Site) -> None:
    assert (await web.ask("GET", "/_up?x=" + "y" * 500_000)).status == 200
    reply = await web.ask("GET", "/_up?x=" + "y" * 1_100_000)
    assert (reply.status, reply.json()["error"]) == (414, "too_long")


async def test_the_length_of_targets_can_be_limited(web: Site) -> None:
    web.server.config.set("chttpd", "max_uri_length", "2000")
    assert (await web.ask("GET", "/_up?x=" + "y" * 1_900)).status == 200
    assert (await web.ask("GET", "/_up?x=" + "y" * 2_000)).status == 414


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/db/\xc3\xa9", 404),
        (b"/\xc3\xa9", 404),
        (b"/db/\xff", 404),
        (b"/_up?\xc3\xa9=\xc3\xa9", 200),
        (b"http://127.0.0.1/_up", 200),
        (b"/_up#\xc3\xa9", 200),
    ],
)
async def test_targets_that_are_not_quite_right(web: Site, target: bytes, status: int) -> None:
    web.server.create("db")
    data = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + ADMIN_HEADER + b"\r\n"
    assert parse(await web.send(data)).status == status


async def test_a_body_that_resembles_a_request_is_left_alone(web: Site) -> None:
    web.server.create("db")
    body = json.dumps({"x": "GET /é HTTP/1.1"}, ensure_ascii=False).encode()
    head = (
        f"PUT /db/_security HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + 20}\r\nConnection: close\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    with contextlib.closing(writer):
        writer.write(head.encode() + ADMIN_HEADER + b"\r\n" + b" " * 20)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(body)
        assert parse(await reader.read()).status == 200
    assert (await web.ask("GET", "/db/_security")).json() == {"x": "GET /é HTTP/1.1"}


async def test_requests_in_a_row_on_one_connection(web: Site) -> None:
    first = b"GET /_up HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /_up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert (await web.send(first * 3 + last)).count(b"HTTP/1.1 200") == 4


async def test_http_1_0_closes_unless_asked_to_stay(web: Site) -> None:
    answer = await web.send(b"GET /_up HTTP/1.0\r\n\r\n")
    assert parse(answer).status == 200
    kept = b"GET /_up HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    assert (await web.send(kept + b"GET /_up HTTP/1.0\r\n\r\n")).count(b" 200 OK") == 2
    streamed = await web.send(b"GET /_all_dbs HTTP/1.0\r\n" + ADMIN_HEADER + b"\r\n")
    assert streamed.endswith(b"\r\n\r\n[]\n")
    assert b"chunked" not in streamed


async def test_who_waits_to_send_a_body_is_told_to_go_on(web: Site) -> None:
    web.server.create("db")
    head = b"PUT /db/_security HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    with contextlib.closing(writer):
        writer.write(head + ADMIN_HEADER + b"Connection: close\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert parse(await reader.read()).status == 200


async def test_who_waits_to_send_a_body_that_is_not_wanted_is_refused_at_once(web: Site) -> None:
    web.server.create("db")
    head = b"PUT /db/_security HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
    answer = await asyncio.wait_for(web.send(head), 20)
    assert parse(answer).status == 401


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_too_large_is_refused_and_the_client_can_read_why(web: Site, announced: bool) -> None:
    web.server.create("db")
    web.server.config.set("chttpd", "max_http_request_size", "1000")
    web.server.config.set("chttpd", "enable_cors", "true")
    web.server.config.set("cors", "origins", "*")
    size = 3_000_000
    length = b"Content-Length: %d" % size if announced else b"Transfer-Encoding: chunked"
    head = (
        b"PUT /db/_security HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\n"
        + length
        + b"\r\nConnection: close\r\n"
    )
    body = bytes(size) if announced else b"%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n"
    reply = parse(await web.send(head + ADMIN_HEADER + b"\r\n" + body))
    assert (reply.status, reply.json()["error"]) == (413, "too_large")
    assert reply.headers["access-control-allow-origin"] == "http://a"


async def test_a_connection_is_good_for_another_request_after_a_refused_body(web: Site) -> None:
    refused = b"POST /_dbs_info HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    next_one = b"GET /_up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await web.send(refused + next_one)
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"HTTP/1.1 200" in answer


@pytest.mark.parametrize("at", range(1, 20))
async def test_a_request_line_may_come_in_pieces(web: Site, at: int) -> None:
    """Its rest may look like a request line of its own, with a method that nobody knows."""
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    with contextlib.closing(writer):
        message = (
            b"PUT /db HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
            + ADMIN_HEADER
            + b"Connection: close\r\n\r\n"
        )
        writer.write(message[:at])
        await asyncio.sleep(0.02)
        writer.write(message[at:])
        reply = parse(await asyncio.wait_for(reader.read(), 20))
    assert reply.status == 201


async def test_broken_chunks_are_told(web: Site) -> None:
    web.server.create("db")
    head = b"PUT /db/_security HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    with contextlib.closing(writer):
        writer.write(head + ADMIN_HEADER + b"\r\n5\r\nabcde\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"zz\r\n")
        reply = parse(await asyncio.wait_for(reader.read(), 20))
    assert (reply.status, reply.json()["error"]) == (400, "bad_request")


async def test_a_client_that_leaves_in_the_midst_of_its_body_does_no_harm(web: Site) -> None:
    web.server.create("db")
    _reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    writer.write(
        b"PUT /db/_security HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n" + ADMIN_HEADER + b"\r\n{"
    )
    await writer.drain()
    writer.transport.abort()
    assert (await web.ask("GET", "/_up")).status == 200


async def test_a_body_that_stops_coming_is_given_up(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "BODY_IDLE_S", 0.1)
    monkeypatch.setattr(protocol, "LINGER_S", 0.1)
    web.server.create("db")
    head = b"PUT /db/_security HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
    reply = parse(await asyncio.wait_for(web.send(head + ADMIN_HEADER + b"\r\n{"), 20))
    assert (reply.status, reply.json()["error"]) == (408, "timeout")


async def test_a_head_that_stops_coming_is_given_up(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "KEEPALIVE_S", 0.1)
    for data in (b"", b"GET / HT"):
        assert await asyncio.wait_for(web.send(data), 5) == b""


async def test_minimal_headers_for_who_prefers_them(web: Site) -> None:
    reply = await web.ask("GET", "/_up", headers={"Prefer": "return=minimal"})
    assert "x-couch-request-id" not in reply.headers
    assert {"content-type", "content-length", "cache-control", "server"} <= set(reply.headers)


async def test_forwarded_addresses_show_in_locations(web: Site) -> None:
    headers = {"X-Forwarded-Host": "db.example", "X-Forwarded-Proto": "https"}
    reply = await web.ask("PUT", "/db", headers=headers)
    assert reply.headers["location"] == "https://db.example/db"


@pytest.mark.parametrize(
    ("sent", "location"),
    [
        ("a%20b", "a%20b"),
        ("%ED%A0%80", "%ED%A0%80"),
        ("%EF%BF%BD", "%EF%BF%BD"),
        ("_design/%ed%a0%80+x", "_design%2F%ED%A0%80%20x"),
    ],
)
async def test_the_address_of_a_document_is_given_back_as_it_was_sent(
    web: Site, sent: str, location: str
) -> None:
    web.server.create("db")
    reply = await web.ask("PUT", f"/db/{sent}", {})
    assert (reply.status, reply.headers["location"]) == (201, f"http://127.0.0.1:{web.port}/db/{location}")
