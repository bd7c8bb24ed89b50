"""Mango's indexes, as design documents hold them: views in the language "query".

    {"language": "query", "views": {NAME: {
        "map": {"fields": {"a": "asc"}, "partial_filter_selector": {}},
        "reduce": "_count",
        "options": {"def": {"fields": ["a"]}}}}}

Source: mango_idx.erl, mango_idx_view.erl and mango_sort.erl.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import BadRequest, CouchliteError
from ..revision import external_term
from .normal_form import normalize
from .terms import term_text

LANGUAGE = "query"


class IndexServiceUnavailable(CouchliteError):
    status = 503
    error = "required index service unavailable"


@dataclass(frozen=True, slots=True)
class MangoIndex:
    """An index, or what stands for the list of all documents: that has no design document."""

    ddoc: str | None
    name: str
    fields: tuple[tuple[str, str], ...]
    """Names and directions."""
    partial: Mapping[str, Any] | None = field(default=None, compare=False)
    """The selector of the documents in it."""
    partitioned: bool = False
    """For queries of a partition; else for those of all documents."""

    @property
    def columns(self) -> list[str]:
        return [name for name, _direction in self.fields]

    @property
    def order(self) -> tuple[str, str]:
        """CouchDB's order of indexes."""
        return (self.ddoc or "", self.name)

    def shown(self) -> dict[str, Any]:
        definition: dict[str, Any] = {"fields": [{name: direction} for name, direction in self.fields]}
        if self.ddoc is None:
            return {"ddoc": None, "name": self.name, "type": "special", "def": definition}
        if self.partial is not None:
            definition["partial_filter_selector"] = self.partial
        return {
            "ddoc": self.ddoc,
            "name": self.name,
            "type": "json",
            "partitioned": self.partitioned,
            "def": definition,
        }


ALL_DOCS = MangoIndex(None, "_all_docs", (("_id", "asc"),))


def of_design_document(document: Mapping[str, Any], *, partitioned: bool = False) -> list[MangoIndex]:
    """The indexes that a design document holds."""
    views = document.get("views")
    if document.get("language") != LANGUAGE or not isinstance(views, dict):
        return []
    found = []
    for name, view in views.items():
        if not isinstance(view, dict) or not isinstance(view.get("options"), dict):
            continue
        source = view.get("map")
        fields = source.get("fields") if isinstance(source, dict) else None
        if isinstance(source, dict) and isinstance(fields, dict):
            partial = source.get("partial_filter_selector") or None
            columns = tuple(fields.items())
            found.append(MangoIndex(str(document["_id"]), name, columns, partial, partitioned))
    return found


# --- a new index


def parse_sort(value: Any) -> dict[str, str]:
    """Fields and their directions, as `sort` and an index's `fields` name them. :raises BadRequest:"""
    if not isinstance(value, list):
        reason = f"Sort must be an array of sort specs, not: {term_text(value, quoted=True)}"
        raise _invalid("invalid_sort_json", reason)
    fields = {}
    for given in value:
        name, direction = _sort_field(given)
        fields[name] = direction
    if len(set(fields.values())) > 1:
        reason = "Sorts currently only support a single direction for all fields."
        raise _invalid("unsupported_mixed_sort", reason)
    return fields


def _sort_field(field: Any) -> tuple[str, str]:
    if isinstance(field, str) and field:
        return field, "asc"
    if isinstance(field, dict) and len(field) == 1:
        ((name, direction),) = field.items()
        if direction in ("asc", "desc"):
            return name, direction
    raise _invalid("invalid_sort_field", f"Invalid sort field: {term_text(field, quoted=True)}")


def parse_definition(value: Any) -> dict[str, Any]:
    """What an index is made of, as its design document says it. :raises BadRequest:"""
    if not isinstance(value, dict):
        raise _invalid("invalid_index", f"JSON indexes must be an object, not: {term_text(value)}")
    if "fields" not in value:
        raise _invalid("missing_required_key", "Missing required key: fields")
    fields = parse_sort(value["fields"])
    partial = normalize(value.get("partial_filter_selector", {}))
    for key in value:
        if key not in ("fields", "partial_filter_selector"):
            raise _invalid("invalid_key", f"Invalid key {key} for this request.")
    return {"fields": fields, "partial_filter_selector": partial}


def generated_name(wanted: Mapping[str, Any]) -> str:
    """The name of an index, or of its design document, that was given none: the one that CouchDB would give
    it, so that the same index made on two servers that replicate is one.

    :param wanted: `index` as it was sent, and `type`, `name`, `ddoc`, `w` and `partitioned`; None where one
        was not given.

    Source: mango_idx:gen_name, a hash of Erlang's {Definition, Options}, the options in order.
    """
    definition = _term(wanted["index"])
    partitioned = wanted["partitioned"]
    options = (
        ("ddoc", _atom("auto_name") if wanted["ddoc"] is None else _term(wanted["ddoc"])),
        ("def", definition),
        ("name", _atom("auto_name") if wanted["name"] is None else _term(wanted["name"])),
        ("partitioned", _atom("db_default") if partitioned is None else _term(partitioned)),
        ("type", _term(wanted["type"])),
        ("w", _term(wanted["w"])),
    )
    pairs = b"".join([_PAIR + _atom(name) + term for name, term in options])
    data = _VERSION + _PAIR + definition + b"l" + len(options).to_bytes(4, "big") + pairs + b"j"
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


_VERSION, _PAIR = b"\x83", b"h\2"
"""Of Erlang's external term format."""


def _term(value: Any) -> bytes:
    return external_term(value).removeprefix(_VERSION)


def _atom(name: str) -> bytes:
    return b"d" + len(name).to_bytes(2, "big") + name.encode()


def with_index(document: dict[str, Any], name: str, given: Any) -> dict[str, Any]:
    """A design document with one more index, `given` as it was sent; the same one when it has it already."""
    view = {"map": parse_definition(given), "reduce": "_count", "options": {"def": given}}
    views = document.get("views")
    return {**document, "views": {**(views if isinstance(views, dict) else {}), name: view}}


def without_index(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A design document without one of its indexes; None when nothing is left of it."""
    views = {other: view for other, view in document["views"].items() if other != name}
    if views:
        return {**document, "views": views}
    rest = {member: value for member, value in document.items() if member != "views"}
    return None if [member for member in rest if member[:1] != "_"] == ["language"] else rest


def _invalid(error: str, reason: str) -> BadRequest:
    return BadRequest(reason, error=error)
