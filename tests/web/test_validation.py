"""Validation functions and design documents: who is asked, with what, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from couchlite import Server, users
from couchlite.document import Edit
from couchlite.errors import CouchliteError, Forbidden, Unauthorized
from couchlite.javascript import FunctionPool, Limits
from couchlite.security import ANONYMOUS, Principal
from couchlite.validation import refusals

from .in_process import Reply, Site

SHOW = "function (n, o, u, s) { if (n.show) { throw({forbidden: JSON.stringify([n, o, u, s])}); } }"
NEEDS_A = "function (n) { if (!n.a) { throw({forbidden: 'need a'}); } }"
NO_B = "function (n) { if (n.b) { throw({unauthorized: 'no b'}); } }"


@pytest.fixture
async def db(web: Site) -> AsyncIterator[Site]:
    """The application with one database, `db`, that everybody may use."""
    web.server.create("db").set_security({"admins": {"names": ["boss"]}})
    yield web
    assert web.server.open("db").check(deep=True) == []


async def design(site: Site, name: str, source: Any, **fields: Any) -> Reply:
    return await site.ask("PUT", f"/db/_design/{name}", {"validate_doc_update": source, **fields})


async def seen(site: Site, target: str, body: Any, method: str = "PUT") -> Any:
    """What the function SHOW was given."""
    reply = await site.ask(method, target, body)
    assert reply.status == 403, reply
    return json.loads(reply.json()["reason"])


async def test_what_a_function_sees_of_a_new_document(db: Site) -> None:
    await design(db, "d", SHOW)
    new, old, user, security = await seen(db, "/db/a", {"show": 1, "_attachments": {"f": {"data": "AA=="}}})
    stub = {"content_type": "application/octet-stream", "revpos": 0, "length": 1, "stub": True}
    assert new == {"_id": "a", "show": 1, "_attachments": {"f": stub}}
    assert old is None
    assert user == {"db": "db", "name": "adm", "roles": ["_admin"]}
    assert security == {"admins": {"names": ["boss"]}}


async def test_what_it_sees_of_an_update(db: Site) -> None:
    await design(db, "d", SHOW)
    first = (await db.ask("PUT", "/db/a", {"_attachments": {"f": {"data": "AA=="}}})).json()["rev"]
    second = (await db.ask("PUT", "/db/a", {"_rev": first, "_attachments": {"f": {"stub": True}}})).json()[
        "rev"
    ]
    body = {"_rev": second, "show": 1, "_attachments": {"f": {"stub": True}}}
    new, old, _, _ = await seen(db, "/db/a", body)
    assert new["_rev"] == old["_rev"] == second
    assert new["_revisions"] == {"start": 2, "ids": [second[2:]]}
    assert old["_revisions"] == {"start": 2, "ids": [second[2:], first[2:]]}
    assert new["_attachments"] == old["_attachments"]
    missing = await db.ask("PUT", "/db/a", {"_rev": second, "_attachments": {"g": {"stub": True}}})
    assert (missing.status, missing.json()["error"]) == (412, "missing_stub")


async def test_what_it_sees_of_a_replicated_edit_is_the_nearest_ancestor_here(db: Site) -> None:
    await design(db, "d", SHOW)
    await db.ask("PUT", "/db/a?new_edits=false", {"_rev": "1-a", "v": 1})
    history = {"start": 4, "ids": ["d", "c", "b", "a"]}
    new, old, _, _ = await seen(db, "/db/a?new_edits=false", {"_revisions": history, "show": 1})
    assert (new["_rev"], new["_revisions"]) == ("4-d", history)
    assert (old["_rev"], old["v"]) == ("1-a", 1)


async def test_every_function_is_asked_until_one_refuses(db: Site) -> None:
    await design(db, "one", NEEDS_A)
    await design(db, "two", NO_B)
    for body, expected in (
        ({"b": 1}, (403, "forbidden", "need a")),
        ({"a": 1, "b": 1}, (401, "unauthorized", "no b")),
    ):
        reply = await db.ask("PUT", "/db/a", body)
        assert (reply.status, reply.json()["error"], reply.json()["reason"]) == expected
    assert (await db.ask("PUT", "/db/a", {"a": 1})).status == 201


async def test_changes_to_functions_take_effect_at_once(db: Site) -> None:
    rev = (await design(db, "d", NEEDS_A)).json()["rev"]
    assert (await db.ask("PUT", "/db/a", {})).status == 403
    rev = (await design(db, "d", NO_B, _rev=rev)).json()["rev"]
    assert (await db.ask("PUT", "/db/a", {})).status == 201
    await db.ask("DELETE", f"/db/_design/d?rev={rev}")
    assert (await db.ask("PUT", "/db/b", {"b": 1})).status == 201


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("PUT", "/db/a", {"b": 1}),
        ("PUT", "/db/a?new_edits=false", {"_rev": "1-a"}),
        ("PUT", "/db/a?batch=ok", {}),
        ("POST", "/db", {}),
        ("PUT", "/db/a/file", b"data"),
    ],
)
async def test_all_ways_to_write_are_judged(db: Site, method: str, target: str, body: Any) -> None:
    await design(db, "d", NEEDS_A)
    reply = await db.ask(method, target, body)
    assert reply.status in (202, 403)
    assert web_docs(db) == ["_design/d"]
    blobs = db.server.open("db").path / "blobs"
    assert [path for path in blobs.rglob("*") if path.is_file()] == []


def web_docs(site: Site) -> list[str]:
    with site.server.open("db").snapshot() as snapshot:
        return [doc_id.decode() for doc_id in snapshot.docs().ids]


async def test_bulk_edits_are_judged_one_by_one(db: Site) -> None:
    await design(db, "d", NEEDS_A)
    docs = [{"_id": "x", "a": 1}, {"_id": "y"}, {"_id": "_local/z"}, {"_id": "x"}]
    reply = await db.ask("POST", "/db/_bulk_docs", {"docs": docs})
    assert [row.get("error", "ok") for row in reply.json()] == ["ok", "forbidden", "ok", "forbidden"]
    assert web_docs(db) == ["_design/d", "x"]


async def test_conflicts_come_before_judgement(db: Site) -> None:
    await db.ask("PUT", "/db/a", {"a": 1})
    await design(db, "d", NEEDS_A)
    assert (await db.ask("PUT", "/db/a", {})).status == 409
    assert (await db.ask("PUT", "/db/a", {"_rev": "1-abc"})).status == 409


async def test_what_is_here_already_is_not_judged_again(db: Site) -> None:
    await db.ask("PUT", "/db/a?new_edits=false", {"_rev": "1-a"})
    await design(db, "d", NEEDS_A)
    assert (await db.ask("PUT", "/db/a?new_edits=false", {"_rev": "1-a"})).status == 201
    assert (await db.ask("PUT", "/db/a?new_edits=false", {"_rev": "1-b"})).status == 403


async def test_local_and_design_documents_are_not_judged(db: Site) -> None:
    await design(db, "d", NEEDS_A)
    assert (await db.ask("PUT", "/db/_local/a", {})).status == 201
    assert (await db.ask("PUT", "/db/_design/e", {})).status == 201


async def test_a_broken_function_lets_nothing_pass(db: Site) -> None:
    await design(db, "d", "function (n) {")
    assert (await db.ask("PUT", "/db/a", {})).status == 500
    assert web_docs(db) == ["_design/d"]


async def test_a_function_that_never_ends_holds_up_nobody_else(db: Site) -> None:
    db.app.functions = FunctionPool(Limits(time_s=0.5))
    await design(db, "d", "function (n) { if (n.hang) { while (true) {} } }")
    hanging = asyncio.create_task(db.ask("PUT", "/db/a", {"hang": 1}))
    assert (await db.ask("PUT", "/db/b", {})).status == 201
    assert (await hanging).status == 500


async def test_the_users_databases_own_rules_need_no_process(web: Site) -> None:
    web.server.create("_users")
    reply = await web.ask("PUT", f"/_users/{users.DESIGN_ID}", users.design_document())
    assert reply.status == 201
    user = {"name": "ann", "password": "x", "roles": [], "type": "user"}
    assert (await web.ask("PUT", "/_users/org.couchdb.user:ann", user)).status == 201
    assert (await web.ask("PUT", "/_users/org.couchdb.user:bob", user)).status == 403
    other = {"validate_doc_update": NEEDS_A}
    assert (await web.ask("PUT", "/_users/_design/more", other)).status == 201
    user = {**user, "name": "cy"}
    assert (await web.ask("PUT", "/_users/org.couchdb.user:cy", user)).json()["reason"] == "need a"


# --- design documents


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"views": []}, "`views` field must have object type"),
        ({"views": {"v": 1}}, "`views.v` field must have object type"),
        ({"views": {"v": {}}}, "View `v` must contain map function"),
        ({"views": {"v": {"map": None}}}, "`views.v.map` field must have string type"),
        ({"views": {"v": {"map": "x", "reduce": 1}}}, "`views.v.reduce` field must have string type"),
        ({"views": {"lib": 1}}, "`views.lib` field must have object type"),
        ({"language": "query", "views": {"v": {"map": "x"}}}, "`views.v.map` field must have object type"),
        ({"views": {"v": {"map": "x", "reduce": "_no"}}}, "`_no` is not a supported reduce function."),
        ({"views": {"v": {"map": "x", "reduce": "_top_0"}}}, "rank value must be between 1 and 100"),
        ({"views": {"v": {"map": "x", "reduce": "_bottom_x"}}}, "invalid rank reducer"),
        ({"filters": {"f": 1}}, "`filters.f` field must have string or object type"),
        ({"rewrites": {}}, "`rewrites` field must have array or string type"),
        ({"options": {"local_seq": 1}}, "`options.local_seq` field must have boolean type"),
        (
            {"options": {"partitioned": True}},
            "partitioned option cannot be true in a non-partitioned database.",
        ),
        ({"language": 1, "views": 1}, "`language` field must have string type"),
        ({"validate_doc_update": {}}, "`validate_doc_update` field must have string type"),
    ],
)
async def test_design_documents_that_make_no_sense(db: Site, fields: dict[str, Any], expected: str) -> None:
    reply = await db.ask("PUT", "/db/_design/d", fields)
    assert (reply.status, reply.json()) == (400, {"error": "invalid_design_doc", "reason": expected})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"views": {"lib": {"x": 1}, "v": {"map": "function (doc) {}", "reduce": "_sum"}}},
        {"views": {"v": {"map": "function (doc) {}", "reduce": "_top_5"}}},
        {"language": "erlang", "views": {"v": {"map": "fun("}}},
        {"language": "query", "views": {"v": {"map": {"fields": {"a": "asc"}}, "reduce": "_count"}}},
        {"rewrites": [], "filters": {"f": "function () {}"}, "options": {"local_seq": True}},
    ],
)
async def test_design_documents_that_are_fine(db: Site, fields: dict[str, Any]) -> None:
    assert (await db.ask("PUT", "/db/_design/d", fields)).status == 201


async def test_views_must_compile(db: Site) -> None:
    reply = await db.ask("PUT", "/db/_design/d", {"views": {"v": {"map": "function (doc) {"}}})
    assert (reply.status, reply.json()["error"]) == (400, "compilation_error")
    assert reply.json()["reason"].startswith("Compilation of the map function in the 'v' view failed: ")


@pytest.mark.parametrize(
    ("security", "principal", "expected"),
    [
        ({"admins": {"names": ["boss"]}}, Principal("boss"), None),
        ({"admins": {"roles": ["chief"]}}, Principal("ann", ("chief",)), None),
        ({}, Principal("ann", ("_admin",)), None),
        ({"members": {"names": ["ann"]}}, Principal("ann"), Forbidden),
        ({}, ANONYMOUS, Unauthorized),
    ],
)
async def test_who_changes_design_documents(
    store: Server, security: dict[str, Any], principal: Principal, expected: type[CouchliteError] | None
) -> None:
    database = store.create("db")
    database.set_security(security)
    functions = FunctionPool()
    edits = [Edit("_design/d"), Edit("other")]
    found = await refusals(database, edits, principal, functions, new_edits=True)
    assert [type(refusal) for refusal in found] == [type(None) if expected is None else expected, type(None)]
    await functions.close()
