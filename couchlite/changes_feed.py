"""A changes feed as somebody asked for it: read in rounds, each up to the newest change of its beginning,
and each round in pages.

What must stay true here: a page is read in one short snapshot, and none is open while anything is awaited;
a page is bounded in rows and bytes, so that a feed takes the same memory whatever it is read from.

What `last_seq` and `pending` tell, and how limit, filters and direction go together: CouchDB's
fabric_view_changes and fabric_rpc:changes, for a database of one shard.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import changes, changes_docs, records, seq_counts
from .changes import PAGE_ROWS, ChangeRow
from .changes_docs import DocOptions
from .changes_filters import ContentFilter, Filter, IdFilter, SelectorFilter
from .changes_selector import SelectorIndexes
from .database import Database
from .document import Meta, Revision
from .records import SeqColumns
from .snapshot import Snapshot

REVISIONS_PER_PAGE = 50
"""Documents that are given as revisions wait in memory until all attachments before them are sent."""

FILTERED_ROWS = 500
"""A page of documents that a filter is asked about: they have to be parsed."""

ASKED_PAGES = 2
"""So many pages of documents a filter in other processes is asked about at a time."""

SHARED_PAGES_MAX = 64
SHARED_ROWS_MAX = 100
SHARED_BYTES_MAX = 64 * 1024
SHARED_S = 2.0
"""Bounds of what is kept of a database for feeds that wake together: they have at most so many different
options and positions that count, what they wait for is short, and they have woken within seconds."""


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What a feed shows."""

    descending: bool = False
    limit: int | None = None
    all_leaves: bool = False
    """style=all_docs: list all leaves of a document, not only its winner."""
    include_docs: bool = False
    as_revisions: bool = False
    """Give the documents as revisions instead of texts, for those who want their attachments too."""
    docs: DocOptions = field(default_factory=DocOptions)
    filter: Filter | None = None

    @property
    def gives_revisions(self) -> bool:
        """Whether documents are given as revisions; those that are cut down to some fields never are."""
        cut_down = isinstance(self.filter, SelectorFilter) and self.filter.cuts_documents
        return self.include_docs and self.as_revisions and not cut_down


class Page(NamedTuple):
    """Changes to be shown, column by column: thousands are formatted at a time. Nothing is escaped."""

    columns: SeqColumns
    leaves: Mapping[int, Sequence[bytes]]
    """By row, the revisions to be listed where that is not just the winner."""
    texts: Sequence[bytes] | None = None
    """The documents, if they are shown."""
    revisions: Sequence[tuple[Revision, Meta]] | None = None
    """The documents, if they are wanted as revisions."""
    rendered: dict[Hashable, bytes] | None = None
    """Where several feeds show this very page: what one has made of it, for the others."""


class ChangesFeed:
    """The changes of `database` after `since`; descending, all of them, newest first.

    `read` gives the pages of a round, and None at its end; then `wait` waits for news, and the next `read`
    begins a new round. A descending feed has one round.
    """

    def __init__(self, database: Database, since: int, options: FeedOptions) -> None:
        self._database = database
        self._options = options
        self.shown = 0
        """How many rows it has given so far."""
        self._edge = since
        """Ascending, all changes up to it have been dealt with; descending, all from it on."""
        self._until = since
        """The newest sequence at the beginning of the round."""
        self._began_at = since
        self._shown_before = 0
        self._found: SeqColumns | None = None
        """What is left of what a filter has found by itself."""
        self._oldest: ChangeRow | None = None
        self._in_round = False
        self._more = False
        """Whether the round may have another page."""
        self._asked: deque[tuple[_Question, asyncio.Future[Sequence[bool]]]] = deque()
        """Pages that a filter is being asked about."""
        self._has_waited = False
        self._kind = repr(options)
        """Equal for feeds that show the same."""

    @property
    def is_full(self) -> bool:
        """Whether as many rows as wanted have been given."""
        return self._left == 0

    @property
    def last_seq(self) -> int:
        """What the feed can be resumed from."""
        return min(self._edge, self._until) if self._options.descending else self._edge

    @property
    def has_more(self) -> bool:
        """Whether the round may have another page."""
        return self._in_round and self._more

    def pending(self) -> int:
        """How many changes there are that the feed has not dealt with."""
        wanted = self._options.filter
        with self._database.snapshot() as snapshot:
            if isinstance(wanted, IdFilter) and wanted.counts_hits:
                hits = self.shown - self._shown_before
                return max(0, self._count_beyond(snapshot, self._began_at) - hits)
            return self._count_beyond(snapshot, self._edge)

    async def wait(self, timeout_s: float) -> bool:
        """Wait until there may be news; False when `timeout_s` went by first."""
        self._has_waited = True
        return await self._database.feed.wait_past(self._until, timeout_s)

    async def read(self) -> Page | None:
        """The next page of the round; it may be empty though the round goes on. None at the round's end."""
        wanted = self._options.filter
        if self._in_round and not self._more:
            self._end_round()
            return None
        if self._has_waited and not self._in_round and wanted is None and not self._options.gives_revisions:
            return self._read_together()
        if not self._in_round:
            await self._find(wanted)
        if wanted is None or isinstance(wanted, IdFilter):
            return self._read()
        return await self._read_filtered(wanted)

    async def _read_filtered(self, wanted: ContentFilter) -> Page | None:
        """The changes that a filter lets pass out of the next ones; it may be asked about several pages."""
        pages = 1
        if wanted.is_asked_elsewhere and (self._left is None or self._left >= ASKED_PAGES * FILTERED_ROWS):
            pages = ASKED_PAGES  # none of which can be more than is wanted
        try:
            while len(self._asked) < pages and (question := self._question(wanted)) is not None:
                asked = asyncio.ensure_future(wanted.passes(question.texts))
                asked.add_done_callback(_retrieve)
                self._asked.append((question, asked))
                await asyncio.sleep(0)
            if not self._asked:
                self._end_round()
                return None
            question, answers = self._asked.popleft()
            return self._give_passing(question, await answers)
        except BaseException:
            for _question, answers in self._asked:
                answers.cancel()
            self._asked.clear()
            raise

    def _question(self, wanted: ContentFilter) -> _Question | None:
        """The changes after those that the filter is asked about already; None when there are no more."""
        edge = self._edge
        if self._asked:
            last = self._asked[-1][0]
            if not last.has_more:
                return None
            edge = last.columns.seqs[-1]
        with self._database.snapshot() as snapshot:
            columns = self._next_columns(snapshot, edge)
            return _Question(snapshot, columns, wanted, self._options, self._more) if columns.seqs else None

    async def _find(self, wanted: Filter | None) -> None:
        """Begin a round with what a filter finds by itself, if it does."""
        if isinstance(wanted, IdFilter):
            finder: IdFilter | SelectorIndexes = wanted
        elif isinstance(wanted, SelectorFilter) and wanted.indexes is not None and not self.is_full:
            finder = wanted.indexes
        else:
            return
        self._begin_round(self._database.state().update_seq)
        descending = self._options.descending
        rows = await finder.find(self._database, 0 if descending else self._edge, self._until)
        if rows is not None:
            self._found = changes.columns(rows[::-1] if descending else rows)
        if descending:
            with self._database.snapshot() as snapshot:
                self._oldest = next(iter(snapshot.changes(0, limit=1)), None)

    def _read(self) -> Page | None:
        with self._database.snapshot() as snapshot:
            columns = self._next_columns(snapshot)
            if not columns.seqs:
                self._end_round()
                return None
            return self._give(self._page(snapshot, columns))

    def _read_together(self) -> Page | None:
        """The first page after waiting: of all that have waited at the same place for the same, the first
        one reads it. (Who has just come must see all that is stored, which this process may not have heard
        of yet.)"""
        shared = self._database.feed.shared
        key = self._edge, self._kind
        known: tuple[int, Page] | None = shared.get(key)
        if known is not None and (self._left is None or self._left >= len(known[1].columns.seqs)):
            self._begin_round(known[0])
            self._more = False
            return self._give(known[1])
        page = self._read()
        if page is None or self._more or len(shared) >= SHARED_PAGES_MAX or not _is_small(page):
            return page
        if not shared:
            asyncio.get_running_loop().call_later(SHARED_S, shared.clear)
        page = page._replace(rendered={})
        shared[key] = self._until, page
        return page

    @property
    def _left(self) -> int | None:
        limit = self._options.limit
        return None if limit is None else max(0, limit - self.shown)

    def _begin_round(self, until: int) -> None:
        self._until = until
        if self._options.descending:
            self._edge = until + 1
        self._began_at = self._edge
        self._shown_before = self.shown
        self._in_round = True

    def _end_round(self) -> None:
        if not self.is_full and not self._options.descending:
            self._edge = max(self._edge, self._until)
        elif (
            not self.is_full and self._found is not None and isinstance(self._options.filter, SelectorFilter)
        ):
            self._edge = self._edge if self._oldest is None else self._oldest.seq  # where a scan would end
        self._in_round = False
        self._found = None

    def _next_columns(self, snapshot: Snapshot, edge: int | None = None) -> SeqColumns:
        """The next changes of the round, or those beyond an edge that is not reached yet."""
        options = self._options
        if not self._in_round:
            self._begin_round(snapshot.state().update_seq)
            edge = None
        edge = self._edge if edge is None else edge
        limit = PAGE_ROWS if isinstance(options.filter, IdFilter | None) else FILTERED_ROWS
        if options.gives_revisions:
            limit = REVISIONS_PER_PAGE
        if self._left is not None:
            if isinstance(options.filter, IdFilter | None):
                limit = min(limit, self._left)
            elif self.is_full:  # CouchDB steps over a row that doesn't pass even if it shall show none
                limit = 1
        if self._found is not None:
            columns = self._found.cut(0, limit)
        elif options.descending:
            columns = changes.page(snapshot.reader, 0, until=edge - 1, limit=limit, reverse=True)
        else:
            columns = changes.page(snapshot.reader, edge, until=self._until, limit=limit)
        self._more = len(columns.seqs) == limit
        return columns

    def _page(self, snapshot: Snapshot, columns: SeqColumns) -> Page:
        """As many of the changes as fit into a page, with what is shown of each."""
        options = self._options
        texts, revisions = None, None
        if options.gives_revisions:
            revisions = _revisions(snapshot, columns, options)
        elif options.include_docs:
            texts = changes_docs.winner_texts(snapshot, columns, options.docs)
            if len(texts) < len(columns.seqs):
                columns = columns.cut(0, len(texts))
                self._more = True
        leaves = {}
        if options.all_leaves:
            for at in _branched(columns):
                leaves[at] = changes_docs.leaf_texts(snapshot, columns.ids[at])
        return Page(columns, leaves, texts, revisions)

    def _give(self, page: Page) -> Page:
        count = len(page.columns.seqs)
        self.shown += count
        self._edge = page.columns.seqs[-1]
        if self._found is not None:
            self._found = self._found.cut(count, None)
        return page

    def _give_passing(self, question: _Question, answers: Sequence[bool]) -> Page:
        page = question.passing(answers, self._left)
        self.shown += len(page.columns.seqs)
        self._more = question.has_more and not self.is_full
        if self._found is not None:
            self._found = self._found.cut(len(question.columns.seqs), None)
        if not self.is_full:
            self._edge = question.columns.seqs[-1]
        elif page.columns.seqs:
            self._edge = page.columns.seqs[-1]
        elif not any(answers):  # the one row that is looked at though none is wanted
            self._edge = question.columns.seqs[-1]
        return page

    def _count_beyond(self, snapshot: Snapshot, edge: int) -> int:
        if not self._options.descending:
            return seq_counts.count_after(snapshot.reader, edge)
        state = snapshot.state()
        return state.doc_count + state.deleted_count - seq_counts.count_after(snapshot.reader, edge - 1)


class _Question:
    """Changes whose documents a filter is asked about: the winners, or all leaves if all are to be listed."""

    def __init__(
        self,
        snapshot: Snapshot,
        columns: SeqColumns,
        wanted: ContentFilter,
        options: FeedOptions,
        has_more: bool,
    ) -> None:
        self._options = options
        self._shown = wanted.shown
        revs = wanted.needs_revisions
        count = len(columns.seqs)
        texts = changes_docs.texts_with_paths(snapshot, columns) if revs else []
        if revs:
            columns = columns.cut(0, len(texts))
        self._winners: list[bytes] = []
        if not revs or options.include_docs:
            self._winners = changes_docs.winner_texts(snapshot, columns, options.docs)
            columns = columns.cut(0, len(self._winners))
        texts = texts[: len(columns.seqs)] if revs else list(self._winners)
        self.columns = columns
        self.has_more = has_more or len(columns.seqs) < count
        """Whether the round goes on after these."""
        self._revisions = _revisions(snapshot, columns, options) if options.gives_revisions else None
        self._leaves: dict[int, list[bytes]] = {}
        self.texts: list[bytes] = []
        branched = set(_branched(columns)) if options.all_leaves else set()
        for at, text in enumerate(texts):
            if text is None or at in branched:
                self._ask_leaves(snapshot, at, only_winner=at not in branched, revs=revs)
            else:
                self.texts.append(text)

    def _ask_leaves(self, snapshot: Snapshot, at: int, *, only_winner: bool, revs: bool) -> None:
        docs = self._options.docs
        meta = changes_docs.conflicts(snapshot, self.columns, at, docs) if only_winner else ()
        self._leaves[at] = []
        for revision in changes_docs.leaves(snapshot, self.columns.ids[at], only_winner=only_winner):
            self._leaves[at].append(str(revision.rev).encode())
            self.texts.append(changes_docs.render(revision, meta, docs, revs=revs))

    def passing(self, answers: Iterable[bool], limit: int | None) -> Page:
        """The changes of which a leaf has passed, each with its leaves that have."""
        answer = iter(answers)
        passing: list[int] = []
        leaves: dict[int, list[bytes]] = {}
        for at, winner in enumerate(self.columns.revs):
            asked = self._leaves.get(at, (winner,))
            passed = [rev for rev in asked if next(answer)]
            if passed and len(passing) != limit:
                if passed != [winner]:
                    leaves[len(passing)] = passed
                passing.append(at)
        texts, revisions = None, None
        if self._revisions is not None:
            revisions = [self._revisions[at] for at in passing]
        elif self._options.include_docs:
            texts = [self._shown(self._winners[at]) for at in passing]
        return Page(self.columns.pick(passing), leaves, texts, revisions)


def _revisions(snapshot: Snapshot, columns: SeqColumns, options: FeedOptions) -> list[tuple[Revision, Meta]]:
    return [changes_docs.winner(snapshot, columns, at, options.docs) for at in range(len(columns.seqs))]


def _retrieve(answers: asyncio.Future[Sequence[bool]]) -> None:
    """An error of a page that nobody reads any more is nobody's."""
    if not answers.cancelled():
        answers.exception()


def _is_small(page: Page) -> bool:
    if len(page.columns.seqs) > SHARED_ROWS_MAX:
        return False
    return page.texts is None or sum(map(len, page.texts)) <= SHARED_BYTES_MAX


def _branched(columns: SeqColumns) -> list[int]:
    return [at for at, flags in enumerate(columns.flags) if flags & records.BRANCHED]
