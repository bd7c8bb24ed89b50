"""The request as functions of design documents see it. Source: chttpd_external:json_req_obj."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Any

from couchlite.database import Database

from .databases import describe
from .request import Request, json_value, parse_query

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
    raw_path = request.target
    return {
        "info": describe(database),
        "uuid": request.server.uuids.new(),
        "id": doc_id,
        "method": request.method,
        "requested_path": request.segments,
        "path": request.segments,
        "raw_path": raw_path,
        "query": {
            name: json_value(value) if name in JSON_PARAMETERS else value for name, value in request.query
        },
        "headers": {
            name: value
            for name, value in request.headers.items()
            if not (scrubbed and name.lower() in SECRET_HEADERS)
        },
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


def _form(request: Request, body: Any) -> dict[str, str]:
    content_type = request.headers.get("Content-Type", "")
    if not isinstance(body, str) or not content_type.startswith("application/x-www-form-urlencoded"):
        return {}
    return dict(parse_query(body))


def _cookies(request: Request) -> dict[str, str]:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(request.headers.get("Cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in cookies.items()}
