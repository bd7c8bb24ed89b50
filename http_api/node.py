"""/_node/{node}/...: this server's configuration, statistics and versions. There is one node."""

from __future__ import annotations

import asyncio
import gc
import platform
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from couchlite import passwords, provision
from couchlite.errors import BadRequest, Forbidden, NotFound, NotImplementedHere, Unauthorized
from couchlite.provision import Credentials
from couchlite.version import VERSION

from . import databases, prometheus, response

if TYPE_CHECKING:
    from .request import Request

LOCKED_SECTIONS = frozenset(
    (
        "daemons",
        "external",
        "httpd_design_handlers",
        "httpd_db_handlers",
        "httpd_global_handlers",
        "native_query_servers",
        "os_daemons",
        "query_servers",
        "feature_flags",
    )
)
"""Sections that are not to be changed over HTTP, since CouchDB would run code named in them."""


def reader_of_metrics(request: Request) -> None:
    """Guard: a server administrator, or who has the role `_metrics`."""
    if not request.principal.is_admin and "_metrics" not in request.principal.roles:
        raise Unauthorized("You are not a server admin or read-only metrics user")


async def name(request: Request) -> web.StreamResponse:
    return response.json(request, 200, {"name": databases.NODE})


# Configuration


async def get_config(request: Request) -> web.StreamResponse:
    return response.json(request, 200, request.server.config.as_dict())


async def get_section(request: Request) -> web.StreamResponse:
    return response.json(request, 200, request.server.config.section(request.segments[3]))


async def get_key(request: Request) -> web.StreamResponse:
    return response.json(request, 200, _known(request))


async def put_key(request: Request) -> web.StreamResponse:
    """Set a key; answers the value it had. X-Couch-Persist: false forgets it when the server stops."""
    section, key = request.segments[3:5]
    _check_unlocked(section)
    value = await request.json()
    if not isinstance(value, str):
        raise BadRequest("a JSON string expected")
    value = value.strip()
    config = request.server.config
    before = config.reported(section, key) or ""
    if section == "admins" and passwords.from_admin_value(value) is None:
        administrator = Credentials(key, value)
        await asyncio.to_thread(provision.set_administrator, request.server, administrator)
    else:
        await asyncio.to_thread(config.set, section, key, value, persist=_persists(request))
    return response.json(request, 200, before)


async def delete_key(request: Request) -> web.StreamResponse:
    """Back to the default; answers the value it had."""
    section, key = request.segments[3:5]
    _check_unlocked(section)
    before = _known(request)
    await asyncio.to_thread(request.server.config.delete, section, key, persist=_persists(request))
    return response.json(request, 200, before)


async def reload_config(request: Request) -> web.StreamResponse:
    await asyncio.to_thread(request.server.config.reload)
    return response.json(request, 200, {"ok": True})


def _known(request: Request) -> str:
    value = request.server.config.reported(*request.segments[3:5])
    if value is None:
        raise NotFound("unknown_config_value")
    return value


def _check_unlocked(section: str) -> None:
    if section in LOCKED_SECTIONS:
        raise Forbidden("Config section blacklisted for modification over HTTP API.")


def _persists(request: Request) -> bool:
    return request.headers.get("X-Couch-Persist") != "false"


# Observation


async def stats(request: Request) -> web.StreamResponse:
    """The counters, or those under the rest of the address; null where there are none."""
    request.app.tell_metrics()
    found: Any = request.app.metrics.tree()
    for step in request.segments[3:]:
        found = found.get(step) if isinstance(found, dict) else None
    return response.json(request, 200, found)


async def prometheus_text(request: Request) -> web.StreamResponse:
    """All of it for Prometheus."""
    request.app.tell_metrics()
    metrics = request.app.metrics
    text = prometheus.text(metrics.entries(), time.monotonic() - metrics.started_s)
    return response.raw(request, 200, text.encode(), {"Content-Type": prometheus.CONTENT_TYPE})


async def system(request: Request) -> web.StreamResponse:
    """CouchDB's keys, of this process; what only an Erlang virtual machine has is zero or empty."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # its highest so far
    collections = sum(generation["collections"] for generation in gc.get_stats())
    memory = dict.fromkeys(("other", "atom", "atom_used", "binary", "code", "ets"), 0)
    body = {
        "uptime": int(time.monotonic() - request.app.metrics.started_s),
        "memory": {**memory, "processes": resident, "processes_used": resident},
        "run_queue": 0,
        "run_queue_dirty_cpu": 0,
        "ets_table_count": 0,
        "context_switches": usage.ru_nvcsw + usage.ru_nivcsw,
        "reductions": 0,
        "garbage_collection_count": collections,
        "words_reclaimed": 0,
        "io_input": usage.ru_inblock * 512,
        "io_output": usage.ru_oublock * 512,
        "os_proc_count": 0,
        "stale_proc_count": 0,
        "process_count": request.app.metrics.processes,
        "process_limit": resource.getrlimit(resource.RLIMIT_NPROC)[0],
        "message_queues": {},
        "internal_replication_jobs": 0,
        "distribution": {},
        "distribution_events": {},
    }
    return response.json(request, 200, body)


async def versions(request: Request) -> web.StreamResponse:
    body = {"couchlite": {"version": VERSION}, "python": {"version": platform.python_version()}}
    return response.json(request, 200, body)


async def restart(request: Request) -> web.StreamResponse:
    raise NotImplementedHere("couchlite is restarted by whatever started it, not over HTTP")
