"""Resolvers over HTTP: settings, a preview of a merge, all conflicts at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .in_process import Site
from .test_conflicts import MEMBER, STRANGER, ask, db, fork

__all__ = ["db"]  # the fixture

SETTINGS = {"automatic": False, "resolvers": [{"selector": {"text": "x"}, "resolver": "three-way"}]}


async def with_members(db: Site) -> None:
    await ask(db, "PUT", "/_users", status=201)
    for name, password in (MEMBER, STRANGER):
        user = {"name": name, "password": password, "type": "user", "roles": []}
        await ask(db, "PUT", f"/_users/org.couchdb.user:{name}", user, 201)
    await ask(db, "PUT", "/db/_security", {"members": {"names": [MEMBER[0]]}})


async def test_settings(db: Site) -> None:
    assert await ask(db, "GET", "/db/_conflicts/_resolvers") == {"automatic": False, "resolvers": []}
    assert await ask(db, "PUT", "/db/_conflicts/_resolvers", SETTINGS) == {"ok": True}
    assert await ask(db, "GET", "/db/_conflicts/_resolvers") == SETTINGS


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        pytest.param(
            "PUT", "_resolvers", {"automatic": 1}, 400, "automatic must be true or false", id="settings"
        ),
        pytest.param(
            "PUT", "_resolvers", {"resolvers": [{}] * 1001}, 400, "1000 resolvers at most", id="too many"
        ),
        pytest.param("PUT", "doc", {}, 405, "Only GET,HEAD,POST allowed", id="PUT of a document's conflict"),
        pytest.param("POST", "_resolve", {"using": "lww"}, 400, "'lww' is not a resolver", id="resolver"),
        pytest.param("POST", "_resolve", {"dry": True}, 400, "Unknown member `dry`", id="member"),
        pytest.param("POST", "_resolve", {"ids": "a"}, 400, "`ids` must be a list", id="ids"),
        pytest.param(
            "POST", "_resolve", {"dry_run": 1}, 400, "`dry_run` must be true or false", id="dry_run"
        ),
    ],
)
async def test_refusals(db: Site, method: str, path: str, body: Any, status: int, reason: str) -> None:
    answer = await ask(db, method, f"/db/_conflicts/{path}", body, status)
    assert reason in answer["reason"]


async def test_only_admins_change_settings_or_resolve_all(db: Site) -> None:
    await with_members(db)
    await fork(db, "doc", a={"a": 1}, b={"b": 1})
    path = "/db/_conflicts"
    await ask(db, "GET", f"{path}/_resolvers", auth=MEMBER)
    await ask(db, "POST", f"{path}/_resolve", {"ids": ["doc"]}, auth=MEMBER)
    await ask(db, "PUT", f"{path}/_resolvers", SETTINGS, 403, auth=MEMBER)
    await ask(db, "POST", f"{path}/_resolve", {}, 403, auth=MEMBER)
    await ask(db, "GET", f"{path}/_resolvers", None, 403, auth=STRANGER)
    await ask(db, "POST", f"{path}/_resolve", {"ids": ["doc"]}, 403, auth=STRANGER)


async def test_what_would_be_done_is_shown_beforehand(db: Site) -> None:
    _base, leaves = await fork(db, "doc", a={"text": "base", "a": 1}, b={"text": "new"})
    body = {"ids": ["doc", "none"], "using": "three-way", "dry_run": True}
    assert await ask(db, "POST", "/db/_conflicts/_resolve", body) == {
        "rows": [
            {
                "id": "doc",
                "leaves": leaves,
                "using": "three-way",
                "resolved": False,
                "overruled": [],
                "document": {"text": "new", "a": 1},
            }
        ]
    }
    assert (await ask(db, "GET", "/db/doc"))["_rev"] == leaves[0]


async def test_why_a_conflict_is_left_alone(db: Site) -> None:
    _base, leaves = await fork(db, "doc", a={"text": "a", "x": 1}, b={"text": "b"})
    rows = (await ask(db, "POST", "/db/_conflicts/_resolve", {"using": "three-way"}))["rows"]
    assert [(row["resolved"], row["reason"]) for row in rows] == [(False, "the leaves clash at /text")]
    values = [{"rev": leaves[0], "value": "b"}, {"rev": leaves[1], "value": "a"}]
    assert rows[0]["clashes"] == [
        {"pointer": "/text", "kind": "edit", "base": {"value": "base"}, "values": values}
    ]
    body = {"using": "three-way", "options": {"clashes": "winner"}}
    [row] = (await ask(db, "POST", "/db/_conflicts/_resolve", body))["rows"]
    assert row["resolved"] and row["overruled"] == [leaves[1]]


async def test_all_conflicts_are_resolved_by_the_settings_or_by_one_resolver(db: Site) -> None:
    await ask(db, "PUT", "/db/_conflicts/_resolvers", SETTINGS)
    await fork(db, "one", a={"text": "base", "a": 1}, b={"text": "x"})
    await fork(db, "two", a={"text": "base", "a": 1}, b={"text": "y"})
    dry = (await ask(db, "POST", "/db/_conflicts/_resolve", {"dry_run": True}))["rows"]
    assert [(row["id"], row["using"], row["resolved"]) for row in dry] == [
        ("one", "three-way", False),
        ("two", "manual", False),
    ]
    rows = (await ask(db, "POST", "/db/_conflicts/_resolve", {}))["rows"]
    assert [(row["id"], row["resolved"]) for row in rows] == [("one", True), ("two", False)]
    assert await ask(db, "GET", "/db/one") == {"_id": "one", "_rev": rows[0]["rev"], "text": "x", "a": 1}
    await ask(db, "POST", "/db/_conflicts/_resolve", {"using": "union"})
    assert (await ask(db, "GET", "/db/_conflicts"))["rows"] == []
    [first, second] = (await ask(db, "GET", "/db/_conflicts/_resolutions"))["rows"]
    assert [(one["id"], one["using"], one["by"]) for one in (first, second)] == [
        ("two", "union", "adm"),
        ("one", "three-way", "adm"),
    ]


ROLES_RESOLVER = "function (base, leaves) { return Object.assign({}, leaves[0], {roles: ['_admin']}) }"


async def test_users_are_resolved_to_what_a_user_may_be(db: Site) -> None:
    """Whatever `_design/_auth` says at the moment."""
    await ask(db, "PUT", "/_users", status=201)
    user = {"_id": "org.couchdb.user:eve", "name": "eve", "type": "user", "roles": []}
    base = (await ask(db, "PUT", "/_users/org.couchdb.user:eve", user | {"password": "p"}, 201))["rev"]
    stored = await ask(db, "GET", "/_users/org.couchdb.user:eve")
    for digit in "ab":
        revisions = {"start": 2, "ids": [digit * 32, base[2:]]}
        doc = {**stored, "_rev": f"2-{digit * 32}", "_revisions": revisions, "n": digit}
        await ask(db, "POST", "/_users/_bulk_docs", {"docs": [doc], "new_edits": False}, 201)
    design = {"resolvers": {"r": ROLES_RESOLVER}}
    await ask(db, "PUT", "/_users/_design/d", design, 201)
    body = {"ids": [user["_id"]], "using": "javascript", "options": {"function": "d/r"}}
    [row] = (await ask(db, "POST", "/_users/_conflicts/_resolve", body))["rows"]
    assert not row["resolved"] and "No system roles" in row["reason"]
    body |= {"using": "union", "options": {"clashes": "winner"}}
    [row] = (await ask(db, "POST", "/_users/_conflicts/_resolve", body))["rows"]
    assert row["resolved"]


async def test_a_resolved_request_for_a_replication_can_be_undone(db: Site) -> None:
    """Its deletions are everybody's, though other edits get an owner."""
    await ask(db, "PUT", "/_replicator", status=201)
    ends = {
        "source": "http://127.0.0.1:9/a",
        "target": "http://127.0.0.1:9/b",
        "_replication_state": "failed",
    }
    base = (await ask(db, "PUT", "/_replicator/x", ends, 201))["rev"]
    for digit in "ab":
        revisions = {"start": 2, "ids": [digit * 32, base[2:]]}
        doc = {"_id": "x", "_revisions": revisions, "n": digit, **ends}
        await ask(db, "POST", "/_replicator/_bulk_docs", {"docs": [doc], "new_edits": False}, 201)
    leaves = [leaf["rev"] for leaf in (await ask(db, "GET", "/_replicator/_conflicts/x"))["leaves"]]
    done = await ask(db, "POST", "/_replicator/_conflicts/x", {"leaves": leaves, "pick": leaves[0]}, 201)
    undo = {"resolution": done["resolution"]}
    await ask(db, "POST", "/_replicator/_conflicts/x/_undo", undo, 201)
    assert len((await ask(db, "GET", "/_replicator/_conflicts/x"))["leaves"]) == 2


async def test_a_resolver_asked_about_many_documents_lets_others_have_their_turn(db: Site) -> None:
    body = {"ids": [f"doc{number}" for number in range(100_000)], "using": "union"}
    resolving = asyncio.create_task(ask(db, "POST", "/db/_conflicts/_resolve", body))
    turns = 0
    while not resolving.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await resolving)["rows"] == [] and turns > 500
