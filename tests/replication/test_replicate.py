"""POST /_replicate and what can be seen of replications, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import pytest

from tests.issuer import SECRET, claims, token

from ..waiting import until
from .databases import Couch, contents, fill, graft
from .faults import line


async def ids(server: Couch, name: str) -> list[str]:
    _, listing = await server.ask("GET", f"/{name}/_all_docs")
    return [row["id"] for row in listing["rows"]]


@pytest.fixture
async def source(server: Couch) -> dict[str, Any]:
    await server.ask("PUT", "/source")
    await server.ask("PUT", "/target")
    docs = [{"_id": letter, "kind": "vowel" if letter in "ae" else "consonant"} for letter in "abcde"]
    await server.ask("POST", "/source/_bulk_docs", {"docs": docs})
    return server.endpoint("source")


@pytest.mark.parametrize("source_is", ["here", "elsewhere"])
@pytest.mark.parametrize("target_is", ["here", "elsewhere"])
@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "singly"])
async def test_both_ends_are_equal(
    server: Couch, other: Couch, source_is: str, target_is: str, bulk: bool
) -> None:
    ends = {"here": server, "elsewhere": other}
    source, target = ends[source_is], ends[target_is]
    await fill(source, "original")
    status, told = await server.replicate(
        source.endpoint("original"), target.endpoint("copy"), create_target=True, use_bulk_get=bulk
    )
    assert status == 200, told
    assert told["history"][0]["doc_write_failures"] == 0
    assert await contents(target, "copy") == await contents(source, "original")


async def test_names_mean_databases_of_this_server(server: Couch, source: dict[str, Any]) -> None:
    status, told = await server.replicate("source", "target")
    assert (status, told["history"][0]["docs_written"]) == (200, 5)
    assert await ids(server, "target") == list("abcde")


async def test_a_second_run_finds_no_changes_and_goes_on_from_there(
    server: Couch, source: dict[str, Any]
) -> None:
    await server.replicate(source, server.endpoint("target"))
    _, again = await server.replicate(source, server.endpoint("target"))
    assert again["no_changes"] is True and len(again["history"]) == 1
    await server.ask("PUT", "/source/f", {})
    _, third = await server.replicate(source, server.endpoint("target"))
    counts = [(entry["missing_checked"], entry["docs_written"]) for entry in third["history"]]
    assert counts == [(6, 6), (5, 5)]
    assert third["history"][0]["start_last_seq"] == third["history"][1]["end_last_seq"]


async def test_a_target_that_was_made_anew_gets_everything(server: Couch, source: dict[str, Any]) -> None:
    await server.replicate(source, server.endpoint("target"))
    await server.ask("DELETE", "/target")
    await server.ask("PUT", "/target")
    _, told = await server.replicate(source, server.endpoint("target"))
    assert told["history"][0]["start_last_seq"] == 0
    assert await ids(server, "target") == list("abcde")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"doc_ids": ["a", "%62", "zzz"]}, ["a", "b"], id="doc_ids, percent-encoded ones too"),
        pytest.param({"selector": {"kind": "vowel"}}, ["a", "e"], id="selector"),
        pytest.param({"filter": "app/kind", "query_params": {"kind": "vowel"}}, ["a", "e"], id="filter"),
        pytest.param({"filter": "_design"}, ["_design/app"], id="built-in filter"),
    ],
)
async def test_only_what_passes_is_replicated(
    server: Couch, source: dict[str, Any], options: dict[str, Any], expected: list[str]
) -> None:
    function = "function(doc, req) { return doc.kind == req.query.kind; }"
    await server.ask("PUT", "/source/_design/app", {"filters": {"kind": function}})
    status, told = await server.replicate(source, server.endpoint("target"), **options)
    assert status == 200, told
    assert await ids(server, "target") == expected


async def test_another_filter_function_is_another_replication(server: Couch, source: dict[str, Any]) -> None:
    _, made = await server.ask(
        "PUT", "/source/_design/app", {"filters": {"f": "function() { return false; }"}}
    )
    await server.replicate(source, server.endpoint("target"), filter="app/f")
    design = {"_rev": made["rev"], "filters": {"f": "function() { return true; }"}}
    await server.ask("PUT", "/source/_design/app", design)
    await server.replicate(source, server.endpoint("target"), filter="app/f")
    assert await ids(server, "target") == ["_design/app", *"abcde"]


async def test_only_winners_if_asked_for(server: Couch, source: dict[str, Any]) -> None:
    grafts = [graft("conflict", 1, [digit * 32]) for digit in "12"]
    await server.ask("POST", "/source/_bulk_docs", {"docs": grafts, "new_edits": False})
    await server.replicate(source, server.endpoint("target"), winning_revs_only=True)
    _, doc = await server.ask("GET", "/target/conflict?conflicts=true")
    assert doc == {"_id": "conflict", "_rev": f"1-{'2' * 32}"}


async def test_refused_documents_are_counted_and_the_others_written(
    server: Couch, source: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    function = "function(doc) { if (doc.kind == 'vowel') throw({forbidden: 'no vowels'}); }"
    await server.ask("PUT", "/target/_design/v", {"validate_doc_update": function})
    status, told = await server.replicate(source, server.endpoint("target"))
    assert status == 200
    entry = told["history"][0]
    assert (entry["docs_read"], entry["docs_written"], entry["doc_write_failures"]) == (5, 3, 2)
    assert await ids(server, "target") == ["_design/v", *"bcd"]
    refusals = [record.getMessage() for record in caplog.records if "was not written" in record.getMessage()]
    assert len(refusals) == 2 and all("forbidden" in text for text in refusals)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in-process", "http"])
async def test_documents_over_a_limit_are_counted(
    server: Couch, other: Couch, source: dict[str, Any], elsewhere: bool
) -> None:
    target = other if elsewhere else server
    await target.ask("PUT", "/small")
    await server.ask("PUT", "/source/large", {"text": "x" * 2000})
    await server.ask("PUT", "/source/large-attached", {"_attachments": {"a": {"data": "QUJD" * 1000}}})
    for key in ("max_document_size", "max_attachment_size"):
        await target.ask("PUT", f"/_node/_local/_config/couchdb/{key}", "1000")
    status, told = await server.replicate(source, target.endpoint("small"))
    assert status == 200, told
    assert told["history"][0]["doc_write_failures"] == 2
    assert await ids(target, "small") == list("abcde")


async def test_a_stranger_replicates_only_what_strangers_may(server: Couch, source: dict[str, Any]) -> None:
    url = server.endpoint("source")["url"]
    status, told = await server.replicate(url, server.endpoint("target"))
    assert (status, told["error"]) == (401, "unauthorized")
    wrong = {"url": url, "auth": {"basic": {"username": "adm", "password": "wrong"}}}
    assert (await server.replicate(wrong, server.endpoint("target")))[0] == 401
    await server.ask("PUT", "/source/_security", {})
    assert (await server.replicate(url, server.endpoint("target")))[0] == 200


async def test_a_session_cookie_is_good_for_named_databases(server: Couch, source: dict[str, Any]) -> None:
    async with server.session.post(
        f"{server.url}/_session", json={"name": "adm", "password": "pass"}
    ) as answer:
        cookie = answer.cookies["AuthSession"].value
    body = {"source": "source", "target": "target"}
    headers = {"Cookie": f"AuthSession={cookie}"}
    async with server.session.post(f"{server.url}/_replicate", json=body, headers=headers) as answer:
        assert (await answer.json())["history"][0]["docs_written"] == 5


async def test_a_proxy_s_user_is_that_user_here_too(server: Couch, source: dict[str, Any]) -> None:
    """Whoever such headers name is known to the HTTP API only, so it is asked."""
    handlers = ", ".join(f"{{chttpd_auth, {name}_authentication_handler}}" for name in ("proxy", "default"))
    config = "/_node/_local/_config/chttpd/authentication_handlers"
    assert (await server.ask("PUT", config, handlers))[0] == 200
    await server.ask("PUT", "/source/_security", {"members": {"names": ["bob"]}})
    for name, status in (("bob", 200), ("eve", 403)):
        headers = {"X-Auth-CouchDB-UserName": name}
        endpoint = {"url": server.endpoint("source")["url"], "headers": headers}
        assert (await server.replicate(endpoint, server.endpoint("target")))[0] == status


async def test_a_token_is_good_for_named_databases(server: Couch, source: dict[str, Any]) -> None:
    config = "/_node/_local/_config"
    handlers = ", ".join(f"{{chttpd_auth, {name}_authentication_handler}}" for name in ("jwt", "default"))
    await server.ask("PUT", f"{config}/chttpd/authentication_handlers", handlers)
    await server.ask("PUT", f"{config}/jwt_keys/hmac:_default", base64.b64encode(SECRET).decode())
    bearer = token(claims(**{"_couchdb.roles": ["_admin"]}))
    headers = {"Authorization": f"Bearer {bearer}"}
    body = {"source": "source", "target": "target"}
    status, told = await server.ask("POST", "/_replicate", body, headers=headers)
    assert status == 200, told
    assert told["history"][0]["docs_written"] == 5


async def test_nobody_is_there(server: Couch, source: dict[str, Any]) -> None:
    options = {"retries_per_request": 0, "connection_timeout": 2000}
    status, told = await server.replicate("http://127.0.0.1:9/x", server.endpoint("target"), **options)
    assert (status, told["error"]) == (500, "error")
    assert "econnrefused" in told["reason"] and "http://127.0.0.1:9/x/" in told["reason"]
    status, told = await server.replicate(
        "http://u:secret@no-such-host.invalid/x", server.endpoint("target"), **options
    )
    assert (status, told["error"]) == (500, "nxdomain")
    assert told["reason"] == "could not resolve http://no-such-host.invalid/x/"


# --- continuous ones


async def test_a_continuous_replication_brings_what_comes_until_it_is_cancelled(
    server: Couch, other: Couch, source: dict[str, Any]
) -> None:
    target = other.endpoint("copy")
    status, started = await server.replicate(source, target, continuous=True, create_target=True)
    assert (status, started["ok"]) == (202, True)
    assert started["_local_id"].endswith("+continuous+create_target")
    await until(lambda: has(other, "copy", "e"))
    await server.ask("PUT", "/source/f", {})
    await until(lambda: has(other, "copy", "f"))

    async def shows_all() -> bool:
        _, tasks = await server.ask("GET", "/_active_tasks")
        shown = [task for task in tasks if task["type"] == "replication"]
        return len(shown) == 1 and shown[0]["docs_written"] == 6 and shown[0]["changes_pending"] == 0

    await until(shows_all)
    _, tasks = await server.ask("GET", "/_active_tasks")
    assert tasks[0]["replication_id"] == started["_local_id"]
    assert (tasks[0]["user"], tasks[0]["continuous"], tasks[0]["target"]) == (
        "adm",
        True,
        f"{other.url}/copy/",
    )
    _, listing = await server.ask("GET", "/_scheduler/jobs")
    assert (listing["total_rows"], listing["offset"]) == (1, 0)
    assert [event["type"] for event in listing["jobs"][0]["history"]] == ["started", "added"]
    assert listing["jobs"][0]["info"]["docs_written"] == 6

    status, ended = await server.replicate(source, target, continuous=True, create_target=True, cancel=True)
    assert (status, ended) == (200, {"ok": True, "_local_id": started["_local_id"]})
    assert (await server.ask("GET", f"/_scheduler/jobs/{started['_local_id']}"))[0] == 404
    assert (await server.ask("GET", "/_active_tasks"))[1] == []
    status, _ = await server.ask("POST", "/_replicate", {"id": started["_local_id"], "cancel": True})
    assert status == 404
    # It has noted where it was.
    base = started["_local_id"].partition("+")[0]
    _, checkpoint = await server.ask("GET", f"/source/_local/{base}")
    _, seen = await server.ask("GET", "/source/_changes")
    assert checkpoint["source_last_seq"] == seen["last_seq"]


async def has(server: Couch, name: str, doc_id: str) -> bool:
    return (await server.ask("GET", f"/{name}/{doc_id}"))[0] == 200


async def test_a_continuous_replication_comes_back_after_a_failure(
    server: Couch, source: dict[str, Any]
) -> None:
    _, started = await server.replicate(source, server.endpoint("later"), continuous=True)
    job = f"/_scheduler/jobs/{started['_local_id']}"

    async def has_crashed() -> bool:
        _, shown = await server.ask("GET", job)
        return bool(shown["history"][0]["type"] == "crashed")

    await until(has_crashed)
    _, shown = await server.ask("GET", job)
    reason = f"db_not_found: could not open {server.url}/later/"
    assert shown["history"][0]["reason"] == reason and shown["info"] is None
    await server.ask("PUT", "/later")
    await until(lambda: has(server, "later", "e"))


async def test_a_live_change_arrives_within_moments(server: Couch, source: dict[str, Any]) -> None:
    await server.replicate(source, server.endpoint("target"), continuous=True)
    await until(lambda: has(server, "target", "e"))
    begun = time.monotonic()
    await server.ask("PUT", "/source/now", {})
    await until(lambda: has(server, "target", "now"))
    assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods_are_not_allowed(server: Couch, method: str) -> None:
    assert (await server.ask(method, "/_replicate", {}))[0] == 405


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("limit=x", "limit must be an integer"),
        ("skip=-1", "skip not in range of [0,infinity]"),
    ],
)
async def test_odd_pages_of_jobs_are_refused(server: Couch, query: str, reason: str) -> None:
    status, told = await server.ask("GET", f"/_scheduler/jobs?{query}")
    assert (status, told) == (400, {"error": "query_parse_error", "reason": reason})


@pytest.mark.parametrize("end", ["source", "target"])
async def test_a_continuous_replication_outlives_the_network(
    server: Couch, other: Couch, source: dict[str, Any], end: str
) -> None:
    async with line(other.url) as (connection, url):
        distant = {"url": f"{url}/distant", "auth": source["auth"]}
        await other.ask("PUT", "/distant")
        ends = (distant, server.endpoint("target")) if end == "source" else (source, distant)
        written, read = (other, "distant"), (server, "target")
        if end == "target":
            written, read = (server, "source"), (other, "distant")
        status, _ = await server.replicate(*ends, continuous=True, connection_timeout=3000)
        assert status == 202
        await written[0].ask("PUT", f"/{written[1]}/before", {})
        await until(lambda: has(*read, "before"))
        connection.cut()
        await written[0].ask("PUT", f"/{written[1]}/meanwhile", {})
        await asyncio.sleep(0.5)
        connection.is_down = False
        await until(lambda: has(*read, "meanwhile"), 20)
        await written[0].ask("PUT", f"/{written[1]}/after", {})
        await until(lambda: has(*read, "after"))
        await server.replicate(*ends, continuous=True, cancel=True)
