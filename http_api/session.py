"""/_session: log in and out with a cookie, and who one is."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from couchlite.errors import BadRequest, Unauthorized, UnsupportedMediaType
from couchlite.jsontext import loads

from . import response
from .authentication import session_cookie
from .request import Request
from .values import decompress

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


async def who_am_i(request: Request) -> web.StreamResponse:
    principal = request.principal
    if principal.name is None and request.query_flag("basic"):
        raise Unauthorized("Please login.")
    info: dict[str, Any] = {"authentication_handlers": list(request.app.authentication.handlers())}
    if request.authenticated_by is not None:
        info["authenticated"] = request.authenticated_by
    database = request.server.config.reported("chttpd_auth", "authentication_db")
    if database is not None:
        info["authentication_db"] = database
    user = {"name": principal.name, "roles": principal.roles}
    return response.json(request, 200, {"ok": True, "userCtx": user, "info": info})


async def log_in(request: Request) -> web.StreamResponse:
    """Name and password in a form or in JSON; `next` and `fail` in the query are where a browser goes
    then."""
    form = await _form(request)
    name, password = _username(form), form.get("password", "")
    try:
        account = await request.app.accounts.log_in(
            name, password, request.raw.remote or "", form.get("token", "")
        )
    except Unauthorized as error:
        body = {"error": error.error, "reason": error.reason}
        return _answer(request, 401, body, session_cookie(request, ""), "fail")
    cookie = session_cookie(request, request.app.accounts.make_cookie(account))
    return _answer(request, 200, {"ok": True, "name": name, "roles": account.roles}, cookie, "next")


async def log_out(request: Request) -> web.StreamResponse:
    return _answer(request, 200, {"ok": True}, session_cookie(request, ""), "next")


def _answer(
    request: Request, status: int, body: dict[str, Any], cookie: str, redirect: str
) -> web.StreamResponse:
    headers = {"Set-Cookie": cookie}
    target = request.query_value(redirect)
    if target is not None:
        status = 302
        headers["Location"] = request.absolute_uri(target)
    return response.json(request, status, body, headers)


async def _form(request: Request) -> dict[str, str]:
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
    if content_type == FORM:
        pairs = parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
        return dict(reversed(pairs))  # the first of a name counts
    if content_type != JSON:
        raise UnsupportedMediaType(f"Content-Type must be '{FORM}' or '{JSON}'")
    body = decompress(await request.body(), request.headers.get("Content-Encoding"), request.body_size_max)
    value = loads(body)
    if not isinstance(value, dict):
        raise BadRequest("Request body must be a JSON object")
    wrong = [
        key for key in ("name", "username", "password", "token") if not isinstance(value.get(key, ""), str)
    ]
    if wrong:
        raise BadRequest(f"{wrong[0]} must be a string")
    return value


def _username(form: dict[str, str]) -> str:
    name, username = form.get("name"), form.get("username")
    if name is None and username is None:
        raise BadRequest("request body must contain a username")
    if name is not None and username is not None and name != username:
        raise BadRequest("request body contains different usernames")
    return name if name is not None else username or ""
