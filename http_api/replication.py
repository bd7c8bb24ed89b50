"""/_replicate and /_scheduler: replications as clients start, cancel and watch them.

A name instead of a URL means a database of this server, to be opened as whoever asks. Source: chttpd's
possibly_hack and fix_uri, chttpd_misc:handle_replicate_req, couch_replicator_httpd.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

from aiohttp import web

from couchlite.errors import MethodNotAllowed, NotFound, QueryParseError
from couchlite.jsontext import dumps
from replicator import Here, Ledger

from . import response
from .replication_service import InProcess, Replications
from .request import Request

DEFAULT_LIMIT = 100
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_COOKIE_NAME = "AuthSession="


async def replicate(request: Request) -> web.StreamResponse:
    """POST /_replicate."""
    body = await _named_endpoints(request)
    request.require_json_type()
    status, answer = await _service(request).replicate(body, request.principal)
    return response.json(request, status, answer)


async def no_replicate(request: Request) -> web.StreamResponse:
    """Any other method: the body is looked at first."""
    await _named_endpoints(request)
    raise MethodNotAllowed("POST")


async def scheduler(request: Request) -> web.StreamResponse:
    """GET /_scheduler/jobs, and one of them."""
    segments = request.segments[1:]
    if segments == ["jobs"]:
        return await _jobs(request)
    if len(segments) == 2 and segments[0] == "jobs":
        return response.json(request, 200, await _service(request).job(segments[1]))
    raise NotFound()


async def _jobs(request: Request) -> web.StreamResponse:
    limit = count(request, "limit", DEFAULT_LIMIT)
    skip = count(request, "skip", 0)
    jobs = await _service(request).jobs()
    shown = {
        "total_rows": len(jobs),
        "offset": min(skip, len(jobs)),
        "jobs": jobs[skip : skip + limit],
    }
    return response.json(request, 200, shown)


def count(request: Request, name: str, default: int) -> int:
    """A number of the query. :raises QueryParseError: it is none."""
    text = request.query_value(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        raise QueryParseError(f"{name} must be an integer") from None
    if number < 0:
        raise QueryParseError(f"{name} not in range of [0,infinity]")
    return number


def _service(request: Request) -> Replications:
    app = request.app
    if app.replications is None:
        scheme, host, port = _reached_at(request)
        here = Here(scheme, {host.strip("[]"), *LOOPBACK}, port)
        app.replications = InProcess(app.server, app.accounts, app.functions, here)
    return app.replications


def ledger(request: Request) -> Ledger:
    """The ledger of this server."""
    return _service(request).ledger


async def _named_endpoints(request: Request) -> dict[str, Any]:
    """The body, with names of databases made URLs that carry the credentials of the request."""
    body = await request.json_object()
    for name in ("source", "target"):
        given = body.get(name)
        url = given.get("url") if isinstance(given, dict) else given
        if url is not None and not (isinstance(url, str) and url.startswith(("http://", "https://"))):
            body[name] = _of_this_server(request, url)
    return body


def _of_this_server(request: Request, name: Any) -> dict[str, Any]:
    text = name if isinstance(name, str) else dumps(name).decode()
    scheme, host, port = _reached_at(request)
    cookies = [cookie.strip() for cookie in request.headers.get("Cookie", "").split(";")]
    session = next((cookie for cookie in cookies if cookie.startswith(_COOKIE_NAME)), "")
    headers = {"authorization": request.headers.get("Authorization", ""), "cookie": session}
    return {"url": f"{scheme}://{host}:{port}/{quote_plus(text)}", "headers": headers}


def _reached_at(request: Request) -> tuple[str, str, int]:
    """Scheme, host and port of the socket that the request came by."""
    address = request.raw.transport.get_extra_info("sockname") if request.raw.transport else None
    host, port = address[:2] if address else ("127.0.0.1", 0)
    return "https" if request.raw.secure else "http", f"[{host}]" if ":" in host else host, port
