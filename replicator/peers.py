"""From an endpoint to a peer: a URL that names a database of this very server is opened in-process, after the
credentials were checked as a request's would be; everything else is asked over HTTP."""

from __future__ import annotations

import re
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from couchlite import users
from couchlite.accounts import Accounts
from couchlite.errors import CouchliteError, Forbidden, Unauthorized
from couchlite.javascript import FunctionPool
from couchlite.security import ANONYMOUS, Principal
from couchlite.server import Server

from .errors import EndpointRefused, ReplicationError
from .http_client import LOOPBACK, tls_context
from .http_peer import HttpPeer
from .local_peer import LocalPeer
from .options import Endpoint, Options
from .peer import Peer

BUILT_IN_FILTERS = (None, "_design")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_AUTH_SESSION = re.compile(r'(?:^|;)\s*AuthSession="?([^;"\s]*)')
# What says who is asking in a way that only the HTTP API understands.
_FOREIGN_CREDENTIALS = ("authorization",)


@dataclass(frozen=True, slots=True)
class Here:
    """Where this server listens."""

    scheme: str
    hosts: Collection[str]
    port: int

    def is_named_by(self, url: str) -> bool:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        return (parts.scheme, port) == (self.scheme, self.port) and parts.hostname in self.hosts


class Peers:
    """Makes the peers of replications that run in this process."""

    def __init__(self, server: Server, accounts: Accounts, functions: FunctionPool, here: Here) -> None:
        self._server = server
        self._accounts = accounts
        self._functions = functions
        self._here = here

    def database_followed(self, options: Options) -> str | None:
        """The name of the source, if it is a database of this server; what it is read by doesn't matter."""
        return self._local_name(options.source)

    async def source(self, options: Options) -> Peer:
        # Filter functions, and views as filters, are run by the HTTP API.
        is_plain = options.filter in BUILT_IN_FILTERS and not options.query_params
        return await self._peer(options.source, options, may_be_local=is_plain)

    async def target(self, options: Options) -> Peer:
        return await self._peer(options.target, options, may_be_local=True)

    async def _peer(self, endpoint: Endpoint, options: Options, *, may_be_local: bool) -> Peer:
        name = self._local_name(endpoint) if may_be_local else None
        if name is None:
            return HttpPeer(endpoint, options, self._tls(endpoint))
        try:
            principal = await self._principal(endpoint)
        except Forbidden as error:
            raise EndpointRefused.forbidden(endpoint.url) from error
        except CouchliteError as error:
            raise EndpointRefused.unauthorized(endpoint.url) from error
        return LocalPeer(self._server, self._functions, name, principal, endpoint.url)

    def _local_name(self, endpoint: Endpoint) -> str | None:
        """The name of the database of this server that an endpoint means, if it may be opened directly: those
        of the system have rules of their own, which are the HTTP API's."""
        parts = urlsplit(endpoint.url)
        segments = [segment for segment in parts.path.split("/") if segment]
        if endpoint.proxy or parts.query or len(segments) != 1 or not self._here.is_named_by(endpoint.url):
            return None
        proxied = self._server.config.text("chttpd_auth", "x_auth_username").lower()
        if any(name.lower() in (*_FOREIGN_CREDENTIALS, proxied) for name, _text in endpoint.headers):
            return None
        name = unquote(segments[0].replace("+", " "))
        special = (users.database_name(self._server.config), "_users", "_replicator")
        return None if name in special or name.endswith("/_replicator") else name

    async def _principal(self, endpoint: Endpoint) -> Principal:
        """:raises CouchliteError: the credentials are wrong, or there are none where some are needed."""
        if endpoint.username is not None:
            address = LOOPBACK[0]
            return await self._accounts.authenticate_basic(endpoint.username, endpoint.password, address)
        for name, text in endpoint.headers:
            match = _AUTH_SESSION.search(text) if name.lower() == "cookie" else None
            found = self._accounts.authenticate_cookie(match[1]) if match is not None else None
            if found is not None:
                return found[0].principal
        config = self._server.config
        for setting in ("require_valid_user", "require_valid_user_except_for_up"):
            if config.boolean("chttpd", setting):
                raise Unauthorized("Authentication required.")
        return ANONYMOUS

    def _tls(self, endpoint: Endpoint) -> ssl.SSLContext | bool:
        if not endpoint.url.startswith("https:"):
            return True
        try:
            return tls_context(self._server.config)
        except OSError as error:
            raise ReplicationError("tls_error", f"the TLS files of [replicator]: {error.strerror}") from error
