"""One query of a view on its way out: from an index that is fresh enough, page by page, into a sink of rows.

What must stay true here: no snapshot is open while anything is awaited, so a long answer is read page by
page; building an index never keeps other requests waiting. Source: fabric_view_map and fabric_view_reduce.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import chain
from typing import Any, cast

from couchlite import changes_docs, document, records
from couchlite.changes_docs import DocOptions
from couchlite.doc_texts import PAGE_BYTES
from couchlite.document import Revision
from couchlite.engine import Reader
from couchlite.errors import BadRequest, CouchliteError, NotFound
from couchlite.index import Index, IndexDefinition, IndexFunctions, is_fresh, query, reducers, store
from couchlite.index.layout import State as IndexState
from couchlite.index.layout import partition_prefix
from couchlite.index.query import Bound, Group, Groups, Range, Rows
from couchlite.jsontext import dumps, loads
from couchlite.records import State
from couchlite.revision import Rev
from couchlite.snapshot import Snapshot

from . import documents, local
from .request import Request
from .rows import RowSink
from .view_options import UNSET, ViewOptions

_OVERFLOW = "reduce_overflow_error"
REMEMBERED_BYTES_MAX = 16 * 1024
"""Reductions that take more are computed each time they are asked for."""

logger = logging.getLogger(__name__)


async def write_rows(
    request: Request, sink: RowSink, definition: IndexDefinition, options: ViewOptions, state: State
) -> None:
    """Answer a query, whose options were found valid, of a view as of `state`."""
    await _Query(request, sink, definition, options, state).write()


def is_reduced(definition: IndexDefinition, options: ViewOptions) -> bool:
    return definition.reduce is not None and options.reduce is not False


def index_functions(request: Request) -> IndexFunctions:
    """What builds the indexes of this process."""
    limit = request.server.config.get("query_server_config", "reduce_limit", "true")
    return IndexFunctions(
        request.app.functions, asyncio.get_running_loop(), reduce_limit=limit not in ("false", "log")
    )


async def up_to_date(
    request: Request, definition: IndexDefinition, update: bool | str, state: State
) -> Index:
    """The index of a view, as fresh as it is wanted: as of `state`, or as it happens to be."""
    database = request.database()
    index = database.indexes.get(definition)
    if update is False or is_fresh(index.state(), state.update_seq, state.purge_seq):
        return index
    if update is True:
        await index.refresh(database, index_functions(request))
    else:
        index.build(database, index_functions(request)).add_done_callback(log_failure)
    return index


def log_failure(done: Any) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None and not isinstance(error, CouchliteError):
        logger.error("an index could not be updated", exc_info=error)


class _Query:
    """One query on its way out."""

    def __init__(
        self,
        request: Request,
        sink: RowSink,
        definition: IndexDefinition,
        options: ViewOptions,
        state: State,
    ) -> None:
        self._request = request
        self._database = request.database()
        self._sink = sink
        self._definition = definition
        self._options = options
        self._state = state
        self._functions = index_functions(request)
        self._prefix = b"" if options.partition is None else partition_prefix(options.partition.encode())
        self._doc_options = DocOptions(bool(options.conflicts), options.att_encoding_info)
        encoding_info = {"att_encoding_info"} if options.att_encoding_info else set()
        self._data_options = documents.Options(flags=frozenset({"attachments"} | encoding_info))

    async def write(self) -> None:
        self._index = await up_to_date(self._request, self._definition, self._options.update, self._state)
        if is_reduced(self._definition, self._options):
            await self._write_reductions()
        else:
            await self._write_rows()
        await self._sink.end()

    def _ranges(self) -> list[Range]:
        options = self._options
        if options.keys is not None:
            return [query.range_of_key(key, self._prefix, self._definition.sort_key) for key in options.keys]
        return [
            query.range_of(
                _bound(options.start_key, options.start_key_docid),
                _bound(options.end_key, options.end_key_docid),
                inclusive_end=options.inclusive_end,
                descending=options.descending,
                prefix=self._prefix,
                sort_key=self._definition.sort_key,
            )
        ]

    def _update_seq(self, seq: int) -> bytes:
        if not self._options.update_seq:
            return b""
        return b'"update_seq":%b' % dumps(self._database.format_seq(seq))

    # rows

    async def _write_rows(self) -> None:
        options = self._options
        ranges = self._ranges()
        if options.keys is not None and options.descending:
            ranges.reverse()
        rows = Rows(ranges, descending=options.descending, skip=options.skip, limit=options.limit)
        has_head = False
        while True:
            with self._index.read() as reader:
                state = store.state_of(reader)
                if not has_head:
                    offset = self._offset(reader, state, rows)
                page = rows.page(reader, state)
            if not has_head:
                has_head = True
                seq = self._update_seq(state.seq)
                head = b'"total_rows":%d,"offset":%d%b%b' % (state.rows, offset, b"," if seq else b"", seq)
                await self._sink.head(head)
            if page:
                await self._write_page(page)
            if len(page) < query.PAGE_ROWS and rows.is_through:
                return
            await asyncio.sleep(0)

    def _offset(self, reader: Reader, state: IndexState, rows: Rows) -> int:
        known = self._index.remembered.of(state)
        place = rows.place
        offset = known.get(place)
        if offset is None:
            offset = known[place] = rows.offset(reader, state)
        return int(offset)

    async def _write_page(self, page: Sequence[bytes]) -> None:
        if not self._options.include_docs:
            await self._sink.rows(page)
            return
        shown: list[dict[str, Any]] = loads(b"[%b]" % b",".join(page))
        at = 0
        while at < len(page):
            with self._database.snapshot() as snapshot:
                docs = _Documents(snapshot, self._doc_options, with_data=bool(self._options.attachments))
                found = docs.find(shown[at:])
            await self._write_with_docs(page[at : at + len(found)], found)
            at += len(found)
            await asyncio.sleep(0)

    async def _write_with_docs(self, rows: Sequence[bytes], docs: Sequence[Doc]) -> None:
        whole: list[bytes] = []
        for row, doc in zip(rows, docs, strict=True):
            if doc is None:
                whole.append(row)
            elif isinstance(doc, bytes):
                whole.append(b'%b,"doc":%b}' % (row[:-1], doc))
            else:
                await self._sink.rows(whole)
                whole = []
                data = documents.as_json_with_data(self._database, doc, self._data_options)
                await self._sink.long_row(chain((row[:-1], b',"doc":'), data, (b"}",)))
        await self._sink.rows(whole)

    # reductions

    async def _write_reductions(self) -> None:
        """Write the groups and their values; those of a small answer are remembered."""
        with self._index.read() as reader:
            state = store.state_of(reader)
        asked = self._as_asked()
        found = self._index.remembered.of(state).get(asked)
        if found is not None:
            head, rows = found
            await self._sink.head(head)
            await self._sink.rows(rows)
            return
        head = self._update_seq(state.seq)
        await self._sink.head(head)
        kept: list[bytes] = []
        size = 0
        self._is_as_of = {(state.seq, state.purge_seq)}
        async for rows in self._reductions():
            await self._sink.rows(rows)
            size += sum(map(len, rows))
            if size <= REMEMBERED_BYTES_MAX:
                kept += rows
        if size <= REMEMBERED_BYTES_MAX and len(self._is_as_of) == 1:
            self._index.remembered.of(state)[asked] = head, kept

    def _as_asked(self) -> bytes:
        """Tells this query apart from others for reductions of the same index."""
        options = self._options
        keys = (options.start_key, options.end_key)
        return dumps(
            [
                [None if key is UNSET else [key] for key in keys],
                [
                    None if key is None else key.hex()
                    for key in (options.start_key_docid, options.end_key_docid)
                ],
                options.keys,
                [options.descending, options.inclusive_end, options.is_grouped_by_key, options.update_seq],
                [options.group_level, options.skip, options.limit, options.partition],
                self._functions.reduce_limit,
            ]
        )

    async def _reductions(self) -> AsyncIterator[list[bytes]]:
        for groups in self._groups():
            while not groups.is_through:
                with self._index.read() as reader:
                    state = store.state_of(reader)
                    page = groups.page(reader, state)
                self._is_as_of.add((state.seq, state.purge_seq))
                if not page:
                    break
                yield await self._values(page)
                await asyncio.sleep(0)

    def _groups(self) -> Iterator[Groups]:
        """The groups to be shown; with a list of keys, those of each key."""
        options = self._options
        if options.keys is None:
            level = None if options.is_grouped_by_key else options.group_level or 0
            [one] = self._ranges()
            yield self._groups_in(one, level, options.skip, options.limit)
            return
        skip, limit = options.skip, options.limit
        for key, one in zip(options.keys, self._ranges(), strict=True):
            groups = self._groups_in(one, None, skip, limit, shown_key=dumps(key))
            yield groups
            skip, limit = groups.skip, groups.limit

    def _groups_in(
        self, one: Range, level: int | None, skip: int, limit: int, shown_key: bytes | None = None
    ) -> Groups:
        descending, sort_key = self._options.descending, self._definition.sort_key
        return Groups(one, level, descending, skip, limit, shown_key, self._prefix, sort_key)

    async def _values(self, page: Sequence[Group]) -> list[bytes]:
        """The rows that are shown for groups."""
        values = await self._reduce(page)
        return [
            b'{"key":%b,"value":%b}' % (group.key, value)
            if not value.startswith(_OVERFLOW_BEGINNING)
            else _overflow_row(group.key, value)
            for group, value in zip(page, values, strict=True)
        ]

    async def _reduce(self, page: Sequence[Group]) -> list[bytes]:
        source = cast(str, self._definition.reduce)
        functions = self._functions
        built_in = reducers.find(source, limits=functions.reduce_limit)
        if built_in is not None:
            return [
                built_in.finish(partial)
                for partial in query.combine([group.cover for group in page], built_in)
            ]
        covers = [query.texts_of(group.cover) for group in page]
        reduced = await functions.pool.reduce_groups(
            self._definition.design, covers, finish=True, limit=functions.reduce_limit
        )
        return [dumps(value) for value in reduced]


_OVERFLOW_BEGINNING = b'{"%b":' % _OVERFLOW.encode()


def _overflow_row(key: bytes, value: bytes) -> bytes:
    reason = loads(value)[_OVERFLOW]
    return b'{"key":%b,"error":"%b","reason":%b}' % (key, _OVERFLOW.encode(), dumps(reason))


def _bound(key: Any, doc_id: bytes | None) -> Bound | None:
    return None if key is UNSET else Bound(key, doc_id)


Doc = bytes | Revision | None
"""A document as text; a revision whose attachments are to be shown with their data; nothing to be shown."""


class _Documents:
    """The documents that go with rows: their own, or those that their values name."""

    def __init__(self, snapshot: Snapshot, options: DocOptions, *, with_data: bool) -> None:
        self._snapshot = snapshot
        self._options = options
        self._with_data = with_data

    def find(self, rows: Sequence[dict[str, Any]]) -> list[Doc]:
        """Those of the first rows: as many as fit into a page."""
        ids = [row["id"].encode() for row in rows]
        found = self._snapshot.doc_records(ids)
        known = [(doc_id, record) for doc_id, record in zip(ids, found, strict=True) if record is not None]
        columns = records.decode_doc_rows([doc_id for doc_id, _ in known], [record for _, record in known])
        texts = [] if self._with_data else changes_docs.winner_texts(self._snapshot, columns, self._options)
        docs: list[Doc] = []
        size = at = 0
        for row, record in zip(rows, found, strict=True):
            value = row["value"]
            if type(value) is dict and ("_id" in value or "_rev" in value):
                doc = self._linked(row["id"], value)
            elif record is None or record[0] & records.DELETED:
                doc = b"null"
            elif self._with_data:
                doc = self._with_attachments(columns, at)
            elif at < len(texts):
                doc = texts[at]
            else:
                break
            at += record is not None
            docs.append(doc)
            size += len(doc) if isinstance(doc, bytes) else len(doc.body) if doc else 0
            if size >= PAGE_BYTES:
                break
        return docs

    def _with_attachments(self, columns: records.SeqColumns, at: int) -> Doc:
        revision, meta = changes_docs.winner(self._snapshot, columns, at, self._options)
        if revision.attachments and not meta:
            return revision
        return changes_docs.render(revision, meta, self._options)

    def _linked(self, doc_id: str, value: dict[str, Any]) -> Doc:
        """The document that a value names by `_id`, or the revision that it names by `_rev`."""
        named = value.get("_id", doc_id)
        if not isinstance(named, str):
            return b"null"
        if local.is_local(named) and "_rev" not in value:
            return self._linked_local(named)
        found = self._snapshot.document(named)
        if found is None:
            return b"null"
        if "_rev" in value:
            try:
                node = found.tree.find(Rev.parse(value["_rev"]))
            except BadRequest:  # what a document says must not spoil the view
                return b"null"
        else:
            node = found.leaves()[0]
            if node.info.deleted:
                node = None
        if node is None or node.info is None or not node.info.body:
            return b"null"
        return changes_docs.render(self._snapshot.revision(found, node), (), self._options)

    def _linked_local(self, doc_id: str) -> Doc:
        try:
            return document.render(local.read(self._snapshot, doc_id))
        except NotFound:
            return b"null"
