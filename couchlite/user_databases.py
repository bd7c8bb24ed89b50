"""A database for each user, as CouchDB's couch_peruser makes them: `userdb-` and the name in hexadecimal,
with the user as its only admin and member, while [couch_peruser] enable is on.

The changes of the users database are followed, from the first on, so that users who were there before get
theirs, too. How far that went is kept in a local document of the users database.

What must stay true here:
- One process of a server does it, whoever has the lock; when that one dies, another goes on.
- What was begun and not finished is done again: every step may be repeated, and none is taken for done before
  it is on disk.
- A user whose database can't be made doesn't keep the others from theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass
from typing import Any

from . import jsontext, users
from .catalog import validate_name
from .changes import ChangeRow
from .database import Database
from .errors import CouchliteError, DatabaseExists, DatabaseNotFound, IllegalDatabaseName, NotFound
from .file_lock import FileLock
from .records import DELETED
from .server import Server

LOOK_S = 1.0
"""How soon a changed setting, or a lock that has become free, is noticed."""
AGAIN_S = 5.0
LOCK_FILE = "user_databases.lock"
CHECKPOINT_ID = "_local/couch_peruser"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """The section [couch_peruser]."""

    users: str
    """The users database."""
    prefix: str
    shards: int
    deletes: bool

    def name_of(self, user: str) -> str:
        """The database of a user."""
        return self.prefix + "".join(f"{byte:x}" for byte in user.encode())


class UserDatabases:
    """Makes and deletes the databases of a server's users as long as `run` runs.

    :param again_s: the pause after something has failed.
    """

    def __init__(self, server: Server, *, again_s: float = AGAIN_S) -> None:
        self._server = server
        self._again_s = again_s
        self._lock = FileLock(server.path / "run" / LOCK_FILE)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Return after `stop`, with the step finished that is under way."""
        while not self._stopping.is_set():
            options = self._options()
            lock = self._lock.acquire() if options is not None else None
            if options is None or lock is None:
                await self._pause(LOOK_S)
                continue
            try:
                await self._follow(options)
            except (CouchliteError, OSError) as error:
                logger.error("the databases of users can't be made: %s", error)
                await self._pause(self._again_s)
            finally:
                os.close(lock)

    def stop(self) -> None:
        self._stopping.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _options(self) -> Options | None:
        """None: nothing is to be done."""
        config = self._server.config
        if not config.boolean("couch_peruser", "enable"):
            return None
        return Options(
            users.database_name(config),
            config.text("couch_peruser", "database_prefix"),
            config.integer("couch_peruser", "q"),
            config.boolean("couch_peruser", "delete_dbs"),
        )

    # Following

    async def _follow(self, options: Options) -> None:
        """Return when the options change, or the server stops.

        :raises IllegalDatabaseName: no database can have that prefix. :raises DatabaseNotFound: there is no
            users database.
        """
        validate_name(options.prefix)
        database = self._server.open(options.users)
        done = await asyncio.to_thread(_checkpoint, database, options)
        await self._make_missing(database, options, done)
        while self._is_wanted(options):
            if database.gone:
                raise DatabaseNotFound
            rows = await asyncio.to_thread(database.changes_page, done)
            if not rows:
                await database.feed.wait_past(done, LOOK_S)
                continue
            for row in rows:
                if not self._is_wanted(options):
                    break
                await asyncio.to_thread(self._handle, row, options)
                done = row.seq
            await asyncio.to_thread(_store_checkpoint, database, options, done)

    def _is_wanted(self, options: Options) -> bool:
        return not self._stopping.is_set() and self._options() == options

    async def _make_missing(self, database: Database, options: Options, done: int) -> None:
        """Make again what somebody has deleted of what was `done`, as CouchDB does when it starts."""
        at = 0
        names = set(await asyncio.to_thread(self._server.names))
        while self._is_wanted(options) and at < done:
            rows = await asyncio.to_thread(database.changes_page, at)
            for row in rows:
                user = users.name_of(row.id.decode())
                if (
                    row.seq <= done
                    and not row.flags & DELETED
                    and user
                    and options.name_of(user) not in names
                ):
                    await asyncio.to_thread(self._handle, row, options)
            at = rows[-1].seq if rows else done

    def _handle(self, row: ChangeRow, options: Options) -> None:
        user = users.name_of(row.id.decode())
        if not user:
            return
        try:
            if not row.flags & DELETED:
                self._grant(user, options)
                return
            with contextlib.suppress(DatabaseNotFound):
                if options.deletes:
                    self._server.delete(options.name_of(user))
                else:
                    self._revoke(user, options)
        except IllegalDatabaseName as error:
            logger.warning("the user %r gets no database: %s", user, error)

    def _grant(self, user: str, options: Options) -> None:
        name = options.name_of(user)
        try:
            database = self._server.open(name)
        except DatabaseNotFound:
            try:
                database = self._server.create(name, shards=options.shards)
            except DatabaseExists:
                database = self._server.open(name)
        before = database.security
        after = _with(before, user)
        if after != before:
            database.set_security(after)

    def _revoke(self, user: str, options: Options) -> None:
        database = self._server.open(options.name_of(user))
        before = database.security
        after = _without(before, user)
        if after != before:
            database.set_security(after)


def _with(security: dict[str, Any], user: str) -> dict[str, Any]:
    changed = dict(security)
    for group in ("admins", "members"):
        members = changed.get(group, {})
        names = members.get("names", [])
        if user not in names:
            changed[group] = {**members, "names": [user, *names]}
    return changed


def _without(security: dict[str, Any], user: str) -> dict[str, Any]:
    changed = dict(security)
    for group in ("admins", "members"):
        names = changed.get(group, {}).get("names", [])
        if user in names:
            changed[group] = {**changed[group], "names": [name for name in names if name != user]}
    return changed


def _checkpoint(database: Database, options: Options) -> int:
    """The sequence number up to which everything was done, for these options."""
    try:
        with database.snapshot() as snapshot:
            stored = jsontext.loads(snapshot.local(CHECKPOINT_ID).body)
    except NotFound:
        return 0
    return int(stored["seq"]) if stored.get("prefix") == options.prefix else 0


def _store_checkpoint(database: Database, options: Options, seq: int) -> None:
    body = jsontext.dumps({"seq": seq, "prefix": options.prefix})
    database.submit_local(CHECKPOINT_ID, 0, body).result()
