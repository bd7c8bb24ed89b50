"""Mango's indexes: /{db}/_index, which makes, lists and removes them, in design documents. Source:
mango_httpd.erl."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from couchlite import document
from couchlite.errors import BadRequest, CouchliteError, InternalError, MethodNotAllowed, NotFound
from couchlite.index import designs
from couchlite.jsontext import dumps
from couchlite.mango.indexes import (
    ALL_DOCS,
    LANGUAGE,
    IndexServiceUnavailable,
    MangoIndex,
    generated_name,
    parse_definition,
    with_index,
    without_index,
)
from couchlite.mango.terms import term_text

from . import response, submission
from .find_options import read_bulk_delete, read_index
from .request import Request

_PREFIX = "_design/"
_UNAVAILABLE = ("text", "nouveau")


async def listing(request: Request) -> web.StreamResponse:
    """GET of all indexes."""
    if len(request.segments) > 2:
        return await _of_one(request)
    known, _state = designs.mango_indexes(request.database())
    shown = [index.shown() for index in sorted({ALL_DOCS, *known}, key=lambda index: index.order)]
    limit, skip = _count(request, "limit", len(shown)), _count(request, "skip", 0)
    if limit < 1 or skip < 0:
        raise _bad_list()
    return response.json(request, 200, {"total_rows": len(shown), "indexes": shown[skip : skip + limit]})


def _count(request: Request, name: str, default: int) -> int:
    value = request.query_value(name)
    if value is None:
        return default
    try:
        return int(value)
    except ValueError:
        raise _bad_list() from None


def _bad_list() -> InternalError:
    return InternalError("Index parameter ranges: limit > 1, skip > 0", error="invalid_list_index_params")


async def create(request: Request) -> web.StreamResponse:
    """POST of a new index, or of one that is there already."""
    if len(request.segments) > 2:
        return await _of_one(request)
    request.require_json_type()
    wanted = read_index(await request.json_object())
    kind, given = wanted["type"], wanted["index"]
    if kind in _UNAVAILABLE:
        raise IndexServiceUnavailable(kind)
    if kind != "json":
        raise BadRequest(f"Invalid type for index: {kind}", error="invalid_index")
    parse_definition(given)
    name = wanted["name"] or generated_name(wanted)
    ddoc = wanted["ddoc"] or generated_name(wanted)
    doc_id = ddoc if ddoc.startswith(_PREFIX) else _PREFIX + ddoc
    before = _design(request, doc_id)
    after = _with_partitioned(with_index(before, name, given), wanted["partitioned"])
    result = "exists"
    if dumps(after) != dumps(before):
        result = "created"
        await submission.store(request, submission.read_document(request, after))
    return response.json(request, 200, {"result": result, "id": doc_id, "name": name})


def _with_partitioned(ddoc: dict[str, Any], wanted: bool | None) -> dict[str, Any]:
    """A design document whose indexes are partitioned, or not, as wanted; None is as the database is.

    :raises BadRequest: it is there already, and they are otherwise.
    """
    options = ddoc.get("options")
    if wanted is (options.get("partitioned") if isinstance(options, dict) else None):
        return ddoc
    if "_rev" in ddoc:
        reason = (
            f"Requested partitioned option does not match existing value on design document {ddoc['_id']}"
        )
        raise BadRequest(reason, error="invalid_partitioned_option")
    return {**ddoc, "options": {"partitioned": wanted}}


def _design(request: Request, doc_id: str) -> dict[str, Any]:
    """A design document of Mango's, or a new one. :raises BadRequest: it is one of another language."""
    document.validate_id(doc_id)
    try:
        found = request.database().get(doc_id)
    except NotFound:
        return {"_id": doc_id, "language": LANGUAGE}
    language = found.get("language")
    if language != LANGUAGE:
        shown = "false" if "language" not in found else f"{{{term_text('language')},{term_text(language)}}}"
        reason = f"Existing design doc has an invalid language: {shown}"
        raise BadRequest(reason, error="invalid_ddoc_lang")
    return found


async def delete(request: Request) -> web.StreamResponse:
    """DELETE of /{db}/_index/{ddoc}/{type}/{name}."""
    if len(request.segments) == 2:
        raise MethodNotAllowed("GET,POST")
    return await _of_one(request)


async def _of_one(request: Request) -> web.StreamResponse:
    names = request.segments[2:]
    if names == ["_bulk_delete"]:
        if request.method != "POST":
            raise MethodNotAllowed("POST")
        return await _delete_many(request)
    if len(names) == 4 and names[0] == "_design":
        names = [_PREFIX + names[1], *names[2:]]
    if len(names) != 3:
        raise NotFound()
    if request.method != "DELETE":
        raise MethodNotAllowed("DELETE")
    ddoc, kind, name = names
    doc_id = ddoc if ddoc.startswith(_PREFIX) else _PREFIX + ddoc
    known, _state = designs.mango_indexes(request.database())
    for index in known:
        if index.ddoc == doc_id and index.name == name and kind == "json":
            await _remove(request, index)
            return response.json(request, 200, {"ok": True})
    raise NotFound()


async def _remove(request: Request, index: MangoIndex) -> None:
    assert index.ddoc is not None
    before = _design(request, index.ddoc)
    after = without_index(before, index.name)
    if after is None:
        after = {"_id": index.ddoc, "_rev": before["_rev"], "_deleted": True}
    await submission.store(request, submission.read_document(request, after))


async def _delete_many(request: Request) -> web.StreamResponse:
    """POST of the ids of design documents, each of which must hold one index."""
    request.require_json_type()
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for given in read_bulk_delete(await request.json_object()):
        doc_id = given if given.startswith(_PREFIX) else _PREFIX + given
        known, _state = designs.mango_indexes(request.database())
        held = [index for index in known if index.ddoc == doc_id]
        try:
            if len(held) != 1:
                raise NotFound()
            await _remove(request, held[0])
            done.insert(0, {"id": doc_id, "ok": True})
        except CouchliteError as error:
            failed.insert(0, {"id": doc_id, "error": error.error})
    return response.json(request, 200, {"success": done, "fail": failed})
