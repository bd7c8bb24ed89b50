"""/_scheduler: the replications that run or wait to (`jobs`), and the documents that want them (`docs`).

A document that has come to its end says so itself; of all others the service is asked. Source:
couch_replicator_httpd, couch_replicator_fabric and couch_replicator:info_from_doc. Where a state filter is
given, `limit` and `skip` count the documents that pass it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from couchlite.database import Database
from couchlite.doc_texts import PAGE_BYTES
from couchlite.errors import BadRequest, NotFound, QueryParseError
from couchlite.jsontext import dumps, loads
from replicator import ReplicationError, documents, parse_endpoint

from . import replication_service, response
from .listings import ALL, id_range
from .request import Request
from .values import is_text
from .view_options import ViewOptions, read_view_options

DEFAULT_LIMIT = 100
PAGE_ROWS = 200


async def get(request: Request) -> web.StreamResponse:
    """GET of anything below /_scheduler."""
    segments = request.segments[1:]
    if not all(is_text(segment) for segment in segments):
        raise NotFound()
    match segments:
        case ["jobs"]:
            return await _jobs(request)
        case ["jobs", name]:
            return response.json(request, 200, await replication_service.of(request).job(name))
        case ["docs"]:
            return await _docs(request, documents.DATABASE)
        case ["docs", *path]:
            name, doc_id = _place(path)
            if doc_id is None:
                return await _docs(request, name)
            return await _doc(request, name, doc_id)
    return response.json(request, 404, {"error": "not found"})


def _place(path: Sequence[str]) -> tuple[str, str | None]:
    """The replicator database of a path, whose slashes may be escaped or not, and the document's id if there
    is one. :raises BadRequest:"""
    if len(path) <= 2 and documents.is_replicator(path[0]):
        return path[0], path[1] if len(path) == 2 else None
    if len(path) > 1 and documents.DATABASE in path:
        end = path.index(documents.DATABASE) + 1
        if len(path) - end <= 1:
            return "/".join(path[:end]), path[end] if end < len(path) else None
    raise BadRequest("Invalid path")


async def _jobs(request: Request) -> web.StreamResponse:
    limit = count(request, "limit", DEFAULT_LIMIT)
    skip = count(request, "skip", 0)
    jobs = await replication_service.of(request).jobs()
    shown = {
        "total_rows": len(jobs),
        "offset": min(skip, len(jobs)),
        "jobs": jobs[skip : skip + limit],
    }
    return response.json(request, 200, shown)


def count(request: Request, name: str, default: int) -> int:
    """A number of the query. :raises QueryParseError: it is none."""
    text = request.query_value(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        raise QueryParseError(f"{name} must be an integer") from None
    if number < 0:
        raise QueryParseError(f"{name} not in range of [0,infinity]")
    return number


# --- documents


async def _doc(request: Request, name: str, doc_id: str) -> web.StreamResponse:
    database = request.server.open(name)
    active = (await replication_service.of(request).documents(name)).get(doc_id)
    if active is not None:
        return response.json(request, 200, _first_database(active))
    try:
        fields = database.get(doc_id)
    except NotFound:
        raise NotFound() from None  # deleted or not
    return response.json(request, 200, _from_document(name, doc_id, fields))


async def _docs(request: Request, name: str) -> web.StreamResponse:
    states = _states(request.query_value("states"))
    options = await read_view_options(request)
    options.validate_as_map()
    database = request.server.open(name)
    with database.snapshot() as snapshot:
        total = snapshot.state().doc_count
        start, stop = id_range(options, ALL)
        if options.descending:
            before = 0 if stop is None else total - snapshot.count_docs_before(stop)
        else:
            before = snapshot.count_docs_before(start) if start else 0
    active = await replication_service.of(request).documents(name)
    stream = response.Stream(request)
    offset = min(total, before + options.skip)
    await stream.write(b'{"total_rows":%d,"offset":%d,"docs":[\r\n' % (total, offset))
    separator = b""
    skip, limit = options.skip, options.limit
    async for shown in _listed(database, options, active):
        if shown["state"] is None or (states and shown["state"] not in states):
            continue
        if skip:
            skip -= 1
            continue
        if limit <= 0:
            break
        limit -= 1
        await stream.write(separator + dumps(shown))
        separator = b",\r\n"
    return await stream.end(b"\r\n]}\n")


def _states(text: str | None) -> frozenset[str]:
    """:raises QueryParseError: one is none."""
    words = [word.lower() for word in (text or "").split(",") if word]
    if not all(word in documents.STATES for word in words):
        raise QueryParseError(f"States must be one or more of [{','.join(documents.STATES)}]")
    return frozenset(words)


async def _listed(
    database: Database, options: ViewOptions, active: Mapping[str, dict[str, Any]]
) -> AsyncIterator[dict[str, Any]]:
    """What is told of each document that is asked for, a page at a time."""
    start, stop = id_range(options, ALL)
    reverse = options.descending
    while stop is None or start < stop:
        with database.snapshot() as snapshot:
            page = snapshot.docs(start, stop, reverse=reverse, limit=PAGE_ROWS)
            ids = [doc_id.decode() for doc_id in page.ids]
            bodies: list[bytes | None] = []
            size = 0
            for doc_id in ids:
                is_wanted = documents.is_ordinary(doc_id) and doc_id not in active
                bodies.append(snapshot.winner(doc_id).body if is_wanted else None)
                size += len(bodies[-1] or b"")
                if size >= PAGE_BYTES:
                    break
        for doc_id, body in zip(ids, bodies, strict=False):
            if doc_id in active:
                yield _first_database(active[doc_id])
            elif body is not None:
                yield _from_document(database.name, doc_id, loads(body))
        resume = page.resume
        if len(bodies) < len(ids):
            last = ids[len(bodies) - 1].encode()
            resume = last if reverse else last + b"\0"
        if resume is None:
            return
        start, stop = (start, resume) if reverse else (resume, stop)
        await asyncio.sleep(0)


def _first_database(row: dict[str, Any]) -> dict[str, Any]:
    """As CouchDB orders the members."""
    return {"database": row["database"], **row}


def _from_document(name: str, doc_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a document says of its replication; its state is None while it says nothing."""
    state = fields.get(documents.STATE)
    updated = fields.get(documents.STATE_TIME)
    info: Any = None
    error_count, started = 0, None
    if state == "completed":
        stats = fields.get(documents.STATS)
        info = dict(stats) if isinstance(stats, dict) else {}
        started = info.pop("start_time", None)
    elif state == "failed":
        reason = fields.get(documents.REASON)
        info = None if reason is None else {"error": reason}
        error_count, started = 1, updated
    else:
        state, updated = None, updated if state is not None else None
    return {
        "database": name,
        "doc_id": doc_id,
        "id": None,
        "source": _shown_endpoint(fields.get("source")),
        "target": _shown_endpoint(fields.get("target")),
        "state": state,
        "error_count": error_count,
        "info": info,
        "start_time": started,
        "last_updated": updated,
    }


def _shown_endpoint(endpoint: Any) -> str | None:
    """An endpoint without credentials; a name is told as it is, and what is neither not at all."""
    try:
        return parse_endpoint(endpoint).url
    except ReplicationError:
        is_name = isinstance(endpoint, str) and not endpoint.lower().startswith(("http://", "https://"))
        return endpoint if is_name else None
