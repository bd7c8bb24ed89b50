"""What a design document must look like to be stored: the types of its members, and the reduce functions.

Source: couch_mrview:validate. Whether JavaScript compiles is asked elsewhere (see validation.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import BadRequest

PREFIX = "_design/"
RANK_MAX = 100

ANY = None
"""In a path: every member."""
_OBJECT, _STRING, _ARRAY, _BOOLEAN = "object", "string", "array", "boolean"
_TYPES: Mapping[str, type] = {_OBJECT: dict, _STRING: str, _ARRAY: list, _BOOLEAN: bool}
_Step = tuple[str | None, tuple[str, ...]]

_RULES: tuple[tuple[_Step, ...], ...] = (
    (("filters", (_OBJECT,)), (ANY, (_OBJECT, _STRING))),
    (("language", (_STRING,)),),
    (("lists", (_OBJECT,)), (ANY, (_OBJECT, _STRING))),
    (("options", (_OBJECT,)),),
    (("options", (_OBJECT,)), ("include_design", (_BOOLEAN,))),
    (("options", (_OBJECT,)), ("local_seq", (_BOOLEAN,))),
    (("options", (_OBJECT,)), ("partitioned", (_BOOLEAN,))),
    (("rewrites", (_STRING, _ARRAY)),),
    (("shows", (_OBJECT,)), (ANY, (_OBJECT, _STRING))),
    (("updates", (_OBJECT,)), (ANY, (_OBJECT, _STRING))),
    (("validate_doc_update", (_STRING,)),),
    (("views", (_OBJECT,)), ("lib", (_OBJECT,))),
)

_REDUCERS = ("_sum", "_count", "_stats", "_approx_count_distinct", "_first", "_last")
_RANKED_REDUCERS = ("_top_", "_bottom_")


def check(fields: Mapping[str, Any], *, partitioned: bool) -> None:
    """:raises BadRequest: "invalid_design_doc", with CouchDB's reason."""
    for rule in _RULES:
        _check_types(fields, rule, ())
    map_type = _OBJECT if fields.get("language") == "query" else _STRING
    for name, kind in (("map", map_type), ("reduce", _STRING)):
        _check_types(fields, (("views", (_OBJECT,)), (ANY, (_OBJECT,)), (name, (kind,))), ())
    for name, view in fields.get("views", {}).items():
        if name != "lib":
            if "map" not in view:
                raise _invalid(f"View `{name}` must contain map function")
            _check_reducer(view.get("reduce", ""))
    if fields.get("options", {}).get("partitioned") and not partitioned:
        raise _invalid("partitioned option cannot be true in a non-partitioned database.")


def _check_types(value: Mapping[str, Any], rule: tuple[_Step, ...], path: tuple[str, ...]) -> None:
    (step, kinds), *rest = rule
    for name in value if step is ANY else (step,):
        if name not in value:
            continue
        member = value[name]
        if type(member) not in [_TYPES[kind] for kind in kinds]:
            where = ".".join((*path, name))
            raise _invalid(f"`{where}` field must have {' or '.join(reversed(kinds))} type")
        if rest:
            _check_types(member, tuple(rest), (*path, name))


def _check_reducer(source: str) -> None:
    if not source.startswith("_") or source.startswith(_REDUCERS):
        return
    for prefix in _RANKED_REDUCERS:
        if source.startswith(prefix):
            rank = source.removeprefix(prefix)
            if not rank.isdecimal():
                raise _invalid("invalid rank reducer")
            if not 1 <= int(rank) <= RANK_MAX:
                raise _invalid(f"rank value must be between 1 and {RANK_MAX}")
            return
    raise _invalid(f"`{source}` is not a supported reduce function.")


def _invalid(reason: str) -> BadRequest:
    return BadRequest(reason, error="invalid_design_doc")
