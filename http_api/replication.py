"""/_replicate: replications as clients start and cancel them.

A name instead of a URL means a database of this server, to be opened as whoever asks. Source: chttpd's
possibly_hack and fix_uri, chttpd_misc:handle_replicate_req, couch_replicator_httpd.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

from aiohttp import web

from couchlite.errors import MethodNotAllowed
from couchlite.jsontext import dumps
from replicator import Ledger

from . import replication_service, response
from .request import Request

_COOKIE_NAME = "AuthSession="


async def replicate(request: Request) -> web.StreamResponse:
    """POST /_replicate."""
    body = await _named_endpoints(request)
    request.require_json_type()
    status, answer = await replication_service.of(request).replicate(body, request.principal)
    return response.json(request, status, answer)


async def no_replicate(request: Request) -> web.StreamResponse:
    """Any other method: the body is looked at first."""
    await _named_endpoints(request)
    raise MethodNotAllowed("POST")


def ledger(request: Request) -> Ledger:
    """The ledger of this server."""
    return replication_service.of(request).ledger


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
    scheme, host, port = replication_service.reached_at(request)
    cookies = [cookie.strip() for cookie in request.headers.get("Cookie", "").split(";")]
    session = next((cookie for cookie in cookies if cookie.startswith(_COOKIE_NAME)), "")
    headers = {"authorization": request.headers.get("Authorization", ""), "cookie": session}
    return {"url": f"{scheme}://{host}:{port}/{quote_plus(text)}", "headers": headers}
