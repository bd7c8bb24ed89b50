"""What children answer, understood: each may have been made up by a function that lies.

A result that makes no sense is none; whoever asked then has too few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import (
    BadRequest,
    Conflict,
    CouchliteError,
    DocumentInvalid,
    Forbidden,
    InternalError,
    NotFound,
    QueryParseError,
    Unauthorized,
)
from ..jsontext import dumps
from .process import ChildLost

Answer = dict[str, Any]
Row = list[Any]
"""A key and a value."""


def flags(answer: Answer) -> Sequence[bool]:
    flags = answer.get("passes")
    return [flag == "1" for flag in flags] if isinstance(flags, str) else ()


def judgements(answer: Answer) -> Sequence[Answer | None]:
    found = answer.get("judgements")
    if not isinstance(found, list) or not all(one is None or isinstance(one, dict) for one in found):
        return ()
    return found


def rows(answer: Answer) -> Sequence[list[Row]]:
    found = answer.get("rows")
    if not isinstance(found, list):
        return ()
    for rows in found:
        if type(rows) is not list:
            return ()
        for row in rows:
            if type(row) is not list or len(row) != 2:
                return ()
    return found


def reductions(answer: Answer) -> Sequence[Any]:
    found = answer.get("reductions")
    return found if isinstance(found, list) else ()


def resolutions(answer: Answer) -> Sequence[Any]:
    found = answer.get("resolutions")
    return found if isinstance(found, list) else ()


def object_in(answer: Answer, name: str) -> dict[str, Any]:
    value = answer.get(name)
    if not isinstance(value, dict):
        raise InternalError(f"The {name} of a function is no object.", error="render_error")
    return value


def loss(lost: ChildLost) -> Answer:
    return {"exceeded": "process" if lost.in_time else "time", "reason": str(lost)}


# Words for errors that have a status of their own (chttpd:error_info).
_ERRORS: dict[str, type[CouchliteError]] = {
    kind.error: kind
    for kind in (BadRequest, Unauthorized, Forbidden, NotFound, Conflict, QueryParseError, DocumentInvalid)
}
_STATUSES = {
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "gone": 410,
    "expectation_failed": 417,
    "service_unavailable": 503,
}


def error_of(name: object, reason: object) -> CouchliteError:
    error = _ERRORS.get(str(name), InternalError)(str(reason), error=str(name))
    error.status = _STATUSES.get(str(name), error.status)
    return error


def refusal_of_thrown(thrown: Any) -> CouchliteError | None:
    """What is meant by what a validation function has thrown (couch_query_servers:validate_doc_update).

    A reason is passed on as it is, also if it is no text.
    """
    if thrown is True or (type(thrown) is int and thrown == 1):
        return None  # CouchDB takes these for its own signs of success
    if isinstance(thrown, dict):
        for kind in (Forbidden, Unauthorized):
            if kind.error in thrown:
                refusal = kind()
                refusal.reason = thrown[kind.error]
                return refusal
        if len(thrown) == 1:
            [thrown] = thrown.values()
    elif isinstance(thrown, list) and len(thrown) == 3 and thrown[0] in ("error", "fatal"):
        return error_of(thrown[1], thrown[2])
    return CouchliteError(thrown if isinstance(thrown, str) else dumps(thrown).decode())
