"""The address of a server, and who logs in to it, as commands are given them."""

from __future__ import annotations

import base64
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from .main import Failure

SCHEMES = ("http://", "https://")


class Address(NamedTuple):
    base: str
    """Without credentials and without a slash at its end."""
    user: str | None
    password: str | None

    @property
    def authorization(self) -> str | None:
        """The header that logs in."""
        if self.user is None:
            return None
        return "Basic " + base64.b64encode(f"{self.user}:{self.password or ''}".encode()).decode()

    @staticmethod
    def parse(url: str, user: str | None = None, password: str | None = None) -> Address:
        """:param url: may hold a user and a password, which win over those given beside it.
        :raises Failure: it is no address of a server.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure(f"{url} is no address of a server")
        host = parts.netloc.rpartition("@")[2]
        base = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
        return Address(base, user, password)
