"""Which documents a changes feed shows.

A filter by id knows where to look: it costs what its documents cost, however large the database is. A
filter by content has to be asked about each document. Semantics: CouchDB's couch_changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from . import changes, keys, records
from .changes import ChangeRow
from .engine import Reader, Space
from .errors import BadRequest
from .javascript import Design, FunctionPool
from .jsontext import dumps, loads
from .mango import compile_selector
from .mango.projection import compile_projection

DESIGN_PREFIX = b"_design/"
DESIGN_END = b"_design0"
DESIGN_DOCUMENTS_EXPECTED = 100


class ContentFilter(Protocol):
    """Asked with the JSON texts of documents, batch by batch; no transaction is open meanwhile."""

    @property
    def needs_revisions(self) -> bool:
        """Whether the documents shall have `_revisions`."""
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

    def find(self, reader: Reader, since: int, until: int) -> list[ChangeRow]:
        """Its changes with `since < seq <= until`, oldest first: looked up, unless there are fewer
        sequences to look at than documents."""
        if until - since <= self._lookups:
            rows = changes.rows(changes.page(reader, since, until=until, limit=until - since))
            return [row for row in rows if self._covers(row.id)]
        rows = [row for row in self._look_up(reader) if since < row.seq <= until]
        rows.sort()
        return rows

    @abstractmethod
    def _covers(self, doc_id: bytes) -> bool: ...

    @abstractmethod
    def _look_up(self, reader: Reader) -> list[ChangeRow]: ...


class DocIds(IdFilter):
    """The documents with these ids. Of more than `lookups_max` CouchDB makes a scan, and counts `pending`
    so."""

    def __init__(self, ids: Iterable[str], lookups_max: int) -> None:
        self._ids = frozenset(doc_id.encode("utf-8", "replace") for doc_id in ids)
        super().__init__(len(self._ids), counts_hits=len(self._ids) <= lookups_max)

    def _covers(self, doc_id: bytes) -> bool:
        return doc_id in self._ids

    def _look_up(self, reader: Reader) -> list[ChangeRow]:
        found = []
        for doc_id in sorted(self._ids):
            key = keys.find(reader, Space.DOCS, doc_id)
            record = reader.get(Space.DOCS, key) if key else None
            if record is not None:
                found.append(_row(record, doc_id))
        return found


class DesignDocs(IdFilter):
    """All design documents."""

    def __init__(self) -> None:
        super().__init__(DESIGN_DOCUMENTS_EXPECTED, counts_hits=True)

    def _covers(self, doc_id: bytes) -> bool:
        return doc_id.startswith(DESIGN_PREFIX)

    def _look_up(self, reader: Reader) -> list[ChangeRow]:
        return [
            _row(record, keys.id_of(reader, Space.DOCS, key))
            for key, record in reader.scan(Space.DOCS, DESIGN_PREFIX, DESIGN_END)
        ]


class SelectorFilter:
    """The documents that match a Mango selector. `fields`, if given, are what is shown of them.

    :raises BadRequest: with CouchDB's reason for what is no selector.
    """

    needs_revisions = False

    def __init__(self, selector: Any, fields: Any = None) -> None:
        if not isinstance(selector, dict):
            raise BadRequest("Selector error: expected a JSON object")
        if fields is not None and not isinstance(fields, list):
            raise BadRequest("Selector error: fields must be JSON array")
        try:
            self._matches = compile_selector(selector)
            self._project = compile_projection(fields or [])
        except BadRequest as error:
            raise BadRequest(error.reason) from error

    @property
    def cuts_documents(self) -> bool:
        """Whether only some members of documents are shown."""
        return self._project is not None

    async def passes(self, documents: Sequence[bytes]) -> Sequence[bool]:
        matches = self._matches
        return [matches(loads(text)) for text in documents]

    def shown(self, document: bytes) -> bytes:
        return document if self._project is None else dumps(self._project(loads(document)))


class FunctionFilter:
    """The documents that a filter function of a design document lets pass.

    :param request: what the function is given as its second argument, as JSON.
    :raises NotFound: there is no function of that name.
    """

    needs_revisions = True

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

    def __init__(self, functions: FunctionPool, design: Design, view: str) -> None:
        design.find("views", view)
        self._functions, self._design, self._view = functions, design, view

    async def passes(self, documents: Sequence[bytes]) -> Sequence[bool]:
        return await self._functions.filter_view(self._design, self._view, documents)

    def shown(self, document: bytes) -> bytes:
        return document


Filter = IdFilter | ContentFilter


def _row(record: bytes, doc_id: bytes) -> ChangeRow:
    head = records.decode_head(record)
    return ChangeRow(head.seq, head.flags, head.body, head.rev, doc_id)
