"""Whether pages of a client's origins may use the server: preflights, answers, and answers to mistakes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .clients import Client
from .findings import Finding, Notes
from .patient import Patient
from .wire import Reply

MISSING = "/couchlite-doctor-none"
"""Of a database that there isn't."""
_LIST = re.compile(r"\s*,\s*")


def examine(patient: Patient) -> Iterator[Finding]:
    notes = Notes("cors")
    for client in patient.clients:
        if not client.is_in_browser:
            continue
        origins = patient.origins_of(client)
        if not origins:
            yield notes.skip(
                f"no origin of {client.title} is known",
                "name the origins of your app's pages: --origin https://app.example",
            )
        for origin in origins:
            yield from _origin(patient, client, origin)


def _origin(patient: Patient, client: Client, origin: str) -> Iterator[Finding]:
    notes = Notes("cors")
    problems = list(_problems(patient, client, origin))
    if not problems:
        yield notes.ok(f"pages of {origin} may use the server")
    for problem, repair in problems[:1]:  # the others mostly follow from the first
        yield notes.fail(f"pages of {origin} may not use the server: {problem}", repair)


def _problems(patient: Patient, client: Client, origin: str) -> Iterator[tuple[str, str]]:
    """What is wrong, and its repair."""
    wire = patient.wire
    for method in client.methods:
        wanted = {
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": ",".join(client.headers),
        }
        reply = wire.ask("OPTIONS", "/", headers=wanted, auth=False)
        if reply.status not in (200, 204):
            if reply.status in (401, 405):  # CouchDB's answer to a preflight that it doesn't grant
                yield f"a preflight for {method} is answered {reply.problem}", _list_repair(patient, origin)
            else:
                yield (
                    f"a preflight for {method} is answered {reply.problem}",
                    "have the proxy pass OPTIONS on without asking for a password",
                )
            return
        yield from _grant(patient, reply, origin, f"the preflight for {method}")
        if not _allows(reply, "Access-Control-Allow-Methods", [method]):
            yield (
                f"the preflight does not allow {method}",
                patient.curl("DELETE", "/_node/_local/_config/cors/methods"),
            )
        if not _allows(reply, "Access-Control-Allow-Headers", client.headers):
            yield (
                f"the preflight does not allow the headers {', '.join(client.headers)}",
                patient.curl("DELETE", "/_node/_local/_config/cors/headers"),
            )
    for path, what in (("/", "an answer"), (MISSING, "an error")):
        yield from _grant(patient, wire.ask("GET", path, headers={"Origin": origin}), origin, what)
    refused = wire.ask("GET", "/_all_dbs", headers={"Origin": origin}, auth=False)
    yield from _grant(patient, refused, origin, "an answer to who doesn't log in")


def _grant(patient: Patient, reply: Reply, origin: str, what: str) -> Iterator[tuple[str, str]]:
    granted = reply.headers.get_all("Access-Control-Allow-Origin") or []
    if len(granted) > 1 or "," in "".join(granted):
        yield (
            f"{what} has the header Access-Control-Allow-Origin twice",
            "leave CORS to the server: take all Access-Control- headers out of the proxy's configuration",
        )
    elif not granted:
        yield f"{what} does not grant it", _list_repair(patient, origin)
    elif granted[0] != origin:
        yield (
            f"{what} grants it to {granted[0]}, which is not enough with credentials",
            "leave CORS to the server: take all Access-Control- headers out of the proxy's configuration",
        )
    elif reply.headers.get("Access-Control-Allow-Credentials") != "true":
        yield f"{what} does not allow credentials", patient.set_command("cors", "credentials", "true")


def _list_repair(patient: Patient, origin: str) -> str:
    if patient.config is not None:
        section = "httpd" if patient.version and patient.version < (3, 2) else "chttpd"
        if patient.setting(section, "enable_cors") != "true":
            return patient.set_command(section, "enable_cors", "true")
        listed = [one.strip() for one in patient.setting("cors", "origins").split(",") if one.strip()]
        if origin not in listed and "*" not in listed:
            return patient.set_command("cors", "origins", ",".join([*listed, origin]))
        return "have the proxy pass the headers Origin and Access-Control-Request- on, and the answer's back"
    return f"couchlite serve --origin {origin}, or in CouchDB [chttpd] enable_cors and [cors] origins"


def _allows(reply: Reply, header: str, wanted: tuple[str, ...] | list[str]) -> bool:
    allowed = {name.lower() for name in _LIST.split(reply.headers.get(header, ""))}
    return {name.lower() for name in wanted} <= allowed
