"""Which documents a changes feed shows.

A filter by id knows where to look: it costs what its documents cost, however large the database is. A
filter by content has to be asked about each document. Semantics: CouchDB's couch_changes.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from . import changes, keys
from .changes import ChangeRow
from .changes_selector import SelectorIndexes, look_up
from .engine import Space
from .errors import BadRequest
from .javascript import Design, FunctionPool
from .jsontext import dumps, loads
from .mango import compile_normalized, normalize
from .mango.projection import compile_projection
from .mango.reading import reader_for

if TYPE_CHECKING:
    from .database import Database

DESIGN_PREFIX = b"_design/"
DESIGN_END = b"_design0"
DESIGN_DOCUMENTS_EXPECTED = 100


class ContentFilter(Protocol):
    """Asked with the JSON texts of documents, batch by batch; no transaction is open meanwhile."""

    @property
    def needs_revisions(self) -> bool:
        """Whether the documents shall have `_revisions`."""
        ...

    @property
    def is_asked_elsewhere(self) -> bool:
        """Whether it answers in another process, so that the next page can be read meanwhile."""
        ...

    async def passes(self, documents: Sequence[bytes]) -> Sequence[bool]: ...

    def shown(self, document: bytes) -> bytes:
        """What a feed with `include_docs` shows of a document."""
        ...


class IdFilter(ABC):
    """Finds its documents by itself.

    :param lookups: about how many documents have to be looked at for that.
    :param counts_hits: whether a feed's `pending` goes down by the documents shown only, not by those
        passed over.
    """

    def __init__(self, lookups: int, *, counts_hits: bool) -> None:
        self._lookups = lookups
        self.counts_hits = counts_hits

    async def find(self, database: Database, since: int, until: int) -> list[ChangeRow]:
        """Its changes with `since < seq <= until`, oldest first: looked up, unless there are fewer
        sequences to look at than documents; in small steps, so that others get their turns."""
        if until - since > self._lookups:
            rows = await look_up(database, self._ids_of(database))
            return [row for row in rows if since < row.seq <= until]
        found: list[ChangeRow] = []
        while since < until:
            with database.snapshot() as snapshot:
                rows = snapshot.changes(since, until=until)
            found += [row for row in rows if self._covers(row.id)]
            since = rows[-1].seq if len(rows) == changes.PAGE_ROWS else until
            if since < until:
                await asyncio.sleep(0)
        return found

    @abstractmethod
    def _covers(self, doc_id: bytes) -> bool: ...

    @abstractmethod
    def _ids_of(self, database: Database) -> list[bytes]:
        """The documents to be looked up."""


class DocIds(IdFilter):
    """The documents with these ids. Of more than `lookups_max` CouchDB makes a scan, and counts `pending`
    so."""

    def __init__(self, ids: Iterable[str], lookups_max: int) -> None:
        self._ids = dict.fromkeys(sorted(doc_id.encode("utf-8", "replace") for doc_id in ids))
        super().__init__(len(self._ids), counts_hits=len(self._ids) <= lookups_max)

    def _covers(self, doc_id: bytes) -> bool:
        return doc_id in self._ids

    def _ids_of(self, database: Database) -> list[bytes]:
        return list(self._ids)


class DesignDocs(IdFilter):
    """All design documents."""

    def __init__(self) -> None:
        super().__init__(DESIGN_DOCUMENTS_EXPECTED, counts_hits=True)

    def _covers(self, doc_id: bytes) -> bool:
        return doc_id.startswith(DESIGN_PREFIX)

    def _ids_of(self, database: Database) -> list[bytes]:
        with database.snapshot() as snapshot:
            found = snapshot.reader.scan(Space.DOCS, DESIGN_PREFIX, DESIGN_END)
            return [keys.id_of(snapshot.reader, Space.DOCS, key) for key, _record in found]


class SelectorFilter:
    """The documents that match a Mango selector. `fields`, if given, are what is shown of them.

    :param functions: builds Mango indexes; without it, they are not made use of.
    :raises BadRequest: with CouchDB's reason for what is no selector.
    """

    needs_revisions = False
    is_asked_elsewhere = False

    def __init__(self, selector: Any, fields: Any = None, functions: FunctionPool | None = None) -> None:
        if not isinstance(selector, dict):
            raise BadRequest("Selector error: expected a JSON object")
        if fields is not None and not isinstance(fields, list):
            raise BadRequest("Selector error: fields must be JSON array")
        try:
            normal = normalize(selector)
            self._matches = compile_normalized(normal)
            self._project = compile_projection(fields or [])
        except BadRequest as error:
            raise BadRequest(error.reason) from error
        self._read = reader_for(normal)
        self.indexes = None if functions is None else SelectorIndexes(normal, functions)
        """Where the documents that may match are found without a look at all of them."""

    @property
    def cuts_documents(self) -> bool:
        """Whether only some members of documents are shown."""
        return self._project is not None

    async def passes(self, documents: Sequence[bytes]) -> Sequence[bool]:
        return list(map(self._matches, self._read(documents)))

    def shown(self, document: bytes) -> bytes:
        return document if self._project is None else dumps(self._project(loads(document)))


class FunctionFilter:
    """The documents that a filter function of a design document lets pass.

    :param request: what the function is given as its second argument, as JSON.
    :raises NotFound: there is no function of that name.
    """

    needs_revisions = True
    is_asked_elsewhere = True

    def __init__(self, functions: FunctionPool, design: Design, name: str, request: bytes) -> None:
        design.find("filters", name)
        self._functions, self._design, self._name, self._request = functions, design, name, request

    async def passes(self, documents: Sequence[bytes]) -> Sequence[bool]:
        return await self._functions.filter_docs(self._design, self._name, documents, self._request)

    def shown(self, document: bytes) -> bytes:
        return document


class ViewFilter:
    """The documents for which the map function of a view emits something.

    :raises NotFound: there is no view of that name.
    """

    needs_revisions = True
    is_asked_elsewhere = True

    def __init__(self, functions: FunctionPool, design: Design, view: str) -> None:
        design.find("views", view)
        self._functions, self._design, self._view = functions, design, view

    async def passes(self, documents: Sequence[bytes]) -> Sequence[bool]:
        return await self._functions.filter_view(self._design, self._view, documents)

    def shown(self, document: bytes) -> bytes:
        return document


Filter = IdFilter | ContentFilter
