"""Who sends a request: by session cookie, else by HTTP Basic, else nobody. CouchDB's default handlers, in its
order.

There is no admin party: a request without credentials is anonymous, and gets what anonymous users get.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from multidict import istr

from couchlite.config import Config
from couchlite.errors import Unauthorized

if TYPE_CHECKING:
    from .request import Request

HANDLERS = ("cookie", "default")
"""As `GET /_session` lists them."""

_AUTHORIZATION = istr("Authorization")
_COOKIE = istr("Cookie")
_AUTH_SESSION = re.compile(r'(?:^|;)\s*AuthSession="?([^;"\s]*)')
_SAME_SITE = {"none": "None", "lax": "Lax", "strict": "Strict"}


async def authenticate(request: Request) -> None:
    """Set `principal` and `authenticated_by` of the request, and the cookie that renews its session.

    :raises Unauthorized: wrong credentials, or none where [chttpd] require_valid_user asks for them.
    :raises BadRequest: an AuthSession cookie that isn't one. :raises Forbidden: too many wrong passwords.
    """
    headers = request.headers
    if _COOKIE in headers:
        _by_cookie(request, headers[_COOKIE])
    if request.authenticated_by is None and _AUTHORIZATION in headers:
        await _by_password(request, headers[_AUTHORIZATION])
    if request.authenticated_by is None:
        _require_valid_user(request)


def _by_cookie(request: Request, header: str) -> None:
    match = _AUTH_SESSION.search(header)
    if match is None or not match[1]:
        return
    found = request.app.accounts.authenticate_cookie(match[1])
    if found is None:
        return
    account, is_due = found
    request.principal = account.principal
    request.authenticated_by = "cookie"
    if is_due:
        request.set_cookie = session_cookie(request, request.app.accounts.make_cookie(account))


async def _by_password(request: Request, header: str) -> None:
    """A header that holds no name and password counts as no header at all."""
    accounts = request.app.accounts
    address = request.raw.remote or ""
    recalled = accounts.recall(header, address)
    if recalled is not None:
        request.principal = recalled
        request.authenticated_by = "default"
        return
    moment = accounts.moment()
    scheme, _, encoded = header.partition(" ")
    if scheme != "Basic":
        return
    try:
        credentials = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return
    try:
        name, colon, password = credentials.decode().partition(":")
    except UnicodeDecodeError:
        name, colon, password = credentials.decode("latin-1").partition(":")
    if not colon or (name, password) == ("_", "_"):  # the pair by which a browser logs out
        return
    request.principal = await accounts.authenticate_basic(name, password, address)
    request.authenticated_by = "default"
    accounts.note(header, address, request.principal, moment)


def _require_valid_user(request: Request) -> None:
    config = request.server.config
    but_for_up = config.boolean("chttpd", "require_valid_user_except_for_up")
    if request.segments == ["_up"]:
        required = config.boolean("chttpd", "require_valid_user") and not but_for_up
    else:
        required = config.boolean("chttpd", "require_valid_user") or but_for_up
    if required and not (request.method == "POST" and request.segments == ["_session"]):
        raise Unauthorized("Authentication required.")


def session_cookie(request: Request, value: str) -> str:
    """The Set-Cookie header of a session; an empty value ends one."""
    config: Config = request.server.config
    parts = [f"AuthSession={value}", "Version=1"]
    if config.boolean("chttpd_auth", "allow_persistent_cookies"):
        lifetime_s = config.integer("chttpd_auth", "timeout")
        parts += [f"Expires={_cookie_date(lifetime_s)}", f"Max-Age={lifetime_s}"]
    if request.raw.secure:
        parts.append("Secure")
    if domain := config.text("chttpd_auth", "cookie_domain"):
        parts.append(f"Domain={domain}")
    parts += ["Path=/", "HttpOnly"]
    if same_site := _SAME_SITE.get(config.text("chttpd_auth", "same_site").lower()):
        parts.append(f"SameSite={same_site}")
    return "; ".join(parts)


def _cookie_date(from_now_s: int) -> str:
    """`Mon, 23-Nov-2026 01:06:08 GMT`, in the old manner, with dashes."""
    weekday, day, month, year, rest = formatdate(time.time() + max(from_now_s, 0), usegmt=True).split(" ", 4)
    return f"{weekday} {day}-{month}-{year} {rest}"
