"""The feed of databases that were created, changed or deleted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from .in_process import Site


@pytest.fixture(autouse=True)
def _enabled(web: Site) -> None:
    web.server.create("_global_changes")


def events(rows: list[Any]) -> list[tuple[str, str]]:
    return [(row["type"], row["db_name"]) for row in rows]


async def test_it_takes_the_database_global_changes(web: Site) -> None:
    web.server.delete("_global_changes")
    reply = await web.ask("GET", "/_db_updates")
    assert (reply.status, reply.json()["reason"]) == (404, "Database does not exist.")


async def test_each_database_with_its_newest_event(web: Site) -> None:
    for name in ("a", "b"):
        web.server.create(name)
    web.server.delete("a")
    body = (await web.ask("GET", "/_db_updates")).json()
    assert events(body["results"]) == [("created", "_global_changes"), ("created", "b"), ("deleted", "a")]
    assert body["last_seq"] == body["results"][-1]["seq"]


async def test_who_has_seen_the_newest_event_of_a_database_sees_its_next(web: Site) -> None:
    web.server.create("a")
    seen = (await web.ask("GET", "/_db_updates")).json()["last_seq"]
    web.server.delete("a")
    later = (await web.ask("GET", f"/_db_updates?since={seen}")).json()
    assert events(later["results"]) == [("deleted", "a")]


async def test_since_and_limit(web: Site) -> None:
    for name in ("a", "b", "c"):
        web.server.create(name)
    first = (await web.ask("GET", "/_db_updates?limit=2")).json()
    assert events(first["results"]) == [("created", "_global_changes"), ("created", "a")]
    rest = (await web.ask("GET", f"/_db_updates?since={first['last_seq']}")).json()
    assert events(rest["results"]) == [("created", "b"), ("created", "c")]
    assert (await web.ask("GET", "/_db_updates?since=now")).json()["results"] == []
    assert (await web.ask("GET", "/_db_updates?limit=0")).json()["results"] == []


async def test_longpoll_waits_for_news(web: Site) -> None:
    asking = asyncio.create_task(web.ask("GET", "/_db_updates?feed=longpoll&since=now"))
    await asyncio.sleep(0.2)
    assert not asking.done()
    web.server.create("new")
    assert events((await asking).json()["results"]) == [("created", "new")]


async def test_longpoll_ends_when_its_time_is_up(web: Site) -> None:
    body = (await web.ask("GET", "/_db_updates?feed=longpoll&since=now&timeout=1")).json()
    assert body["results"] == []


async def test_a_continuous_feed_has_a_line_for_each_event(web: Site) -> None:
    asking = asyncio.create_task(web.ask("GET", "/_db_updates?feed=continuous&timeout=1000"))
    await asyncio.sleep(0.2)
    web.server.create("a")
    lines = [json.loads(line) for line in (await asking).body.splitlines()]
    assert events(lines[:-1]) == [("created", "_global_changes"), ("created", "a")]
    assert list(lines[-1]) == ["last_seq"]


async def test_an_eventsource_feed(web: Site) -> None:
    reply = await web.ask("GET", "/_db_updates?feed=eventsource&limit=1")
    assert reply.headers["content-type"] == "text/event-stream"
    data, number = reply.body.decode().strip().split("\n")
    row = json.loads(data.removeprefix("data: "))
    assert json.loads(number.removeprefix("id: ")) == row["seq"]


async def test_heartbeats_keep_an_idle_feed_alive(web: Site) -> None:
    asking = asyncio.create_task(web.ask("GET", "/_db_updates?feed=continuous&since=now&heartbeat=1&limit=1"))
    await asyncio.sleep(1.2)
    web.server.create("a")
    lines = (await asking).body.split(b"\n")
    assert lines[0] == b""
    assert any(b'"a"' in line for line in lines)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("feed=nope", "Supported `feed` types: normal, continuous, longpoll, eventsource"),
        ("limit=-1", "invalid_integer"),
        ("timeout=x", "invalid_integer"),
        ("heartbeat=x", "invalid_integer"),
    ],
)
async def test_options_that_are_refused(web: Site, query: str, reason: str) -> None:
    reply = await web.ask("GET", f"/_db_updates?{query}")
    assert (reply.status, reply.json()["reason"]) == (400, reason)


async def test_feeds_end_when_the_server_stops(web: Site) -> None:
    asking = asyncio.create_task(web.ask("GET", "/_db_updates?feed=continuous&heartbeat=true"))
    await asyncio.sleep(0.2)
    web.app.stopping.set()
    assert (await asyncio.wait_for(asking, 20)).body.splitlines()[-1].startswith(b'{"last_seq"')
