"""/_replications: what the ledger tells of replications. CouchDB has no such thing.

    GET /_replications                                all of them, with counts
    GET /_replications/{id}                           one: its runs, and what was not written and why
    GET /_replications/_explain?doc_id=               what each of them did with a document
    GET /_replications/{id}/_explain?doc_id=          what one of them did with it

An id may be shortened, as long as one replication is meant.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from couchlite.errors import IllegalDocumentId, NotFound, QueryParseError

from . import replication, response, scheduler
from .request import Request
from .values import is_text

DEFAULT_LIMIT = 100
LIMIT_MAX = 10_000
"""Rows of one answer."""


async def get(request: Request) -> web.StreamResponse:
    """Any of them."""
    if not all(is_text(segment) for segment in request.segments):
        raise NotFound()
    match request.segments[1:]:
        case []:
            return await _list(request)
        case ["_explain"]:
            return await _explain(request, None)
        case [name, "_explain"]:
            return await _explain(request, name)
        case [name]:
            return await _show(request, name)
    raise NotFound()


async def _list(request: Request) -> web.StreamResponse:
    limit, skip = _page(request)
    found = await asyncio.to_thread(replication.ledger(request).replications)
    shown = {
        "total_rows": len(found),
        "offset": min(skip, len(found)),
        "replications": found[skip : skip + limit],
    }
    return response.json(request, 200, shown)


async def _show(request: Request, name: str) -> web.StreamResponse:
    limit, skip = _page(request)
    ledger = replication.ledger(request)
    shown = await asyncio.to_thread(ledger.show, name, skip=skip, limit=limit)
    return response.json(request, 200, shown)


async def _explain(request: Request, name: str | None) -> web.StreamResponse:
    doc_id = request.query_value("doc_id")
    if not doc_id:
        raise QueryParseError("`doc_id` is missing")
    if not is_text(doc_id):
        raise IllegalDocumentId("Document id must be valid UTF-8")
    found = await asyncio.to_thread(replication.ledger(request).explain, doc_id, name)
    return response.json(request, 200, {"doc_id": doc_id, "replications": found})


def _page(request: Request) -> tuple[int, int]:
    limit = scheduler.count(request, "limit", DEFAULT_LIMIT)
    return min(limit, LIMIT_MAX), scheduler.count(request, "skip", 0)
