"""A database for each user: made, granted, withdrawn or deleted, for old users too, by one process at a
time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from couchlite import document
from couchlite.errors import CouchliteError, DatabaseNotFound
from couchlite.provision import Credentials, provision
from couchlite.server import Server
from couchlite.user_databases import CHECKPOINT_ID, UserDatabases
from tests.waiting import until

ZOE = "userdb-7a6fc3ab"
ANN = "userdb-616e6e"
OWNED = {
    "members": {"roles": ["_admin"], "names": ["zo\u00eb"]},
    "admins": {"roles": ["_admin"], "names": ["zo\u00eb"]},
}
"""What a CouchDB 3.5.0 gave to it."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as server:
        server.config.set("chttpd_auth", "iterations", "10")
        provision(server, Credentials("adm", "pass"))
        server.config.set("couch_peruser", "enable", "true")
        yield server


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[UserDatabases]:
    user_databases = UserDatabases(server, again_s=0.05)
    task = asyncio.create_task(user_databases.run())
    try:
        yield user_databases
    finally:
        user_databases.stop()
        await asyncio.wait_for(task, 60)


def put_user(server: Server, name: str, **more: Any) -> str:
    fields = {"_id": f"org.couchdb.user:{name}", "type": "user", "name": name, "roles": [], **more}
    return server.open("_users").put(fields)


def delete_user(server: Server, name: str) -> None:
    users = server.open("_users")
    users.delete(f"org.couchdb.user:{name}", users.get(f"org.couchdb.user:{name}")["_rev"])


def security(server: Server, name: str) -> dict[str, Any] | None:
    try:
        return server.open(name).security
    except DatabaseNotFound:
        return None


async def test_those_who_were_there_and_those_who_come(server: Server) -> None:
    put_user(server, "zo\u00eb")
    async with running(server):
        await until(lambda: security(server, ZOE) == OWNED)
        assert server.open(ZOE).props["q"] == 1
        put_user(server, "ann")
        await until(lambda: security(server, ANN) is not None)
    assert [name for name in server.names() if name.startswith("userdb-")] == [ANN, ZOE]


async def test_a_user_who_goes_loses_the_rights_only(server: Server) -> None:
    put_user(server, "zo\u00eb")
    async with running(server):
        await until(lambda: security(server, ZOE) == OWNED)
        delete_user(server, "zo\u00eb")
        nobody = {group: {"roles": ["_admin"], "names": []} for group in ("members", "admins")}
        await until(lambda: security(server, ZOE) == nobody)


async def test_or_the_database_as_well(server: Server) -> None:
    server.config.set("couch_peruser", "delete_dbs", "true")
    put_user(server, "zo\u00eb")
    async with running(server):
        await until(lambda: security(server, ZOE) == OWNED)
        delete_user(server, "zo\u00eb")
        await until(lambda: security(server, ZOE) is None)


async def test_what_others_granted_stays(server: Server) -> None:
    database = server.create(ZOE)
    database.set_security({"members": {"names": ["bob"]}, "more": 1})
    put_user(server, "zo\u00eb")
    async with running(server):
        expected = {"members": {"names": ["zo\u00eb", "bob"]}, "more": 1, "admins": {"names": ["zo\u00eb"]}}
        await until(lambda: security(server, ZOE) == expected)


async def test_settings_are_followed_at_once(server: Server) -> None:
    server.config.set("couch_peruser", "enable", "false")
    server.config.set("couch_peruser", "database_prefix", "private/")
    server.config.set("couch_peruser", "q", "4")
    put_user(server, "ann")
    async with running(server):
        server.config.set("couch_peruser", "enable", "true")
        await until(lambda: security(server, "private/616e6e") is not None)
        assert server.open("private/616e6e").props["q"] == 4
        server.config.set("couch_peruser", "database_prefix", "userdb-")
        await until(lambda: security(server, ANN) is not None)


async def test_what_was_done_is_not_done_again_but_what_is_missing_is(server: Server) -> None:
    put_user(server, "zo\u00eb")
    put_user(server, "ann")
    async with running(server):
        await until(lambda: checkpoint(server) == server.open("_users").state().update_seq)
    server.open(ANN).set_security({})
    server.delete(ZOE)
    put_user(server, "late")
    async with running(server):
        await until(lambda: checkpoint(server) == server.open("_users").state().update_seq)
    assert security(server, ZOE) == OWNED
    assert security(server, ANN) == {}, "an administrator's own rules stay"


def checkpoint(server: Server) -> int:
    with server.open("_users").snapshot() as snapshot, contextlib.suppress(CouchliteError):
        return int(snapshot.local(CHECKPOINT_ID).body.split(b'"seq":')[1].split(b",")[0])
    return 0


async def test_one_goes_on_when_another_ends(server: Server) -> None:
    first = UserDatabases(server)
    second = UserDatabases(server)
    tasks = [asyncio.create_task(first.run())]
    try:
        put_user(server, "ann")
        await until(lambda: security(server, ANN) is not None)
        tasks.append(asyncio.create_task(second.run()))
        first.stop()
        await asyncio.wait_for(tasks[0], 60)
        put_user(server, "zo\u00eb")
        await until(lambda: security(server, ZOE) == OWNED)
    finally:
        first.stop()
        second.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def test_a_name_too_long_keeps_nobody_else_from_a_database(server: Server) -> None:
    put_user(server, "x" * 200)
    put_user(server, "ann")
    async with running(server):
        await until(lambda: security(server, ANN) is not None)


@pytest.mark.parametrize("prefix", ["Bad-", "_", ""])
async def test_a_prefix_that_no_database_has(server: Server, prefix: str) -> None:
    server.config.set("couch_peruser", "database_prefix", prefix)
    put_user(server, "ann")
    async with running(server):
        await asyncio.sleep(0.2)
        assert len(server.names()) == 2
        server.config.set("couch_peruser", "database_prefix", "userdb-")
        await until(lambda: security(server, ANN) is not None)


async def test_a_users_database_that_is_made_anew(server: Server) -> None:
    put_user(server, "zo\u00eb")
    async with running(server):
        await until(lambda: security(server, ZOE) == OWNED)
        server.delete("_users")
        server.create("_users").update([document.parse({"_id": "org.couchdb.user:ann"})])
        await until(lambda: security(server, ANN) is not None)
