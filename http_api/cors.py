"""Cross-origin resource sharing, with the semantics of CouchDB's chttpd_cors.

Configuration: [chttpd] enable_cors; [cors] origins, credentials, methods, headers, max_age,
exposed_headers; a section [cors:HOST] overrides [cors] for requests to that host. An origin is compared
case-sensitively.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .request import Request

_HEADERS = [
    "accept",
    "accept-language",
    "authorization",
    "content-length",
    "content-range",
    "content-type",
    "destination",
    "expires",
    "if-match",
    "last-modified",
    "origin",
    "pragma",
    "x-couch-full-commit",
    "x-couch-id",
    "x-couch-persist",
    "x-couchdb-www-authenticate",
    "x-http-method-override",
    "x-requested-with",
    "x-couchdb-vhost-path",
]
_METHODS = ["CONNECT", "COPY", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE"]
_SIMPLE_HEADERS = {"cache-control", "content-language", "expires", "last-modified", "pragma"}
_EXPOSED = [
    "accept-ranges",
    "etag",
    "server",
    "x-couch-request-id",
    "x-couch-update-newrev",
    "x-couchdb-body-time",
]
_MAX_AGE_S = "600"
_LIST = re.compile(r"\s*,\s*")


def preflight(request: Request) -> dict[str, str] | None:
    """The headers that answer a preflight (status 204, no authentication); None when it is not one to be
    granted.

    A refused preflight is then handled like any other OPTIONS request: 401 or 405.
    """
    origin = request.headers.get("Origin")
    wanted_method = request.headers.get("Access-Control-Request-Method")
    if origin is None or wanted_method is None or not accepts_origin(request, origin):
        return None
    methods = _setting_list(request, "methods", _METHODS)
    if wanted_method not in methods:
        return None
    wanted_headers = request.headers.get("Access-Control-Request-Headers", "")
    allowed = {name.lower() for name in _setting_list(request, "headers", _HEADERS)}
    if wanted_headers and not {name.lower() for name in re.split(r",\s*", wanted_headers)} <= allowed:
        return None
    return {
        **_grant(request, origin),
        "Access-Control-Max-Age": _setting(request, "max_age") or _MAX_AGE_S,
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": wanted_headers,
    }


def expose(request: Request, headers: dict[str, str]) -> None:
    """Add to a response what lets a page of the request's origin read it, if that origin is listed."""
    origin = request.headers["Origin"]
    if not accepts_origin(request, origin):
        return
    names = [name.lower() for name in sorted(headers)]
    simple = [name for name in names if name in _SIMPLE_HEADERS]
    exposed = [name.lower() for name in _setting_list(request, "exposed_headers", _EXPOSED)]
    headers.update(_grant(request, origin))
    headers["Access-Control-Expose-Headers"] = ", ".join(["content-type", *simple, *exposed])


def accepts_origin(request: Request, origin: str) -> bool:
    """Whether pages of this origin are listed."""
    if not request.server.config.boolean("chttpd", "enable_cors"):
        return False
    origins = _setting_list(request, "origins", [])
    return "*" in origins or origin in origins


def _grant(request: Request, origin: str) -> dict[str, str]:
    headers = {"Access-Control-Allow-Origin": origin}
    if origin != "*" and _setting(request, "credentials") == "true":
        headers["Access-Control-Allow-Credentials"] = "true"
    return headers


def _setting_list(request: Request, key: str, default: list[str]) -> list[str]:
    text = _setting(request, key)
    return default if not text else [item for item in _LIST.split(text.strip()) if item]


def _setting(request: Request, key: str) -> str | None:
    config = request.server.config
    host = request.headers.get("Host", "").partition(":")[0]
    value: str | None = config.get(f"cors:{host}", key, None)
    return config.get("cors", key, None) if value is None else value
