"""The one place where an exception becomes a response.

A CouchliteError carries its status, error word and reason from where it was born. Anything else is a fault
of ours: it is logged under the request's id, and the client is told that id and nothing more. Once a body
has begun its status can't change: the error is written as a last line and the connection is cut without the
closing chunk, so that no client takes what it has for the whole. A request that fails because somebody
deletes its database meanwhile, files and all, is told that there is none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web

from couchlite.errors import CouchliteError, DatabaseNotFound, Unauthorized
from couchlite.jsontext import dumps

from . import response
from .values import encode, shown

if TYPE_CHECKING:
    from .request import Request

LOGIN_PAGE = "/_utils/session.html"

logger = logging.getLogger(__name__)


async def answer(request: Request, error: Exception) -> web.StreamResponse:
    """The response to an error; cuts the connection when a body has begun."""
    known = _known(request, error)
    if request.response is not None:
        return await _cut(request, request.response, known)
    status, headers = _challenge(request, known)
    told = {"error": known.error, "reason": shown(known.reason), **known.members}
    reply = response.json(request, status, told, headers)
    if request.awaits_continue and not request.raw.content.is_eof():
        # The client was never told to send its body and must not be waited for.
        reply.force_close()
        request.raw.content.feed_eof()
    return reply


def _known(request: Request, error: Exception) -> CouchliteError:
    is_fault = not isinstance(error, CouchliteError) or error.status >= 500
    if is_fault and request.has_lost_database():
        return DatabaseNotFound()
    return error if isinstance(error, CouchliteError) else _unexpected(request, error)


def _unexpected(request: Request, error: Exception) -> CouchliteError:
    logger.error("request %s: %s %s failed", request.id, request.raw.method, request.target, exc_info=error)
    return CouchliteError(
        f"internal error, see the log for request {request.id}", error="internal_server_error"
    )


def in_band(request: Request, error: Exception) -> bytes:
    """How an error is told once a response has begun."""
    known = _known(request, error)
    return dumps({"code": known.status, "error": known.error, "reason": shown(known.reason)})


def let_go(error: BaseException | None) -> None:
    """Forget where an error came from, now that it is answered. Those frames may hold it in turn, and what
    they hold with it, the database for one, would stay until the garbage collector comes, which is seldom.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


async def _cut(request: Request, begun: web.StreamResponse, error: CouchliteError) -> web.StreamResponse:
    await begun.write(b"\n" + in_band(request, error) + b"\n")
    if request.raw.transport is not None:
        request.raw.transport.close()
    return begun


def _challenge(request: Request, error: CouchliteError) -> tuple[int, dict[str, str]]:
    """Status and headers: a 401 may ask for credentials, or send a browser to the login page
    (chttpd:error_headers).
    """
    headers = dict(error.headers)
    if error.status != 401:
        return error.status, headers
    config = request.server.config
    scheme = request.headers.get("X-CouchDB-WWW-Authenticate") or config.get(
        "chttpd", "WWW-Authenticate", None
    )
    if scheme is not None:
        headers["WWW-Authenticate"] = scheme
    elif isinstance(error, Unauthorized):
        if config.boolean("chttpd", "require_valid_user"):
            headers["WWW-Authenticate"] = 'Basic realm="server"'
        elif not request.accepts("application/json") and request.accepts("text/html"):
            page = config.get("chttpd_auth", "authentication_redirect", LOGIN_PAGE)
            back = encode("/" + "/".join(request.segments))
            headers["Location"] = request.absolute_uri(f"{page}?return={back}&reason={encode(error.reason)}")
            return 302, headers
    return error.status, headers
