"""Who gets in: nobody without a password, and the user given with the rights that are needed."""

from __future__ import annotations

from collections.abc import Iterator

from .connection import HEADER_REPAIR
from .findings import Finding, Notes
from .patient import Patient

DATABASES_MAX = 100
"""So many are looked at for being open to everybody."""


def examine(patient: Patient) -> Iterator[Finding]:
    """Sets `is_admin` of the patient."""
    yield _party(patient)
    yield from _login(patient)
    yield _health(patient)
    if patient.is_admin:
        yield from _open_databases(patient)


def _party(patient: Patient) -> Finding:
    notes = Notes("accounts")
    anonymous = patient.wire.ask("GET", "/_session", auth=False).fields.get("userCtx") or {}
    if "_admin" in (anonymous.get("roles") or ()):
        return notes.fail(
            "everybody is an administrator (admin party)",
            patient.curl("PUT", "/_node/_local/_config/admins/admin", "PASSWORD"),
        )
    return notes.ok("who doesn't log in is no administrator")


def _login(patient: Patient) -> Iterator[Finding]:
    notes = Notes("accounts")
    wire = patient.wire
    if not wire.logs_in and wire.user is not None:
        return  # it was said why
    if not wire.logs_in:
        yield notes.skip("nobody logged in, so much can't be looked at", "give --user, and COUCHDB_PASSWORD")
        return
    session = wire.ask("GET", "/_session")
    user = session.fields.get("userCtx") or {}
    if session.status != 200:
        yield notes.fail(f"{wire.user} can't log in: {session.problem}", "check --user and --password")
        return
    if user.get("name") != wire.user:
        yield notes.fail(
            f"the password of {wire.user} does not arrive: the server sees {user.get('name') or 'nobody'}",
            HEADER_REPAIR,
        )
        return
    roles = ", ".join(user.get("roles") or ()) or "none"
    yield notes.ok(f"{wire.user} logs in; roles: {roles}")
    patient.is_admin = "_admin" in (user.get("roles") or ())
    if not patient.is_admin:
        yield notes.skip(
            f"{wire.user} is no server administrator, so neither settings nor proxies can be looked at",
            "give an administrator's --user",
        )


def _health(patient: Patient) -> Finding:
    up = patient.wire.ask("GET", "/_up", auth=False)
    return Notes("accounts").judge(
        up.status == 200,
        "/_up answers health checks",
        f"/_up answers health checks without a password with {up.problem}",
        patient.set_command("chttpd", "require_valid_user_except_for_up", "true"),
        "warn",
    )


def _open_databases(patient: Patient) -> Iterator[Finding]:
    """Those that name no members are everybody's."""
    notes = Notes("accounts")
    if patient.setting("chttpd", "require_valid_user") == "true":
        return
    names = patient.wire.ask("GET", f"/_all_dbs?limit={DATABASES_MAX}").json
    found = []
    for name in names if isinstance(names, list) else []:
        path = "/" + str(name).replace("/", "%2F").replace("+", "%2B")
        members = patient.wire.ask("GET", f"{path}/_security").fields.get("members") or {}
        if not members.get("names") and not members.get("roles"):
            found.append(str(name))
    if found:
        secured = {
            "admins": {"names": [], "roles": ["_admin"]},
            "members": {"names": [], "roles": ["_admin"]},
        }
        yield notes.warn(
            f"everybody may read and write without logging in: {', '.join(found[:5])}"
            + (f" and {len(found) - 5} more" if len(found) > 5 else ""),
            patient.curl("PUT", f"/{found[0]}/_security", secured),
        )
    else:
        yield notes.ok("no database is open to everybody")
