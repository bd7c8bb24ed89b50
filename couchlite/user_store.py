"""User documents in their database: finding one for authentication, storing a better hash of its password."""

from __future__ import annotations

import logging

from . import document, jsontext, records, users
from .accounts import Accounts, UserDocument
from .errors import CouchliteError, NotFound
from .lockout import Failures
from .server import Server

CACHED_MAX = 10_000
"""Parsed documents kept; each is a kilobyte or so."""

logger = logging.getLogger(__name__)


class UserStore:
    """The documents of `_users`, read anew on every look, parsed only when they changed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parsed: dict[str, tuple[tuple[str, int, int], UserDocument]] = {}

    def find(self, name: str) -> UserDocument | None:
        """The document of a user; None if there is none, or it is deleted."""
        try:
            database = self._server.open(users.database_name(self._server.config))
            with database.snapshot() as snapshot:
                row = snapshot.doc_row(users.PREFIX + name)
                if row is None or row.flags & records.DELETED:
                    return None
                # A body never changes under its number.
                state = (database.uuid, row.body, row.flags)
                cached = self._parsed.get(name)
                if cached is not None and cached[0] == state:
                    return cached[1]
                body, _ = snapshot.body(row.body)
        except (NotFound, UnicodeEncodeError):
            return None
        found = UserDocument(jsontext.loads(body), bool(row.flags & records.CONFLICTED))
        if len(self._parsed) >= CACHED_MAX:
            self._parsed.clear()
        self._parsed[name] = state, found
        return found

    def rehash(self, name: str, password: str) -> None:
        """Replace the hash of a password that was verified by one as the configuration asks for. Slow.

        The salt stays, so that sessions go on and two servers that do this at once agree on the revision.
        """
        try:
            database = self._server.open(users.database_name(self._server.config))
            stored = database.get(users.PREFIX + name)
            fresh = users.hash_password(
                {**stored, "password": password, "preserve_salt": True}, self._server.config
            )
            database.update([document.parse(dict(fresh))])
        except CouchliteError as error:
            logger.info("the password hash of user %r was not upgraded: %s", name, error)


def open_accounts(server: Server, failures: Failures | None = None) -> Accounts:
    """The accounts of a server, on its `_users` database."""
    store = UserStore(server)
    return Accounts(
        server.config, store.find, failures=failures, outdated=store.rehash, beacon=server.catalog.beacon
    )
