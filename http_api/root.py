"""Addresses of the server as a whole: /, /_up, /_uuids, /_all_dbs, /_dbs_info, /_active_tasks,
/_membership.
"""

from __future__ import annotations

import hashlib
from typing import Any

from aiohttp import web

from couchlite.errors import BadRequest, CouchliteError, DatabaseNotFound, NotFound
from couchlite.jsontext import dumps

from . import response
from .access import server_admin
from .databases import NODE, describe
from .listings import ALL, id_range
from .request import Request
from .values import integer
from .view_options import ViewOptions

COUCHDB_VERSION = "3.5.0"


def lister(request: Request) -> None:
    """Guard of the listings: server administrators, unless [chttpd] admin_only_all_dbs is off."""
    if request.server.config.boolean("chttpd", "admin_only_all_dbs"):
        server_admin(request)


async def welcome(request: Request) -> web.StreamResponse:
    body = {
        "couchdb": "Welcome",
        "version": COUCHDB_VERSION,
        "git_sha": "couchlite",
        "uuid": request.server.uuid,
        "features": ["partitioned", "pluggable-storage-engines", "scheduler"],
        "vendor": dict(request.server.config.section("vendor")),
    }
    return response.json(request, 200, body)


async def reshard(request: Request) -> web.StreamResponse:
    """What becomes of shards that are to be split: nothing, since a database is never in parts here."""
    numbers = dict.fromkeys(("completed", "failed", "running", "stopped", "total"), 0)
    answers: dict[tuple[str, ...], dict[str, Any]] = {
        (): {"state": "running", "state_reason": None, **numbers},
        ("jobs",): {"total_rows": 0, "offset": 0, "jobs": []},
        ("state",): {"state": "running", "reason": None},
    }
    answer = answers.get(tuple(request.segments[1:]))
    if answer is None:
        raise NotFound("missing")
    return response.json(request, 200, answer)


async def favicon(request: Request) -> web.StreamResponse:
    """No icon of our own: an empty one that is cached, so that browsers stop asking."""
    return response.empty(request, 204, {"Cache-Control": "public, max-age=31536000"})


async def up(request: Request) -> web.StreamResponse:
    mode = request.server.config.get("couchdb", "maintenance_mode")
    if mode in ("true", "nolb"):
        return response.json(request, 404, {"status": "maintenance_mode" if mode == "true" else mode})
    return response.json(request, 200, {"status": "ok", "seeds": {}})


async def uuids(request: Request) -> web.StreamResponse:
    text = request.query_value("count")
    most = request.server.config.integer("uuids", "max_count")
    try:
        count = 1 if text is None else integer(text)
    except CouchliteError:
        count = -1
    if count < 0:
        raise BadRequest("count must be a positive integer")
    if count > most:
        raise BadRequest("count parameter too large")
    fresh = [request.server.uuids.new() for _ in range(count)]
    headers = {
        "Cache-Control": "no-cache",
        "Expires": "Mon, 01 Jan 1990 00:00:00 GMT",
        "Pragma": "no-cache",
        "ETag": etag_of(dumps(fresh)),
    }
    return response.json(request, 200, {"uuids": fresh}, headers)


async def all_dbs(request: Request) -> web.StreamResponse:
    return await _listing(request, _names(request))


async def dbs_info(request: Request) -> web.StreamResponse:
    """GET: the databases of a range of names."""
    rows = []
    for name in _names(request):
        try:
            rows.append({"key": name, "info": describe(request.server.open(name))})
        except DatabaseNotFound:
            continue  # deleted meanwhile
    return await _listing(request, rows)


async def dbs_info_of(request: Request) -> web.StreamResponse:
    """POST: the databases named by `keys`."""
    request.require_json_type()
    body = await request.json_object()
    if "keys" not in body:
        raise BadRequest("`keys` member must exist.")
    keys = body["keys"]
    if not isinstance(keys, list):
        raise BadRequest("`keys` member must be an array.")
    if len(keys) > request.server.config.integer("chttpd", "max_db_number_for_dbs_info_req"):
        raise BadRequest("too_many_keys")
    rows: list[dict[str, Any]] = []
    for key in keys:
        try:
            if not isinstance(key, str):
                raise DatabaseNotFound()
            rows.append({"key": key, "info": describe(request.server.open(key))})
        except CouchliteError:
            rows.append({"key": key, "error": "not_found"})
    return await response.Stream(request).end(dumps(rows) + b"\n")


async def active_tasks(request: Request) -> web.StreamResponse:
    service = request.app.replications
    found = [*request.server.tasks(), *(await service.tasks() if service is not None else ())]
    found.sort(key=lambda task: int(task["started_on"]))
    tasks = [{"node": NODE, **task, "pid": f"<0.{task['pid']}.0>"} for task in found]
    return response.json(request, 200, tasks)


async def membership(request: Request) -> web.StreamResponse:
    return response.json(request, 200, {"all_nodes": [NODE], "cluster_nodes": [NODE]})


async def _listing(request: Request, rows: list[Any]) -> web.StreamResponse:
    body = dumps(rows)
    etag = etag_of(body)
    if response.matches(request, etag):
        return response.not_modified(request, etag)
    return await response.Stream(request, headers={"ETag": etag}).end(body + b"\n")


async def reload_query_servers(request: Request) -> web.StreamResponse:
    """Nothing is kept from one use of a function to the next, so there is nothing to reload."""
    return response.json(request, 200, {"ok": True})


def etag_of(data: bytes) -> str:
    """A quoted tag of a body's bytes."""
    return f'"{hashlib.blake2b(data, digest_size=16).hexdigest()}"'


def _names(request: Request) -> list[str]:
    """Names of databases by the options of a listing: startkey, endkey, key, descending, skip, limit ..."""
    options = ViewOptions()
    options.read_query(request.query)
    options.validate_as_map()
    start, stop = id_range(options, ALL)
    names = [
        name
        for name in request.server.names()
        if start <= name.encode() and (stop is None or name.encode() < stop)
    ]
    if options.descending:
        names.reverse()
    return names[options.skip : options.skip + options.limit]
