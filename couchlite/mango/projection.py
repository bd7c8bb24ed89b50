"""The `fields` of a query: documents cut down to some of their members, as mango_fields.erl does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import BadRequest
from .fields import Absent, get_field, parse_field
from .terms import term_text

Projection = Callable[[dict[str, Any]], dict[str, Any]]


def compile_projection(fields: list[Any]) -> Projection | None:
    """A function that gives the named fields of a document; None when all are wanted, as an empty list means.

    :raises BadRequest: with CouchDB's error word and reason.
    """
    if not fields:
        return None
    for field in fields:
        if not isinstance(field, str):
            raise BadRequest(f"Invalid JSON for field spec: {term_text(field)}", error="invalid_field")
    paths = [parse_field(field) for field in fields]

    def project(document: dict[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for path in paths:
            value = get_field(document, path)
            if not isinstance(value, Absent):
                _set(shown, path, value)
        return shown

    return project


def _set(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Members on the way are made; what stands in the way (a field named twice, once by a part of its path)
    stays."""
    for name in path[:-1]:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            return
    target[path[-1]] = value
