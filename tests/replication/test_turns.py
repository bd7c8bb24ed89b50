"""Whose turn it is when more replications are wanted than may run, and what those cost that rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from replicator import scheduler, sleepers
from tests.web.in_process import Site

from ..waiting import until
from .databases import Couch

COUNT = 5


@pytest.fixture
async def server(server: Couch) -> AsyncIterator[Couch]:
    for number in range(COUNT):
        for name in (f"s{number}", f"t{number}"):
            await server.ask("PUT", f"/{name}")
        await server.ask("PUT", f"/s{number}/first", {})
    yield server


async def arrives(server: Couch, doc_id: str, numbers: Any = range(COUNT)) -> None:
    async def is_there() -> bool:
        return all([(await server.ask("GET", f"/t{number}/{doc_id}"))[0] == 200 for number in numbers])

    await until(is_there, 30)


async def set_most(server: Couch, **settings: int) -> None:
    for name, value in settings.items():
        await server.ask("PUT", f"/_node/_local/_config/replicator/{name}", str(value))


def running(site: Site) -> int:
    """How many replications hold anything open just now."""
    return sum(task.get_name().startswith("replication ") for task in asyncio.all_tasks())


async def rest(site: Site) -> None:
    async def do_rest() -> bool:
        return running(site) == 0

    await until(do_rest, 20)


async def test_all_are_served_though_one_may_run(server: Couch, site: Site) -> None:
    await set_most(server, max_jobs=1)
    for number in range(COUNT):
        await server.replicate(f"s{number}", f"t{number}", continuous=True)
    await arrives(server, "first")
    for turn in ("second", "third"):
        for number in range(COUNT):
            await server.ask("PUT", f"/s{number}/{turn}", {})
        await arrives(server, turn)
        assert running(site) <= 1
    _, listing = await server.ask("GET", "/_scheduler/jobs")
    for job in listing["jobs"]:
        assert job["pid"] and [event["type"] for event in job["history"]] == ["started", "added"]


async def test_what_rests_holds_nothing_and_hears_all(
    server: Couch, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "IDLE_S", 0.1)
    await server.replicate("s0", "t0", continuous=True)
    await server.replicate("s1", "t1", continuous=True, selector={"kind": "a"})
    await server.ask(
        "PUT", "/s2/_design/app", {"filters": {"a": "function(doc) { return doc.kind === 'a' }"}}
    )
    await server.replicate("s2", "t2", continuous=True, filter="app/a", connection_timeout=3000)
    await arrives(server, "first", [0])
    for turn in ("second", "third"):
        await rest(site)
        for number in range(3):
            await server.ask("PUT", f"/s{number}/{turn}", {"kind": "a"})
        await arrives(server, turn, range(3))
    _, tasks = await server.ask("GET", "/_active_tasks")
    assert len(tasks) == 3, "who rests is running, as far as anybody can see"


async def test_what_rests_tells_when_its_source_has_gone_or_come_anew(
    server: Couch, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "IDLE_S", 0.1)
    _, started = await server.replicate("s0", "t0", continuous=True)
    await arrives(server, "first", [0])
    await rest(site)
    await server.ask("DELETE", "/s0")

    async def has_crashed() -> bool:
        _, job = await server.ask("GET", f"/_scheduler/jobs/{started['_local_id']}")
        return bool(job["history"][0]["type"] == "crashed")

    await until(has_crashed)
    await server.ask("PUT", "/s0")
    await server.ask("PUT", "/s0/anew", {})
    await arrives(server, "anew", [0])


async def test_what_rests_is_cancelled_as_any_other(
    server: Couch, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "IDLE_S", 0.1)
    asked = {"source": "s0", "target": "t0", "continuous": True}
    await server.ask("POST", "/_replicate", asked)
    await arrives(server, "first", [0])
    await rest(site)
    assert (await server.ask("POST", "/_replicate", asked | {"cancel": True}))[0] == 200
    assert (await server.ask("GET", "/_scheduler/jobs"))[1]["total_rows"] == 0
    await server.ask("PUT", "/s0/later", {})
    await server.ask("POST", "/_replicate", {"source": "s1", "target": "t1"})
    assert (await server.ask("GET", "/t0/later"))[0] == 404


async def test_other_servers_are_asked_while_their_replications_wait(
    server: Couch, other: Couch, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "REMOTE_IDLE_S", 0.1)
    monkeypatch.setattr(scheduler, "CROWDED_IDLE_S", 0.1)
    monkeypatch.setattr(sleepers, "PROBE_MAX_S", 1.0)
    await set_most(server, max_jobs=1)
    hasty = {"retries_per_request": 0}
    for number in range(3):
        await other.ask("PUT", f"/r{number}")
        await other.ask("PUT", f"/r{number}/first", {})
        await server.replicate(other.endpoint(f"r{number}"), f"t{number}", continuous=True, **hasty)
    await arrives(server, "first", range(3))
    for number in range(3):
        await other.ask("PUT", f"/r{number}/second", {})
    await arrives(server, "second", range(3))


async def test_those_that_have_run_longest_give_way(
    server: Couch, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have given since_seq, so that they can't rest."""
    monkeypatch.setattr(scheduler, "TICK_S", 0.1)
    await set_most(server, max_jobs=2, interval=300, max_churn=1, max_history=4)
    for number in range(COUNT):
        await server.replicate(f"s{number}", f"t{number}", continuous=True, since_seq=0)
    await arrives(server, "first")

    async def have_taken_turns() -> bool:
        _, listing = await server.ask("GET", "/_scheduler/jobs")
        histories = [[event["type"] for event in job["history"]] for job in listing["jobs"]]
        assert max(map(len, histories)) <= 4
        return ["started", "stopped", "started", "added"] in histories

    await until(have_taken_turns, 30)
    await set_most(server, max_jobs=COUNT)

    async def all_run() -> bool:
        return running(site) == COUNT

    await until(all_run)


async def test_none_run_where_none_may(server: Couch, site: Site) -> None:
    await set_most(server, max_jobs=0)
    _, started = await server.replicate("s0", "t0", continuous=True)
    _, job = await server.ask("GET", f"/_scheduler/jobs/{started['_local_id']}")
    assert (job["pid"], [event["type"] for event in job["history"]]) == (None, ["added"])
    await set_most(server, max_jobs=1)
    await arrives(server, "first", [0])
