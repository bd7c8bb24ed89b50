"""A database as a whole: create, delete, information, security, limits, maintenance, purge."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from concurrent.futures import Future
from typing import Any

from aiohttp import web

from couchlite.catalog import SYSTEM_NAMES
from couchlite.compact import Retention
from couchlite.database import Database
from couchlite.errors import BadRequest, CouchliteError, DatabaseNotFound, Forbidden
from couchlite.revision import Rev
from couchlite.security import validate
from couchlite.server import Server

from . import response, views
from .access import may_change_settings
from .partitions import check_ids
from .request import Request
from .values import encode, is_text

# The only node, by the name CouchDB gives to one that stands alone.
NODE = "couchdb@127.0.0.1"
WHOLE_RANGE = "00000000-ffffffff"

# What CouchDB 3.5 reports of its files.
DISK_FORMAT_VERSION = 8

logger = logging.getLogger(__name__)

_POSITIVE = re.compile("0*[1-9][0-9]*")
_PLACEMENT = re.compile("[^:,]+:0*[1-9][0-9]*(,[^:,]+:0*[1-9][0-9]*)*")


async def create(request: Request) -> web.StreamResponse:
    """PUT /{db}. `q`, `n`, `placement` and `engine` are checked as CouchDB does; there is one shard, of
    one kind, whatever they say.
    """
    name = request.segments[0]
    for parameter in ("n", "q"):
        value = request.query_value(parameter)
        if value is not None and not _POSITIVE.fullmatch(value):
            raise BadRequest(f"The `{parameter}` value should be a positive integer.")
    placement = request.query_value("placement")
    if placement is not None and not _PLACEMENT.fullmatch(placement):
        raise BadRequest("The `placement` value should be in a format `zone:n`.")
    if request.query_value("engine") not in (None, "couch"):
        raise BadRequest("invalid_engine_extension")
    partitioned = request.query_value("partitioned")
    if partitioned not in ("true", "false", None):
        raise BadRequest("Invalid `partitioned` parameter")
    shards = int(request.query_value("q") or request.server.config.integer("cluster", "q"))
    if partitioned == "true":
        _check_may_be_partitioned(request, name)
    with contextlib.suppress(DatabaseNotFound):  # it was made, and somebody has deleted it since
        await asyncio.to_thread(request.server.create, name, partitioned=partitioned == "true", shards=shards)
    location = request.absolute_uri(f"/{encode(name)}")
    return response.json(request, 201, {"ok": True}, {"Location": location})


def _check_may_be_partitioned(request: Request, name: str) -> None:
    if request.server.config.get("feature_flags", "partitioned||*") != "true":
        raise BadRequest("Partitioned feature is not enabled.")
    if name in SYSTEM_NAMES or name.rpartition("/")[2] in ("_users", "_replicator"):
        raise BadRequest("Cannot partition a system database")


async def delete(request: Request) -> web.StreamResponse:
    """DELETE /{db}; a `rev` is taken for a slip of someone who meant a document."""
    if request.query_value("rev") is not None:
        raise BadRequest(
            "You tried to DELETE a database with a ?=rev parameter. "
            "Did you mean to DELETE a document instead?"
        )
    name = request.segments[0]
    if not is_text(name):
        raise DatabaseNotFound()
    await asyncio.to_thread(request.server.delete, name)
    return response.json(request, 200, {"ok": True})


async def info(request: Request) -> web.StreamResponse:
    """GET /{db}."""
    return response.json(request, 200, describe(request.database()))


def describe(database: Database) -> dict[str, Any]:
    """A database as GET /{db} shows it."""
    info = database.info()
    return {
        "instance_start_time": instance_start_time(database),
        "db_name": info.name,
        "purge_seq": info.purge_seq,
        "update_seq": info.update_seq,
        "sizes": {
            "file": info.file_bytes,
            "external": info.external_bytes,
            "active": info.active_bytes,
        },
        "props": {"partitioned": True} if database.is_partitioned else {},
        "doc_del_count": info.doc_del_count,
        "doc_count": info.doc_count,
        "disk_format_version": DISK_FORMAT_VERSION,
        "compact_running": info.compact_running,
        "cluster": {"q": info.props["q"], "n": 1, "w": 1, "r": 1},
    }


def instance_start_time(database: Database) -> str:
    """Seconds at which the database was created, as text: replicators tell by it a recreated one."""
    return str(int(database.created_s))


async def get_security(request: Request) -> web.StreamResponse:
    return response.json(request, 200, request.database().security)


async def put_security(request: Request) -> web.StreamResponse:
    config = request.server.config
    may_change_settings(request)
    database = request.database()
    if database.name == config.text("chttpd_auth", "authentication_db") and not config.boolean(
        "couchdb", "users_db_security_editable"
    ):
        raise Forbidden("You can't edit the security object of the user database.")
    await asyncio.to_thread(database.set_security, dict(validate(await request.json())))
    return response.json(request, 200, {"ok": True})


async def get_revs_limit(request: Request) -> web.StreamResponse:
    return response.json(request, 200, request.database().revs_limit)


async def put_revs_limit(request: Request) -> web.StreamResponse:
    may_change_settings(request)
    limit = await request.json()
    if not _is_positive(limit):
        raise BadRequest("`revs_limit` must be positive integer")
    await asyncio.to_thread(request.database().set_revs_limit, limit)
    return response.json(request, 200, {"ok": True})


async def get_purged_infos_limit(request: Request) -> web.StreamResponse:
    return response.json(request, 200, request.database().purged_infos_limit)


async def put_purged_infos_limit(request: Request) -> web.StreamResponse:
    limit = await request.json()
    if not _is_positive(limit):
        raise BadRequest("`purged_infos_limit` must be positive integer")
    await asyncio.to_thread(request.database().set_purged_infos_limit, limit)
    return response.json(request, 200, {"ok": True})


async def ensure_full_commit(request: Request) -> web.StreamResponse:
    """Every acknowledged write is on disk already."""
    request.require_json_type()
    started = instance_start_time(request.database())
    return response.json(request, 201, {"ok": True, "instance_start_time": started})


async def compact(request: Request) -> web.StreamResponse:
    """POST /{db}/_compact; with a design document's name, its indexes."""
    request.require_json_type()
    database = request.database()
    if len(request.segments) > 2:
        views.compact(request, request.segments[2])
    else:
        database.compact(Retention.configured(request.server.config)).add_done_callback(
            lambda done: _log_failure(request.server, database, done)
        )
    return response.json(request, 202, {"ok": True})


def _log_failure(server: Server, database: Database, done: Future[Any]) -> None:
    error = done.exception()
    if error is None or server.has_deleted(database):
        return
    if isinstance(error, CouchliteError):
        logger.error("the compaction of %r failed: %s", database.name, error.reason)
    else:
        logger.error("the compaction of %r failed", database.name, exc_info=error)


async def purge(request: Request) -> web.StreamResponse:
    """POST /{db}/_purge: {id: [rev, ...]} -> what was removed of it."""
    request.app.metrics.count("couchdb.httpd.purge_requests")
    request.require_json_type()
    wanted = {name: _revisions(revs) for name, revs in (await request.json_object()).items()}
    check_ids(request, wanted)
    config = request.server.config
    if len(wanted) > config.integer("purge", "max_document_id_number"):
        raise BadRequest("Exceeded maximum number of documents.")
    if sum(map(len, wanted.values())) > config.integer("purge", "max_revisions_number"):
        raise BadRequest("Exceeded maximum number of revisions.")
    purged = await asyncio.wrap_future(request.database().purge(wanted))
    rows = {name: [str(rev) for rev in revs] for name, revs in purged.items()}
    return response.json(request, 201, {"purge_seq": None, "purged": rows})


async def purged_infos(request: Request) -> web.StreamResponse:
    rows = [
        {"id": name, "revs": [str(rev) for rev in revs]} for name, revs in request.database().purged_infos()
    ]
    return response.json(request, 200, {"purged_infos": rows})


async def shards(request: Request) -> web.StreamResponse:
    """GET /{db}/_shards: one node has all there is, whatever `q` the database was created with."""
    return response.json(request, 200, {"shards": {WHOLE_RANGE: [NODE]}})


async def shard_of(request: Request) -> web.StreamResponse:
    """GET /{db}/_shards/{docid}."""
    check_ids(request, request.segments[2:3])
    return response.json(request, 200, {"range": WHOLE_RANGE, "nodes": [NODE]})


async def sync_shards(request: Request) -> web.StreamResponse:
    return response.json(request, 202, {"ok": True})


def _revisions(value: Any) -> list[Rev]:
    if not isinstance(value, list):
        raise BadRequest("Invalid list of revisions")
    return [Rev.parse(rev) if isinstance(rev, str) else _bad_rev() for rev in value]


def _bad_rev() -> Rev:
    raise BadRequest("Invalid rev format")


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
