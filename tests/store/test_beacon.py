"""What is kept between requests (entries of databases, settings, verified credentials) ends with the change
of it, also when another process makes the change.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from couchlite import document, passwords, users
from couchlite.accounts import Accounts
from couchlite.beacon import Beacon
from couchlite.errors import DatabaseNotFound, Forbidden, NotFound, Unauthorized
from couchlite.lockout import Failures
from couchlite.server import Server
from couchlite.user_store import open_accounts

HEADER = "Basic YWxpY2U6c2VjcmV0"
ADDRESS = "127.0.0.1"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as opened:
        opened.config.set("chttpd_auth", "iterations", "10")
        yield opened


def elsewhere(server: Server, statement: str) -> None:
    """Run a statement about `server` in another process that has the same directory open."""
    program = (
        f"import sys\nfrom couchlite.server import Server\nwith Server(sys.argv[1]) as server: {statement}"
    )
    subprocess.run([sys.executable, "-c", program, str(server.path)], check=True)


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
def accounts(server: Server, failures: Failures) -> Iterator[Accounts]:
    opened = open_accounts(server, failures)
    yield opened
    opened.close()


def store_user(server: Server, password: str) -> str:
    """Store alice with a new password; her document's revision."""
    database = server.open("_users") if "_users" in server.names() else server.create("_users")
    fields: dict[str, object] = {
        "_id": "org.couchdb.user:alice",
        "type": "user",
        "name": "alice",
        "roles": [],
    }
    with contextlib.suppress(NotFound):
        fields["_rev"] = database.get("org.couchdb.user:alice")["_rev"]
    hashed = users.hash_password({**fields, "password": password}, server.config)
    return str(database.update([document.parse(dict(hashed))])[0])


async def log_in(accounts: Accounts) -> None:
    moment = accounts.moment()
    principal = await accounts.authenticate_basic("alice", "secret", ADDRESS)
    accounts.note(HEADER, ADDRESS, principal, moment)
    assert accounts.recall(HEADER, ADDRESS) == principal


def test_a_beacon_is_one_number_for_all_and_new_after_each_change(tmp_path: Path) -> None:
    one, two = Beacon(tmp_path / "beacon"), Beacon(tmp_path / "beacon")
    seen = {one.number()}
    for beacon in (one, two, one):
        beacon.change()
        assert one.number() == two.number()
        seen.add(one.number())
    assert len(seen) == 4
    one.close()
    two.close()


def test_databases_that_another_process_made_or_deleted_are_seen_at_once(server: Server) -> None:
    with pytest.raises(DatabaseNotFound):
        server.open("db")
    elsewhere(server, "server.create('db')")
    first = server.open("db").uuid
    elsewhere(server, "server.delete('db'), server.create('db')")
    assert server.open("db").uuid != first
    elsewhere(server, "server.delete('db')")
    with pytest.raises(DatabaseNotFound):
        server.open("db")


def test_settings_that_another_process_changed_are_seen_at_once(server: Server) -> None:
    assert server.config.get("a", "b") is None
    elsewhere(server, "server.config.set('a', 'b', 'c')")
    assert server.config.get("a", "b") == "c"
    elsewhere(server, "server.config.delete('a', 'b')")
    assert server.config.get("a", "b") is None


async def test_verified_credentials_are_recalled(server: Server, accounts: Accounts) -> None:
    store_user(server, "secret")
    assert accounts.recall(HEADER, ADDRESS) is None
    await log_in(accounts)
    assert accounts.recall(HEADER + "x", ADDRESS) is None
    assert accounts.recall(HEADER, "127.0.0.2") is None, "an address that is locked out must not profit"


async def test_a_new_password_ends_the_recall(server: Server, accounts: Accounts) -> None:
    store_user(server, "secret")
    await log_in(accounts)
    store_user(server, "another")
    assert accounts.recall(HEADER, ADDRESS) is None
    with pytest.raises(Unauthorized):
        await accounts.authenticate_basic("alice", "secret", ADDRESS)


async def test_a_user_whom_another_process_deletes_is_not_recalled(
    server: Server, accounts: Accounts
) -> None:
    rev = store_user(server, "secret")
    await log_in(accounts)
    elsewhere(server, f"server.open('_users').delete('org.couchdb.user:alice', {rev!r})")
    assert accounts.recall(HEADER, ADDRESS) is None


async def test_a_deleted_user_is_not_recalled(server: Server, accounts: Accounts) -> None:
    rev = store_user(server, "secret")
    await log_in(accounts)
    server.open("_users").delete("org.couchdb.user:alice", rev)
    assert accounts.recall(HEADER, ADDRESS) is None


async def test_a_change_while_credentials_are_verified_is_not_missed(
    server: Server, accounts: Accounts
) -> None:
    store_user(server, "secret")
    moment = accounts.moment()
    principal = await accounts.authenticate_basic("alice", "secret", ADDRESS)
    store_user(server, "another")
    accounts.note(HEADER, ADDRESS, principal, moment)
    assert accounts.recall(HEADER, ADDRESS) is None


async def test_an_administrator_who_is_removed_is_not_recalled(server: Server, accounts: Accounts) -> None:
    hashed = passwords.derive("secret", server.config)
    server.config.set("admins", "alice", passwords.to_admin_value(hashed))
    await log_in(accounts)
    server.config.delete("admins", "alice")
    assert accounts.recall(HEADER, ADDRESS) is None


async def test_failures_lock_out_who_was_recalled_before(server: Server, accounts: Accounts) -> None:
    store_user(server, "secret")
    await log_in(accounts)
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await accounts.authenticate_basic("alice", "wrong", ADDRESS)
    assert accounts.recall(HEADER, ADDRESS) is None
    with pytest.raises(Forbidden):
        await accounts.authenticate_basic("alice", "secret", ADDRESS)


async def test_nothing_is_recalled_when_the_cache_is_off(server: Server, accounts: Accounts) -> None:
    server.config.set("couch_passwords_cache", "enable", "false")
    store_user(server, "secret")
    accounts.note(HEADER, ADDRESS, await accounts.authenticate_basic("alice", "secret"), accounts.moment())
    assert accounts.recall(HEADER, ADDRESS) is None
