"""The request as functions of design documents see it. Source: chttpd_external:json_req_obj."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Any

from couchlite.database import Database

from .databases import describe
from .request import Request
from .values import decode, json_value, parse_query, shown

SECRET_HEADERS = frozenset(("authorization", "cookie", "x-auth-couchdb-token"))
"""Functions are not to learn how a user proves who he is, unless [chttpd] scrub_json_request is off."""
JSON_PARAMETERS = frozenset(("startkey", "endkey", "key", "descending"))


def request_object(
    request: Request, database: Database, body: Any = "undefined", doc_id: str | None = None
) -> dict[str, Any]:
    """`body` is what was sent, as text or, where it was JSON, as the value; "undefined" if nothing was.

    :raises BadRequest: a query parameter that must be JSON isn't.
    """
    config = request.server.config
    scrubbed = config.get("chttpd", "scrub_json_request", "true") != "false"
    return {
        "info": describe(database),
        "uuid": request.server.uuids.new(),
        "id": doc_id,
        "method": request.method,
        "requested_path": _requested_path(request),
        "path": [shown(segment) for segment in request.segments],
        "raw_path": request.target,
        "query": {
            shown(name): json_value(value) if name in JSON_PARAMETERS else shown(value)
            for name, value in request.query
        },
        "headers": _headers(request, scrubbed),
        "body": body,
        "peer": request.raw.remote or "",
        "form": _form(request, body),
        "cookie": {} if scrubbed else _cookies(request),
        "userCtx": {
            "db": database.name,
            "name": request.principal.name,
            "roles": list(request.principal.roles),
        },
        "secObj": database.security,
    }


def _requested_path(request: Request) -> list[str]:
    """What a proxy was asked for, if it says so; the query is part of it, as in CouchDB."""
    asked = request.headers.get("X-CouchDB-Requested-Path", request.target)
    return [shown(decode(segment)) for segment in asked.split("/") if segment]


def _headers(request: Request, scrubbed: bool) -> dict[str, str]:
    """In order, under the names that functions look for, whatever case they were sent in."""
    named: dict[str, str] = {}
    for name, value in sorted(request.headers.items(), key=lambda header: header[0].lower()):
        if not (scrubbed and name.lower() in SECRET_HEADERS):
            known = named.get(name.title())
            named[name.title()] = shown(value) if known is None else f"{known}, {shown(value)}"
    return named


def _form(request: Request, body: Any) -> dict[str, str]:
    content_type = request.headers.get("Content-Type", "")
    if request.method not in ("POST", "PUT") or not isinstance(body, str):
        return {}
    if not content_type.startswith("application/x-www-form-urlencoded"):
        return {}
    return {shown(name): shown(value) for name, value in parse_query(body)}


def _cookies(request: Request) -> dict[str, str]:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(request.headers.get("Cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in cookies.items()}
