"""The ends of `couchlite replicate`: what SOURCE and TARGET mean, opened as peers.

    http://host/name, https://...   a database of a server
    DIRECTORY:NAME                  a database of a data directory, whether it is served or not
    NAME                            one of --data-dir, or of the server at --url

What must stay true here: passwords come from addresses, options, the environment or a prompt, and go nowhere
but to their servers; what is printed is `Endpoint.url`, which has none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import click

from couchlite import users
from couchlite.catalog import SYSTEM_NAMES
from couchlite.config import Config
from couchlite.errors import DataDirectoryError
from couchlite.javascript import FunctionPool
from couchlite.security import SYSTEM
from couchlite.server import Server
from replicator import HttpPeer, Ledger, Limits, LocalPeer, Options, Peer, parse, tls_context

from .address import SCHEMES
from .main import Failure
from .stores import require_data_directory

STANDALONE = "couchlite replicate"
"""Stands for the server in the ids of replications between two servers that are not ours."""


@dataclass(frozen=True, slots=True)
class Access:
    """How one end is reached, as the options say; what stands in its address comes first."""

    user: str | None = None
    password: str | None = None
    token: str | None = None
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What SOURCE or TARGET means: `database` of `directory`, or else `endpoint` as _replicate takes it."""

    endpoint: Mapping[str, Any]
    directory: Path | None = None
    database: str = ""


def place(text: str, access: Access, data_dir: Path, url: str | None, what: str) -> Place:
    """:param what: "source" or "target", for prompts and messages."""
    if text.startswith(SCHEMES):
        return Place(_endpoint(text, access, what))
    directory, colon, name = text.rpartition(":")
    if not colon and url is not None:
        base = url if "://" in url else f"http://{url}"
        return Place(_endpoint(f"{base.rstrip('/')}/{quote(name, safe='')}", access, what))
    if name in SYSTEM_NAMES:
        raise Failure(f"{name} has rules that only a server keeps: name it by an http address")
    path = Path(directory) if colon else data_dir
    require_data_directory(path)
    # What is here only makes the parser of replications content; a local end is described by the next.
    shown = f"file://{quote(str(path.resolve()))}/{quote(name, safe='')}/"
    return Place({"url": "http://localhost/", "shown": shown}, path, name)


def _endpoint(url: str, access: Access, what: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Failure(f"the {what} has no valid address: {error}") from error
    if not parts.hostname or not parts.path.strip("/"):
        raise Failure(f"the {what} {_without_credentials(url)} names no database")
    user = unquote(parts.username) if parts.username else access.user
    password = unquote(parts.password) if parts.password is not None else access.password
    host = parts.netloc.rpartition("@")[2]
    assert port is None or port > 0
    endpoint: dict[str, Any] = {"url": urlunsplit((parts.scheme, host, parts.path, parts.query, ""))}
    if access.token is not None:
        endpoint["headers"] = {"Authorization": f"Bearer {access.token}"}
    elif user is not None:
        if password is None:
            password = _ask_password(user, host)
        endpoint["auth"] = {"basic": {"username": user, "password": password}}
    return endpoint


def _ask_password(user: str, host: str) -> str:
    if not sys.stdin.isatty():
        raise Failure(f"there is no password for {user} at {host}, and no terminal to ask on")
    password: str = click.prompt(f"Password of {user} at {host}", hide_input=True, err=True)
    return password


def _without_credentials(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


class Ends:
    """Everything a replication of this process needs, opened; to be closed by `close`."""

    def __init__(self, source: Place, target: Place, asked: Mapping[str, Any]) -> None:
        self._places = source, target
        self._servers: dict[Path, Server] = {}
        self._functions = FunctionPool()
        for found in self._places:
            if found.directory is not None:
                self._open_server(found.directory)
        # The ledger is where the documents go, or else where they come from.
        owners = [self._server(found) for found in (target, source) if found.directory is not None]
        owner = owners[0] if owners else None
        self.config = Config(_NoSettings()) if owner is None else owner.config
        self.uuid = STANDALONE if owner is None else owner.uuid
        self.ledger = None if owner is None else Ledger(owner.path, lambda: Limits.of(owner.config))
        body = {**asked, "source": source.endpoint, "target": target.endpoint}
        parsed = parse(body, self.config).options
        assert parsed is not None
        self.options: Options = replace(
            parsed,
            source=_described(parsed.source, source),
            target=_described(parsed.target, target),
        )

    def _open_server(self, directory: Path) -> None:
        key = directory.resolve()
        if key not in self._servers:
            try:
                self._servers[key] = Server(directory)
            except DataDirectoryError:
                self._close_servers()
                raise

    def _server(self, found: Place) -> Server:
        assert found.directory is not None
        return self._servers[found.directory.resolve()]

    def source(self) -> Peer:
        return self._peer(self._places[0], self.options.source)

    def target(self) -> Peer:
        return self._peer(self._places[1], self.options.target)

    def _peer(self, found: Place, endpoint: Any) -> Peer:
        if found.directory is None:
            return HttpPeer(endpoint, self.options, _tls(endpoint.url, self.config))
        server = self._server(found)
        if found.database == users.database_name(server.config):
            raise Failure(f"{found.database} has rules that only a server keeps: name it by an http address")
        return LocalPeer(server, self._functions, found.database, SYSTEM, endpoint.url)

    async def close(self) -> None:
        await self._functions.close()
        if self.ledger is not None:
            self.ledger.close()
        self._close_servers()

    def _close_servers(self) -> None:
        for server in self._servers.values():
            server.close()


def _described(endpoint: Any, found: Place) -> Any:
    return endpoint if found.directory is None else replace(endpoint, url=found.endpoint["shown"])


def _tls(url: str, config: Config) -> Any:
    if not url.startswith("https:"):
        return True
    try:
        return tls_context(config)
    except OSError as error:
        raise Failure(f"the TLS files of [replicator] can't be used: {error.strerror}") from error


class _NoSettings:
    """What a configuration is made of where there is no data directory: nothing but the defaults."""

    def set(self, key: str, value: str) -> None:
        raise AssertionError("nothing is set here")

    def delete(self, key: str) -> bool:
        return False

    def items(self, prefix: str = "") -> Iterable[tuple[str, str]]:
        return ()

    def version(self) -> int:
        return 0
