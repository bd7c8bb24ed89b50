"""Where conflicts are: what all places can be asked, and how one is opened.

--data-dir               the databases of a data directory, in this process      (local.py)
--url, http://host/name  of a couchlite server, by its /{db}/_conflicts           (served.py)
                         of any other CouchDB, by what every CouchDB answers      (foreign.py)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from couchlite.errors import NotFound

from .case import Case, JsonObject, Listed

Told = Callable[[int, int], None]
"""Told how much is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Delete:
    """As a content: the document is to be deleted, on all branches."""


@dataclass(frozen=True, slots=True)
class Pick:
    """As a content: the leaf with this revision is to stay."""

    rev: str


Content = JsonObject | Pick | Delete


class ConflictPlace(Protocol):
    """The conflicts of one database. All methods raise CouchliteError, or Failure for what such a place can't
    do at all."""

    name: str
    shown: str
    """The database, as messages name it."""

    def rows(self, told: Told) -> Iterator[Listed]:
        """The documents in conflict."""
        ...

    def counts(self, told: Told) -> JsonObject:
        """Statistics: documents, leaves, leaves_max, bytes, oldest, newest."""
        ...

    def case(self, doc_id: str) -> Case:
        """:raises NotFound:"""
        ...

    def document(self, case: Case, rev: str) -> JsonObject | None:
        """A revision of the tree, for merging; None if it isn't here any more."""
        ...

    def resolve(self, case: Case, content: Content, using: str) -> JsonObject:
        """Resolve a conflict; its new revision as `rev` and, where there is a record, `resolution`.

        :raises Conflict: the document has other leaves by now.
        """
        ...

    def settle(
        self,
        ids: Sequence[str],
        using: str | None,
        options: Mapping[str, Any],
        *,
        dry_run: bool,
        tell: Callable[[JsonObject], None],
    ) -> None:
        """Let a resolver settle the conflicts of these documents, or without one the database's settings;
        `tell` is given a row for each, as `POST /{db}/_conflicts/_resolve` answers them."""
        ...

    def undo(self, doc_id: str, number: int | None) -> JsonObject:
        """Bring a conflict back, as `resolve`: by the number of its record, or the latest one of the document
        that can be undone."""
        ...

    def log(self, doc_id: str | None, limit: int) -> list[JsonObject]:
        """What was resolved, newest first."""
        ...

    def resolvers(self) -> JsonObject: ...

    def set_resolvers(self, settings: JsonObject) -> None: ...

    def ids(self, prefix: str, limit: int) -> list[str]:
        """Some documents in conflict whose ids begin so; none if to find out is not cheap."""
        ...


def latest(entries: Sequence[JsonObject], doc_id: str) -> int:
    """The number of the latest resolution that can be undone. :raises NotFound:"""
    for entry in entries:
        if entry.get("can_undo"):
            return int(entry["resolution"])
    reason = next((f": {entry['reason']}" for entry in entries if "reason" in entry), "")
    raise NotFound(f"there is nothing of {doc_id} to undo{reason}")


LATEST_OF = 100
"""Among so many records of a document the one to undo is looked for."""
