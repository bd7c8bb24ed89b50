"""Conflicts settled by resolvers, at addresses below /{db}/_conflicts.

    GET, PUT  /{db}/_conflicts/_resolvers         the settings: which resolver for which documents, and when
    POST      /{db}/_conflicts/_resolve           settle conflicts: {"ids", "using", "options", "dry_run"}

What must stay true here: only admins of the database change the settings or have all conflicts resolved; who
may write a document may have its conflict resolved.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from aiohttp import web

from couchlite.errors import BadRequest
from couchlite.jsontext import dumps
from couchlite.merging.resolvers import Resolver
from couchlite.merging.settings import Settings, parse_resolver
from couchlite.resolving import Resolving, describe_outcome

from . import response, system_documents
from .access import may_change_settings
from .request import Request
from .response import Stream
from .submission import refusals

_SEPARATOR = b",\r\n"


async def get(request: Request) -> web.StreamResponse:
    """The settings."""
    return response.json(request, 200, request.server.resolvers(request.database().name))


async def put(request: Request) -> web.StreamResponse:
    """Other settings."""
    may_change_settings(request)
    settings = await request.json_object()
    await asyncio.to_thread(request.server.set_resolvers, request.database().name, settings)
    return response.json(request, 200, {"ok": True})


async def resolve_all(request: Request) -> web.StreamResponse:
    """By the settings, or by one resolver. A row tells what became of a conflict."""
    body = await known_members(request, "ids", "using", "options", "dry_run")
    ids = _ids(body["ids"]) if "ids" in body else None
    if ids is None:
        may_change_settings(request)
    dry_run = body.get("dry_run", False)
    if type(dry_run) is not bool:
        raise BadRequest("`dry_run` must be true or false.")
    by: Settings | Resolver = (
        parse_resolver(body["using"], body.get("options"))
        if "using" in body
        else Settings.parse(request.server.resolvers(request.database().name))
    )
    resolving = Resolving(
        request.database(), request.app.functions, request.principal, refuse=partial(refusals, request.app)
    )
    stream = Stream(request)
    await stream.write(b'{"rows":[')
    separator = b"\r\n"
    async for outcome in resolving.all(by, ids, dry_run=dry_run):
        await stream.write_all((separator, dumps(describe_outcome(outcome))))
        separator = _SEPARATOR
    system_documents.written(request)
    return await stream.end(b"\r\n]}\n")


def _ids(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadRequest("`ids` must be a list of documents' ids.")
    return value


async def known_members(request: Request, *names: str) -> dict[str, Any]:
    """The body's members. One that is misspelt must not mean something else, such as to merge all leaves."""
    body = await request.json_object()
    unknown = set(body).difference(names)
    if unknown:
        raise BadRequest(f"Unknown member `{min(unknown)}`.")
    return body
