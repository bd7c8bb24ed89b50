"""Brings an index up to date with its database: reads what changed, maps it, writes rows.

    a page of the sequence index, in a short snapshot  ->  the map function, some pages ahead
    ->  what several pages emitted, in one transaction of the index, with the sequence it has reached by then

What must stay true here: an index shows the database as of `State.seq`, also after a `kill -9` (what is not
committed is read again); nothing is kept in memory but a few pages; no snapshot is open while functions run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cmp_to_key
from typing import TYPE_CHECKING, Any

from .. import changes, changes_docs, records
from ..changes_docs import DocOptions
from ..engine import Batch, Engine, Space
from ..errors import DatabaseNotFound
from ..jsontext import dumps, escape_all
from ..mango.terms import compare_terms
from ..partitions import name_of
from ..records import SeqColumns
from ..snapshot import Snapshot
from ..tasks import Task
from . import levels, store
from .definition import IndexDefinition
from .functions import IndexFunctions, Mapper, Rows, Stopped, wait_for
from .layout import State, encode_row, partition_prefix
from .levels import Reductions
from .native import NativeMapper
from .store import Emitted

if TYPE_CHECKING:
    from ..database import Database

PAGE_DOCUMENTS = 500
PAGES_AHEAD = 3
"""So many pages are with the map function at a time, while others are written."""
WRITE_ROWS = 20_000
WRITE_DOCUMENTS = 10_000
WRITE_BYTES = 8 << 20
WRITE_S = 5.0
"""What is written at once: large transactions are cheaper, but what was mapped since the last one is lost
with the process."""
BULK_CHANGES_MIN = 1_000
BULK_SHARE = 8
"""When more than one in so many documents has changed, nodes are made anew in the end: by one scan of all
rows instead of one of some 16 for each of them."""
SORT_KEYS_KEPT = 20_000

_DESIGN = b"_design/"


@dataclass(slots=True)
class _Page:
    """Some changes, in order."""

    seq: int
    """An index that has them is that far."""
    changes: int
    gone: list[bytes]
    """Documents that have no rows (any more)."""
    ids: list[bytes]
    texts: list[bytes]
    """The other documents, as the map function sees them."""
    hidden: dict[bytes, bool]
    """Which of all these documents a Mango index hides (see layout.py)."""


@dataclass(slots=True)
class _Gathered:
    """What is to be written next."""

    documents: dict[bytes, Emitted] = field(default_factory=dict)
    hidden: dict[bytes, bool] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0
    since: float = field(default_factory=time.monotonic)

    def is_enough(self) -> bool:
        return (
            self.rows >= WRITE_ROWS
            or len(self.documents) >= WRITE_DOCUMENTS
            or self.bytes >= WRITE_BYTES
            or time.monotonic() - self.since >= WRITE_S
        )


class Build:
    """One run for one index; the caller holds the index's lock."""

    def __init__(
        self,
        database: Database,
        engine: Engine,
        definition: IndexDefinition,
        functions: IndexFunctions,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._database = database
        self._engine = engine
        self._definition = definition
        self._is_stopped = is_stopped
        self._mapper: Mapper = functions.mapper(definition)
        self._reductions: Reductions = functions.reductions(definition, is_stopped)
        self._options = DocOptions(conflicts=True, deleted_conflicts=True, local_seq=definition.local_seq)
        self._sort_keys: dict[bytes, bytes] = {}
        self._purge_seq = 0

    def run(self) -> None:
        """:raises DatabaseNotFound: it was deleted meanwhile. :raises CouchliteError: a function failed."""
        with self._engine.read() as reader:
            state = store.state_of(reader)
        with self._database.snapshot() as snapshot:
            target = snapshot.state()
            total = snapshot.count_changes(state.seq)
            if state.purge_seq < target.oldest_purge and state.seq:
                state = self._engine.write(_start_over)
                total = snapshot.count_changes(0)
            purged = self._purged_page(snapshot, state)
        self._purge_seq = target.purge_seq
        if total > BULK_CHANGES_MIN and total * BULK_SHARE > state.docs:
            state.levels = 0
        pages = self._pages(state.seq, target.update_seq, purged)
        if total <= PAGE_DOCUMENTS:
            self._process(pages, state, None, total)
        else:
            run_path = self._database.path.parent.parent / "run"
            fields: dict[str, Any] = {"changes_done": 0, "total_changes": total, "progress": 0}
            names = {"database": self._database.name, "design_document": self._definition.design_id}
            with Task(run_path, "indexer", **names, **fields) as task:
                self._process(pages, state, task, total)

    # reading

    def _pages(self, since: int, target: int, first: _Page | None) -> Iterator[_Page]:
        if first is not None:
            yield first
        while since < target:
            with self._database.snapshot() as snapshot:
                page = self._page(snapshot, since)
            yield page
            since = page.seq

    def _page(self, snapshot: Snapshot, since: int) -> _Page:
        columns = changes.page(snapshot.reader, since, limit=PAGE_DOCUMENTS)
        count = len(columns.ids)
        seq = columns.seqs[-1] if count == PAGE_DOCUMENTS else snapshot.state().update_seq
        live = [
            at
            for at, (flags, doc_id) in enumerate(zip(columns.flags, columns.ids, strict=True))
            if not flags & records.DELETED
            and (self._definition.include_design or not doc_id.startswith(_DESIGN))
        ]
        chosen = columns if len(live) == count else columns.pick(live)
        texts = changes_docs.winner_texts(snapshot, chosen, self._options)
        if len(texts) < len(live):  # the others are for the next page
            count = live[len(texts) - 1] + 1
            seq = columns.seqs[count - 1]
            live = live[: len(texts)]
        is_live = set(live)
        gone = [columns.ids[at] for at in range(count) if at not in is_live]
        hidden = self._hidden(snapshot, columns.cut(0, count))
        return _Page(seq, count, gone, chosen.ids[: len(texts)], texts, hidden)

    def _hidden(self, snapshot: Snapshot, columns: SeqColumns) -> dict[bytes, bool]:
        if not isinstance(self._mapper, NativeMapper):
            return {}
        hidden = {}
        for at, (flags, doc_id) in enumerate(zip(columns.flags, columns.ids, strict=True)):
            hidden[doc_id] = bool(flags & records.BRANCHED)
            if flags & records.DELETED or doc_id.startswith(_DESIGN):
                body, _attachments = snapshot.body(columns.bodies[at])
                hidden[doc_id] |= len(body) > 2 and self._mapper.has_fields(body)
        return hidden

    def _purged_page(self, snapshot: Snapshot, state: State) -> _Page | None:
        """Documents of which something was purged since the index was updated: gone, or with another
        winner."""
        if not state.seq:
            return None
        start = records.u64(state.purge_seq + 1)
        infos = [records.decode_fields(info) for _seq, info in snapshot.reader.scan(Space.PURGES, start)]
        ids = sorted({doc_id.encode() for doc_id, _revs in infos})
        if not ids:
            return None
        found = list(zip(ids, snapshot.doc_records(ids), strict=True))
        living = [
            (doc_id, record)
            for doc_id, record in found
            if record is not None
            and not record[0] & records.DELETED
            and (self._definition.include_design or not doc_id.startswith(_DESIGN))
        ]
        texts: list[bytes] = []
        while len(texts) < len(living):
            rest = living[len(texts) :]
            columns = records.decode_doc_rows([doc_id for doc_id, _ in rest], [record for _, record in rest])
            texts += changes_docs.winner_texts(snapshot, columns, self._options)
        gone = sorted(set(ids) - {doc_id for doc_id, _record in living})
        known = [(doc_id, record) for doc_id, record in found if record is not None]
        columns = records.decode_doc_rows([doc_id for doc_id, _ in known], [record for _, record in known])
        hidden = dict.fromkeys(ids, False) | self._hidden(snapshot, columns)
        return _Page(state.seq, 0, gone, [doc_id for doc_id, _record in living], texts, hidden)

    # mapping

    def _process(self, pages: Iterator[_Page], state: State, task: Task | None, total: int) -> None:
        """Map pages, some ahead of those that are written."""
        ahead: deque[tuple[_Page, Future[Sequence[Rows]] | None]] = deque()
        gathered = _Gathered()
        done = 0
        try:
            while True:
                while len(ahead) < PAGES_AHEAD and (page := next(pages, None)) is not None:
                    ahead.append((page, self._mapper.submit(page.texts) if page.texts else None))
                if not ahead:
                    break
                page, mapping = ahead.popleft()
                self._check_going()
                rows = wait_for(mapping, self._is_stopped) if mapping else ()
                self._gather(gathered, page, rows)
                self._database.counts["mrview.map_doc"] += len(rows)
                self._database.counts["mrview.emits"] += sum(map(len, rows))
                state.seq = max(state.seq, page.seq)
                done += page.changes
                if gathered.is_enough():
                    self._write(gathered, state)
                    gathered = _Gathered()
                if task is not None:
                    task.update(changes_done=done, progress=min(100, done * 100 // max(1, total)))
        finally:
            for _page, mapping in ahead:
                if mapping is not None:
                    mapping.cancel()
        self._finish(gathered, state)

    def _check_going(self) -> None:
        if self._is_stopped():
            raise Stopped()
        if self._database.gone:
            raise DatabaseNotFound()

    def _gather(self, gathered: _Gathered, page: _Page, mapped: Sequence[Rows]) -> None:
        documents = gathered.documents
        gathered.hidden.update(page.hidden)
        for doc_id in page.gone:
            documents[doc_id] = Emitted(doc_id, (), ())
        known, sort_key = self._sort_keys, self._definition.sort_key
        if len(known) > SORT_KEYS_KEPT:
            known.clear()
        size = 0
        partitioned = self._definition.partitioned
        for doc_id, id_text, rows in zip(page.ids, escape_all(page.ids), mapped, strict=True):
            if len(rows) > 1 and _has_repeated_keys(rows):
                rows = sorted(rows, key=_BY_VALUE)  # so CouchDB orders a document's rows with the same key
            sort_keys = []
            texts = []
            prefix = partition_prefix(name_of(doc_id) or b"") if partitioned else b""
            for key, value in rows:
                key_text = dumps(key)
                found = known.get(key_text)
                if found is None:
                    found = known[key_text] = sort_key(key)
                sort_keys.append(prefix + found if prefix else found)
                text = encode_row(b'"%b"' % id_text, key_text, dumps(value))
                size += len(text)
                texts.append(text)
            documents[doc_id] = Emitted(doc_id, sort_keys, texts)
            gathered.rows += len(texts)
        gathered.bytes += size

    # writing

    def _write(self, gathered: _Gathered, state: State) -> None:
        """Write what was gathered; `state` says how far the index is then, and how its nodes are kept."""

        def run(batch: Batch) -> None:
            stored = store.state_of(batch)
            stored.seq, stored.purge_seq, stored.levels = state.seq, self._purge_seq, state.levels
            store.replace(batch, stored, gathered.documents.values(), self._reductions)
            store.hide(batch, stored, gathered.hidden)
            store.save_state(batch, stored)

        self._engine.write(run)

    def _finish(self, gathered: _Gathered, state: State) -> None:
        self._write(gathered, state)
        if state.levels:
            return

        def run(batch: Batch) -> None:
            levels.rebuild(batch, self._reductions)
            stored = store.state_of(batch)
            stored.levels = 1
            store.save_state(batch, stored)

        self._engine.write(run)


def _compare_values(row: Sequence[Any], other: Sequence[Any]) -> int:
    return compare_terms(row[1], other[1])


_BY_VALUE = cmp_to_key(_compare_values)


def _has_repeated_keys(rows: Rows) -> bool:
    return len({dumps(row[0]) for row in rows}) < len(rows)


def _start_over(batch: Batch) -> State:
    """Empty an index that can't learn any more what was purged."""
    store.clear(batch)
    state = State()
    store.save_state(batch, state)
    return state
