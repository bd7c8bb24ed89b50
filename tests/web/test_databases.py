"""Databases as a whole: life, settings, rights."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from couchlite.tasks import Task

from ..waiting import until
from .in_process import Site

DATABASE_MISSING = {"error": "not_found", "reason": "Database does not exist."}


async def test_a_database_from_creation_to_deletion(web: Site) -> None:
    created = await web.ask("PUT", "/a%2Fb+c")
    assert (created.status, created.json()["error"]) == (400, "illegal_database_name")
    created = await web.ask("PUT", "/a%2Fb")
    assert (created.status, created.json()) == (201, {"ok": True})
    assert created.headers["location"] == f"http://127.0.0.1:{web.port}/a%2Fb"
    again = await web.ask("PUT", "/a%2Fb")
    assert (again.status, again.json()["error"]) == (412, "file_exists")
    assert (await web.ask("GET", "/a%2Fb/")).json()["db_name"] == "a/b"
    assert (await web.ask("HEAD", "/a%2Fb")).status == 200
    assert (await web.ask("DELETE", "/a%2Fb")).json() == {"ok": True}
    assert (await web.ask("DELETE", "/a%2Fb")).json() == DATABASE_MISSING
    assert (await web.ask("GET", "/a%2Fb")).json() == DATABASE_MISSING


async def test_deleted_in_the_midst_of_an_upload(web: Site) -> None:
    await web.ask("PUT", "/db")
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    length = 2_000_000
    credentials = base64.b64encode(b"adm:pass").decode()
    head = f"Host: x\r\nContent-Length: {length}\r\nAuthorization: Basic {credentials}\r\nConnection: close"
    writer.write(f"PUT /db/a/large HTTP/1.1\r\n{head}\r\n\r\n".encode() + b"x" * (length - 1))
    await writer.drain()
    spooled = web.server.open("db").path / "blobs" / "tmp"
    await until(lambda: spooled.exists() and any(spooled.iterdir()))
    assert (await web.ask("DELETE", "/db")).status == 200
    await web.ask("PUT", "/db")
    writer.write(b"x")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"Database does not exist." in answer


async def test_information_has_couchdbs_members(web: Site) -> None:
    await web.ask("PUT", "/db?q=8&partitioned=true")
    info = (await web.ask("GET", "/db")).json()
    assert info["cluster"] == {"q": 8, "n": 1, "w": 1, "r": 1}
    assert info["props"] == {"partitioned": True}
    assert set(info["sizes"]) == {"file", "external", "active"}
    assert (info["doc_count"], info["doc_del_count"], info["compact_running"]) == (0, 0, False)
    assert info["instance_start_time"].isdecimal()
    assert info["update_seq"].startswith("0-")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("q=0", "The `q` value should be a positive integer."),
        ("q=-1", "The `q` value should be a positive integer."),
        ("n=x", "The `n` value should be a positive integer."),
        ("placement=zone", "The `placement` value should be in a format `zone:n`."),
        ("placement=zone:1,other:x", "The `placement` value should be in a format `zone:n`."),
        ("engine=other", "invalid_engine_extension"),
        ("partitioned=maybe", "Invalid `partitioned` parameter"),
    ],
)
async def test_options_that_make_no_database(web: Site, query: str, reason: str) -> None:
    reply = await web.ask("PUT", f"/db?{query}")
    assert (reply.status, reply.json()["reason"]) == (400, reason)
    assert web.server.names() == []


async def test_deleting_with_a_revision_is_a_slip(web: Site) -> None:
    web.server.create("db")
    assert (await web.ask("DELETE", "/db?rev=1-abc")).status == 400
    assert web.server.names() == ["db"]


async def test_a_name_that_is_not_utf8(web: Site) -> None:
    for method, status in (("GET", 404), ("DELETE", 404), ("PUT", 400)):
        reply = await web.ask(method, "/db%ff")
        assert reply.status == status
        reply.json()


@pytest.mark.parametrize(
    ("method", "target", "reason"),
    [
        ("PUT", "/new", "You are not a server admin."),
        ("DELETE", "/db", "You are not a server admin."),
        ("GET", "/db", "You are not authorized to access this db."),
        ("GET", "/db/_security", "You are not authorized to access this db."),
        ("PUT", "/db/_revs_limit", "You are not authorized to access this db."),
        ("POST", "/db/_compact", "You are not authorized to access this db."),
        ("POST", "/db/_ensure_full_commit", "You are not authorized to access this db."),
        ("POST", "/db/_purge", "You are not a server admin."),
        ("GET", "/db/_purged_infos_limit", "You are not a server admin."),
        ("GET", "/db/doc", "You are not authorized to access this db."),
        ("PATCH", "/db/doc", "You are not authorized to access this db."),
    ],
)
async def test_strangers_are_kept_out(web: Site, method: str, target: str, reason: str) -> None:
    web.server.create("db")
    reply = await web.ask(method, target, auth=None)
    assert (reply.status, reply.json()) == (401, {"error": "unauthorized", "reason": reason})


@pytest.mark.parametrize(
    ("method", "target", "reason"),
    [
        ("POST", "/db/_compact", "You are not a server or db admin."),
        ("POST", "/db/_view_cleanup", "You are not a server or db admin."),
        ("PUT", "/db/_revs_limit", "You are not a db or server admin."),
        ("PUT", "/db/_security", "You are not a db or server admin."),
    ],
)
async def test_members_may_not_administer(web: Site, method: str, target: str, reason: str) -> None:
    web.server.create("db").set_security({})
    assert (await web.ask("GET", "/db", auth=None)).status == 200
    reply = await web.ask(method, target, 10, auth=None)
    assert (reply.status, reply.json()["reason"]) == (401, reason)


async def test_a_missing_database_is_missing_whatever_the_method(web: Site) -> None:
    for method in ("GET", "POST", "PATCH"):
        assert (await web.ask(method, "/missing", auth=None)).json() == DATABASE_MISSING
        assert (await web.ask(method, "/missing/_security")).json() == DATABASE_MISSING


async def test_security_object(web: Site) -> None:
    web.server.create("db")
    default = {"members": {"roles": ["_admin"]}, "admins": {"roles": ["_admin"]}}
    assert (await web.ask("GET", "/db/_security")).json() == default
    wanted = {"admins": {"names": ["bob"]}, "members": {"roles": ["staff"]}, "more": [1]}
    assert (await web.ask("PUT", "/db/_security", wanted)).json() == {"ok": True}
    assert (await web.ask("GET", "/db/_security")).json() == wanted


@pytest.mark.parametrize("security", [[], "x", 1, None, {"admins": "x"}, {"members": {"names": [1]}}])
async def test_what_is_no_security_object(web: Site, security: Any) -> None:
    web.server.create("db")
    before = (await web.ask("GET", "/db/_security")).json()
    assert (await web.ask("PUT", "/db/_security", b"null" if security is None else security)).status == 400
    assert (await web.ask("GET", "/db/_security")).json() == before


@pytest.mark.parametrize("setting", ["_revs_limit", "_purged_infos_limit"])
async def test_limits(web: Site, setting: str) -> None:
    web.server.create("db")
    assert (await web.ask("GET", f"/db/{setting}")).json() == 1000
    assert (await web.ask("PUT", f"/db/{setting}", 5)).json() == {"ok": True}
    assert (await web.ask("GET", f"/db/{setting}")).json() == 5
    for bad in (b"0", b"-1", b'"x"', b"1.5", b"null", b"true", b"{}"):
        assert (await web.ask("PUT", f"/db/{setting}", bad)).status == 400
    assert (await web.ask("GET", f"/db/{setting}")).json() == 5


async def test_commit_is_always_full(web: Site) -> None:
    web.server.create("db")
    reply = await web.ask("POST", "/db/_ensure_full_commit", {})
    assert (reply.status, reply.json()["ok"]) == (201, True)
    assert reply.json()["instance_start_time"] == (await web.ask("GET", "/db")).json()["instance_start_time"]


async def test_purge_tells_what_it_removed(web: Site) -> None:
    rev = web.server.create("db").put({"_id": "a", "v": 1})
    reply = await web.ask("POST", "/db/_purge", {"a": [rev, "1-" + "0" * 32], "none": []})
    assert (reply.status, reply.json()) == (201, {"purge_seq": None, "purged": {"a": [rev], "none": []}})
    assert (await web.ask("GET", "/db/_purged_infos")).json() == {
        "purged_infos": [{"id": "a", "revs": [rev, "1-" + "0" * 32]}, {"id": "none", "revs": []}]
    }
    assert (await web.ask("GET", "/db")).json()["doc_count"] == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "Request body must be a JSON object"),
        ({"a": "1-abc"}, "Invalid list of revisions"),
        ({"a": ["bad"]}, "Invalid rev format"),
        ({"a": [1]}, "Invalid rev format"),
        ({f"k{n}": [] for n in range(101)}, "Exceeded maximum number of documents."),
        ({"a": ["1-" + "0" * 32] * 1001}, "Exceeded maximum number of revisions."),
    ],
)
async def test_what_purge_refuses(web: Site, body: Any, reason: str) -> None:
    web.server.create("db")
    reply = await web.ask("POST", "/db/_purge", body)
    assert (reply.status, reply.json()["reason"]) == (400, reason)


async def test_one_node_has_all_shards(web: Site) -> None:
    web.server.create("db")
    (nodes,) = (await web.ask("GET", "/db/_shards")).json()["shards"].values()
    assert (await web.ask("GET", "/db/_shards/doc")).json()["nodes"] == nodes
    assert (await web.ask("POST", "/db/_sync_shards", {})).status == 202


async def _is_compact(web: Site) -> bool:
    return not (await web.ask("GET", "/db")).json()["compact_running"]


async def test_compaction_is_started_and_seen(web: Site) -> None:
    database = web.server.create("db")
    rev = database.put({"_id": "a", "v": 1})
    database.put({"_id": "a", "_rev": rev, "v": 2})
    assert (await web.ask("POST", "/db/_compact", {})).status == 202
    await until(lambda: _is_compact(web))
    assert (await web.ask("GET", "/_active_tasks")).json() == []
    assert database.get("a")["v"] == 2


async def test_compaction_of_a_design_document_that_is_not_there(web: Site) -> None:
    web.server.create("db").put({"_id": "_design/there"})
    assert (await web.ask("POST", "/db/_compact/there", {})).status == 202
    missing = await web.ask("POST", "/db/_compact/missing", {})
    assert (missing.status, missing.json()["reason"]) == (404, "missing")


async def test_tasks_are_listed(web: Site) -> None:
    with Task(web.server.path / "run", "database_compaction", database="db", progress=7):
        (task,) = (await web.ask("GET", "/_active_tasks")).json()
    assert (task["type"], task["database"], task["progress"]) == ("database_compaction", "db", 7)
    assert set(task) >= {"node", "pid", "started_on", "updated_on"}


async def test_what_compaction_keeps_is_configured(web: Site) -> None:
    database = web.server.create("db")
    rev = None
    revs = []
    for n in range(4):
        rev = database.put({"_id": "a", "n": n} | ({"_rev": rev} if rev else {}))
        revs.append(rev)
    web.server.config.set("couchlite", "keep_revisions", "2")
    assert (await web.ask("POST", "/db/_compact", {})).status == 202
    await until(lambda: _is_compact(web))
    statuses = [(await web.ask("GET", f"/db/a?rev={rev}")).status for rev in revs]
    assert statuses == [404, 404, 200, 200]
