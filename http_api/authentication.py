"""Who sends a request: asked of the handlers that [chttpd] authentication_handlers names, in that order,
until one knows. CouchDB's default are session cookies, then HTTP Basic; there are also JSON Web Tokens, and
headers set by a proxy that has authenticated its users.

There is no admin party: a request without credentials is anonymous, and gets what anonymous users get.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from multidict import istr

from couchlite import cookies, erlang_terms
from couchlite.config import Config
from couchlite.erlang_terms import Atom
from couchlite.errors import Unauthorized
from couchlite.key_sets import KeySets
from couchlite.security import Principal
from couchlite.tokens import Tokens, split_roles

from . import issuers

if TYPE_CHECKING:
    from .request import Request

_AUTHORIZATION = istr("Authorization")
_COOKIE = istr("Cookie")
_AUTH_SESSION = re.compile(r'(?:^|;)\s*AuthSession="?([^;"\s]*)')
_SAME_SITE = {"none": "None", "lax": "Lax", "strict": "Strict"}

logger = logging.getLogger(__name__)


class Authentication:
    """The handlers that are configured, and what the handler of tokens needs."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._key_sets = KeySets(config, issuers.fetch)
        self.tokens = Tokens(config, self._key_sets)
        self._handlers: tuple[object, tuple[str, ...]] = (None, ())

    async def close(self) -> None:
        await self._key_sets.close()

    def handlers(self) -> tuple[str, ...]:
        """Their names, as `GET /_session` lists them."""
        state = self._config.as_dict()
        known, names = self._handlers
        if known is not state:
            names = handler_names(self._config.text("chttpd", "authentication_handlers"))
            self._handlers = state, names
        return names

    async def authenticate(self, request: Request) -> None:
        """Set `principal` and `authenticated_by` of the request, and the cookie that renews its session.

        :raises Unauthorized: wrong credentials, or none where [chttpd] require_valid_user asks for them.
        :raises BadRequest: a cookie or token that isn't one. :raises Forbidden: too many wrong passwords.
        """
        for name in self.handlers():
            await HANDLERS[name](request)
            if request.authenticated_by is not None:
                return
        _require_valid_user(request)


def handler_names(text: str) -> tuple[str, ...]:
    """The handlers that [chttpd] authentication_handlers names, in its form: `{module, function}, ...`.

    What isn't known is passed over; if nothing is left, those of the default are used, for else nobody could
    ever correct the mistake.
    """
    try:
        specified = erlang_terms.parse(f"[{text}]")
    except ValueError:
        specified = []
    names = []
    for term in specified if isinstance(specified, list) else []:
        match term:
            case (Atom("chttpd_auth" | "couch_httpd_auth"), Atom(function)) if function in FUNCTIONS:
                names.append(FUNCTIONS[function])
            case _:
                logger.error("[chttpd] authentication_handlers: %s is unknown", term)
    if not names:
        logger.error("[chttpd] authentication_handlers names none; the default is used instead")
        return ("cookie", "default")
    return tuple(names)


async def _by_cookie(request: Request) -> None:
    header = request.headers.get(_COOKIE)
    if header is None:
        return
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


async def _by_password(request: Request) -> None:
    """A header that holds no name and password counts as no header at all."""
    header = request.headers.get(_AUTHORIZATION)
    if header is None or not header.startswith("Basic "):
        return
    accounts = request.app.accounts
    address = request.raw.remote or ""
    recalled = accounts.recall(header, address)
    if recalled is not None:
        request.principal = recalled
        request.authenticated_by = "default"
        return
    moment = accounts.moment()
    try:
        credentials = base64.b64decode(header.removeprefix("Basic "), validate=True)
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


async def _by_token(request: Request) -> None:
    """A JSON Web Token in `Authorization: Bearer`."""
    header = request.headers.get(_AUTHORIZATION)
    if header is None or not header.startswith("Bearer "):
        return
    accounts = request.app.accounts
    address = request.raw.remote or ""
    principal = accounts.recall(header, address)
    if principal is None:
        moment = accounts.moment()
        token = header.removeprefix("Bearer ")
        principal, expires_s = await request.app.authentication.tokens.authenticate(token)
        accounts.note(header, address, principal, moment, lifetime_s=expires_s - time.time())
    request.principal = principal
    request.authenticated_by = "jwt"


async def _by_proxy(request: Request) -> None:
    """Name and roles in headers of a proxy. With [chttpd_auth] proxy_use_secret it must prove by a token
    that it knows the server's secret; without, it must be the only one who can reach the server."""
    config: Config = request.server.config
    headers = request.headers
    name = headers.get(config.text("chttpd_auth", "x_auth_username"))
    if not name:
        return
    secret = config.get("chttpd_auth", "secret")
    if config.boolean("chttpd_auth", "proxy_use_secret") and secret is not None:
        token = headers.get(config.text("chttpd_auth", "x_auth_token"), "")
        expected = (
            hmac.digest(secret.encode(), _sent(name), algorithm).hex()
            for algorithm in cookies.algorithms(config)
        )
        if not any(hmac.compare_digest(_sent(token), digest.encode()) for digest in expected):
            return
    roles = headers.get(config.text("chttpd_auth", "x_auth_roles"))
    request.principal = Principal(name, () if roles is None else split_roles(roles))
    request.authenticated_by = "proxy"


def _sent(header: str) -> bytes:
    """The bytes of a header's value, as they came."""
    return header.encode("utf-8", "surrogateescape")


HANDLERS = {"cookie": _by_cookie, "default": _by_password, "jwt": _by_token, "proxy": _by_proxy}
FUNCTIONS = {
    "cookie_authentication_handler": "cookie",
    "default_authentication_handler": "default",
    "jwt_authentication_handler": "jwt",
    "proxy_authentication_handler": "proxy",
    "proxy_authentification_handler": "proxy",
}
"""CouchDB's name of a handler -> ours (its first word, as CouchDB shows it)."""


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
