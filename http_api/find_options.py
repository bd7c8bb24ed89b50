"""The options of `_find` and `_explain`, and of requests for indexes, checked in CouchDB's order.

Source: mango_opts.erl and mango_error.erl.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from couchlite import partitions
from couchlite.config import Config
from couchlite.errors import BadRequest
from couchlite.jsontext import dumps, loads
from couchlite.mango import normalize
from couchlite.mango.indexes import parse_sort
from couchlite.mango.projection import compile_projection
from couchlite.mango.terms import term_text

NO_BOOKMARK = "nil"


class Bookmark(NamedTuple):
    """The last row of a page: what the next one goes on behind."""

    key: Any
    doc_id: str

    def encode(self) -> str:
        return base64.urlsafe_b64encode(dumps([self.key, self.doc_id])).decode().rstrip("=")


@dataclass(slots=True)
class FindOptions:
    """A request of `_find`, understood."""

    selector: dict[str, Any]
    use_index: list[str]
    bookmark: Bookmark | None
    bookmark_text: str
    limit: int
    skip: int
    sort: dict[str, str]
    sort_columns: list[str]
    """Its fields; one that is named twice is there twice."""
    fields: list[str]
    partition: str
    r: int
    conflicts: bool
    stale: str | bool
    update: bool
    stable: bool
    execution_stats: bool
    allow_fallback: bool

    @property
    def descending(self) -> bool:
        return "desc" in self.sort.values()

    def shown(self) -> dict[str, Any]:
        """As `_explain` shows them."""
        return {
            "use_index": self.use_index,
            "bookmark": self.bookmark_text,
            "limit": self.limit,
            "skip": self.skip,
            "sort": self.sort,
            "fields": self.fields,
            "partition": self.partition,
            "r": self.r,
            "conflicts": self.conflicts,
            "stale": self.stale,
            "update": self.update,
            "stable": self.stable,
            "execution_stats": self.execution_stats,
            "allow_fallback": self.allow_fallback,
        }


def setting(config: Config, name: str, default: int) -> int:
    """A number of the section [mango], which is empty by default."""
    text = config.get("mango", name, None)
    return int(text) if text is not None and text.isdecimal() else default


Check = Callable[[Any], Any]
_REQUIRED = object()


def read_find(body: Mapping[str, Any], config: Config, *, explain: bool = False) -> FindOptions:
    """:param explain: the bookmark won't be used.

    :raises BadRequest: with CouchDB's error words and reasons."""
    checks: dict[str, tuple[Any, Check]] = {
        "selector": (_REQUIRED, _selector),
        "use_index": ([], use_index),
        "bookmark": ("", _bookmark_text),
        "limit": (setting(config, "default_limit", 25), _non_negative),
        "skip": (0, _non_negative),
        "sort": ([], parse_sort),
        "fields": ([], _fields),
        "partition": ("", _partition),
        "r": (1, _positive),
        "conflicts": (False, _boolean),
        "stale": (False, _ok_or_false),
        "update": (True, _boolean),
        "stable": (False, _boolean),
        "execution_stats": (False, _boolean),
        "allow_fallback": (True, _boolean),
    }
    values = checked(body, checks)
    text = values.pop("bookmark")
    bookmark = None if explain else _bookmark(text)
    columns = [given if isinstance(given, str) else next(iter(given)) for given in body.get("sort", ())]
    return FindOptions(**values, sort_columns=columns, bookmark=bookmark, bookmark_text=text)


def read_index(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request to make an index: `index`, `type`, `name` and `ddoc`; None for what wasn't given.

    :raises BadRequest:
    """
    return checked(
        body,
        {
            "index": (_REQUIRED, _any),
            "type": ("json", _string),
            "name": (None, _name),
            "ddoc": (None, _name),
            "w": (2, _positive),
            "partitioned": (None, _partitioned),
        },
    )


def read_bulk_delete(body: Mapping[str, Any]) -> list[str]:
    """The ids of design documents. :raises BadRequest:"""
    ids: list[str] = checked(body, {"docids": (_REQUIRED, _doc_ids), "w": (2, _positive)})["docids"]
    return ids


def checked(body: Mapping[str, Any], checks: Mapping[str, tuple[Any, Check]]) -> dict[str, Any]:
    """The members of a body, each through its check, or their defaults. :raises BadRequest:"""
    values = {}
    for name, (default, check) in checks.items():
        if name in body:
            values[name] = check(body[name])
        elif default is _REQUIRED:
            raise _invalid("missing_required_key", f"Missing required key: {name}")
        else:
            values[name] = check(default) if default is not None else None
    for name in body:
        if name not in checks:
            raise _invalid("invalid_key", f"Invalid key {name} for this request.")
    return values


def _invalid(error: str, reason: str) -> BadRequest:
    return BadRequest(reason, error=error)


def _any(value: Any) -> Any:
    return value


def _selector(value: Any) -> dict[str, Any]:
    return normalize(value)


def use_index(value: Any) -> list[str]:
    if isinstance(value, str):
        parts = value.split("/")
        parts = parts[1:] if parts[0] == "_design" and len(parts) > 1 else parts
    elif value is None:
        parts = []
    else:
        parts = value
    if (
        isinstance(parts, list)
        and len(parts) <= 2
        and all(isinstance(part, str) for part in parts)
        and (parts or not isinstance(value, str))
    ):
        return parts
    raise _invalid("invalid_index_name", f"Invalid index name: {term_text(value)}")


def _bookmark_text(value: Any) -> str:
    if value is None or value == "":
        return NO_BOOKMARK
    if isinstance(value, str):
        if value == NO_BOOKMARK:
            raise _bad_bookmark(value)
        return value
    raise _bad_bookmark(value)


def _bookmark(text: str) -> Bookmark | None:
    if text == NO_BOOKMARK:
        return None
    try:
        value = loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (BadRequest, ValueError, binascii.Error):
        raise _bad_bookmark(text) from None
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], str):
        raise _bad_bookmark(text)
    return Bookmark(*value)


def _bad_bookmark(value: Any) -> BadRequest:
    return _invalid("invalid_bookmark", f"Invalid bookmark value: {dumps(value).decode()}")


def _fields(value: Any) -> list[str]:
    if not isinstance(value, list):
        reason = f"Fields must be an array of strings, not: {term_text(value)}"
        raise _invalid("invalid_fields", reason)
    compile_projection(value)
    return value


def _partition(value: Any) -> str:
    if not isinstance(value, str):
        raise _invalid("illegal_partition", "Partition must be a string")
    if value:
        partitions.check_name(value)
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _non_negative(value: Any) -> int:
    if _is_integer(value) and value >= 0:
        return int(value)
    reason = f"{term_text(value)} is not an integer greater than or equal to zero"
    raise _invalid("invalid_non_neg_integer", reason)


def _positive(value: Any) -> int:
    if _is_integer(value) and value > 0:
        return int(value)
    raise _invalid("invalid_pos_integer", f"{term_text(value)} is not an integer greater than zero")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _invalid("invalid_boolean", f"Invalid boolean value: {term_text(value)}")


def _ok_or_false(value: Any) -> str | bool:
    if value == "ok":
        return "ok"
    if value is False or value == "false":
        return False
    raise _invalid("invalid_ok_or_false_value", f'Value must be "ok" or false: {term_text(value)}')


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _invalid("invalid_string", f"Invalid string: {term_text(value)}")


def _name(value: Any) -> str:
    if value == "":
        raise _invalid("invalid_empty_string", "Index name or ddoc cannot be empty string")
    return _string(value)


def _partitioned(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _invalid("invalid_partitioned_value", f"Invalid partitioned value: {term_text(value)}")


def _doc_ids(value: Any) -> Sequence[str]:
    if not isinstance(value, list) or any(doc_id is None or isinstance(doc_id, list) for doc_id in value):
        reason = f"Bulk Delete requires an array of non-null docids. Docids: {term_text(value)}"
        raise _invalid("invalid_bulk_docs", reason)
    for doc_id in value:
        use_index(doc_id)
    return value
