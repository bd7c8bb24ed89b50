"""Options that say where conflicts are, and what they lead to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from couchlite.errors import CouchliteError
from couchlite.server import Server

from ..address import SCHEMES
from ..main import Failure
from ..options import place_options
from ..remote_store import TIMEOUT_S, RemoteStore, path_to
from ..stores import require_data_directory
from .foreign import ForeignPlace
from .local import LocalPlace
from .places import ConflictPlace
from .served import ServedPlace


class Places:
    """The databases of a data directory or of a server, and any other that is named by its address."""

    def __init__(
        self,
        data_dir: Path,
        url: str | None,
        user: str | None,
        password: str | None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._data_dir = data_dir
        self._url = url
        self._login = user, password
        self._timeout_s = timeout_s
        self._server: Server | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    def names(self) -> list[str]:
        """All databases."""
        if self._url is None:
            return self._directory().names()
        return self._remote(self._url).names()

    def open(self, database: str) -> ConflictPlace:
        """A database, named by its name or address.

        :raises NotFound: there is none.
        """
        if database.startswith(SCHEMES):
            parts = urlsplit(database)
            rest, _, name = parts.path.rstrip("/").rpartition("/")
            if not name:
                raise Failure(f"{parts.hostname} is a server: the address of a database is needed, or --url")
            base = urlunsplit((parts.scheme, parts.netloc, rest, "", ""))
            return self._remote_place(base, unquote(name))
        if self._url is None:
            return LocalPlace(self._directory(), database)
        return self._remote_place(self._url, database)

    def _directory(self) -> Server:
        if self._server is None:
            require_data_directory(self._data_dir)
            self._server = Server(self._data_dir)
        return self._server

    def _remote(self, url: str) -> RemoteStore:
        return RemoteStore(url, *self._login, timeout_s=self._timeout_s)

    def _remote_place(self, url: str, name: str) -> ConflictPlace:
        server = self._remote(url)
        try:
            if "rows" in server.ask("GET", path_to(name, "_conflicts") + "?limit=0"):
                return ServedPlace(server, name)
        except CouchliteError as error:
            if error.status in (401, 403):
                raise
        server.ask("GET", path_to(name))  # which says so if there is no such database
        return ForeignPlace(server, name)


def on_places(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command options that say where the databases are, and `Places` as its first argument."""

    @place_options
    @functools.wraps(function)
    def command(
        data_dir: Path, url: str | None, user: str | None, password: str | None, **arguments: Any
    ) -> None:
        with Places(data_dir, url, user, password) as places:
            function(places, **arguments)

    return command
