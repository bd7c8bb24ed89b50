"""Documents of replicator databases that are run: the states they go through, and what ends their jobs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from couchlite import document
from replicator import scheduler
from tests.web.in_process import Site

from ..waiting import until
from .databases import Couch

STATS = {"docs_read": 3, "docs_written": 3, "doc_write_failures": 0, "missing_revisions_found": 3}


@pytest.fixture
async def server(server: Couch) -> AsyncIterator[Couch]:
    for name in ("_replicator", "source", "target", "team%2F_replicator"):
        await server.ask("PUT", f"/{name}")
    await server.ask("POST", "/source/_bulk_docs", {"docs": [{"_id": letter} for letter in "abc"]})
    yield server


async def ask_for(server: Couch, doc_id: str, database: str = "_replicator", **fields: Any) -> str:
    """Store a document that asks for a replication; its revision."""
    body = {"source": server.endpoint("source"), "target": server.endpoint("target"), **fields}
    status, made = await server.ask("PUT", f"/{database}/{doc_id}", body)
    assert status == 201, made
    return str(made["rev"])


async def shown(server: Couch, doc_id: str, database: str = "_replicator") -> dict[str, Any]:
    status, row = await server.ask("GET", f"/_scheduler/docs/{database}/{doc_id}")
    return row if status == 200 else {"state": status}


async def reaches(server: Couch, doc_id: str, state: str, database: str = "_replicator") -> dict[str, Any]:
    async def is_there() -> bool:
        return bool((await shown(server, doc_id, database))["state"] == state)

    await until(is_there, 20)
    return await shown(server, doc_id, database)


async def has(server: Couch, name: str, doc_id: str) -> bool:
    return (await server.ask("GET", f"/{name}/{doc_id}"))[0] == 200


async def job_count(server: Couch) -> int:
    return int((await server.ask("GET", "/_scheduler/jobs"))[1]["total_rows"])


@pytest.mark.parametrize("database", ["_replicator", "team%2F_replicator"])
async def test_a_replication_that_ends_is_completed(server: Couch, database: str) -> None:
    await ask_for(server, "doc", database)
    row = await reaches(server, "doc", "completed", database)
    assert (
        row.items()
        >= {
            "database": database.replace("%2F", "/"),
            "id": None,
            "error_count": 0,
            "source": f"{server.url}/source/",
            "target": f"{server.url}/target/",
        }.items()
    )
    assert row["info"].items() >= STATS.items() and row["start_time"] and row["last_updated"]
    _, doc = await server.ask("GET", f"/{database}/doc")
    assert doc["_replication_state"] == "completed" and doc["_rev"].startswith("2-")
    assert doc["_replication_stats"].items() >= STATS.items()
    assert doc["_replication_stats"]["start_time"] == row["start_time"]
    assert "_replication_id" not in doc and "_replication_state_reason" not in doc
    assert await job_count(server) == 0


async def test_a_continuous_one_runs_and_its_document_stays_as_it_is(server: Couch) -> None:
    rev = await ask_for(server, "doc", continuous=True)
    row = await reaches(server, "doc", "running")
    await until(lambda: has(server, "target", "c"))
    await server.ask("PUT", "/source/later", {})
    await until(lambda: has(server, "target", "later"))
    assert (await server.ask("GET", "/_replicator/doc"))[1]["_rev"] == rev
    status, job = await server.ask("GET", f"/_scheduler/jobs/{row['id']}")
    assert (status, job["doc_id"], job["database"]) == (200, "doc", "_replicator")
    assert [event["type"] for event in job["history"]] == ["started", "added"] and job["pid"]
    _, [task] = await server.ask("GET", "/_active_tasks")
    assert (task["type"], task["doc_id"], task["continuous"]) == ("replication", "doc", True)


async def test_another_target_is_another_replication(server: Couch) -> None:
    await ask_for(server, "doc", continuous=True)
    first = await reaches(server, "doc", "running")
    await until(lambda: has(server, "target", "c"))
    _, doc = await server.ask("GET", "/_replicator/doc")
    _, made = await server.ask("PUT", "/_replicator/doc", doc)
    assert (await shown(server, "doc"))["id"] == first["id"], "what asks for the same changes nothing"
    await server.ask("PUT", "/target2")
    changed = doc | {"_rev": made["rev"], "target": server.endpoint("target2")}
    await server.ask("PUT", "/_replicator/doc", changed)
    await until(lambda: has(server, "target2", "c"))
    second = await reaches(server, "doc", "running")
    assert second["id"] != first["id"] and await job_count(server) == 1
    await server.ask("PUT", "/source/later", {})
    await until(lambda: has(server, "target2", "later"))
    assert not await has(server, "target", "later")


@pytest.mark.parametrize("how", ["document", "database"])
async def test_what_is_deleted_ends(server: Couch, how: str) -> None:
    rev = await ask_for(server, "doc", "team%2F_replicator", continuous=True)
    await reaches(server, "doc", "running", "team%2F_replicator")
    gone = f"/team%2F_replicator/doc?rev={rev}" if how == "document" else "/team%2F_replicator"
    assert (await server.ask("DELETE", gone))[0] == 200

    async def is_gone() -> bool:
        return await job_count(server) == 0

    await until(is_gone)
    assert (await shown(server, "doc", "team%2F_replicator"))["state"] == 404
    await server.ask("PUT", "/source/later", {})
    if how == "database":
        await server.ask("PUT", "/team%2F_replicator")
    await ask_for(server, "doc", "team%2F_replicator")
    await reaches(server, "doc", "completed", "team%2F_replicator")


async def test_of_two_that_ask_for_the_same_the_second_fails(server: Couch) -> None:
    await ask_for(server, "first", continuous=True)
    row = await reaches(server, "first", "running")
    await ask_for(server, "second", "team%2F_replicator", continuous=True)
    failed = await reaches(server, "second", "failed", "team%2F_replicator")
    reason = (
        f"Replication `{row['id']}` specified by document `second` already started, "
        "triggered by document `first` from db `_replicator`"
    )
    assert failed["info"] == {"error": reason} and failed["error_count"] == 1
    _, doc = await server.ask("GET", "/team%2F_replicator/second")
    assert doc["_replication_state_reason"] == reason and doc["_replication_state_time"]


async def test_what_was_started_by_replicate_is_waited_for(server: Couch) -> None:
    ends = server.endpoint("source"), server.endpoint("target")
    status, started = await server.replicate(*ends, continuous=True)
    assert status == 202
    await ask_for(server, "doc", continuous=True)
    row = await reaches(server, "doc", "error")
    assert row["id"] is None and row["error_count"] == 1
    assert row["info"]["error"] == (
        f"Replication `{started['_local_id']}` specified by document `doc` already running as a transient "
        "replication, started via `_replicate` API endpoint"
    )


async def test_what_a_document_wants_can_be_joined_and_cancelled_by_replicate(server: Couch) -> None:
    await ask_for(server, "never", source=server.endpoint("nothing"))
    await reaches(server, "never", "crashing")
    status, told = await server.replicate(server.endpoint("nothing"), server.endpoint("target"))
    assert (status, told["error"]) == (500, "db_not_found")
    await ask_for(server, "doc", continuous=True)
    row = await reaches(server, "doc", "running")
    cancelled = {"replication_id": row["id"], "cancel": True}
    assert (await server.ask("POST", "/_replicate", cancelled))[0] == 200
    _, listing = await server.ask("GET", "/_scheduler/docs")
    assert [row["doc_id"] for row in listing["docs"]] == ["never"]


@pytest.mark.parametrize("state", ["triggered", "error", "odd"])
async def test_a_state_of_old_is_no_obstacle(server: Couch, state: str) -> None:
    more = {"_replication_state": state, "_replication_state_reason": "old", "_replication_id": "x"}
    await ask_for(server, "doc", **more)
    await reaches(server, "doc", "completed")
    _, doc = await server.ask("GET", "/_replicator/doc")
    assert doc["_replication_state"] == "completed" and "_replication_state_reason" not in doc


async def test_what_has_failed_is_not_begun_again_until_its_state_is_taken_away(server: Couch) -> None:
    await ask_for(server, "doc", _replication_state="failed", _replication_state_reason="why")
    await ask_for(server, "after")
    await reaches(server, "after", "completed")
    row = await shown(server, "doc")
    assert (row["state"], row["info"], row["error_count"]) == ("failed", {"error": "why"}, 1)
    _, doc = await server.ask("GET", "/_replicator/doc")
    fields = {name: value for name, value in doc.items() if not name.startswith("_replication")}
    await server.ask("PUT", "/_replicator/doc", fields)
    await reaches(server, "doc", "completed")


async def test_states_that_pass_are_written_if_it_is_asked_for(server: Couch) -> None:
    await server.ask("PUT", "/_node/_local/_config/replicator/update_docs", "true")
    await ask_for(server, "doc", continuous=True)

    async def is_triggered() -> bool:
        _, doc = await server.ask("GET", "/_replicator/doc")
        return doc.get("_replication_state") == "triggered" and "_replication_id" in doc

    await until(is_triggered)
    await until(lambda: has(server, "target", "c"))
    assert await job_count(server) == 1


# --- what goes wrong


@pytest.fixture
async def stranger() -> AsyncIterator[str]:
    """A server that is no CouchDB; /moved/ sends one elsewhere."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/moved"):
            return web.Response(status=302, headers={"Location": "/elsewhere/"})
        return web.Response(text="<h1>Welcome</h1>", content_type="text/html")

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(
    ("end", "fault", "reason"),
    [
        ("source", "missing", "db_not_found: could not open {url}/"),
        ("target", "missing", "db_not_found: could not open {url}/"),
        ("source", "password", "unauthorized: unauthorized to access or create database {url}/"),
        ("target", "password", "unauthorized: unauthorized to access or create database {url}/"),
        ("source", "page", "db_not_found: could not open {url}/"),
        ("target", "page", "db_not_found: could not open {url}/"),
        ("source", "port", "econnrefused"),
        ("source", "moved", "{url}"),
    ],
)
async def test_what_can_not_be_done_now_is_crashing(
    server: Couch,
    stranger: str,
    end: str,
    fault: str,
    reason: str,
    continuous: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    urls = {
        "missing": f"{server.url}/nothing",
        "password": f"{server.url}/{end}",
        "page": f"{stranger}/db",
        "port": "http://127.0.0.1:1/db",
        "moved": f"{stranger}/moved",
    }
    basic = {"username": "adm", "password": "s3cr3t" if fault == "password" else "pass"}
    endpoint = {"url": urls[fault], "auth": {"basic": basic}, "headers": {"X-Key": "s3cr3t"}}
    more = {end: endpoint, "continuous": continuous, "retries_per_request": 0}
    rev = await ask_for(server, "doc", **more)
    row = await reaches(server, "doc", "crashing")
    assert reason.format(url=urls[fault]) in row["info"]["error"]
    assert row["error_count"] >= 1 and row["id"]
    _, job = await server.ask("GET", f"/_scheduler/jobs/{row['id']}")
    assert "crashed" in [event["type"] for event in job["history"]]
    assert (await server.ask("GET", "/_replicator/doc"))[1]["_rev"] == rev, "it may be well again"
    for path in ("/_scheduler/jobs", "/_scheduler/docs", "/_active_tasks", "/_replications"):
        assert "s3cr3t" not in str(await server.ask("GET", path))
    assert "s3cr3t" not in caplog.text and "adm:" not in caplog.text


async def test_what_goes_wrong_ever_again_is_tried_ever_more_seldom(
    server: Couch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RETRY_MIN_S", 0.05)
    await ask_for(server, "doc", source=server.endpoint("later"), continuous=True)

    async def has_crashed_often() -> bool:
        return int((await shown(server, "doc")).get("error_count", 0)) >= 5

    await until(has_crashed_often)
    monkeypatch.setattr(scheduler, "RETRY_MIN_S", 0.01)
    await server.ask("PUT", "/later")
    await server.ask("PUT", "/later/doc", {})
    await until(lambda: has(server, "target", "doc"))


async def test_a_filter_that_can_not_be_read_is_an_error(server: Couch) -> None:
    await ask_for(server, "doc", filter="app/none")
    row = await reaches(server, "doc", "error")
    assert row["info"]["error"].startswith("Couldn't open document `_design/app` from source database")
    assert (row["id"], row["error_count"]) == (None, 1) and "source" not in row


async def test_what_can_not_be_understood_has_failed(server: Couch, site: Site) -> None:
    """It did not come by the HTTP API, which would have refused it."""
    site.server.open("_replicator").update([document.parse({"_id": "doc", "source": "name"})])
    await ask_for(server, "other")
    row = await reaches(server, "doc", "failed")
    assert row["info"] == {"error": "local_endpoints_not_supported"}
