"""The options of views and of listings, from a query or from a JSON body, with CouchDB's texts for wrong
ones.

Source: couch_mrview_http:parse_params and couch_mrview_util:validate_args. In a query every value is text; in
a body it is the JSON value itself, and a number in quotes is no number. Options that are unknown are ignored;
of one that is given twice the last counts, and a query counts after a body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from couchlite import partitions
from couchlite.config import Config
from couchlite.errors import BadRequest, QueryParseError
from couchlite.jsontext import dumps

from .request import Request
from .values import as_erlang, json_value

LIMIT_MAX: Final = (1 << 59) - 1
"""Erlang's greatest small integer, which CouchDB takes for "no limit"."""

_INTEGER = re.compile(r"[+-]?[0-9]+")


class Unset:
    """Stands for a key that was not given; null is a key."""


UNSET: Final = Unset()


@dataclass(slots=True)
class ViewOptions:
    """Options as they were given; `validate` says whether they go together."""

    start_key: Any = UNSET
    start_key_docid: bytes | None = None
    end_key: Any = UNSET
    end_key_docid: bytes | None = None
    keys: Any = None
    descending: bool = False
    limit: int = LIMIT_MAX
    skip: int = 0
    inclusive_end: bool = True
    include_docs: bool = False
    conflicts: bool | None = None
    attachments: bool = False
    att_encoding_info: bool = False
    reduce: bool | None = None
    group: bool | None = None
    group_level: int | None = None
    stable: bool = False
    update: bool | str = True
    """False, True or "lazy"."""
    update_seq: bool = False
    sorted: bool = True
    partition: str | None = None

    def read_query(self, pairs: Iterable[tuple[str, str]]) -> None:
        for name, value in pairs:
            self._read(name, value, json_value)

    def read_body(self, members: Mapping[str, Any]) -> None:
        for name, value in members.items():
            self._read(name, value, _same)

    def _read(self, name: str, value: Any, as_json: Any) -> None:
        match name:
            case "key":
                self.start_key = self.end_key = as_json(value)
            case "keys":
                keys = as_json(value)
                if isinstance(keys, list) and len(keys) == 1:
                    self.start_key = self.end_key = keys[0]
                else:
                    self.keys = keys
            case "startkey" | "start_key":
                self.start_key = as_json(value)
            case "endkey" | "end_key":
                self.end_key = as_json(value)
            case "startkey_docid" | "start_key_doc_id":
                self.start_key_docid = _text(value)
            case "endkey_docid" | "end_key_doc_id":
                self.end_key_docid = _text(value)
            case "limit" | "skip" | "group_level":
                setattr(self, name, _positive_integer(value, as_json is _same))
            case "stale":
                if value not in ("ok", "update_after"):
                    raise QueryParseError("Invalid value for `stale`.")
                self.stable = True
                self.update = False if value == "ok" else "lazy"
            case "stable":
                self.stable = _one_of(name, value, _BOOLEANS)
            case "update":
                self.update = _one_of(name, value, _UPDATES)
            case "attachments" | "att_encoding_info":
                if _boolean(value):
                    setattr(self, name, True)
            case (
                "descending"
                | "inclusive_end"
                | "include_docs"
                | "conflicts"
                | "reduce"
                | "group"
                | "update_seq"
                | "sorted"
            ):
                setattr(self, name, _boolean(value))
            case "partition":
                self.partition = _text(value).decode("utf-8", "replace")
                partitions.check_name(self.partition)

    def validate_as_map(self) -> None:
        """For a listing, or a view without its reduce function. :raises QueryParseError:"""
        self._check_grouping()
        if self.reduce:
            raise QueryParseError("Reduce is invalid for map-only views.")
        self._check_keys()
        if self.group_level or self.is_grouped_by_key:
            raise QueryParseError("Invalid use of grouping on a map view.")

    def validate_as_reduce(self) -> None:
        """For a view with its reduce function. :raises QueryParseError:"""
        self._check_grouping()
        if isinstance(self.keys, list) and not self.is_grouped_by_key:
            raise QueryParseError("Multi-key fetches for reduce views must use `group=true`")
        self._check_keys()
        if self.include_docs:
            raise QueryParseError("`include_docs` is invalid for reduce")
        if self.conflicts is not None:
            raise QueryParseError("`conflicts` is invalid for reduce views.")

    @property
    def is_grouped_by_key(self) -> bool:
        return bool(self.group) and self.group_level is None

    def _check_grouping(self) -> None:
        if self.group is False and self.group_level:
            raise QueryParseError("Can't specify group=false and group_level>0 at the same time")

    def _check_keys(self) -> None:
        if self.keys is not None and not isinstance(self.keys, list):
            raise QueryParseError("`keys` must be an array of strings.")
        if self.keys and not self._keys_alone():
            raise QueryParseError("`keys` is incompatible with `key`, `start_key` and `end_key`")

    def _keys_alone(self) -> bool:
        """A list of one key may come with the same key once more."""
        bounds = (self.start_key, self.end_key)
        if len(self.keys) == 1 and all(bound is not UNSET for bound in bounds):
            return bool(dumps(self.keys * 2) == dumps(list(bounds)))
        return all(bound is UNSET for bound in bounds)

    def apply_limit(self, config: Config, *, partitioned: bool) -> None:
        """Hold the limit below the configured one. :raises QueryParseError: it is above."""
        name = "partition_query_limit" if partitioned else "query_limit"
        configured = config.get("query_server_config", name, "infinity")
        limit_max = LIMIT_MAX if configured in (None, "infinity") else int(configured)
        if self.limit == LIMIT_MAX:
            self.limit = limit_max
        elif self.limit > limit_max:
            raise QueryParseError(f"Limit is too large, must not exceed {limit_max}")


async def read_options(request: Request) -> ViewOptions:
    """The options of a GET or of a POST.

    :raises BadRequest: `keys` is no list, or the body no JSON object.
    """
    options = ViewOptions()
    if request.method == "POST":
        request.require_json_type()
        body = await request.json_object()
        options.keys = body.get("keys")
        if "keys" in body and not isinstance(options.keys, list):
            raise BadRequest("`keys` body member must be an array.")
        options.read_body(body)
    elif (keys := request.query_value("keys")) is not None:
        options.keys = json_value(keys)
        if not isinstance(options.keys, list):
            raise BadRequest("`keys` parameter must be an array.")
    options.read_query(request.query)
    return options


async def read_view_options(request: Request) -> ViewOptions:
    """The options of a view, where a list of one key is the same as that key.

    :raises BadRequest: as `read_options`.
    """
    options = ViewOptions()
    if request.method == "POST":
        request.require_json_type()
        body = await request.json_object()
        if "queries" in body:
            if not isinstance(body["queries"], list):
                raise BadRequest("`queries` member must be an array.")
            raise BadRequest("The `queries` parameter is no longer supported at this endpoint")
        if "keys" in body and not isinstance(body["keys"], list):
            raise BadRequest("`keys` member must be an array.")
        options.read_body(body)
    options.read_query(request.query)
    return options


async def read_queries(request: Request) -> Iterator[ViewOptions]:
    """The options of each of several `queries` in a body, read one by one; those in the query of the address
    hold for all.

    :raises BadRequest: also while they are read.
    """
    body = await request.json_object()
    if "queries" not in body:
        raise BadRequest("POST body must include `queries` parameter.")
    queries = body["queries"]
    if not isinstance(queries, list):
        raise BadRequest("`queries` member must be an array.")
    shared = ViewOptions()
    shared.read_query(request.query)
    return (_read_one_of(shared, members) for members in queries)


def _read_one_of(shared: ViewOptions, members: Any) -> ViewOptions:
    if not isinstance(members, dict):
        raise BadRequest("`queries` member must be an array of objects.")
    options = replace(shared, keys=None, group=None, group_level=None)
    options.read_body(members)
    return options


_BOOLEANS: dict[str | bool, Any] = {"true": True, True: True, "false": False, False: False}
_UPDATES: dict[str | bool, Any] = _BOOLEANS | {"lazy": "lazy"}


def _same(value: Any) -> Any:
    return value


def _one_of(name: str, value: Any, known: Mapping[str | bool, Any]) -> Any:
    if not isinstance(value, str | bool) or value not in known:
        raise QueryParseError(f"Invalid value for `{name}`.")
    return known[value]


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise QueryParseError(f"Invalid boolean parameter: {_shown(value)}")


def _positive_integer(value: Any, is_json: bool) -> int:
    if is_json:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        wrong = _as_erlang_binary(value) if isinstance(value, str) else dumps(value).decode()
    else:
        is_integer = _INTEGER.fullmatch(value) is not None
        wrong = _shown(value)
    if not is_integer:
        raise QueryParseError(f"Invalid value for integer: {wrong}")
    number = _to_integer(value)
    if number < 0:
        raise QueryParseError(f"Invalid value for positive integer: {wrong}")
    return number


def _to_integer(value: int | str) -> int:
    try:
        return int(value)
    except ValueError:  # more digits than Python converts: more rows than there can be
        return -1 if str(value).startswith("-") else LIMIT_MAX + 1


def _text(value: Any) -> bytes:
    """A string as the bytes it was sent as, or another value as its text."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return dumps(value)


def _shown(value: Any) -> str:
    return as_erlang(value) if isinstance(value, str) else dumps(value).decode()


def _as_erlang_binary(text: str) -> str:
    return f'<<"{text}">>' if text else "<<>>"
