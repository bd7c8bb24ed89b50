"""Who is a member, who is an admin, and which objects are security objects."""

from __future__ import annotations

from typing import Any

import pytest

from couchlite import security
from couchlite.errors import BadRequest, Forbidden, Unauthorized
from couchlite.security import ADMINS_ONLY, ANONYMOUS, Principal

ALICE = Principal("alice", ("staff",))
BOB = Principal("bob")
ROOT = Principal("root", ("_admin",))

MEMBERS = {"members": {"names": ["alice"]}}
MEMBER_ROLE = {"members": {"roles": ["staff"]}}
ADMINS = {"admins": {"names": ["bob"], "roles": ["boss"]}, "members": {"names": ["alice"]}}


@pytest.mark.parametrize(
    ("rules", "principal", "member", "admin"),
    [
        pytest.param({}, ANONYMOUS, True, False, id="without members a database is open"),
        pytest.param({}, ROOT, True, True, id="a server admin is an admin everywhere"),
        pytest.param(ADMINS_ONLY, ALICE, False, False, id="a new database is closed to users"),
        pytest.param(ADMINS_ONLY, ROOT, True, True, id="a new database is open to server admins"),
        pytest.param(MEMBERS, ALICE, True, False, id="a member by name"),
        pytest.param(MEMBERS, BOB, False, False, id="another name"),
        pytest.param(MEMBERS, ANONYMOUS, False, False, id="nobody is not a member"),
        pytest.param(MEMBER_ROLE, ALICE, True, False, id="a member by role"),
        pytest.param(
            {"readers": {"names": ["alice"]}}, ALICE, True, False, id="members under their old name"
        ),
        pytest.param(
            {"readers": {"names": ["alice"]}, "members": {}},
            BOB,
            True,
            False,
            id="the new name wins over the old",
        ),
        pytest.param(ADMINS, BOB, True, True, id="an admin is a member"),
        pytest.param(ADMINS, Principal("eve", ("boss",)), True, True, id="an admin by role"),
        pytest.param(
            {"members": {"names": [], "roles": []}}, ANONYMOUS, True, False, id="empty lists are open"
        ),
        pytest.param({"admins": {"names": []}}, BOB, True, False, id="no admins named is not everybody"),
    ],
)
def test_membership(rules: dict[str, Any], principal: Principal, member: bool, admin: bool) -> None:
    assert security.is_member(rules, principal) is member
    assert security.is_admin(rules, principal) is admin


@pytest.mark.parametrize(
    ("principal", "error", "reason"),
    [
        (ANONYMOUS, Unauthorized, "You are not authorized to access this db."),
        (ALICE, Forbidden, "You are not allowed to access this db."),
    ],
)
def test_who_is_no_member_is_told(principal: Principal, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        security.check_member(ADMINS_ONLY, principal)


@pytest.mark.parametrize(("principal", "error"), [(ANONYMOUS, Unauthorized), (ALICE, Forbidden)])
def test_who_is_no_admin_is_told(principal: Principal, error: type[Exception]) -> None:
    with pytest.raises(error, match="You are not a db or server admin"):
        security.check_admin({}, principal)


def test_a_user_is_unauthorized_on_server_admin_ground() -> None:
    with pytest.raises(Unauthorized, match="You are not a server admin"):
        security.check_server_admin(ALICE)
    security.check_server_admin(ROOT)


@pytest.mark.parametrize(
    "rules",
    [
        {},
        ADMINS_ONLY,
        {"members": {"extra": 1}},
        {"custom": 1, "x": {"y": []}},
        {"readers": {"names": ["x"]}},
    ],
)
def test_what_is_a_security_object(rules: dict[str, Any]) -> None:
    assert security.validate(rules) is rules


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ([], "the security object must be a JSON object"),
        (None, "the security object must be a JSON object"),
        ({"admins": "x"}, "admins or members must be a JSON list of strings"),
        ({"members": []}, "admins or members must be a JSON list of strings"),
        ({"admins": {"names": "x"}}, "names must be a JSON list of strings"),
        ({"admins": {"names": [1]}}, "names must be a JSON list of strings"),
        ({"admins": {"roles": {}}}, "roles must be a JSON list of strings"),
        ({"readers": {"roles": [None]}}, "roles must be a JSON list of strings"),
    ],
)
def test_what_is_none(rules: object, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        security.validate(rules)


@pytest.mark.parametrize(
    ("setting", "rules"), [("admin_only", ADMINS_ONLY), ("everyone", {}), ("nonsense", ADMINS_ONLY)]
)
def test_default(setting: str, rules: dict[str, Any]) -> None:
    assert security.default(setting) == rules
