"""Mango queries: /{db}/_find and /{db}/_explain.

    options -> plan -> pages of rows, each with its documents: match, skip, cut to the fields, until the limit

What must stay true here: a page is one short snapshot, and others get their turn between pages, so that a
query that goes through a whole database keeps nobody waiting; a bookmark names the last row that was shown,
so that the next page goes on behind it, whatever was written or deleted meanwhile. Source: mango_httpd,
mango_cursor and mango_cursor_view.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiohttp import web

from couchlite import changes_docs, partitions, records
from couchlite.changes_docs import DocOptions
from couchlite.collation import sort_key
from couchlite.errors import BadRequest, QueryParseError
from couchlite.index import Index, designs, store
from couchlite.index.layout import ROW_END, before_id, behind_id, partition_prefix
from couchlite.jsontext import dumps, loads
from couchlite.mango import compile_normalized, planner
from couchlite.mango.conditions import fields_of
from couchlite.mango.planner import Plan, Wanted
from couchlite.mango.projection import compile_projection
from couchlite.mango.reading import reader_for
from couchlite.records import SeqColumns, State
from couchlite.snapshot import Snapshot

from . import response, system_documents, view_query
from .find_options import Bookmark, FindOptions, read_find, setting
from .metrics import QUERY_TIME, Metrics
from .request import Request
from .response import Stream

PAGE_ROWS = 1000
FIRST_PAGE_EXTRA_ROWS = 1
"""Beyond the limit: CouchDB counts the row that it stops at."""
_DESIGN, _DESIGN_END = b"_design/", b"_design0"
_SEPARATOR = b",\r\n"


async def find(request: Request) -> web.StreamResponse:
    """POST of a query."""
    only = system_documents.only_document(request)
    options, plan, index, _state = await _prepare(request)
    stream = Stream(request)
    await stream.write(b'{"docs":[')
    end = b"\r\n]"
    if not plan.is_empty:
        cursor = _Cursor(request, options, plan, index, only)
        await cursor.write(stream)
        cursor.count(request.app.metrics)
        end += b"".join([b',\r\n"%b": %b' % (name, dumps(value)) for name, value in cursor.remarks()])
    return await stream.end(end + b"}\r\n")


async def explain(request: Request) -> web.StreamResponse:
    """POST of a query, to be told how it would be answered."""
    request.require_json_type()
    options = read_find(await _body(request), request.server.config, explain=True)
    known, _state = designs.mango_indexes(request.database())
    plan = planner.plan(list(known), _wanted(request, options), explain=True)
    return response.json(request, 200, _explained(request, options, plan))


async def _prepare(request: Request) -> tuple[FindOptions, Plan, Index | None, State]:
    request.require_json_type()
    options = read_find(await _body(request), request.server.config)
    known, state = designs.mango_indexes(request.database())
    plan = planner.plan(list(known), _wanted(request, options))
    if options.partition and not request.database().is_partitioned:
        raise QueryParseError("`partition` parameter is not supported on this db")
    index = None
    if plan.index is not None and plan.index.ddoc is not None and not plan.is_empty:
        is_wanted = options.update and options.stale != "ok"
        index = await view_query.up_to_date(request, known[plan.index], is_wanted, state)
    return options, plan, index, state


async def _body(request: Request) -> dict[str, Any]:
    """The request, with the partition that its address names. :raises BadRequest: it names another."""
    body = await request.json_object()
    partition = request.query_value("partition")
    if partition is None:
        return body
    if body.get("partition", partition) != partition:
        raise BadRequest("Conflicting value for `partition` in query string", error="bad_partition")
    return {"partition": partition, **body}


def _wanted(request: Request, options: FindOptions) -> Wanted:
    return Wanted(
        options.selector,
        options.sort_columns,
        options.use_index,
        options.allow_fallback,
        in_partition=bool(options.partition),
        of_partitioned=request.database().is_partitioned,
    )


# --- going through rows


class Candidates(NamedTuple):
    """Some rows and their documents, in order."""

    keys: Sequence[Any]
    ids: Sequence[bytes]
    values: Sequence[Any]
    """What the selector has to see of the documents; None for one that is gone."""
    text_of: Callable[[int], bytes] | None
    """A document as JSON; None when `values` are all there is to show."""


@dataclass(slots=True)
class _Range:
    """What is left to be read: row keys of an index, or ids."""

    start: bytes
    stop: bytes | None

    @property
    def is_empty(self) -> bool:
        return self.stop is not None and self.start >= self.stop

    def go_on(self, start: bytes, stop: bytes | None) -> None:
        self.start, self.stop = start, stop


class _Cursor:
    """One query on its way. `only` is the id of the only document that may be found, if others may not."""

    def __init__(
        self,
        request: Request,
        options: FindOptions,
        plan: Plan,
        index: Index | None,
        only: bytes | None,
    ) -> None:
        assert plan.index is not None
        self._database = request.database()
        self._config = request.server.config
        self._options = options
        self._plan = plan
        self._chosen = plan.index
        self._index = index
        self._only = only
        self._matches = compile_normalized(options.selector)
        self._project = compile_projection(list(options.fields))
        self._covered = planner.covers(plan.index, _needed_fields(options))
        self._doc_options = DocOptions(conflicts=options.conflicts)
        self._needs_bodies_only = not options.conflicts and not any(
            name[:1] in ("_", "$") for name in fields_of(options.selector)
        )
        self._read = reader_for(options.selector)
        self._rest = self._whole_range()
        self._last: Bookmark | None = None
        self._skip = options.skip
        self._limit = options.limit
        self._rows_examined = 0
        self._docs_examined = 0
        self._quorum_docs_examined = 0
        """Those that CouchDB would read from more than one node, as `r` asks."""
        self._results = 0
        self._begun = time.perf_counter()

    async def write(self, stream: Stream) -> None:
        wanted = self._options.limit + self._options.skip + FIRST_PAGE_EXTRA_ROWS
        separator = b"\r\n"
        through = False
        while not through and not self._rest.is_empty:
            page = self._page(min(wanted, PAGE_ROWS))
            shown, through = self._shown(page)
            if shown:
                await stream.write(separator + _SEPARATOR.join(shown))
                separator = _SEPARATOR
            wanted = min(2 * max(wanted, 50), PAGE_ROWS)
            if not through:
                await asyncio.sleep(0)

    def remarks(self) -> list[tuple[bytes, Any]]:
        """What is told after the documents."""
        last = self._last
        bookmark = self._options.bookmark_text if last is None else last.encode()
        found: list[tuple[bytes, Any]] = [(b"bookmark", bookmark)]
        if self._options.execution_stats:
            found.append((b"execution_stats", self._stats()))
        if warnings := self._warnings():
            found.append((b"warning", "\n".join(warnings)))
        return found

    def count(self, metrics: Metrics) -> None:
        """Add what it took to the statistics."""
        metrics.observe(QUERY_TIME, int(1_000_000 * (time.perf_counter() - self._begun)))
        metrics.count("mango.keys_examined", self._rows_examined)
        metrics.count("mango.docs_examined", self._docs_examined)
        metrics.count("mango.results_returned", self._results)
        if self._chosen.ddoc is None:
            metrics.count("mango.unindexed_queries")
        if self._scans_too_much():
            metrics.count("mango.too_many_docs_scanned")

    def _scans_too_much(self) -> bool:
        threshold = setting(self._config, "index_scan_warning_threshold", 10)
        return threshold > 0 and self._docs_examined + self._quorum_docs_examined > threshold * max(
            1, self._results
        )

    def _stats(self) -> dict[str, Any]:
        return {
            "total_keys_examined": self._rows_examined,
            "total_docs_examined": self._docs_examined,
            "total_quorum_docs_examined": self._quorum_docs_examined,
            "results_returned": self._results,
            "execution_time_ms": round(1000 * (time.perf_counter() - self._begun), 3),
        }

    def _warnings(self) -> list[str]:
        found = []
        named = self._options.use_index
        if named and not planner.is_named(self._chosen, named):
            ddoc = named[0].removeprefix("_design/")
            if len(named) == 1:
                why = "it does not contain a valid index for this query."
            else:
                ddoc, why = f"{ddoc}, {named[1]}", "it is not a valid index for this query."
            found.append(f"_design/{ddoc} was not used because {why}")
        if self._chosen.ddoc is None:
            found.append("No matching index found, create an index to optimize query time.")
        if self._scans_too_much():
            found.append(
                "The number of documents examined is high in proportion to the number of results returned. "
                "Consider adding a more specific index to improve this."
            )
        return found

    def _shown(self, page: Candidates) -> tuple[list[bytes], bool]:
        """The documents of a page that are part of the answer, and whether it is complete."""
        shown: list[bytes] = []
        self._rows_examined += len(page.values)
        is_quorum_read = self._options.r > 1 and not self._covered
        is_shard_read = not is_quorum_read and not self._covered
        for at, value in enumerate(page.values):
            if value is None or (self._only is not None and page.ids[at] != self._only):
                continue
            self._docs_examined += is_shard_read
            self._quorum_docs_examined += is_quorum_read
            if not self._matches(value):
                continue
            if not self._limit:
                self._rows_examined -= len(page.values) - at - 1
                return shown, True
            self._last = Bookmark(page.keys[at], page.ids[at].decode())
            if self._skip:
                self._skip -= 1
                continue
            shown.append(self._text(page, at))
            self._limit -= 1
            self._results += 1
        return shown, not self._limit

    def _text(self, page: Candidates, at: int) -> bytes:
        """What is shown of a document."""
        if page.text_of is None:
            value = page.values[at]
        else:
            text = page.text_of(at)
            if self._project is None:
                return text
            value = loads(text)
        return dumps(value if self._project is None else self._project(value))

    # pages

    def _page(self, limit: int) -> Candidates:
        return self._documents_page(limit) if self._index is None else self._index_page(self._index, limit)

    def _documents_page(self, limit: int) -> Candidates:
        rest, reverse = self._rest, self._options.descending
        with self._database.snapshot() as snapshot:
            page = snapshot.docs(rest.start, rest.stop, reverse=reverse, limit=limit)
            columns = page.columns()
            kept = [at for at, doc_id in enumerate(columns.ids) if not doc_id.startswith(_DESIGN)]
            if len(kept) < len(columns.ids):
                if self._options.r == 1:
                    self._rows_examined += len(columns.ids) - len(kept)
                    self._docs_examined += len(columns.ids) - len(kept)
                columns = columns.pick(kept)
            seen = self._bodies(snapshot, columns) if self._needs_bodies_only else None
            texts = (
                None if seen is not None else changes_docs.winner_texts(snapshot, columns, self._doc_options)
            )
        seen = seen if seen is not None else texts or []
        ids = columns.ids[: len(seen)]
        if len(seen) < len(columns.ids):
            self._go_on_behind_id(ids[-1])
        elif page.resume is None:
            rest.go_on(b"", b"")
        elif reverse:
            rest.go_on(rest.start, page.resume)
        else:
            rest.go_on(page.resume, rest.stop)
        keys = [doc_id.decode() for doc_id in ids]
        if texts is not None:
            return Candidates(keys, ids, self._read(texts), texts.__getitem__)
        revs = columns.revs
        return Candidates(keys, ids, self._read(seen), lambda at: _spliced(keys[at], revs[at], seen[at]))

    def _bodies(self, snapshot: Snapshot, columns: SeqColumns) -> list[bytes] | None:
        """The bodies of the first documents: as many as fit into a page; None when one of them is more than
        its body."""
        bodies = snapshot.plain_bodies([records.u64(number) for number in columns.bodies])
        found = [body for body in bodies if body is not None]
        return found if len(found) == len(bodies) else None

    def _go_on_behind_id(self, doc_id: bytes) -> None:
        if self._options.descending:
            self._rest.go_on(self._rest.start, doc_id)
        else:
            self._rest.go_on(doc_id + b"\0", self._rest.stop)

    def _index_page(self, index: Index, limit: int) -> Candidates:
        rest, reverse = self._rest, self._options.descending
        with index.read() as reader:
            page = store.page(reader, rest.start, rest.stop, reverse=reverse, limit=limit)
        rows: list[dict[str, Any]] = loads(b"[%b]" % b",".join(page.texts))
        keys, ids = [row["key"] for row in rows], [row["id"].encode() for row in rows]
        if self._covered:
            values: Sequence[Any] = [self._document_of(row) for row in rows]
            text_of: Callable[[int], bytes] | None = None
        else:
            with self._database.snapshot() as snapshot:
                texts = self._texts(snapshot, ids)
            values = self._read(texts)
            text_of = _text_at(texts)
        if len(values) < len(rows):
            last, ended = page.keys[len(values) - 1], False
        else:
            last, ended = (page.keys[-1] if page.keys else b""), page.ended
        if ended:
            rest.go_on(b"", b"")
        elif reverse:
            rest.go_on(rest.start, last)
        else:
            rest.go_on(last + b"\0", rest.stop)
        return Candidates(keys, ids, values, text_of)

    def _texts(self, snapshot: Snapshot, ids: Sequence[bytes]) -> list[bytes | None]:
        """The documents of the first rows: as many as fit into a page."""
        found = snapshot.doc_records(ids)
        living = [
            (doc_id, record)
            for doc_id, record in zip(ids, found, strict=True)
            if record is not None and not record[0] & records.DELETED
        ]
        columns = records.decode_doc_rows([doc_id for doc_id, _ in living], [record for _, record in living])
        texts = changes_docs.winner_texts(snapshot, columns, self._doc_options)
        if len(texts) == len(ids):
            return list(texts)
        made = iter(texts)
        placed: list[bytes | None] = []
        for record in found:
            if record is None or record[0] & records.DELETED:
                placed.append(None)
            elif (text := next(made, None)) is not None:
                placed.append(text)
            else:
                break
        return placed

    def _document_of(self, row: dict[str, Any]) -> dict[str, Any]:
        """What an index knows of a document."""
        document: dict[str, Any] = {"_id": row["id"]}
        for (name, _direction), value in zip(self._chosen.fields, row["key"], strict=True):
            document[name] = value
        return document

    # ranges

    def _whole_range(self) -> _Range:
        options = self._options
        if self._index is None:
            return self._range_of_ids(options.bookmark)
        prefix = partition_prefix(options.partition.encode()) if options.partition else b""
        start = prefix + sort_key(self._plan.start_key())[:-1]
        stop = prefix + sort_key(self._plan.end_key())[:-1] + ROW_END
        if options.bookmark is not None:
            key, doc_id = prefix + sort_key(options.bookmark.key), options.bookmark.doc_id.encode()
            if options.descending:
                stop = min(stop, before_id(key, doc_id))
            else:
                start = max(start, behind_id(key, doc_id))
        return _Range(start, stop)

    def _range_of_ids(self, bookmark: Bookmark | None) -> _Range:
        """All documents, or those between bounds of their ids; what is no string comes before all ids."""
        low, high = (self._plan.start_key() or [""])[0], (self._plan.end_key() or [None])[0]
        start = low.encode() if isinstance(low, str) else b""
        stop: bytes | None = None
        if self._plan.end_key():
            stop = high.encode() + b"\0" if isinstance(high, str) else b""
        if self._options.partition:
            lowest, highest = partitions.ids_of(self._options.partition)
            start, stop = max(start, lowest), highest if stop is None else min(stop, highest)
        if bookmark is not None:
            last = bookmark.doc_id.encode()
            if self._options.descending:
                stop = last if stop is None else min(stop, last)
            else:
                start = max(start, last + b"\0")
        return _Range(start, stop)


def _needed_fields(options: FindOptions) -> list[str] | None:
    """Fields without which a query can't be answered; None for whole documents."""
    if not options.fields or options.conflicts:
        return None
    needed = [*options.fields, *fields_of(options.selector)]
    return None if any("." in name or "\\" in name for name in needed) else needed


def _text_at(texts: Sequence[bytes | None]) -> Callable[[int], bytes]:
    return lambda at: texts[at] or b"null"


def _spliced(doc_id: str, rev: bytes, body: bytes) -> bytes:
    """A document without attachments as JSON."""
    comma = b"," if len(body) > 2 else b""
    return b'{"_id":%b,"_rev":%b%b%b' % (dumps(doc_id), dumps(rev.decode()), comma, body[1:])


# --- _explain


def _explained(request: Request, options: FindOptions, plan: Plan) -> dict[str, Any]:
    shown_fields = options.fields or None
    told: dict[str, Any] = {
        "dbname": request.database().name,
        "index": None if plan.index is None else plan.index.shown(),
        "partitioned": request.database().is_partitioned,
        "selector": options.selector,
        "opts": options.shown(),
        "limit": options.limit,
        "skip": options.skip,
        "fields": options.fields,
        "index_candidates": [
            {
                "index": index.shown(),
                "analysis": {
                    "usable": usable,
                    "reasons": [{"name": reason}],
                    "ranking": ranking,
                    "covering": None if index.ddoc is None else planner.covers(index, shown_fields),
                },
            }
            for index, usable, reason, ranking in plan.candidates
        ],
        "selector_hints": [planner.hints(options.selector)],
    }
    if plan.index is None:
        return told
    covering = planner.covers(plan.index, _needed_fields(options))
    start, end = _shown_keys(plan)
    told["mrargs"] = {
        "include_docs": options.r == 1 and not covering,
        "view_type": "map",
        "reduce": False,
        "partition": options.partition or None,
        "start_key": end if options.descending else start,
        "end_key": start if options.descending else end,
        "direction": "rev" if options.descending else "fwd",
        "stable": options.stable or options.stale == "ok",
        "update": options.update and options.stale != "ok",
        "conflicts": True if options.conflicts else "undefined",
    }
    told["covering"] = covering
    return told


def _shown_keys(plan: Plan) -> tuple[Any, Any]:
    if plan.is_empty:
        return None, None
    start, end = plan.start_key(), plan.end_key()
    if plan.index is None or plan.index.ddoc is None:
        return (start[0] if start else "", end[0] if end else "<MAX>")
    return start, [*end, "<MAX>"]
