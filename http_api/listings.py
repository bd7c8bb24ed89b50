"""_all_docs, _design_docs and _local_docs: documents by id, by GET, POST or several `queries` at once.

What must stay true here: rows are read and written a page at a time, no faster than the client takes them, so
that memory does not grow with the listing; and no Python statement runs for each row of a plain one but those
of a comprehension. Source: chttpd_db (all_docs_view, multi_all_docs_view) and fabric_view_all_docs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple, cast

from aiohttp import web

from couchlite import changes_docs, doc_texts, document, records
from couchlite.changes_docs import DocOptions
from couchlite.document import Meta, Revision
from couchlite.errors import CouchliteError, NotFound, QueryParseError
from couchlite.jsontext import dumps, escape_all
from couchlite.listing import PAGE_ROWS, DocPage
from couchlite.local_docs import LocalDoc
from couchlite.records import SeqColumns
from couchlite.snapshot import Snapshot

from . import documents, local, system_documents
from .access import server_admin
from .partitions import check_ids
from .request import Request
from .response import Stream
from .rows import JsonRows, RowSink
from .view_options import UNSET, ViewOptions, read_options, read_queries


@dataclass(frozen=True, slots=True)
class Namespace:
    """Which ids a listing is about: `low <= id < high`."""

    low: bytes
    high: bytes | None
    local: bool = False


ALL: Final = Namespace(b"", None)
DESIGN: Final = Namespace(b"_design/", b"_design0")
LOCAL: Final = Namespace(b"_local/", b"_local0", local=True)

_SEPARATOR = b",\r\n"


def lister(request: Request) -> None:
    """Guard: members; for the documents of all users, and of all replications, server administrators."""
    if request.segments[0] in ("_users", "_replicator") and request.segments[1] == "_all_docs":
        server_admin(request)
    request.database()


async def all_docs(request: Request) -> web.StreamResponse:
    return await _answer(request, ALL)


async def design_docs(request: Request) -> web.StreamResponse:
    return await _answer(request, DESIGN)


async def local_docs(request: Request) -> web.StreamResponse:
    return await _answer(request, LOCAL)


async def all_docs_queries(request: Request) -> web.StreamResponse:
    return await _answer_queries(request, ALL)


async def design_docs_queries(request: Request) -> web.StreamResponse:
    return await _answer_queries(request, DESIGN)


async def local_docs_queries(request: Request) -> web.StreamResponse:
    return await _answer_queries(request, LOCAL)


async def _answer(request: Request, namespace: Namespace) -> web.StreamResponse:
    options = await read_options(request)
    _validate(request, options)
    stream = Stream(request)
    await _Listing(request, JsonRows(stream), namespace, options).write()
    return await stream.end(b"\n")


async def write_all_docs(request: Request, sink: RowSink, options: ViewOptions) -> None:
    """The rows of _all_docs for whoever takes them. :raises QueryParseError: the options are no good."""
    _validate(request, options)
    await _Listing(request, sink, ALL, options).write()


async def _answer_queries(request: Request, namespace: Namespace) -> web.StreamResponse:
    queries = []
    for options in await read_queries(request):
        _validate(request, options)
        queries.append(options)
    stream = Stream(request)
    await stream.write(b'{"results":[')
    for number, options in enumerate(queries):
        await stream.write(_SEPARATOR if number else b"\r\n")
        await _Listing(request, JsonRows(stream), namespace, options).write()
    return await stream.end(b"\r\n]}\n")


def _validate(request: Request, options: ViewOptions) -> None:
    options.validate_as_map()
    check_ids(request, options.keys or ())
    partitioned = options.partition is not None
    if partitioned and not request.database().is_partitioned:
        raise QueryParseError("`partition` parameter is not supported on this db")
    options.apply_limit(request.server.config, partitioned=partitioned)


class _Listing:
    """One listing on its way out."""

    def __init__(self, request: Request, sink: RowSink, namespace: Namespace, options: ViewOptions) -> None:
        self._request = request
        self._database = request.database()
        self._sink = sink
        self._namespace = namespace
        self._options = options
        self._doc_options = DocOptions(bool(options.conflicts), options.att_encoding_info)
        encoding_info = {"att_encoding_info"} if options.att_encoding_info else set()
        self._data_options = documents.Options(flags=frozenset({"attachments"} | encoding_info))
        self._hides = not request.principal.is_admin and system_documents.concerns(request)

    async def write(self) -> None:
        if self._options.keys is not None:
            await self._write_keys()
        elif self._namespace.local:
            await self._write_local_range()
        else:
            await self._write_range()
        await self._sink.end()

    # a range of ids

    async def _write_range(self) -> None:
        options, reverse = self._options, self._options.descending
        start, stop = id_range(options, self._namespace)
        with self._database.snapshot() as snapshot:
            state = snapshot.state()
            total = state.doc_count
            if self._namespace is DESIGN:
                total = _count(snapshot, DESIGN.low, DESIGN.high)
            if not reverse:
                before = snapshot.count_docs_before(start) if start else 0
            else:
                before = 0 if stop is None else state.doc_count - snapshot.count_docs_before(stop)
            if options.skip:
                start, stop = _skip(snapshot, start, stop, options)
        seq = self._database.format_seq(state.update_seq)
        await self._write_head(total, min(total, before + options.skip), seq)
        limit = options.limit
        while limit and (stop is None or start < stop):
            with self._database.snapshot() as snapshot:
                page = snapshot.docs(start, stop, reverse=reverse, limit=limit)
                if options.include_docs:
                    rows = self._rows_with_docs(snapshot, page)
                else:
                    rows = _rows(page.ids, page.revs())
            await self._write_rows(rows)
            limit -= len(rows)
            if len(rows) < len(page.ids):
                resume = _beyond(page.ids[len(rows) - 1], reverse)
            elif page.resume is None:
                break
            else:
                resume = page.resume
            start, stop = (start, resume) if reverse else (resume, stop)

    async def _write_local_range(self) -> None:
        options, reverse = self._options, self._options.descending
        start, stop = id_range(options, self._namespace)
        await self._write_head(None, None, None)
        skip, limit = options.skip, options.limit
        while limit and (stop is None or start < stop):
            with self._database.snapshot() as snapshot:
                page = snapshot.local_docs(start, stop, reverse=reverse, limit=min(PAGE_ROWS, skip + limit))
            await self._write_rows([_local_row(doc, options) for doc in page[skip:]])
            limit -= len(page[skip:])
            skip = max(0, skip - len(page))
            if not page:
                break
            resume = _beyond(page[-1].id.encode(), reverse)
            start, stop = (start, resume) if reverse else (resume, stop)

    # keys

    async def _write_keys(self) -> None:
        options, namespace = self._options, self._namespace
        with self._database.snapshot() as snapshot:
            total: int | None = snapshot.state().doc_count
            if namespace is DESIGN:
                total = _count(snapshot, DESIGN.low, DESIGN.high)
        await self._write_head(None if namespace.local else total, None, None)
        keys: list[Any] = options.keys[::-1] if options.descending else options.keys
        keys = keys[options.skip : options.skip + options.limit]
        if namespace is not ALL:
            prefix = namespace.low.decode()
            keys = [key for key in keys if isinstance(key, str) and key.startswith(prefix)]
        while keys:
            with self._database.snapshot() as snapshot:
                rows = self._rows_of_keys(snapshot, keys[:PAGE_ROWS])
            await self._write_rows(rows)
            keys = keys[len(rows) :]

    def _rows_of_keys(self, snapshot: Snapshot, keys: Sequence[Any]) -> list[Row]:
        """The rows of the first keys: as many as fit into a page."""
        ids = [key.encode() if isinstance(key, str) else b"" for key in keys]
        found = snapshot.doc_records(ids)
        columns = records.decode_doc_rows(
            [doc_id for doc_id, record in zip(ids, found, strict=True) if record is not None],
            [record for record in found if record is not None],
        )
        docs = iter(self._docs(snapshot, columns)) if self._options.include_docs else None
        known = zip(columns.flags, columns.revs, strict=True)
        rows: list[Row] = []
        for key, doc_id, record in zip(keys, ids, found, strict=True):
            if record is None:
                rows.append(self._row_of_unknown(snapshot, key, doc_id))
                continue
            flags, rev = next(known)
            shown = b'"rev":%b' % dumps(rev.decode())
            if flags & records.DELETED:
                shown += b',"deleted":true'
            row = b'{"id":%b,"key":%b,"value":{%b}' % (dumps(key), dumps(key), shown)
            if docs is None:
                rows.append(row + b"}")
                continue
            doc = next(docs, None)
            if doc is None:
                break
            if flags & records.DELETED:
                doc = b"null"
            rows.append(b'%b,"doc":%b}' % (row, doc) if isinstance(doc, bytes) else (row, doc))
        return rows

    def _row_of_unknown(self, snapshot: Snapshot, key: Any, doc_id: bytes) -> bytes:
        if doc_id.startswith(LOCAL.low):
            try:
                return _local_row(snapshot.local(key), self._options)
            except NotFound:
                pass
        return b'{"key":%b,"error":"not_found"}' % dumps(key)

    # documents

    def _rows_with_docs(self, snapshot: Snapshot, page: DocPage) -> Sequence[Row]:
        """The first rows of a page: as many as fit into memory."""
        if self._are_plain(page):
            bodies = snapshot.plain_bodies(page.body_keys())
            if None not in bodies and b"{}" not in bodies:
                return _plain_rows_with_docs(page.ids, page.revs(), cast("list[bytes]", bodies))
        columns = page.columns()
        return _rows_with_docs(columns.ids, columns.revs, self._docs(snapshot, columns))

    def _are_plain(self, page: DocPage) -> bool:
        """Whether there can be no more to a document's text than id, revision, body and attachments."""
        if self._hides:
            return False
        return not self._options.conflicts or not records.any_conflicted(page.records)

    def _docs(self, snapshot: Snapshot, columns: SeqColumns) -> Sequence[Doc]:
        """The winners of the first documents: as many as fit into a page."""
        if not self._options.attachments and not self._hides:
            return changes_docs.winner_texts(snapshot, columns, self._doc_options)
        docs: list[Doc] = []
        size = 0
        for at in range(len(columns.ids)):
            revision, meta = changes_docs.winner(snapshot, columns, at, self._doc_options)
            docs.append(self._doc(revision, meta))
            size += len(revision.body)
            if size >= doc_texts.PAGE_BYTES:
                break
        return docs

    def _doc(self, revision: Revision, meta: Meta) -> Doc:
        if self._hides:
            try:
                revision = system_documents.shown(self._request, revision)
            except CouchliteError:
                return b"null"
        if self._options.attachments and revision.attachments:
            return DocWithData(revision, meta)
        return changes_docs.render(revision, meta, self._doc_options)

    # out

    async def _write_head(self, total: int | None, offset: int | None, seq: str | None) -> None:
        """`seq` is an update sequence, which is shown if it was asked for."""
        shown = b',"update_seq":%b' % dumps(seq) if self._options.update_seq else b""
        await self._sink.head(b'"total_rows":%b,"offset":%b%b' % (dumps(total), dumps(offset), shown))

    async def _write_rows(self, rows: Sequence[Row]) -> None:
        if self._options.attachments:
            for row in rows:
                await self._write_row(row)
        else:
            await self._sink.rows(cast("Sequence[bytes]", rows))
        await asyncio.sleep(0)  # a client that takes all that comes must not keep the others waiting

    async def _write_row(self, row: Row) -> None:
        if isinstance(row, bytes):
            await self._sink.rows((row,))
            return
        head, doc = row
        data = documents.as_json_with_data(self._database, doc.revision, self._data_options, doc.meta)
        await self._sink.long_row(chain((head, b',"doc":'), data, (b"}",)))


class DocWithData(NamedTuple):
    """A document whose attachments are to be read when it is written."""

    revision: Revision
    meta: Meta


Doc = bytes | DocWithData
Row = bytes | tuple[bytes, DocWithData]


def _rows(ids: Sequence[bytes], revs: Sequence[bytes]) -> list[bytes]:
    return [
        b'{"id":"%b","key":"%b","value":{"rev":"%b"}}' % (doc_id, doc_id, rev)
        for doc_id, rev in zip(escape_all(ids), escape_all(revs), strict=True)
    ]


def _plain_rows_with_docs(
    ids: Sequence[bytes], revs: Sequence[bytes], bodies: Sequence[bytes]
) -> list[bytes]:
    """A row for each body that is there; none is empty."""
    return [
        b'{"id":"%b","key":"%b","value":{"rev":"%b"},"doc":{"_id":"%b","_rev":"%b",%b}'
        % (doc_id, doc_id, rev, doc_id, rev, body[1:])
        for doc_id, rev, body in zip(escape_all(ids), escape_all(revs), bodies, strict=False)
    ]


def _rows_with_docs(ids: Sequence[bytes], revs: Sequence[bytes], docs: Sequence[Doc]) -> list[Row]:
    """A row for each document that is there."""
    heads = zip(escape_all(ids), escape_all(revs), docs, strict=False)
    return [
        (b'{"id":"%b","key":"%b","value":{"rev":"%b"}' % (doc_id, doc_id, rev), doc)
        if isinstance(doc, DocWithData)
        else b'{"id":"%b","key":"%b","value":{"rev":"%b"},"doc":%b}' % (doc_id, doc_id, rev, doc)
        for doc_id, rev, doc in heads
    ]


def _local_row(doc: LocalDoc, options: ViewOptions) -> bytes:
    revision = local.as_revision(doc)
    doc_id, rev = dumps(doc.id), str(revision.rev).encode()
    row = b'{"id":%b,"key":%b,"value":{"rev":"%b"}' % (doc_id, doc_id, rev)
    return row + b',"doc":%b}' % document.render(revision) if options.include_docs else row + b"}"


# --- ranges of ids


def id_range(options: ViewOptions, namespace: Namespace) -> tuple[bytes, bytes | None]:
    """The ids asked for as `start <= id < stop`, whichever way they are read.

    A key that is not a string is before all ids, as in Erlang's order of terms.
    """
    first, last = _place(options.start_key), _place(options.end_key)
    if options.partition is None:
        first = options.start_key_docid if first is None else first
        last = options.end_key_docid if last is None else last
    if last and options.inclusive_end is not options.descending:
        last = _behind(last)
    if options.descending:
        start, stop = last or b"", _behind(first) if first else first
    else:
        start, stop = first or b"", last
    low, high = namespace.low, namespace.high
    if options.partition is not None:
        low, high = f"{options.partition}:".encode(), f"{options.partition};".encode()
    if high is not None and (stop is None or stop > high):
        stop = high
    return max(start, low), stop


def _place(key: Any) -> bytes | None:
    """Where a key stands among the ids; b"" is before all of them, None where there is no key."""
    if key is UNSET:
        return None
    return key.encode() if isinstance(key, str) else b""


def _behind(doc_id: bytes) -> bytes:
    """Just after an id."""
    return doc_id + b"\0"


def _beyond(doc_id: bytes, reverse: bool) -> bytes:
    """Where the page after an id starts, or when reversed stops."""
    return doc_id if reverse else _behind(doc_id)


def _count(snapshot: Snapshot, start: bytes, stop: bytes | None) -> int:
    behind = snapshot.state().doc_count if stop is None else snapshot.count_docs_before(stop)
    return behind - snapshot.count_docs_before(start)


def _skip(
    snapshot: Snapshot, start: bytes, stop: bytes | None, options: ViewOptions
) -> tuple[bytes, bytes | None]:
    """The range without its first rows."""
    if not options.descending:
        first = snapshot.doc_after(snapshot.count_docs_before(start) + options.skip)
        return start if first is None else max(start, first), b"" if first is None else stop
    rows = snapshot.state().doc_count if stop is None else snapshot.count_docs_before(stop)
    return start, snapshot.doc_after(rows - options.skip) if rows > options.skip else b""
