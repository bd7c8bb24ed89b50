"""Full-text search is not here: its addresses answer as those of a CouchDB without the search service."""

from __future__ import annotations

from aiohttp import web

from couchlite.errors import BadRequest, CouchliteError
from couchlite.index import designs

from . import response
from .request import Request


class SearchUnavailable(CouchliteError):
    status = 503
    error = "service unavailable"
    default_reason = "Search is not available"


async def unavailable(request: Request) -> web.StreamResponse:
    """/{db}/_design/{name}/_search/{index}, and what tells about indexes."""
    if len(request.segments) != 5:
        raise BadRequest("path not recognized")
    designs.find(request.database(), f"_design/{request.segments[2]}")
    raise SearchUnavailable()


async def clean_up(request: Request) -> web.StreamResponse:
    """POST /{db}/_search_cleanup, and /{db}/_nouveau_cleanup: there is nothing to remove."""
    request.require_json_type()
    return response.json(request, 202, {"ok": True})
