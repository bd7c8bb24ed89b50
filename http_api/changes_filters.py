"""What the `filter` of a changes feed stands for; arguments come from the query or the body.

Semantics: couch_changes:configure_filter.
"""

from __future__ import annotations

from typing import Any

from couchlite.changes_filters import (
    DesignDocs,
    DocIds,
    Filter,
    FunctionFilter,
    SelectorFilter,
    ViewFilter,
)
from couchlite.errors import BadRequest
from couchlite.javascript import Design
from couchlite.jsontext import dumps

from .changes_options import Options
from .request import Request
from .request_object import request_object
from .values import decode

DOC_IDS_WANTED = "`doc_ids` filter parameter is not a list of doc ids."


def filter_of(request: Request, options: Options, body: dict[str, Any] | None) -> Filter | None:
    """The filter a request asks for; None when it wants all changes.

    :raises BadRequest: there is no such filter, or its arguments are no good.
    :raises NotFound: the design document or its function is missing.
    """
    match options.filter:
        case "_doc_ids":
            return DocIds(_doc_ids(request, body), _lookups_max(request))
        case "_selector":
            if request.method != "POST":
                raise BadRequest("Selector must be specified in POST payload")
            arguments = _required(body)
            return SelectorFilter(arguments.get("selector"), arguments.get("fields"), request.app.functions)
        case "_design":
            return DesignDocs()
        case "_view":
            name = request.query_value("view")
            if not name:
                raise BadRequest("`view` filter parameter is not provided.")
            design, view = _find(request, name, "`view` must be of the form `designname/viewname`")
            return ViewFilter(request.app.functions, design, view)
        case name if name.startswith("_"):
            raise BadRequest("unknown builtin filter name")
        case name if name.strip("/"):
            design, function = _find(request, name, "`filter` must be of the form `designname/filtername`")
            seen = request_object(request, request.database(), "undefined" if body is None else body)
            return FunctionFilter(request.app.functions, design, function, dumps(seen))
    return None


def _find(request: Request, name: str, wanted_form: str) -> tuple[Design, str]:
    """The design document that a filter names, and what it names in it.

    As in CouchDB a feed keeps to the function that there was when it began.
    """
    parts = [decode(part) for part in name.split("/") if part]
    if len(parts) != 2:
        raise BadRequest(wanted_form)
    database = request.database()
    return Design(database.name, database.get(f"_design/{parts[0]}")), parts[1]


def _doc_ids(request: Request, body: dict[str, Any] | None) -> list[str]:
    posted = request.method == "POST"
    ids = _required(body).get("doc_ids") if posted else request.query_json("doc_ids")
    if not isinstance(ids, list) or not all(isinstance(doc_id, str) for doc_id in ids):
        raise BadRequest(DOC_IDS_WANTED)
    return ids


def _required(body: dict[str, Any] | None) -> dict[str, Any]:
    if body is None:
        raise BadRequest("invalid UTF-8 JSON")
    return body


def _lookups_max(request: Request) -> int:
    return request.server.config.integer("couchdb", "changes_doc_ids_optimization_threshold")
