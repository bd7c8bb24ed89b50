"""The users database beyond the recorded scenarios: hashes improve, fields can be public, failures lock."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from couchlite.provision import provision

from ..waiting import until
from .in_process import Site

ALICE = "/_users/org.couchdb.user:alice"


@pytest.fixture
def web(web: Site) -> Site:
    provision(web.server)
    return web


def user(**more: Any) -> dict[str, Any]:
    return {"type": "user", "name": "alice", "roles": [], "password": "secret", **more}


async def test_an_old_hash_is_replaced_when_its_user_logs_in(web: Site) -> None:
    simple = hashlib.sha1(b"secret" + b"pepper").hexdigest()
    old = {
        "type": "user",
        "name": "alice",
        "roles": ["x"],
        "password_sha": simple,
        "salt": "pepper",
        "more": [1],
    }
    assert (await web.ask("PUT", ALICE, old)).status == 201
    login = await web.ask("POST", "/_session", {"name": "alice", "password": "secret"}, auth=None)
    cookie = login.headers["set-cookie"].split(";")[0]

    async def is_stored_anew() -> object:
        return (await web.ask("GET", ALICE)).json()["_rev"].startswith("2-")

    await until(is_stored_anew)
    stored = (await web.ask("GET", ALICE)).json()
    assert (stored["password_scheme"], stored["iterations"], stored["salt"]) == ("pbkdf2", 10, "pepper")
    assert stored["more"] == [1] and "password_sha" not in stored and "password" not in stored
    assert (await web.ask("GET", "/_session", auth=("alice", "secret"))).json()["userCtx"]["roles"] == ["x"]
    again = await web.ask("GET", "/_session", headers={"Cookie": cookie}, auth=None)
    assert again.json()["userCtx"]["name"] == "alice", "the session goes on"


async def test_hashes_stay_if_they_are_told_to(web: Site) -> None:
    web.server.config.set("chttpd_auth", "upgrade_hash_on_auth", "false")
    simple = hashlib.sha1(b"secret" + b"pepper").hexdigest()
    old = {"type": "user", "name": "alice", "roles": [], "password_sha": simple, "salt": "pepper"}
    await web.ask("PUT", ALICE, old)
    assert (await web.ask("GET", "/_session", auth=("alice", "secret"))).status == 200
    await asyncio.sleep(0.2)
    assert (await web.ask("GET", ALICE)).json()["_rev"].startswith("1-")


@pytest.mark.parametrize(
    ("setting", "password", "status", "reason"),
    [
        ("", "x", 201, None),
        ("[]", "x", 201, None),
        ('["^.{3,}$"]', "abc", 201, None),
        ('["^.{3,}$"]', "x", 400, "Password does not conform to requirements."),
        ('[{"^.{3,}$", "Too short."}]', "x", 400, "Password does not conform to requirements. Too short."),
        ('[{"^.{3,}$"}]', "x", 400, "Password does not conform to requirements."),
        ('[{"^.{3,}$", 5}]', "x", 400, "Password does not conform to requirements."),
        (
            '[".", {"\\\\d+", "A digit is missing."}]',
            "abc",
            400,
            "Password does not conform to requirements. A digit is missing.",
        ),
        ('[".", {"\\\\d+", "A digit is missing."}]', "abc1", 201, None),
        ('"abc"', "x", 403, "Server cannot hash passwords at this time."),
        ("nonsense", "x", 403, "Server cannot hash passwords at this time."),
        ("[5]", "x", 403, "Server cannot hash passwords at this time."),
        ('["("]', "x", 403, "Server cannot hash passwords at this time."),
    ],
)
async def test_what_passwords_must_be_like(
    web: Site, setting: str, password: str, status: int, reason: str | None
) -> None:
    web.server.config.set("chttpd_auth", "password_regexp", setting)
    reply = await web.ask("PUT", ALICE, user(password=password))
    assert (reply.status, reply.json().get("reason")) == (status, reason)


async def test_the_old_scheme_if_the_configuration_insists(web: Site) -> None:
    web.server.config.set("chttpd_auth", "password_scheme", "simple")
    assert (await web.ask("PUT", ALICE, user())).status == 201
    stored = (await web.ask("GET", ALICE)).json()
    expected = hashlib.sha1(b"secret" + stored["salt"].encode()).hexdigest()
    assert (stored["password_scheme"], stored["password_sha"]) == ("simple", expected)
    assert "derived_key" not in stored and "password" not in stored
    assert (await web.ask("GET", "/_session", auth=("alice", "secret"))).status == 200
    assert (await web.ask("PUT", "/_node/_local/_config/admins/bob", "pw")).status == 200
    value = (await web.ask("GET", "/_node/_local/_config/admins/bob")).json()
    assert value.startswith("-hashed-")
    assert (await web.ask("GET", "/_all_dbs", auth=("bob", "pw"))).status == 200


async def test_public_fields(web: Site) -> None:
    config = web.server.config
    config.set("couchdb", "users_db_security_editable", "true")
    config.set("chttpd_auth", "public_fields", "name, colour")
    assert (await web.ask("PUT", "/_users/_security", {})).status == 200
    await web.ask("PUT", ALICE, user(colour="red"))
    seen = (await web.ask("GET", ALICE, auth=None)).json()
    assert {name for name in seen if not name.startswith("_")} == {"name", "colour"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "_find", {"selector": {}}),
        ("POST", "_find", {"selector": {"name": "alice"}, "fields": ["derived_key"]}),
        ("GET", "_design/d/_view/v?include_docs=true", None),
        ("POST", "_design/d/_view/v/queries", {"queries": [{"include_docs": True}]}),
        ("GET", "_design/d/_list/l/v?include_docs=true", None),
        ("GET", "_conflicts/org.couchdb.user:alice", None),
    ],
)
async def test_what_shows_all_members_is_for_admins(web: Site, method: str, path: str, body: Any) -> None:
    """Also where everybody may read the database: password hashes are in there."""
    web.server.config.set("couchdb", "users_db_security_editable", "true")
    assert (await web.ask("PUT", "/_users/_security", {})).status == 200
    await web.ask("PUT", ALICE, user())
    source = "function (head, req) { let row; while (row = getRow()) send(toJSON(row)) }"
    design = {"views": {"v": {"map": "function (doc) { emit(null) }"}}, "lists": {"l": source}}
    assert (await web.ask("PUT", "/_users/_design/d", design)).status == 201
    assert b"derived_key" in (await web.ask(method, f"/_users/{path}", body)).body
    reply = await web.ask(method, f"/_users/{path}", body, auth=None)
    assert reply.status == 401 and b"derived_key" not in reply.body


@pytest.mark.parametrize("indexed", [False, True])
async def test_users_find_themselves_only(web: Site, indexed: bool) -> None:
    web.server.config.set("couchdb", "users_db_security_editable", "true")
    assert (await web.ask("PUT", "/_users/_security", {})).status == 200
    for name in ("alice", "bob", "carol"):
        document = {"type": "user", "name": name, "roles": [], "password": "secret"}
        assert (await web.ask("PUT", f"/_users/org.couchdb.user:{name}", document)).status == 201
    if indexed:
        assert (
            await web.ask("POST", "/_users/_index", {"index": {"fields": ["type", "name"]}})
        ).status == 200
    query = {"selector": {"type": "user"}, "fields": ["name"]}
    everybody = (await web.ask("POST", "/_users/_find", query)).json()["docs"]
    assert everybody == [{"name": "alice"}, {"name": "bob"}, {"name": "carol"}]
    found = (await web.ask("POST", "/_users/_find", query, auth=("bob", "secret"))).json()
    assert found["docs"] == [{"name": "bob"}]


async def test_a_conflict_is_told_before_the_rules(web: Site) -> None:
    """As in CouchDB, where validation only runs on edits that could be made."""
    await web.ask("PUT", ALICE, user())
    reply = await web.ask("PUT", ALICE, {"type": "nonsense"})
    assert (reply.status, reply.json()["error"]) == (409, "conflict")


async def test_a_conflicted_user_can_t_log_in(web: Site) -> None:
    await web.ask("PUT", ALICE, user())
    assert (await web.ask("GET", "/_session", auth=("alice", "secret"))).status == 200
    other = user(_rev="1-" + "a" * 32)
    assert (await web.ask("PUT", f"{ALICE}?new_edits=false", other)).status == 201
    reply = await web.ask("GET", "/_session", auth=("alice", "secret"))
    assert reply.status == 401 and "conflicts must be resolved" in reply.json()["reason"]


async def test_one_bad_password_fails_the_whole_request(web: Site) -> None:
    documents = [
        {"_id": "org.couchdb.user:alice", **user()},
        {"_id": "org.couchdb.user:bob", **user(name="bob", password=5)},
    ]
    reply = await web.ask("POST", "/_users/_bulk_docs", {"docs": documents})
    assert (reply.status, reply.json()["reason"]) == (403, "Password value of '5' is invalid.")
    assert (await web.ask("GET", ALICE)).status == 404


async def test_bad_documents_fail_one_by_one(web: Site) -> None:
    documents = [
        {"_id": "org.couchdb.user:alice", **user()},
        {"_id": "org.couchdb.user:bob", "type": "user", "name": "bob"},
    ]
    rows = (await web.ask("POST", "/_users/_bulk_docs", {"docs": documents})).json()
    assert rows[0]["ok"] is True
    assert rows[1] == {"id": "org.couchdb.user:bob", "error": "forbidden", "reason": "doc.roles must exist"}


async def test_replicated_users_are_hashed_and_checked_too(web: Site) -> None:
    documents = [
        {"_id": "org.couchdb.user:alice", "_rev": "1-abc", **user()},
        {"_id": "org.couchdb.user:bob", "_rev": "1-abc", "type": "robot", "name": "bob", "roles": []},
    ]
    rows = (await web.ask("POST", "/_users/_bulk_docs", {"docs": documents, "new_edits": False})).json()
    assert [row["reason"] for row in rows] == ["doc.type must be user"]
    stored = (await web.ask("GET", ALICE)).json()
    assert "password" not in stored and stored["derived_key"]


async def test_failures_lock_the_account_and_time_or_a_setting_unlocks_it(web: Site) -> None:
    await web.ask("PUT", ALICE, user())
    for _ in range(5):
        assert (await web.ask("GET", "/_session", auth=("alice", "wrong"))).status == 401
    locked = await web.ask("GET", "/_session", auth=("alice", "secret"))
    assert (locked.status, locked.json()["error"]) == (403, "forbidden")
    web.server.config.set("chttpd_auth_lockout", "mode", "off")
    assert (await web.ask("GET", "/_session", auth=("alice", "secret"))).status == 200


async def test_a_lock_ends_after_its_lifetime(web: Site) -> None:
    await web.ask("PUT", ALICE, user())
    for _ in range(5):
        await web.ask("GET", "/_session", auth=("alice", "wrong"))
    assert (await web.ask("GET", "/_session", auth=("alice", "secret"))).status == 403
    web.server.config.set("chttpd_auth_lockout", "max_lifetime", "0")
    assert (await web.ask("GET", "/_session", auth=("alice", "secret"))).status == 200


async def test_a_lock_holds_for_those_who_were_in_already(web: Site) -> None:
    await web.ask("PUT", ALICE, user())
    assert (await web.ask("GET", "/_session", auth=("alice", "secret"))).status == 200
    for _ in range(5):
        await web.ask("GET", "/_session", auth=("alice", "wrong"))
    assert (await web.ask("GET", "/_session", auth=("alice", "secret"))).status == 403


async def test_databases_open_to_everyone_if_the_configuration_wants_it(web: Site) -> None:
    web.server.config.set("couchdb", "default_security", "everyone")
    await web.ask("PUT", "/open")
    assert (await web.ask("GET", "/open/_security")).json() == {}
    assert (await web.ask("PUT", "/open/x", {}, auth=None)).status == 201
    web.server.config.delete("couchdb", "default_security")
    await web.ask("PUT", "/closed")
    assert (await web.ask("PUT", "/closed/x", {}, auth=None)).status == 401
    assert (await web.ask("GET", "/open/x", auth=None)).status == 200
