"""Writing documents: PUT, DELETE, COPY, POST /{db}, and the form upload of a browser."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from couchlite import document
from couchlite.document import Edit, Revision
from couchlite.errors import BadRequest, CouchliteError, IllegalDocumentId, UnsupportedMediaType
from couchlite.jsontext import loads
from couchlite.multipart import MultipartReader, is_related
from couchlite.revision import Rev

from . import local, response
from .documents import Options, etag_of, open_document, parse_options
from .request import Request
from .staging import receive_parts, received_form
from .submission import check_id, edit_of, named_revision, read_document, store
from .values import decode, encode, integer, is_text

NEEDS_REVISION = "When `new_edits: false`, the document needs `_rev` or `_revisions` specified"


async def put(request: Request) -> web.StreamResponse:
    """PUT /{db}/{docid}: JSON, or multipart/related with the attachments that follow."""
    document.validate_id(request.doc_id)
    new_edits = parse_options(request).new_edits
    content_type = request.headers.get("Content-Type")
    if content_type is not None and is_related(content_type):
        reader = MultipartReader(content_type, request.body_chunks())
        edit = _read_edit(request, loads(await reader.document(request.body_size_max)), new_edits=new_edits)
        status = _status(request, edit)
        rev = await store(
            request, edit, new_edits=new_edits, receive=lambda: receive_parts(request, edit, reader)
        )
    else:
        edit = _read_edit(request, await request.json(), new_edits=new_edits)
        status = _status(request, edit)
        if request.query_value("batch") == "ok":
            return await _store_batched(request, edit, new_edits=new_edits)
        rev = await store(request, edit, new_edits=new_edits)
    headers = {"ETag": _etag(edit, rev), "Location": _location(request, edit.id)}
    return _written(request, status, edit.id, rev, headers)


async def delete(request: Request) -> web.StreamResponse:
    """DELETE /{db}/{docid}."""
    with request.database().snapshot() as snapshot:
        if local.is_local(request.doc_id):
            snapshot.local(request.doc_id)
        else:
            snapshot.winner(request.doc_id)
    edit = _read_edit(request, {"_deleted": True})
    status = _status(request, edit)
    rev = await store(request, edit)
    return _written(request, status, edit.id, rev, {"ETag": _etag(edit, rev)})


async def post(request: Request) -> web.StreamResponse:
    """POST /{db}: a document with its id inside, or one that the server makes up."""
    request.require_json_type()
    status = written_status(request, 201)
    edit = read_document(request, await request.json())
    if not edit.id:
        edit.id = request.server.uuids.new()
        check_id(request, edit.id)
    if request.query_value("batch") == "ok":
        return await _store_batched(request, edit, new_edits=True)
    rev = await store(request, edit)
    return _written(request, status, edit.id, rev, {"Location": _location(request, edit.id)})


async def copy(request: Request) -> web.StreamResponse:
    """COPY /{db}/{docid}, to the document that the Destination header names."""
    rev = matched_revision(request, asked_revision(request))
    target, target_rev = _destination(request)
    document.validate_id(target)
    check_id(request, target)
    edit = edit_of(_source(request, rev))
    edit.id = target
    edit.path = () if target_rev is None else (target_rev,)
    stored = await store(request, edit)
    headers = {"Location": _location(request, target), "ETag": _etag(edit, stored)}
    return _written(request, 201, target, stored, headers)


async def post_form(request: Request) -> web.StreamResponse:
    """POST /{db}/{docid} of a browser's form: attachments (`_attachments`) for an existing revision (`_rev`),
    or for a new one (`_doc`)."""
    _check_referer(request)
    document.validate_id(request.doc_id)
    content_type = request.headers.get("Content-Type", "")
    if content_type.lstrip(";").partition(";")[0] != "multipart/form-data":
        raise UnsupportedMediaType("Content-Type must be multipart/form-data")
    status = written_status(request, 201)
    async with received_form(request, MultipartReader(content_type, request.body_chunks())) as form:
        if form.document is not None:
            edit = _read_edit(request, loads(form.document))
        else:
            edit = edit_of(named_revision(request, Rev.parse(form.rev)))
        replaced = {attachment.name for attachment in form.attachments}
        kept = [attachment for attachment in edit.attachments if attachment.name not in replaced]
        edit.attachments = form.attachments + kept
        rev = await store(request, edit)
    return _written(request, status, edit.id, rev, {"ETag": _etag(edit, rev)})


# --- what is asked ------------------------------------------------------------------------------------------


def _read_edit(request: Request, value: Any, *, new_edits: bool = True) -> Edit:
    """The edit that a document, the `rev` of the query and an If-Match header ask for together.

    Source: chttpd_db:couch_doc_from_req.
    """
    edit = read_document(request, value, request.doc_id)
    asked = asked_revision(request)
    if not edit.path:
        rev = matched_revision(request, asked)
        edit.path = () if rev is None else (rev,)
    elif asked is not None and asked != edit.path[0]:
        raise BadRequest("Document rev from request body and query string have different values")
    else:
        matched_revision(request, edit.path[0])
    if not new_edits and not edit.path:
        raise BadRequest(NEEDS_REVISION)
    return edit


def asked_revision(request: Request) -> Rev | None:
    """The `rev` of the query."""
    asked = request.query_value("rev")
    return None if asked is None else Rev.parse(asked)


def matched_revision(request: Request, rev: Rev | None) -> Rev | None:
    """The revision that If-Match names, or `rev`; when there are both, they must agree."""
    condition = request.headers.get("If-Match")
    if condition is None:
        return rev
    named = Rev.parse(condition.strip('"'))
    if rev is not None and rev != named:
        raise BadRequest("Document rev and etag have different values")
    return named


def _destination(request: Request) -> tuple[str, Rev | None]:
    """The id and the revision of COPY's Destination header: `id` or `id?rev=...`, percent-encoded."""
    text = request.headers.get("Destination")
    if text is None:
        raise BadRequest("Destination header is mandatory for COPY.")
    if text.startswith(("http://", "https://")):
        raise BadRequest("Destination URL must be relative.")
    path, mark, query = text.partition("?")
    doc_id = decode(path)
    if not is_text(doc_id):
        raise IllegalDocumentId("Document id must be valid UTF-8")
    return doc_id, Rev.parse(query.partition("=")[2]) if mark else None


def _source(request: Request, rev: Rev | None) -> Revision:
    if local.is_local(request.doc_id):
        with request.database().snapshot() as snapshot:
            return local.read(snapshot, request.doc_id)
    return open_document(request, Options(rev=rev))[0]


def _check_referer(request: Request) -> None:
    """A form comes from a page of this server, not from one elsewhere that uses the visitor's login."""
    referer = request.headers.get("Referer")
    if referer is None:
        raise BadRequest("Referer header required.")
    try:
        from_here = urlsplit(referer).netloc == urlsplit(request.absolute_uri("/")).netloc
    except ValueError:  # it is no address
        from_here = False
    if not from_here:
        raise BadRequest("Referer header must match host.")


# --- what is answered ---------------------------------------------------------------------------------------


def _written(
    request: Request, status: int, doc_id: str, rev: Rev, headers: dict[str, str]
) -> web.StreamResponse:
    return response.json(request, status, {"ok": True, "id": doc_id, "rev": rev.text}, headers)


async def _store_batched(request: Request, edit: Edit, *, new_edits: bool) -> web.StreamResponse:
    """`batch=ok`: the answer says nothing of how it went. (CouchDB answers before it writes; here the edit is
    durable by then, at the price that other writes pay.)"""
    with contextlib.suppress(CouchliteError):
        await store(request, edit, new_edits=new_edits)
    return response.json(request, 202, {"ok": True, "id": edit.id})


def written_status(request: Request, status: int) -> int:
    """202 when `w` asks for more copies than the one that a single node makes; otherwise `status`."""
    text = request.query_value("w")
    if text is None:
        return status
    return 202 if integer(text) > 1 else status


def _status(request: Request, edit: Edit) -> int:
    return written_status(request, 200 if edit.deleted else 201)


def _etag(edit: Edit, rev: Rev) -> str:
    return local.etag(rev, edit.body) if local.is_local(edit.id) else etag_of(rev.text)


def _location(request: Request, doc_id: str) -> str:
    escaped = request.escaped_id() if doc_id == request.doc_id else encode(doc_id)
    return request.absolute_uri(f"/{encode(request.segments[0])}/{escaped}")
