"""Requests as clients make them, byte for byte: paths are sent as they are given, redirects are not followed,
and an answer that is on its way can be read line by line.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from couchlite.errors import CouchliteError
from couchlite.jsontext import dumps, loads

from ..address import Address

TIMEOUT_S = 15.0
BODY_MAX_BYTES = 64 << 20
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Headers = http.client.HTTPMessage


class Unreachable(Exception):
    """There was no answer; says why in one line."""


class Reply(NamedTuple):
    status: int
    headers: Headers
    body: bytes
    version: int
    """Of HTTP: 10 or 11."""

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return loads(self.body)
        except CouchliteError:
            return None

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body if it is a JSON object, else nothing."""
        value = self.json
        return value if isinstance(value, dict) else {}

    @property
    def problem(self) -> str:
        """Status and reason, for a line of text."""
        reason = str(self.fields.get("reason", ""))
        return f"{self.status} {reason or http.client.responses.get(self.status, '')}".strip()


class Wire:
    """:param tls: for https; None: certificates are verified as usual.
    :param sends_credentials: without it nobody logs in.
    """

    def __init__(self, address: Address, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(address.base)
        self.base = address.base
        self.user = address.user
        self.is_https = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.is_https else 80)
        self.prefix = parts.path
        self.tls = tls or ssl.create_default_context()
        self._authorization = address.authorization

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK

    @property
    def logs_in(self) -> bool:
        return self._authorization is not None

    def forget_credentials(self) -> None:
        self._authorization = None

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        auth: bool = True,
    ) -> Reply:
        """One request on a connection of its own; a body that isn't bytes is sent as JSON.

        :raises Unreachable: no answer came, or none that is HTTP.
        """
        with self.opened(method, path, body, headers, auth=auth) as response:
            with _as_unreachable():
                content = response.read(BODY_MAX_BYTES)
            return Reply(response.status, response.headers, content, response.version)

    @contextlib.contextmanager
    def opened(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        auth: bool = True,
        timeout_s: float = TIMEOUT_S,
    ) -> Iterator[http.client.HTTPResponse]:
        """The response once it has begun. :raises Unreachable: it doesn't."""
        with contextlib.closing(self.connection(timeout_s)) as connection:
            yield self.send(connection, method, path, body, headers, auth=auth)

    def send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        auth: bool = True,
    ) -> http.client.HTTPResponse:
        """A request on a connection that is kept. :raises Unreachable:"""
        data = body if body is None or isinstance(body, bytes) else dumps(body)
        with _as_unreachable():
            connection.request(method, self.prefix + path, data, self._headers(body, headers, auth))
            return connection.getresponse()

    def first_status(self, method: str, path: str, length: int) -> int | None:
        """What is answered to the announcement of a body of that length, none of which is sent: 100 if it is
        welcome; None: nothing. :raises Unreachable:"""
        fields = {"Content-Length": str(length), "Expect": "100-continue", "Content-Type": "application/json"}
        with contextlib.closing(self.connection(TIMEOUT_S)) as connection:
            with _as_unreachable():
                connection.putrequest(method, self.prefix + path)
                for name, value in self._headers(None, fields, True).items():
                    connection.putheader(name, value)
                connection.endheaders()
            connection.sock.settimeout(5)
            try:
                line = connection.sock.recv(64)
            except OSError:
                return None
        parts = line.split(b" ", 2)
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None

    def connection(self, timeout_s: float = TIMEOUT_S) -> http.client.HTTPConnection:
        if self.is_https:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=self.tls)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)

    def _headers(self, body: Any, headers: Mapping[str, str] | None, auth: bool) -> dict[str, str]:
        fields = {"Accept": "application/json", "User-Agent": "couchlite doctor"}
        if body is not None:
            fields["Content-Type"] = "application/json"
        if auth and self._authorization is not None:
            fields["Authorization"] = self._authorization
        return fields | dict(headers or {})


@contextlib.contextmanager
def _as_unreachable() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Unreachable("no answer in time") from error
    except socket.gaierror as error:
        raise Unreachable(f"the name can't be resolved ({error.strerror})") from error
    except ssl.SSLCertVerificationError:
        raise
    except OSError as error:
        raise Unreachable(error.strerror or str(error) or type(error).__name__) from error
    except http.client.HTTPException as error:
        raise Unreachable(f"what answers doesn't speak HTTP ({type(error).__name__})") from error
