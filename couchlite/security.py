"""Who may do what in a database: the security object, and the principal it is held against. Pure functions.

A security object names `admins` and `members`, each by `names` and by `roles` (`readers` is an old name for
members). Members read and write documents; admins change design documents and the security object as well. A
server administrator (role `_admin`) may do everything; a database without member names and roles is open to
everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import BadRequest, Forbidden, Unauthorized

SecurityObject = Mapping[str, Any]

ADMINS_ONLY: SecurityObject = {"members": {"roles": ["_admin"]}, "admins": {"roles": ["_admin"]}}

NOT_AUTHORIZED = "You are not authorized to access this db."
NOT_ALLOWED = "You are not allowed to access this db."
NOT_DATABASE_ADMIN = "You are not a db or server admin."
NOT_SERVER_ADMIN = "You are not a server admin."


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: an authenticated user, or nobody (`name` is None and there are no roles)."""

    name: str | None
    roles: tuple[str, ...] = ()

    @property
    def is_admin(self) -> bool:
        """A server administrator."""
        return "_admin" in self.roles


ANONYMOUS = Principal(None)
SYSTEM = Principal(None, ("_admin",))
"""The server itself, at work for nobody in particular."""


def default(setting: str) -> SecurityObject:
    """What a new database has, by the setting couchdb/default_security.

    (CouchDB's third value, `admin_local`, differs from `everyone` on its second port only, which isn't here.)
    """
    return {} if setting in ("everyone", "admin_local") else ADMINS_ONLY


def check_member(security: SecurityObject, principal: Principal) -> None:
    """:raises Unauthorized, Forbidden: `principal` may not read and write this database's documents."""
    if not is_member(security, principal):
        _refuse(principal, NOT_AUTHORIZED if principal.name is None else NOT_ALLOWED)


def check_admin(security: SecurityObject, principal: Principal, reason: str = NOT_DATABASE_ADMIN) -> None:
    """:raises Unauthorized, Forbidden: `principal` is neither an admin of this database nor of the server."""
    if not is_admin(security, principal):
        _refuse(principal, reason)


def check_server_admin(principal: Principal) -> None:
    """:raises Unauthorized: `principal` is no server administrator (CouchDB says 401 even to a logged-in
    user)."""
    if not principal.is_admin:
        raise Unauthorized(NOT_SERVER_ADMIN)


def is_admin(security: SecurityObject, principal: Principal) -> bool:
    return _named(security.get("admins"), principal)


def is_member(security: SecurityObject, principal: Principal) -> bool:
    members = security.get("members", security.get("readers"))
    return _nobody_named(members) or _named(members, principal) or is_admin(security, principal)


def validate(security: object) -> SecurityObject:
    """`security` as a security object; members it doesn't know are kept.

    :raises BadRequest: it is none (CouchDB finds the same faults, but answers 500).
    """
    if not isinstance(security, dict):
        raise BadRequest("the security object must be a JSON object")
    for group in (security.get("admins", {}), security.get("members", security.get("readers", {}))):
        if not isinstance(group, dict):
            raise BadRequest("admins or members must be a JSON list of strings")
        for field in ("names", "roles"):
            values = group.get(field, [])
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise BadRequest(f"{field} must be a JSON list of strings")
    return security


def _refuse(principal: Principal, reason: str) -> None:
    raise Unauthorized(reason) if principal.name is None else Forbidden(reason)


def _named(group: Mapping[str, Any] | None, principal: Principal) -> bool:
    if principal.is_admin:
        return True
    if group is None:
        return False
    if not set(principal.roles).isdisjoint(group.get("roles", ())):
        return True
    return principal.name is not None and principal.name in group.get("names", ())


def _nobody_named(group: Mapping[str, Any] | None) -> bool:
    return group is None or not (group.get("names") or group.get("roles"))
