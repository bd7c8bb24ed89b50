"""The views of a database's design documents, read once for each of their revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from .. import records
from ..document import render
from ..errors import NotFound
from ..jsontext import loads
from ..mango.indexes import MangoIndex, of_design_document
from ..records import State
from .definition import QUERY, DesignViews, IndexDefinition

if TYPE_CHECKING:
    from ..database import Database
    from ..snapshot import Snapshot


class Found(NamedTuple):
    """A design document, and what its database was at the same moment."""

    views: DesignViews
    state: State


_Known = dict[str, tuple[bytes, DesignViews]]
_cache: WeakKeyDictionary[Database, _Known] = WeakKeyDictionary()

_mango: WeakKeyDictionary[Database, tuple[int, dict[MangoIndex, IndexDefinition]]] = WeakKeyDictionary()


def find(database: Database, doc_id: str) -> Found:
    """The views of the design document with that id. :raises NotFound: "missing" or "deleted"."""
    with database.snapshot() as snapshot:
        return Found(_views(database, snapshot, doc_id), snapshot.state())


def all_of(database: Database) -> list[DesignViews]:
    """Those of all design documents."""
    found = []
    start: bytes | None = b"_design/"
    while start is not None:
        with database.snapshot() as snapshot:
            page = snapshot.docs(start, b"_design0")
            found += [_views(database, snapshot, doc_id.decode()) for doc_id in page.ids]
        start = page.resume
    return found


def mango_indexes(database: Database) -> tuple[dict[MangoIndex, IndexDefinition], State]:
    """Mango's indexes of a database, and what it was at the same moment."""
    with database.snapshot() as snapshot:
        state = snapshot.state()
    known = _mango.get(database)
    if known is None or known[0] != state.design_seq:
        found = {
            index: views.find(index.name)
            for views in all_of(database)
            if views.language == QUERY
            for index in of_design_document(
                {"_id": views.id, "language": QUERY, "views": views.sources}, partitioned=views.partitioned
            )
        }
        known = _mango[database] = (state.design_seq, found)
    return known[1], state


def _views(database: Database, snapshot: Snapshot, doc_id: str) -> DesignViews:
    known = _cache.setdefault(database, {})
    [record] = snapshot.doc_records([doc_id.encode("utf-8", "surrogateescape")])
    if record is None:
        known.pop(doc_id, None)
        raise NotFound("missing")
    if record[0] & records.DELETED:
        known.pop(doc_id, None)
        raise NotFound("deleted")
    rev = records.rev_of(record)
    entry = known.get(doc_id)
    if entry is not None and entry[0] == rev:
        return entry[1]
    document: dict[str, Any] = loads(render(snapshot.winner(doc_id)))
    views = DesignViews(database.name, document, partitioned=database.is_partitioned)
    known[doc_id] = rev, views
    return views
