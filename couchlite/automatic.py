"""Conflicts resolved by themselves, where a database's settings say so.

One task, in one process of a server. It looks at what has changed in those databases since it last looked,
and settles what the resolvers can settle. How far it has come is stored with each database, in META under
`resolving`: JSON of `settings` (what they were, as a digest), `seq` (all changes up to there were looked at)
and, while it goes through all conflicts since the settings are new, `at` (the document to go on from).

What must stay true here:

1. It never holds up a write: it is a writer like any other, after the writes that made the conflict.
2. Two servers whose resolvers disagree would resolve each other's resolutions for ever. So a document that
   was resolved often within an hour is left alone.
3. What somebody has undone isn't done again; not until the document has changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass, replace

from . import jsontext, records, resolver_settings
from .catalog import RESOLVERS_PREFIX
from .database import Database
from .engine import Space
from .errors import DatabaseNotFound, NotFound
from .javascript import FunctionPool
from .merging.resolvers import LeftAlone, Manual
from .merging.settings import Settings
from .resolution_log import Resolution
from .resolving import Outcome, Refuse, Resolving
from .server import Server

POLL_S = 1.0
LOOK_AT_ALL_S = 600.0
"""All databases are looked at: a process may have died between a commit and its entry in the log."""
PAGE_DOCUMENTS = 100
"""After so many documents of one database, others have their turn."""
AT_ONCE = 8
"""So many documents share a commit, and have their leaves in memory."""
PROGRESS_CHANGES = 10_000
"""Progress past so many changes is stored, though none of them was a conflict."""
RESOLUTIONS_MAX = 10
RESOLUTIONS_PERIOD_MS = 3600 * 1000

log = logging.getLogger("couchlite")


@dataclass(frozen=True, slots=True)
class _Progress:
    settings: str
    seq: int
    at: str | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    settings: Settings
    digest: str


class AutomaticResolution:
    """:param functions: run resolvers and validation functions of design documents.
    :param refuse: as for `Resolving`.
    """

    def __init__(self, server: Server, functions: FunctionPool, *, refuse: Refuse | None = None) -> None:
        self._server = server
        self._functions = functions
        self._refuse = refuse
        self._wanted: dict[str, _Wanted] = {}
        self._version = -1
        self._pending: set[str] = set()
        """The databases that may have moved, by uuid."""
        self._logged = server.catalog.last_update()
        self._progress: dict[str, _Progress] = {}
        self._stored: dict[str, _Progress] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        all_looked_at_s = -LOOK_AT_ALL_S
        while True:
            is_due = time.monotonic() - all_looked_at_s >= LOOK_AT_ALL_S
            if is_due:
                all_looked_at_s = time.monotonic()
            try:
                more = await self.look(everywhere=is_due)
            except Exception:  # such as a full disk, which may pass
                log.exception("looking for conflicts to resolve failed")
                more = False
            if not more:
                await asyncio.sleep(POLL_S)

    async def look(self, *, everywhere: bool) -> bool:
        """Do some of what there is to do in each database that has moved; whether there may be more.

        :param everywhere: look at the others too.
        """
        more = False
        self._read_settings()
        self._read_moves()
        if everywhere:
            self._pending.update(self._wanted)
        for uuid in list(self._pending):
            wanted = self._wanted[uuid]
            self._pending.discard(uuid)
            try:
                database = self._server.open(wanted.name)
                if database.uuid == uuid and await self._look_at(database, wanted):
                    self._pending.add(uuid)
                    more = True
            except DatabaseNotFound:
                continue
            except Exception:
                log.exception("resolving the conflicts of %s failed", wanted.name)
        return more

    def _read_moves(self) -> None:
        """Which databases have moved, by the log behind `_db_updates`."""
        rows = self._server.catalog.updates(self._logged) if self._wanted else []
        if rows:
            self._logged = rows[-1][0]
            moved = {name for _seq, name, _kind in rows}
            self._pending.update(uuid for uuid, wanted in self._wanted.items() if wanted.name in moved)

    def _read_settings(self) -> None:
        catalog = self._server.catalog
        version = catalog.settings.version()
        if version != self._version:
            self._version = version
            self._wanted = {}
            for uuid, (name, settings) in resolver_settings.automatic(catalog).items():
                text = catalog.settings.get(RESOLVERS_PREFIX + uuid) or ""
                digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
                self._wanted[uuid] = _Wanted(name, settings, digest)
            self._pending = set(self._wanted)

    # --- one database

    async def _look_at(self, database: Database, wanted: _Wanted) -> bool:
        progress = self._progress.get(database.uuid) or _stored(database)
        newest = database.state().update_seq
        if progress is None or progress.settings != wanted.digest:
            progress = _Progress(wanted.digest, newest, "")
        if progress.at is None and progress.seq == newest:
            return False
        if progress.at is not None:
            ids, further = _conflicts(database, progress)
        else:
            ids, further = _changed(database, progress, newest)
        for start in range(0, len(ids), AT_ONCE):
            batch = ids[start : start + AT_ONCE]
            await asyncio.gather(*(self._settle(database, one, wanted.settings) for one in batch))
        self._progress[database.uuid] = further
        stored = self._stored.get(database.uuid)
        far = stored is None or further.seq - stored.seq >= PROGRESS_CHANGES
        if ids or far or progress.at is not None:
            await asyncio.to_thread(_store, database, further)
            self._stored[database.uuid] = further
        return True

    async def _settle(self, database: Database, doc_id: str, settings: Settings) -> None:
        try:
            reason = _why_not(database, doc_id)
            if reason is not None:
                outcome = Outcome(doc_id, (), Manual.name, LeftAlone(reason))
            else:
                resolving = Resolving(database, self._functions, refuse=self._refuse)
                outcome = await resolving.resolve(doc_id, settings)
        except NotFound:
            return  # it is no conflict any more
        except Exception:  # of one document; the others are none the worse for it
            log.exception("%s: resolving the conflict of %s failed", database.name, doc_id)
            return
        _report(database, outcome)


def _why_not(database: Database, doc_id: str) -> str | None:
    """Why a document isn't to be resolved by itself, whatever the settings say."""
    with database.snapshot() as snapshot:
        recent = snapshot.resolutions(doc_id=doc_id, limit=RESOLUTIONS_MAX)
        leaves = snapshot.inspect(doc_id).revs
    if recent and recent[0].undoes is not None and recent[0].into in leaves:
        return "its resolution was undone"
    if _is_often(recent):
        return f"it was resolved {RESOLUTIONS_MAX} times within an hour; do other servers resolve otherwise?"
    return None


def _is_often(recent: list[Resolution]) -> bool:
    now_ms = time.time() * 1000
    return len(recent) == RESOLUTIONS_MAX and now_ms - recent[-1].time_ms < RESOLUTIONS_PERIOD_MS


def _report(database: Database, outcome: Outcome) -> None:
    if isinstance(outcome.proposal, LeftAlone):
        what = (database.name, outcome.id, outcome.resolver, outcome.proposal.reason)
        log.info("%s: the conflict of %s was left alone by %s: %s", *what)
    elif outcome.done is not None:
        lost = f", overruling {', '.join(outcome.proposal.overruled)}" if outcome.proposal.overruled else ""
        what = (database.name, outcome.id, outcome.resolver, outcome.done.into.text)
        log.info("%s: the conflict of %s was resolved by %s: %s%s", *what, lost)


# --- what to look at


def _conflicts(database: Database, progress: _Progress) -> tuple[list[str], _Progress]:
    """The next of all conflicts, and the progress once they are settled."""
    with database.snapshot() as snapshot:
        page = snapshot.conflicts((progress.at or "").encode(), limit=PAGE_DOCUMENTS)
    at = None if page.resume is None else page.resume.decode()
    return [row.id for row in page.rows], replace(progress, at=at)


def _changed(database: Database, progress: _Progress, newest: int) -> tuple[list[str], _Progress]:
    """The next conflicts among what has changed; `newest` is where the database was before."""
    ids: list[str] = []
    seq = progress.seq
    rows = database.changes_page(seq)
    if not rows:  # a purge has no row
        return ids, replace(progress, seq=newest)
    for row in rows:
        seq = row.seq
        if row.flags & records.CONFLICTED:
            ids.append(row.id.decode())
            if len(ids) == PAGE_DOCUMENTS:
                break
    return ids, replace(progress, seq=seq)


# --- progress


def _stored(database: Database) -> _Progress | None:
    with database.engine.read() as reader:
        text = reader.get(Space.META, records.RESOLVING_KEY)
    return None if text is None else _Progress(**jsontext.loads(text))


def _store(database: Database, progress: _Progress) -> None:
    text = jsontext.dumps({"settings": progress.settings, "seq": progress.seq, "at": progress.at})
    database.writer.submit(lambda txn: txn.kv.put(Space.META, records.RESOLVING_KEY, text)).result()
