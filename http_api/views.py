"""Views: /{db}/_design/{name}/_view/{view}, its `queries`, and what concerns a design document's indexes.

Source: chttpd_view.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from couchlite import collation
from couchlite.collation import SortKey
from couchlite.errors import CouchliteError, MethodNotAllowed, QueryParseError
from couchlite.index import IndexDefinition, designs
from couchlite.jsontext import dumps
from couchlite.records import State

from . import response, system_documents
from .request import Request
from .response import Stream
from .rows import JsonRows
from .view_options import UNSET, ViewOptions, read_queries, read_view_options
from .view_query import is_reduced, log_failure, write_rows

_SEPARATOR = b",\r\n"
_VIEW_METHODS = "GET,POST,HEAD"


class EmptyRange(QueryParseError):
    """CouchDB takes this one for a fault and adds where it was logged."""

    def __init__(self, descending: str) -> None:
        super().__init__(
            "No rows can match your key range, reverse your start_key and end_key "
            f"or set descending={descending}"
        )
        self.members = {"ref": 0}


async def view(request: Request) -> web.StreamResponse:
    """GET and POST of a view."""
    if len(request.segments) != 5:
        raise MethodNotAllowed(_VIEW_METHODS)
    definition, state = find(request, *request.segments[2:5:2])
    options = await read_view_options(request)
    validate(request, definition, options)
    request.app.metrics.count("couchdb.httpd.view_reads")
    stream = Stream(request)
    await write_rows(request, JsonRows(stream), definition, options, state)
    return await stream.end(b"\n")


async def queries(request: Request) -> web.StreamResponse:
    """POST of several queries of a view at once."""
    request.require_json_type()
    definition, state = find(request, *request.segments[2:5:2])
    wanted = []
    for options in await read_queries(request):
        validate(request, definition, options)
        wanted.append(options)
    stream = Stream(request)
    await stream.write(b'{"results":[')
    for number, options in enumerate(wanted):
        await stream.write(_SEPARATOR if number else b"\r\n")
        await write_rows(request, JsonRows(stream), definition, options, state)
    return await stream.end(b"\r\n]}\n")


def find(request: Request, design_name: str, view_name: str) -> tuple[IndexDefinition, State]:
    """A view, and what the database is now. :raises NotFound:"""
    found = designs.find(request.database(), f"_design/{design_name}")
    return found.views.find(view_name), found.state


def validate(request: Request, definition: IndexDefinition, options: ViewOptions) -> None:
    options.apply_limit(request.server.config, partitioned=definition.partitioned)
    if options.include_docs:
        system_documents.check_reads_all(request)
    if is_reduced(definition, options):
        options.validate_as_reduce()
    else:
        options.validate_as_map()
    if definition.partitioned and options.partition is None:
        raise QueryParseError("`partition` parameter is mandatory for queries to this view.")
    if options.partition is not None and not definition.partitioned:
        raise QueryParseError("`partition` parameter is not supported in this design doc")
    _check_range(options, definition.sort_key)


def _check_range(options: ViewOptions, sort_key: SortKey) -> None:
    if options.start_key is UNSET or options.end_key is UNSET:
        return
    start, end = sort_key(options.start_key), sort_key(options.end_key)
    if dumps(options.start_key) == dumps(options.end_key):
        return
    low, high = (b"\xff", b"") if options.descending else (b"", b"\xff")
    first = (start, options.start_key_docid if options.start_key_docid is not None else low)
    last = (end, options.end_key_docid if options.end_key_docid is not None else high)
    if options.descending:
        if first < last:
            raise EmptyRange("false")
    elif first >= last:
        raise EmptyRange("true")


# --- indexes


async def info(request: Request) -> web.StreamResponse:
    """GET /{db}/_design/{name}/_info: the indexes of all its views, taken together."""
    if len(request.segments) != 4:
        raise MethodNotAllowed("GET")
    database = request.database()
    views, state = designs.find(database, f"_design/{request.segments[2]}")
    open_ones = [database.indexes.get(definition) for definition in views.definitions()]
    states = [index.state() for index in open_ones]
    seq = min((one.seq for one in states), default=0)
    pending = max((_pending(request, one.seq) for one in states), default=0)
    return response.json(
        request,
        200,
        {
            "name": request.segments[2],
            "view_index": {
                "updates_pending": {"minimum": pending, "preferred": pending, "total": pending},
                "waiting_commit": False,
                "waiting_clients": sum(index.waiting for index in open_ones),
                "updater_running": any(index.is_building() for index in open_ones),
                "update_seq": seq,
                "sizes": {
                    "file": sum(index.engine.size_bytes() for index in open_ones),
                    "external": sum(one.row_bytes for one in states),
                    "active": sum(one.row_bytes for one in states),
                },
                "signature": views.signature(),
                "purge_seq": min((one.purge_seq for one in states), default=state.purge_seq),
                "language": views.language,
                "compact_running": False,
                "collator_versions": [collation.version()],
            },
        },
    )


def _pending(request: Request, seq: int) -> int:
    with request.database().snapshot() as snapshot:
        return snapshot.count_changes(seq)


async def clean_up(request: Request) -> web.StreamResponse:
    """POST /{db}/_view_cleanup: remove indexes that no design document wants any more."""
    request.require_json_type()
    database = request.database()
    wanted = {
        definition.signature for views in designs.all_of(database) for definition in views.definitions()
    }
    await asyncio.to_thread(database.indexes.clean_up, wanted)
    return response.json(request, 202, {"ok": True})


def compact(request: Request, name: str) -> None:
    """Begin to give the unused space of a design document's indexes back."""
    database = request.database()
    views = designs.find(database, f"_design/{name}").views
    open_ones = [
        database.indexes.get(definition)
        for definition in views.definitions()
        if database.indexes.is_made(definition)
    ]

    def run() -> None:
        for index in open_ones:
            index.engine.reclaim()

    task = asyncio.get_running_loop().run_in_executor(None, run)
    task.add_done_callback(log_failure)


async def no_temporary_view(request: Request) -> web.StreamResponse:
    raise Gone("Temporary views are not supported in CouchDB")


class Gone(CouchliteError):
    status = 410
    error = "gone"
