"""The asyncio way into a database: what waits for a commit or for news is awaited, reads are as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from . import document
from .compact import LEAVES_ONLY, Compaction, Retention
from .database import Database
from .errors import CouchliteError
from .merging.rules import Rules
from .merging.values import Merged
from .resolution_log import Resolution
from .revision import Rev


class AsyncDatabase:
    """A Database for one event loop. Reads are microseconds, so `database` may be read directly.

    Writes of concurrent tasks commit together: gather them rather than await one after the other.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, doc_id: str) -> dict[str, Any]:
        """See Database.get."""
        return self.database.get(doc_id)

    async def put(self, doc: Mapping[str, Any]) -> str:
        """Store a document by its `_id`, on top of its `_rev` if it has one; the new revision.

        :raises Conflict:
        """
        edit = document.parse(dict(doc))
        if edit.attachments:
            await asyncio.to_thread(self.database.stage_attachments, [edit])
        result = (await asyncio.wrap_future(self.database.submit_edits([edit])))[0]
        if isinstance(result, CouchliteError):
            raise result
        return str(result)

    async def delete(self, doc_id: str, rev: str) -> str:
        """Delete a document's revision; the tombstone's revision. :raises Conflict:"""
        return await self.put({"_id": doc_id, "_rev": rev, "_deleted": True})

    async def changes(self, since: str = "0") -> AsyncIterator[dict[str, Any]]:
        """Changes after `since`, then those that come, until the database is gone; as Database.changes."""
        database = self.database
        at = database.parse_seq(since)
        while not database.gone:
            rows = database.changes_page(at)
            for row in rows:
                at = row.seq
                yield database.describe_change(row)
            if not rows:
                await database.feed.wait_past(at)

    async def merge(self, doc_id: str, rules: Rules | None = None, *, chosen: Sequence[str] = ()) -> Merged:
        """See Database.merge. In a thread: large documents take up to about a second."""
        return await asyncio.to_thread(self.database.merge, doc_id, rules, chosen=chosen)

    async def resolve(
        self,
        doc_id: str,
        leaves: Sequence[str],
        content: Mapping[str, Any] | str | Rules | None,
        *,
        chosen: Sequence[str] = (),
        using: str | None = None,
        by: str | None = None,
    ) -> Resolution:
        """See Database.resolve."""
        return await asyncio.to_thread(
            self.database.resolve, doc_id, leaves, content, chosen=chosen, using=using, by=by
        )

    async def undo(self, number: int, *, by: str | None = None) -> Resolution:
        """See Database.undo."""
        return await asyncio.to_thread(self.database.undo, number, by=by)

    async def purge(self, wanted: Mapping[str, Sequence[Rev]]) -> dict[str, list[Rev]]:
        """See Database.purge."""
        return await asyncio.wrap_future(self.database.purge(wanted))

    async def compact(self, retention: Retention = LEAVES_ONLY) -> Compaction | None:
        """See Database.compact."""
        return await asyncio.wrap_future(self.database.compact(retention))
