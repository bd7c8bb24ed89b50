"""Documents that a selector feed has to look at, found in a Mango index instead of in all changes.

An index has the documents that are not deleted and have its fields; a feed shows deleted ones, design
documents and, if asked, losing leaves as well. So the index also keeps the ids of those that have a leaf of
that kind (`hidden`, see index/layout.py). A selector that demands the index's fields can match no others:

    rows within the selector's bounds  +  hidden documents  +  what has changed since the index was built
    ->  their places in the sequence index, in order  ->  the feed asks the selector about each, as in a scan

What must stay true here: nothing that a scan would show is left out, so where it isn't certain that an index
has it all, there is a scan; nobody waits for an index to be built.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import changes, reads, records
from .changes import PAGE_ROWS, ChangeRow
from .collation import sort_key
from .index import IndexFunctions, designs, store
from .index.layout import ROW_END
from .javascript import FunctionPool
from .jsontext import loads
from .mango import planner
from .mango.conditions import is_text_search
from .mango.normal_form import Selector
from .mango.planner import Wanted

if TYPE_CHECKING:
    from .database import Database
    from .index import Index

SCANNED_MAX = 2 * PAGE_ROWS
"""So few changes are looked through without asking what an index could do."""
SHARE_MAX = 0.5
"""To look up more than this share of the changes costs more than a scan."""
CANDIDATES_MAX = 100_000
"""What is kept in memory of them is bounded."""
BEHIND_MAX = PAGE_ROWS
"""An index that lacks more changes than this is brought up to date, for the next feed."""
LOOKUP_IDS = 500


async def look_up(database: Database, ids: list[bytes]) -> list[ChangeRow]:
    """The last changes of documents, oldest first; in small steps, so that others get their turns."""
    found: list[ChangeRow] = []
    for at in range(0, len(ids), LOOKUP_IDS):
        some = ids[at : at + LOOKUP_IDS]
        with database.snapshot() as snapshot:
            rows = reads.records_of(snapshot.reader, some)
        found += [row_of(record, doc_id) for doc_id, record in zip(some, rows, strict=True) if record]
        if len(ids) > LOOKUP_IDS:
            await asyncio.sleep(0)
    if len(found) > PAGE_ROWS:
        await asyncio.to_thread(found.sort)
    else:
        found.sort()
    return found


def row_of(record: bytes, doc_id: bytes) -> ChangeRow:
    head = records.decode_head(record)
    return ChangeRow(head.seq, head.flags, head.body, head.rev, doc_id)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in an index the rows lie that can match."""

    index: Index
    start: bytes
    stop: bytes


class SelectorIndexes:
    """Finds the documents that may match a selector.

    :param selector: in normal form.
    :param functions: builds indexes that are behind.
    :param scanned_max: see SCANNED_MAX. :param share_max: see SHARE_MAX.
    """

    def __init__(
        self,
        selector: Selector,
        functions: FunctionPool,
        *,
        scanned_max: int = SCANNED_MAX,
        share_max: float = SHARE_MAX,
    ) -> None:
        self._selector = selector
        self._functions = functions
        self._scanned_max = scanned_max
        self._share_max = share_max
        self._can_be_served = _is_exact(selector) and not is_text_search(selector)

    async def find(self, database: Database, since: int, until: int) -> list[ChangeRow] | None:
        """The changes with `since < seq <= until` of all documents that may match, and maybe of some that
        don't, oldest first; None when a look at every change costs less."""
        if until - since <= self._scanned_max or not self._can_be_served:
            return None
        place = self._place(database)
        if place is None:
            return None
        with database.snapshot() as snapshot:
            scanned = snapshot.count_changes(since)
        with place.index.read() as reader:
            state = store.state_of(reader)
            count = CANDIDATES_MAX
            if state.levels:
                count = state.hidden + store.count_before(reader, state, place.stop)
                count -= store.count_before(reader, state, place.start)
        behind = max(0, until - max(state.seq, since))
        if behind > BEHIND_MAX:
            loop = asyncio.get_running_loop()
            place.index.build(database, IndexFunctions(self._functions, loop))
        if count + behind > min(scanned * self._share_max, CANDIDATES_MAX):
            return None
        ids = {doc_id for page in _indexed(place) for doc_id in await _turn(page)}
        for page in _changed(database, max(state.seq, since), until):
            ids.update(await _turn(page))
        rows = await look_up(database, sorted(ids))
        return [row for row in rows if since < row.seq <= until]

    def _place(self, database: Database) -> _Place | None:
        known, _state = designs.mango_indexes(database)
        usable = [index for index in known if not any(name.startswith("_") for name in index.columns)]
        plan = planner.plan(usable, Wanted(self._selector, [], [], allow_fallback=True))
        if plan.index is None or plan.index.ddoc is None:
            return None
        index = database.indexes.get(known[plan.index])
        if plan.is_empty:
            return _Place(index, b"", b"")
        start, stop = sort_key(plan.start_key())[:-1], sort_key(plan.end_key())[:-1] + ROW_END
        return _Place(index, start, stop)


async def _turn(page: list[bytes]) -> list[bytes]:
    await asyncio.sleep(0)
    return page


def _indexed(place: _Place) -> Iterator[list[bytes]]:
    """The ids of the documents that an index has between two row keys, and of those that it hides."""
    start, ended = place.start, place.start >= place.stop
    while not ended:
        with place.index.read() as reader:
            page = store.page(reader, start, place.stop, reverse=False, limit=PAGE_ROWS)
        yield [row["id"].encode() for row in loads(b"[%b]" % b",".join(page.texts))]
        ended = page.ended
        start = b"" if ended else page.keys[-1] + b"\0"
    after: bytes | None = b""
    while after is not None:
        with place.index.read() as reader:
            ids = store.hidden(reader, after, PAGE_ROWS)
        yield ids
        after = ids[-1] + b"\0" if ids else None


def _changed(database: Database, since: int, until: int) -> Iterator[list[bytes]]:
    """The ids of the documents that changed after `since`."""
    while since < until:
        with database.snapshot() as snapshot:
            page = changes.page(snapshot.reader, since, until=until)
        yield page.ids
        since = page.seqs[-1] if page.seqs else until


def _is_exact(selector: Any) -> bool:
    """Whether no document outside of the bounds that the planner draws can match a selector.

    Combinations of nothing match all or nothing, which the planner doesn't tell apart; and ICU may place a
    string before its own beginning, if that isn't ASCII.
    """
    if not isinstance(selector, dict) or not selector:
        return True
    ((name, argument),) = selector.items()
    if name in ("$and", "$or", "$nor"):
        return bool(argument) and all(map(_is_exact, argument))
    if name == "$beginsWith":
        return bool(argument.isascii() and argument.isalnum())
    return name.startswith("$") or _is_exact(argument)
