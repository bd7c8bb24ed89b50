"""The documents of replicator databases: what is refused on a write, and what of them others are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from couchlite.provision import provision
from replicator import documents

from .in_process import Site

BASIC = {"basic": {"username": "adm", "password": "s3cret"}}
SOURCE = {"url": "http://127.0.0.1:1/a", "auth": BASIC}
TARGET = {"url": "http://127.0.0.1:1/b", "headers": {"Authorization": "Basic YTpzM2NyZXQ="}}
BOTH = {"source": SOURCE, "target": TARGET}
DONE = {"_replication_state": "failed"}
"""Asks for nothing, so that nothing is run."""
SHARED = "/team%2F_replicator"
"""A replicator database that users may use."""


@pytest.fixture
async def web(web: Site) -> Site:
    provision(web.server)
    for name in ("ann", "bob"):
        user = {"type": "user", "name": name, "roles": [], "password": name}
        assert (await web.ask("PUT", f"/_users/org.couchdb.user:{name}", user)).status == 201
    assert (await web.ask("PUT", SHARED)).status == 201
    assert (await web.ask("PUT", f"{SHARED}/_security", {"members": {"names": ["ann", "bob"]}})).status == 200
    return web


ENDPOINT = "endpoint has an invalid url"
MISSING = "Missing replicator database"
LOCAL = "local_endpoints_not_supported"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, MISSING),
        ({"source": SOURCE}, MISSING),
        ({"target": TARGET}, MISSING),
        (BOTH | {"source": "name"}, LOCAL),
        (BOTH | {"source": "ftp://host/name"}, LOCAL),
        (BOTH | {"source": {}}, ENDPOINT),
        (BOTH | {"target": {"url": "http://"}}, ENDPOINT),
        (BOTH | {"filter": "nameless"}, "Invalid filter. Must match `ddocname/filtername`."),
        (BOTH | {"doc_ids": 5}, "parameter `doc_ids` must be an array"),
        (BOTH | {"doc_ids": [5]}, "parameter `doc_ids` must be an array of strings"),
        (BOTH | {"selector": 5}, "parameter `selector` must be a JSON object"),
        (BOTH | {"selector": {"a": {"$no": 1}}}, "Invalid operator: $no"),
        (BOTH | {"continuous": "yes"}, "parameter `continuous` must be a boolean"),
        (BOTH | {"query_params": 5}, "parameter `query_params` must be an object"),
        (
            BOTH | {"selector": {}, "doc_ids": []},
            "`doc_ids`,`filter`,`selector` are mutually exclusive",
        ),
        (
            BOTH | {"proxy": "http://x", "source_proxy": "http://y"},
            "`proxy` is mutually exclusive with `source_proxy`",
        ),
        (BOTH | {"user_ctx": 5}, "parameter `user_ctx` must be a JSON object"),
    ],
)
async def test_what_asks_for_no_replication_is_refused(web: Site, fields: Any, reason: str) -> None:
    for reply in (
        await web.ask("PUT", "/_replicator/doc", fields),
        await web.ask("POST", "/_replicator", fields),
        await web.ask("POST", "/_replicator/_bulk_docs", {"docs": [{"_id": "doc", **fields}]}),
        await web.ask(
            "POST",
            "/_replicator/_bulk_docs",
            {"docs": [{"_id": "doc", "_rev": "1-a", **fields}], "new_edits": False},
        ),
    ):
        assert reply.status == 403 and reply.json() == {"error": "forbidden", "reason": reason}


async def test_any_document_may_be_stored_that_is_a_design_a_failure_or_a_deletion(web: Site) -> None:
    for path, fields in (
        ("_design/x", {"views": {}}),
        ("_local/x", {"a": 1}),
        ("doc", {"source": "x", **DONE}),
        ("gone", {"_deleted": True}),
    ):
        assert (await web.ask("PUT", f"/_replicator/{path}", fields)).status in (200, 201), path
    assert (await web.ask("PUT", "/other", {})).status == 201
    assert (await web.ask("PUT", "/other/doc", {})).status == 201, "another database has no such rules"


async def test_a_document_is_its_writers(web: Site) -> None:
    ann, bob, adm = ("ann", "ann"), ("bob", "bob"), ("adm", "pass")
    made = await web.ask("PUT", f"{SHARED}/doc", BOTH | DONE, auth=ann)
    assert made.status == 201
    doc = (await web.ask("GET", f"{SHARED}/doc", auth=ann)).json()
    assert doc["owner"] == "ann" and doc["source"] == SOURCE and doc["_rev"] == made.json()["rev"]
    refused = await web.ask("PUT", f"{SHARED}/doc", doc, auth=bob)
    assert (refused.status, refused.json()["reason"]) == (
        403,
        "Can't update replication documents from other users.",
    )
    changed = await web.ask("PUT", f"{SHARED}/doc", doc, auth=adm)
    assert changed.status == 201
    assert (await web.ask("GET", f"{SHARED}/doc")).json()["owner"] == "ann"
    unowned = BOTH | DONE | {"owner": None}
    assert (await web.ask("PUT", f"{SHARED}/two", unowned, auth=bob)).status == 403
    assert (await web.ask("PUT", f"{SHARED}/two", unowned, auth=adm)).status == 201
    assert (await web.ask("GET", f"{SHARED}/two")).json()["owner"] == "adm"


async def test_credentials_are_shown_to_the_owner_and_to_admins_only(web: Site) -> None:
    in_urls = {"source": "http://u:s3cret@h/a", "target": {"url": "https://u:s3c@s3cret/@h:1/b"}}
    for name, fields in (
        ("objects", BOTH),
        ("urls", in_urls),
        ("proxy", BOTH | {"proxy": "http://u:s3cret@p"}),
        ("socks", BOTH | {"source_proxy": "socks5://u:s3cret@p:1080"}),
    ):
        stored = await web.ask("PUT", f"{SHARED}/{name}", fields | DONE, auth=("ann", "ann"))
        assert stored.status == 201
        rev = stored.json()["rev"]
        for reader, sees in ((("ann", "ann"), True), (("adm", "pass"), True), (("bob", "bob"), False)):
            for method, path, body in (
                ("GET", f"{name}", None),
                ("GET", f"{name}?revs=true", None),
                ("GET", f"{name}?open_revs=all", None),
                ("GET", f"{name}?rev={rev}", None),
                ("GET", f"_all_docs?include_docs=true&key=%22{name}%22", None),
                ("POST", "_bulk_get", {"docs": [{"id": name}]}),
            ):
                reply = await web.ask(
                    method, f"{SHARED}/{path}", body, auth=reader, headers={"Accept": "application/json"}
                )
                assert reply.status == 200
                assert (b"s3c" in reply.body) == sees, (reader, path, reply.body)
    shown = (await web.ask("GET", f"{SHARED}/urls", auth=("bob", "bob"))).json()
    assert (shown["source"], shown["target"]) == ("http://h/a", {"url": "https://h:1/b"})
    written = await web.ask("PUT", f"{SHARED}/urls", shown | {"owner": "bob"}, auth=("bob", "bob"))
    assert written.status == 409, "the revision shown is none, so nobody stores what lacks its credentials"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "_changes?include_docs=true", None),
        ("POST", "_changes?filter=_selector", {"selector": {"source": {"$regex": "."}}}),
        ("POST", "_find", {"selector": {}}),
        ("GET", "_design/d/_view/v?include_docs=true", None),
    ],
)
async def test_what_shows_all_documents_is_for_admins(web: Site, method: str, path: str, body: Any) -> None:
    view = {"views": {"v": {"map": "function (doc) { emit(null) }"}}}
    assert (await web.ask("PUT", f"{SHARED}/_design/d", view)).status == 201
    assert (await web.ask(method, f"{SHARED}/{path}", body)).status == 200
    assert (await web.ask(method, f"{SHARED}/{path}", body, auth=("bob", "bob"))).status == 403
    assert (await web.ask("GET", f"{SHARED}/_changes", auth=("bob", "bob"))).status == 200


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:p@host/db", "http://host/db"),
        ("HTTPS://u:p@host/db?a=b", "HTTPS://host/db?a=b"),
        ("http://u:p@w@host/db", "http://host/db"),
        ("http://u:p/w@host/db", "http://host/db"),
        ("http://:p@host/db", "http://host/db"),
        ("http://token@host:1/db", "http://host:1/db"),
        ("socks5://u:p@host:1080", "socks5://host:1080"),
        ("http://host/db?since=a@b", "http://host/db?since=a@b"),
        ("http://host:5984/db", "http://host:5984/db"),
        ("db", "db"),
    ],
)
def test_a_url_without_its_password(url: str, shown: str) -> None:
    assert documents.without_password(url) == shown


def test_a_state_is_written_with_its_time_and_taken_back() -> None:
    fields = {"source": "a", "_replication_state": "error", "_replication_state_reason": "x"}
    done = documents.with_state(fields, documents.completed({"docs_read": 1}))
    assert list(done) == ["source", "_replication_state", "_replication_state_time", "_replication_stats"]
    assert done["_replication_state"] == "completed" and done["_replication_stats"] == {"docs_read": 1}
    again = documents.with_state(done, documents.completed({"docs_read": 1}))
    assert json.dumps(again) == json.dumps(done), "the time is that of the first"
    assert documents.with_state(done, documents.NO_STATE) == {"source": "a"}
