"""The server under examination, and what is known of it so far."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from .clients import Client
from .wire import Reply, Wire


class Patient:
    """:param clients: from whose point of view it is looked at.
    :param origins: of the pages in which clients run, if they are not known by the client.
    """

    def __init__(self, wire: Wire, clients: Sequence[Client], origins: Sequence[str]) -> None:
        self.wire = wire
        self.clients = clients
        self.given_origins = tuple(origins)
        self.answers = False
        """Whether it is worth going on."""
        self.welcome: Reply | None = None
        self.is_admin = False
        self.config: Mapping[str, Mapping[str, str]] | None = None
        """None: it can't be read."""

    @property
    def server(self) -> str:
        """How it calls itself; a proxy may have added its own name, as browsers see both."""
        return "" if self.welcome is None else ", ".join(self.welcome.headers.get_all("Server") or ())

    @property
    def is_couchlite(self) -> bool:
        return "couchlite" in self.server

    @property
    def version(self) -> tuple[int, ...]:
        """Of CouchDB; nothing if it isn't told."""
        fields: Mapping[str, Any] = {} if self.welcome is None else self.welcome.fields
        parts = str(fields.get("version", "")).split(".")
        return tuple(int(part) for part in parts if part.isdigit())

    def setting(self, section: str, key: str) -> str:
        """As the configuration lists it."""
        return (self.config or {}).get(section, {}).get(key, "")

    def origins_of(self, client: Client) -> tuple[str, ...]:
        if client.origins or self.given_origins:
            return client.origins + self.given_origins
        listed = [origin.strip() for origin in self.setting("cors", "origins").split(",")]
        return tuple(origin for origin in listed if origin and origin != "*")

    # repairs

    def curl(self, method: str, path: str, body: Any = None) -> str:
        """The command that makes a request."""
        user = f" -u {shlex.quote(self.wire.user)}" if self.wire.user else ""
        data = "" if body is None else f" -d {shlex.quote(json.dumps(body))}"
        kind = " -H 'Content-Type: application/json'" if isinstance(body, dict) else ""
        return f"curl -X {method}{user}{kind} {shlex.quote(self.wire.base + path)}{data}"

    def set_command(self, section: str, key: str, value: str) -> str:
        """The command that changes a setting."""
        return self.curl("PUT", f"/_node/_local/_config/{section}/{key}", value)
