"""Show and update functions of design documents: /{db}/_design/{name}/_show and _update.

Source: chttpd_show and chttpd_external.
"""

from __future__ import annotations

import hashlib
from typing import Any

from aiohttp import web

from couchlite import document
from couchlite.changes_docs import PATH_MAX
from couchlite.errors import NotFound
from couchlite.index import designs
from couchlite.javascript import Design
from couchlite.jsontext import dumps

from . import function_response, local, response
from .documents import Options, etag_of, open_document
from .request import Request
from .request_object import request_object
from .submission import read_document, store
from .updates import written_status
from .values import encode, shown

_CONFLICTS = Options(flags=frozenset(("conflicts",)))


class InvalidPath(NotFound):
    default_reason = "Invalid path."


async def show(request: Request) -> web.StreamResponse:
    """Any method of _show/{function}[/{docid}]."""
    design, name = _find(request, "shows", "show_error")
    tag, doc = _document(request)
    etag = _etag(request, design, tag)
    if response.matches(request, etag):
        return response.not_modified(request, etag)
    seen = await _seen(request)
    answer = await request.app.functions.show(design, name, doc, seen)
    return function_response.respond(request, answer, headers={"ETag": etag, "Vary": "Accept"})


async def update(request: Request) -> web.StreamResponse:
    """Any method but GET of _update/{function}[/{docid}]."""
    design, name = _find(request, "updates", "update_error")
    _tag, doc = _document(request)
    status = written_status(request, 201)
    seen = await _seen(request)
    made, answer = await request.app.functions.update(design, name, doc, seen)
    if not isinstance(made, dict):
        return function_response.respond(request, answer)
    edit = read_document(request, made)
    document.validate_id(edit.id)
    rev = await store(request, edit)
    headers = {"X-Couch-Update-NewRev": rev.text, "X-Couch-Id": encode(edit.id)}
    return function_response.respond(request, answer, status=status, headers=headers)


def _find(request: Request, kind: str, error: str) -> tuple[Design, str]:
    """The design document that an address names, and its function; sets `doc_id`."""
    design = designs.find(request.database(), f"_design/{request.segments[2]}").views.functions
    if len(request.segments) == 4:
        raise InvalidPath(error=error)
    name = request.segments[4]
    design.find(kind, name)
    request.doc_id = shown("/".join(request.segments[5:]))
    return design, name


def _document(request: Request) -> tuple[str | None, bytes | None]:
    """The document of the request's address as functions see it, with something to tell whether it changed;
    nothing if there is none."""
    if not request.doc_id:
        return None, None
    try:
        if local.is_local(request.doc_id):
            with request.database().snapshot() as snapshot:
                revision = local.read(snapshot, request.doc_id)
            return local.etag(revision.rev, revision.body), document.render(revision, revs=True)
        revision, meta = open_document(request, _CONFLICTS)
    except NotFound:
        return None, None
    revision.path = revision.path[:PATH_MAX]
    return etag_of(revision.rev.text), document.render(revision, revs=True, meta=meta)


async def _seen(request: Request) -> dict[str, Any]:
    """The request as functions see it."""
    body = (await request.body()).decode("utf-8", "replace") if request.has_body else "undefined"
    return request_object(request, request.database(), body, request.doc_id or None)


def _etag(request: Request, design: Design, tag: str | None) -> str:
    parts = [design.key.hex(), tag, request.headers.get("Accept"), request.principal.roles]
    return f'"{hashlib.blake2b(dumps(parts), digest_size=16).hexdigest()}"'
