"""Passwords, accounts, session cookies, the lockout and the rules for user documents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from couchlite import cookies, passwords, totp, users
from couchlite.accounts import Accounts, UserDocument
from couchlite.catalog import Catalog
from couchlite.config import Config
from couchlite.errors import BadRequest, Forbidden, NotFound, Unauthorized
from couchlite.lockout import Failures
from couchlite.security import ADMINS_ONLY, ANONYMOUS, Principal

ALICE = Principal("alice")
ROOT = Principal("root", ("_admin",))

# Made by CouchDB 3.5.0: the administrator adm with the password pass, a user with the password x.
COUCHDB_ADMIN = (
    "-pbkdf2:sha256-aa5f5b62abf28f92472c4449aec59c5b3989964878d6085a61dd90948885dfe1,"
    "9f8429195ab6e0d3feb33543371a7b58,600000"
)
COUCHDB_USER = {
    "password_scheme": "pbkdf2",
    "pbkdf2_prf": "sha256",
    "salt": "e6f23c3944d8ba75bb376d9fefcf0e31",
    "iterations": 600000,
    "derived_key": "79485a3f4fae41fe2ca25bbf0a563349280af0e4ceac5b2824386bb65b11f8f2",
    "type": "user",
    "name": "b4",
    "roles": [],
}


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """With few iterations, so that a hash takes no time."""
    catalog = Catalog(tmp_path / "data")
    config = Config(catalog.settings)
    config.set("chttpd_auth", "iterations", "10")
    config.set("chttpd_auth", "secret", "of this server")
    yield config
    catalog.close()


class Users(dict[str, dict[str, Any]]):
    """The documents of `_users`, by name; `conflicted` names those in conflict."""

    def __init__(self) -> None:
        self.conflicted: set[str] = set()

    def find(self, name: str) -> UserDocument | None:
        return UserDocument(self[name], name in self.conflicted) if name in self else None


@pytest.fixture
def stored(config: Config) -> Users:
    documents = Users()
    add_user(documents, config, "alice", "secret", roles=["staff"])
    return documents


@pytest.fixture
def accounts(config: Config, stored: Users) -> Iterator[Accounts]:
    opened = Accounts(config, stored.find)
    yield opened
    opened.close()


def add_user(documents: Users, config: Config, name: str, password: str, **more: Any) -> None:
    fields = {"type": "user", "name": name, "roles": [], "password": password, **more}
    documents[name] = dict(users.hash_password(fields, config))


# Password hashes


def test_a_hash_made_by_couchdb_is_matched(config: Config) -> None:
    admin = passwords.from_admin_value(COUCHDB_ADMIN)
    user = passwords.from_fields(COUCHDB_USER)
    assert admin and user
    assert passwords.matches("pass", admin, config)
    assert passwords.matches("x", user, config)
    assert not passwords.matches("y", user, config)


def test_an_administrator_s_hash_survives_its_text(config: Config) -> None:
    hashed = passwords.derive("pässword", config)
    text = passwords.to_admin_value(hashed)
    assert text.startswith("-pbkdf2:sha256-") and text.endswith(f",{hashed.salt},10")
    assert passwords.from_admin_value(text) == hashed


@pytest.mark.parametrize("value", ["secret", "", "-pbkdf2:md5-a,b,1", "-pbkdf2:sha256-a,b", "-hashed-x"])
def test_a_clear_password_is_no_hash(value: str) -> None:
    assert passwords.from_admin_value(value) is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(
            {"password_sha": "4ba1a5b2ad5f0ce4ceb3b3bfa7f3b9b80b5d2bb1", "salt": "s"},
            id="simple, another password",
        ),
        pytest.param(
            {"password_scheme": "pbkdf2", "salt": "s", "derived_key": 5}, id="a key that is no text"
        ),
        pytest.param({"password_scheme": "pbkdf2", "salt": "s"}, id="no key"),
        pytest.param({"password_scheme": "bcrypt", "salt": "s", "derived_key": "00"}, id="an unknown scheme"),
        pytest.param(
            {"password_scheme": "pbkdf2", "salt": "s", "derived_key": "00", "iterations": "1"},
            id="iterations that are no number",
        ),
        pytest.param({}, id="nothing"),
    ],
)
def test_what_no_password_matches(config: Config, fields: dict[str, Any]) -> None:
    hashed = passwords.from_fields(fields)
    assert hashed is None or not passwords.matches("secret", hashed, config)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(
            {"password_sha": "b83e30b3cb3b5f5b1cb2d5a7e59b8a1d3b3a6b7f", "salt": "salt"}, id="simple"
        ),
        pytest.param(
            {"password_scheme": "simple+pbkdf2", "salt": "salt", "iterations": 5, "derived_key": ""},
            id="simple, upgraded without the password",
        ),
    ],
)
def test_old_schemes(config: Config, fields: dict[str, Any]) -> None:
    """The expected hashes are made here by hand, with hashlib alone."""
    import hashlib

    simple = hashlib.sha1(b"secret" + b"salt").hexdigest()
    if "password_sha" in fields:
        fields = {**fields, "password_sha": simple}
    else:
        fields = {**fields, "derived_key": hashlib.pbkdf2_hmac("sha1", simple.encode(), b"salt", 5).hex()}
    hashed = passwords.from_fields(fields)
    assert hashed and passwords.matches("secret", hashed, config)
    assert not passwords.matches("other", hashed, config)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("min_iterations", "11", "Iteration count is too low for this server"),
        ("max_iterations", "9", "Iteration count is too high for this server"),
    ],
)
def test_iterations_out_of_bounds(config: Config, setting: str, value: str, reason: str) -> None:
    hashed = passwords.derive("secret", config)
    config.set("chttpd_auth", setting, value)
    with pytest.raises(Forbidden, match=reason):
        passwords.matches("secret", hashed, config)


# Authentication


async def test_the_right_password(accounts: Accounts) -> None:
    assert await accounts.authenticate_basic("alice", "secret") == Principal("alice", ("staff",))


@pytest.mark.parametrize(
    ("name", "password"), [("alice", "Secret"), ("alice", ""), ("bob", "secret"), ("", "")]
)
async def test_the_wrong_password(accounts: Accounts, name: str, password: str) -> None:
    with pytest.raises(Unauthorized, match="Name or password is incorrect"):
        await accounts.authenticate_basic(name, password)


async def test_an_administrator_from_the_configuration(accounts: Accounts, config: Config) -> None:
    config.set("admins", "root", passwords.to_admin_value(passwords.derive("top", config)))
    assert (await accounts.authenticate_basic("root", "top")).is_admin


async def test_an_administrator_has_the_roles_of_the_user_document_too(
    accounts: Accounts, config: Config
) -> None:
    config.set("admins", "alice", passwords.to_admin_value(passwords.derive("top", config)))
    assert (await accounts.authenticate_basic("alice", "top")).roles == ("_admin", "staff")
    with pytest.raises(Unauthorized):
        await accounts.authenticate_basic("alice", "secret")


async def test_a_clear_text_administrator_can_t_log_in(accounts: Accounts, config: Config) -> None:
    config.set("admins", "root", "top")
    with pytest.raises(Unauthorized):
        await accounts.authenticate_basic("root", "top")


async def test_a_password_verified_once_is_not_hashed_again(
    accounts: Accounts, config: Config, stored: Users
) -> None:
    """With hashing out of reach, the right and the wrong password are still told apart."""
    await accounts.authenticate_basic("alice", "secret")
    config.set("chttpd_auth", "max_iterations", "1")
    assert await accounts.authenticate_basic("alice", "secret")
    with pytest.raises(Unauthorized):
        await accounts.authenticate_basic("alice", "wrong")


async def test_a_changed_password_is_not_remembered(
    accounts: Accounts, config: Config, stored: Users
) -> None:
    await accounts.authenticate_basic("alice", "secret")
    add_user(stored, config, "alice", "new")
    with pytest.raises(Unauthorized):
        await accounts.authenticate_basic("alice", "secret")
    assert await accounts.authenticate_basic("alice", "new")


async def test_changed_roles_count_at_once(accounts: Accounts, stored: Users) -> None:
    await accounts.authenticate_basic("alice", "secret")
    stored["alice"]["roles"] = ["boss"]
    assert (await accounts.authenticate_basic("alice", "secret")).roles == ("boss",)


async def test_a_deleted_user_is_not_remembered(accounts: Accounts, stored: Users) -> None:
    await accounts.authenticate_basic("alice", "secret")
    del stored["alice"]
    with pytest.raises(Unauthorized):
        await accounts.authenticate_basic("alice", "secret")


async def test_a_conflicted_user_must_be_mended(accounts: Accounts, config: Config, stored: Users) -> None:
    stored.conflicted.add("alice")
    with pytest.raises(Unauthorized, match="conflicts must be resolved"):
        await accounts.authenticate_basic("alice", "secret")
    config.set("chttpd_auth", "allow_conflicted_user_docs", "true")
    assert await accounts.authenticate_basic("alice", "secret")


async def test_many_at_once_cost_one_hash_and_the_loop_goes_on(config: Config, stored: Users) -> None:
    config.set("chttpd_auth", "iterations", "300000")
    add_user(stored, config, "slow", "secret")
    accounts = Accounts(config, stored.find)
    began = time.perf_counter()
    passwords.matches("secret", passwords.derive("secret", config), config)
    one_hash_s = (time.perf_counter() - began) / 2

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    began = time.perf_counter()
    together = await asyncio.gather(*(accounts.authenticate_basic("slow", "secret") for _ in range(30)))
    took_s = time.perf_counter() - began
    ticking.cancel()
    accounts.close()
    assert together == [Principal("slow")] * 30
    assert took_s < 10 * one_hash_s
    assert ticks > 5


async def test_a_caller_that_gives_up_does_not_spoil_it_for_the_others(config: Config, stored: Users) -> None:
    config.set("chttpd_auth", "iterations", "200000")
    add_user(stored, config, "slow", "secret")
    accounts = Accounts(config, stored.find)
    impatient = asyncio.create_task(accounts.authenticate_basic("slow", "secret"))
    patient = asyncio.create_task(accounts.authenticate_basic("slow", "secret"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == Principal("slow")
    accounts.close()


async def test_an_old_hash_is_reported_once_its_password_was_verified(config: Config, stored: Users) -> None:
    reported: list[tuple[str, str]] = []
    accounts = Accounts(config, stored.find, outdated=lambda *who: reported.append(who))
    await accounts.authenticate_basic("alice", "secret")
    config.set("chttpd_auth", "iterations", "11")
    add_user(stored, config, "bob", "secret")
    stored["bob"]["iterations"] = 11
    await accounts.authenticate_basic("bob", "secret")
    await Accounts(config, stored.find, outdated=lambda *who: reported.append(who)).authenticate_basic(
        "alice", "secret"
    )
    for _ in range(100):
        if reported:
            break
        await asyncio.sleep(0.01)
    accounts.close()
    assert reported == [("alice", "secret")]


# Lockout


async def test_five_failures_lock_the_account_for_that_address(accounts: Accounts) -> None:
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await accounts.authenticate_basic("alice", "wrong", "192.0.2.1")
    with pytest.raises(Forbidden, match="temporarily locked"):
        await accounts.authenticate_basic("alice", "secret", "192.0.2.1")
    assert await accounts.authenticate_basic("alice", "secret", "192.0.2.2")


@pytest.mark.parametrize("mode", ["off", "warn"])
async def test_a_lockout_can_be_switched_off(accounts: Accounts, config: Config, mode: str) -> None:
    config.set("chttpd_auth_lockout", "mode", mode)
    for _ in range(7):
        with pytest.raises(Unauthorized):
            await accounts.authenticate_basic("alice", "wrong")
    assert await accounts.authenticate_basic("alice", "secret")


async def test_a_new_password_ends_the_lockout(accounts: Accounts, config: Config, stored: Users) -> None:
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await accounts.authenticate_basic("alice", "wrong")
    add_user(stored, config, "alice", "new")
    assert await accounts.authenticate_basic("alice", "new")


def test_failures_are_forgotten_in_time() -> None:
    failures = Failures(lifetime_s=0)
    failures.add("a", "b")
    assert failures.count("a", "b") == 0


def test_failures_of_many_do_not_mix() -> None:
    failures = Failures(slots=1000)
    for number in range(200):
        for _ in range(number % 3):
            failures.add(str(number), "x")
    assert [failures.count(str(number), "x") for number in range(200)] == [
        number % 3 for number in range(200)
    ]


def test_a_full_table_goes_on_counting() -> None:
    failures = Failures(slots=1)
    for number in range(50):
        failures.add(str(number))
    failures.add("49")
    assert failures.count("49") == 2


# Session cookies


def log_in(accounts: Accounts, name: str = "alice") -> str:
    account = accounts.find(name)
    assert account
    return accounts.make_cookie(account)


def test_a_cookie_brings_its_user_back(accounts: Accounts) -> None:
    found = accounts.authenticate_cookie(log_in(accounts))
    assert found and found[0].principal == Principal("alice", ("staff",))
    assert found[1] is False


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(
            lambda config, stored: config.set("chttpd_auth", "secret", "other"), id="another secret"
        ),
        pytest.param(lambda config, stored: add_user(stored, config, "alice", "new"), id="another password"),
        pytest.param(lambda config, stored: stored.clear(), id="the user is gone"),
        pytest.param(lambda config, stored: config.set("chttpd_auth", "timeout", "0"), id="its time is over"),
        pytest.param(
            lambda config, stored: config.set("chttpd_auth", "hash_algorithms", "sha512"),
            id="another algorithm",
        ),
    ],
)
def test_a_cookie_ends(
    accounts: Accounts, config: Config, stored: Users, spoil: Callable[[Config, Users], None]
) -> None:
    cookie = log_in(accounts)
    spoil(config, stored)
    assert accounts.authenticate_cookie(cookie) is None


def test_a_cookie_of_an_older_algorithm_is_still_good(accounts: Accounts, config: Config) -> None:
    config.set("chttpd_auth", "hash_algorithms", "sha")
    cookie = log_in(accounts)
    config.set("chttpd_auth", "hash_algorithms", "sha256, sha")
    assert accounts.authenticate_cookie(cookie)


def test_a_cookie_is_renewed_after_a_tenth_of_its_time(accounts: Accounts, config: Config) -> None:
    account = accounts.find("alice")
    assert account
    issued_s = int(time.time()) - 100
    key = ("of this server" + account.salt).encode()
    assert accounts.authenticate_cookie(cookies.seal("alice", key, "sha256", issued_s)) == (account, True)


def test_a_cookie_whose_time_was_moved_is_refused(accounts: Accounts) -> None:
    cookie = cookies.unseal(log_in(accounts))
    forged = cookies.seal("alice", b"guess", "sha256", (cookie.issued_s or 0) + 1000)
    assert accounts.authenticate_cookie(forged) is None


@pytest.mark.parametrize("value", ["garbage", "Zm9v", "====", "ä", "_-"])
def test_what_is_no_cookie_at_all(accounts: Accounts, value: str) -> None:
    with pytest.raises(BadRequest, match="Malformed AuthSession cookie"):
        accounts.authenticate_cookie(value)


# Second factor


@pytest.mark.parametrize(
    ("algorithm", "key", "now_s", "code"),
    [
        ("sha", b"12345678901234567890", 59, "94287082"),
        ("sha", b"12345678901234567890", 1111111109, "07081804"),
        ("sha256", b"12345678901234567890123456789012", 59, "46119246"),
        ("sha512", b"1234567890" * 6 + b"1234", 59, "90693936"),
    ],
)
def test_codes_of_rfc_6238(algorithm: str, key: bytes, now_s: int, code: str) -> None:
    import base64

    settings = {"key": base64.b32encode(key).decode(), "algorithm": algorithm, "length": 8}
    assert totp.matches(code, settings, now_s)
    assert totp.matches(code, settings, now_s + 30)
    assert not totp.matches(code, settings, now_s + 90)


@pytest.mark.parametrize(
    "settings", [{}, {"key": "!"}, {"key": "AA", "algorithm": "x"}, {"key": "AA", "length": 0}]
)
def test_a_broken_second_factor_lets_nobody_in(settings: dict[str, Any]) -> None:
    assert not totp.matches("", settings, 0)


async def test_who_has_a_second_factor_needs_it(accounts: Accounts, stored: Users) -> None:
    stored["alice"]["totp"] = {"key": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"}
    with pytest.raises(Unauthorized):
        await accounts.authenticate_basic("alice", "secret")
    with pytest.raises(Unauthorized):
        await accounts.log_in("alice", "secret")
    code = totp._code(b"12345678901234567890", "sha1", int(time.time()) // 30, 6)
    assert await accounts.log_in("alice", "secret", token=code)


# Documents of users


def test_a_password_is_stored_as_couchdb_stores_it(config: Config) -> None:
    fields = users.hash_password(
        {"name": "u", "password": "x", "type": "user", "salt": "given", "iterations": 3, "roles": []}, config
    )
    assert list(fields) == [
        *("password_scheme", "pbkdf2_prf", "salt", "iterations", "derived_key"),
        *("name", "type", "roles"),
    ]
    assert (fields["password_scheme"], fields["pbkdf2_prf"], fields["iterations"]) == ("pbkdf2", "sha256", 10)
    assert fields["salt"] != "given" and len(fields["salt"]) == 32 and len(fields["derived_key"]) == 64


def test_the_salt_can_be_kept(config: Config) -> None:
    fields = users.hash_password({"password": "x", "salt": "given", "preserve_salt": True}, config)
    assert fields["salt"] == "given" and "preserve_salt" not in fields


@pytest.mark.parametrize("fields", [{"name": "u"}, {"name": "u", "password": None}])
def test_without_a_password_nothing_changes(config: Config, fields: dict[str, Any]) -> None:
    assert users.hash_password(fields, config) is fields


def test_a_password_must_be_text(config: Config) -> None:
    with pytest.raises(Forbidden, match="Password value of '5' is invalid"):
        users.hash_password({"password": 5}, config)


GOOD = {"type": "user", "name": "alice", "roles": []}


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ({}, "doc.type must be user"),
        ({"type": "user"}, "doc.name is required"),
        ({"type": "user", "name": "alice"}, "doc.roles must exist"),
        ({**GOOD, "roles": "x"}, "doc.roles must be an array"),
        ({**GOOD, "roles": [1]}, "doc.roles can only contain strings"),
        ({**GOOD, "name": "bob"}, "Doc ID must be of the form org.couchdb.user:name"),
        ({**GOOD, "name": 5}, "Doc ID must be of the form org.couchdb.user:name"),
        ({**GOOD, "roles": ["_x"]}, "No system roles (starting with underscore) in users db."),
        ({**GOOD, "password_sha": "x"}, "Users with password_sha must have a salt."),
        ({**GOOD, "password_scheme": "x"}, "Password scheme `x` not supported."),
        ({**GOOD, "password_scheme": "pbkdf2"}, "iterations must be a number."),
        ({**GOOD, "password_scheme": "pbkdf2", "iterations": 1}, "derived_key must be a string."),
    ],
)
def test_what_no_user_document_may_look_like(new: dict[str, Any], reason: str) -> None:
    with pytest.raises(Forbidden) as raised:
        users.validate("org.couchdb.user:alice", new, False, None, ADMINS_ONLY, ROOT)
    assert raised.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("_x", "Username may not start with underscore."),
        ("a:b", "Character `:` is not allowed in usernames."),
    ],
)
def test_names_that_may_not_be(name: str, reason: str) -> None:
    with pytest.raises(Forbidden, match=reason):
        users.validate(f"org.couchdb.user:{name}", {**GOOD, "name": name}, False, None, ADMINS_ONLY, ROOT)


@pytest.mark.parametrize(
    ("new", "deleted", "old", "principal", "reason"),
    [
        pytest.param(GOOD, False, None, ANONYMOUS, None, id="anybody may sign up"),
        pytest.param(
            {**GOOD, "roles": ["x"]}, False, None, ANONYMOUS, "Only _admin may set roles", id="not as x"
        ),
        pytest.param({**GOOD, "roles": ["x"]}, False, None, ROOT, None, id="an admin sets roles"),
        pytest.param({**GOOD, "roles": ["_metrics"]}, False, None, ROOT, None, id="_metrics is a role"),
        pytest.param({**GOOD, "colour": "red"}, False, GOOD, ALICE, None, id="users change their own"),
        pytest.param(
            {**GOOD, "roles": ["b", "a"]},
            False,
            {**GOOD, "roles": ["a", "b"]},
            ALICE,
            None,
            id="roles in any order",
        ),
        pytest.param(
            {**GOOD, "roles": ["x"]},
            False,
            GOOD,
            ALICE,
            "Only _admin may edit roles",
            id="but not their roles",
        ),
        pytest.param(
            GOOD,
            False,
            GOOD,
            Principal("bob"),
            "You may only update your own user document.",
            id="not another's",
        ),
        pytest.param(
            GOOD, False, {**GOOD, "name": "eve"}, ROOT, "Usernames can not be changed.", id="names stay"
        ),
        pytest.param({}, True, GOOD, ALICE, None, id="users delete themselves"),
        pytest.param({}, True, GOOD, ROOT, None, id="an admin deletes"),
        pytest.param(
            {},
            True,
            GOOD,
            Principal("bob"),
            "Only admins may delete other user docs.",
            id="others don't delete",
        ),
        pytest.param(
            {}, True, None, ANONYMOUS, "Only admins may delete other user docs.", id="nobody deletes nothing"
        ),
    ],
)
def test_who_may_write_what(
    new: dict[str, Any], deleted: bool, old: dict[str, Any] | None, principal: Principal, reason: str | None
) -> None:
    def write() -> None:
        users.validate("org.couchdb.user:alice", new, deleted, old, ADMINS_ONLY, principal)

    if reason is None:
        write()
    else:
        with pytest.raises(Forbidden, match=reason):
            write()


@pytest.mark.parametrize(
    ("principal", "may"),
    [(ALICE, True), (ROOT, True), (ANONYMOUS, True), (Principal("bob"), False)],
)
def test_who_may_try_to_write(principal: Principal, may: bool) -> None:
    if may:
        users.check_writer("org.couchdb.user:alice", ADMINS_ONLY, principal)
    else:
        with pytest.raises(NotFound):
            users.check_writer("org.couchdb.user:alice", ADMINS_ONLY, principal)


def test_who_sees_what(config: Config) -> None:
    fields = {**GOOD, "salt": "s"}

    def seen(principal: Principal, doc_id: str = "org.couchdb.user:alice") -> Any:
        return users.visible_fields(doc_id, fields, {}, principal, config)

    assert seen(ROOT) == seen(ALICE) == fields
    for stranger in (ANONYMOUS, Principal("bob")):
        with pytest.raises(NotFound):
            seen(stranger)
    config.set("chttpd_auth", "public_fields", "name, roles")
    assert seen(ANONYMOUS) == {"name": "alice", "roles": []}
    with pytest.raises(Forbidden, match="Only administrators can view design docs"):
        seen(ALICE, "_design/_auth")
