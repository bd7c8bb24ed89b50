"""CouchDB's built-in reduce functions, on the records of rows.

A partial reduction is JSON text, so that it can be kept and read without a format of its own. What can't be
reduced becomes a partial reduction, too, an error object, which outlives all others it meets.
Source: couch_query_servers.erl.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cmp_to_key
from typing import Any

from ..collation import compare
from ..errors import InternalError
from ..jsontext import dumps, loads
from ..mango.terms import term_text
from . import distinct
from .layout import ROW_HEAD_BYTES, value_text

SUM_ERROR = (
    "The _sum function requires that map values be numbers, "
    "arrays of numbers, or objects. Objects cannot be mixed with other "
    "data structures. Objects can be arbitrarily nested, provided that the values "
    "for all fields are themselves numbers, arrays of numbers, or objects."
)
SUM_SIZE_UNCHECKED = 4906
"""A sum up to this size, in bytes, may be as large as what went into it."""
_NUMBERS = ({int}, {float}, {int, float})
_STATS = ("sum", "count", "min", "max", "sumsqr")
_INVALID = "invalid_value"


class BuiltIn:
    """A built-in reduce function: `levels.Reductions`, and how a result is shown."""

    def __init__(
        self,
        of_rows: Callable[[Sequence[bytes]], Any],
        of_partials: Callable[[list[Any]], Any],
        finish: Callable[[Any], Any] | None = None,
    ) -> None:
        self._of_rows = of_rows
        self._of_partials = of_partials
        self._finish = finish

    def of_rows(self, groups: Sequence[Sequence[bytes]]) -> list[bytes]:
        return [dumps(self._of_rows(group)) for group in groups]

    def of_partials(self, groups: Sequence[Sequence[bytes]]) -> list[bytes]:
        return [
            group[0] if len(group) == 1 else dumps(self._of_partials(loads(b"[%b]" % b",".join(group))))
            for group in groups
        ]

    def finish(self, partial: bytes) -> bytes:
        """The JSON text to be shown. :raises InternalError: there is no result."""
        return partial if self._finish is None else dumps(self._finish(loads(partial)))


def find(source: str, *, limits: bool = True) -> BuiltIn | None:
    """The built-in function that a reduce source names; None when it is no such name. As in CouchDB, the
    beginning of the name decides.

    :param limits: whether sums must shrink ([query_server_config] reduce_limit).
    """
    for prefix, make in _BUILT_IN.items():
        if source.startswith(prefix):
            return make(source, limits)
    return None


def _values(rows: Sequence[bytes]) -> list[Any]:
    values: list[Any] = loads(b"[%b]" % b",".join(map(value_text, rows)))
    return values


def _value(row: bytes) -> Any:
    return loads(value_text(row))


def _keys(rows: Sequence[bytes]) -> list[Any]:
    shown = loads(b"[%b]" % b",".join([row[ROW_HEAD_BYTES:] for row in rows]))
    return [row["key"] for row in shown]


# --- _sum


class _NoSum(Exception):
    def __init__(self, cause: Any) -> None:
        self.cause = cause
        super().__init__()


def _sum(limits: bool) -> BuiltIn:
    def of_rows(rows: Sequence[bytes]) -> Any:
        values = _values(rows)
        return sum(values) if set(map(type, values)) in _NUMBERS else add(values)

    def add(values: list[Any]) -> Any:
        if set(map(type, values)) in _NUMBERS:
            return sum(values)
        total: Any = 0
        for value in values:
            if type(value) is dict and value.get("error") == "builtin_reduce_error":
                return value
            try:
                total = _add(value, total)
            except _NoSum as error:
                return {"error": "builtin_reduce_error", "reason": SUM_ERROR, "caused_by": error.cause}
        return _overflow(values, total) if limits and len(values) > 1 else total

    return BuiltIn(of_rows, add)


def _add(value: Any, total: Any) -> Any:
    kind, other = type(value), type(total)
    is_number, total_is_number = kind in (int, float), other in (int, float)
    if is_number and total_is_number:
        return total + value
    if kind is list and other is list:
        return _add_arrays(total, value)
    if is_number and other is list:
        return _add_arrays(total, [value])
    if kind is list and total_is_number:
        return _add_arrays([total], value)
    if kind is dict and other is dict:
        names = sorted(value.keys() | total.keys(), key=str.encode)
        return {
            name: _add(value[name], total[name])
            if name in value and name in total
            else (value[name] if name in value else total[name])
            for name in names
        }
    if kind is dict and total == 0 and other is int:
        return value
    raise _NoSum(value)


def _add_arrays(total: list[Any], values: list[Any]) -> list[Any]:
    shared = min(len(total), len(values))
    for part in (*total[:shared], *values[:shared]):
        if type(part) not in (int, float):
            raise _NoSum(values)
    added = [one + other for one, other in zip(total, values, strict=False)]
    return added + total[shared:] + values[shared:]


def _overflow(values: list[Any], total: Any) -> Any:
    if type(total) not in (list, dict):
        return total
    size = len(dumps(total))
    if size <= SUM_SIZE_UNCHECKED:
        return total
    given = len(dumps(values))
    if 2 * size <= given:
        return total
    reason = f"Reduce output must shrink more rapidly: input size: {given} output size: {size}"
    return {"error": "builtin_reduce_error", "reason": reason}


# --- _stats


class _NoStats(Exception):
    pass


def _stats_of_rows(rows: Sequence[bytes]) -> Any:
    values = _values(rows)
    if set(map(type, values)) in _NUMBERS:
        squares = sum([value * value for value in values])
        return dict(zip(_STATS, (sum(values), len(values), min(values), max(values), squares), strict=True))
    return _stats(values)


def _stats(values: list[Any]) -> Any:
    try:
        total = _initial_stats(values[0])
        for value in values[1:]:
            total = _join_stats(value, total)
    except _NoStats as error:
        return {_INVALID: str(error)}
    return total


def _initial_stats(value: Any) -> Any:
    if type(value) is list:
        return [_initial_stats(part) for part in value]
    if type(value) in (int, float):
        return dict(zip(_STATS, (value, 1, value, value, value * value), strict=True))
    if type(value) is dict:
        return _given_stats(value)
    raise _NoStats(f"non-numeric _stats input: {term_text(value)}")


def _given_stats(value: dict[str, Any]) -> dict[str, Any]:
    """Statistics that a map function, or an earlier reduction, has made."""
    if _INVALID in value:
        raise _NoStats(value[_INVALID])
    for name in _STATS:
        if name not in value:
            raise _NoStats(f"user _stats input missing required field {name} ({term_text(value)[1:-1]})")
        if type(value[name]) not in (int, float):
            raise _NoStats(f"non-numeric _stats input received for {name}: {term_text(value[name])}")
    return {name: value[name] for name in _STATS}


def _join_stats(value: Any, total: Any) -> Any:
    if type(value) is list and type(total) is list and len(value) == len(total):
        return [_join_stats(part, so_far) for part, so_far in zip(value, total, strict=True)]
    if type(value) not in (int, float, dict) or type(total) is not dict:
        reason = "The _stats function requires that map values be numbers or arrays of numbers, not "
        raise _NoStats(f"{reason}'{dumps(value).decode()}'")
    one = _initial_stats(value)
    return {
        "sum": one["sum"] + total["sum"],
        "count": one["count"] + total["count"],
        "min": min(one["min"], total["min"]),
        "max": max(one["max"], total["max"]),
        "sumsqr": one["sumsqr"] + total["sumsqr"],
    }


def _shown_stats(total: Any) -> Any:
    if type(total) is dict and _INVALID in total:
        raise InternalError(total[_INVALID], error=_INVALID)
    return total


# --- _top_N and _bottom_N

_ORDER = cmp_to_key(compare)


def _ranked(source: str, prefix: str, *, reverse: bool) -> BuiltIn:
    number = int(source.removeprefix(prefix))

    def best(values: list[Any]) -> list[Any]:
        found: list[Any] = []
        for value in sorted(values, key=_ORDER, reverse=reverse):
            if len(found) == number:
                break
            if not found or compare(found[-1], value):
                found.append(value)
        return found

    return BuiltIn(
        lambda rows: best(_values(rows)), lambda parts: best([value for part in parts for value in part])
    )


def _all_sum(partials: list[Any]) -> Any:
    return sum(partials)


_BUILT_IN: dict[str, Callable[[str, bool], BuiltIn]] = {
    "_sum": lambda _source, limits: _sum(limits),
    "_count": lambda _source, _limits: BuiltIn(len, _all_sum),
    "_stats": lambda _source, _limits: BuiltIn(_stats_of_rows, _stats, _shown_stats),
    "_approx_count_distinct": lambda _source, _limits: BuiltIn(
        lambda rows: distinct.sketch(_keys(rows)), distinct.union, distinct.cardinality
    ),
    "_top_": lambda source, _limits: _ranked(source, "_top_", reverse=True),
    "_bottom_": lambda source, _limits: _ranked(source, "_bottom_", reverse=False),
    "_first": lambda _source, _limits: BuiltIn(
        lambda rows: loads(value_text(rows[0])), lambda parts: parts[0]
    ),
    "_last": lambda _source, _limits: BuiltIn(
        lambda rows: loads(value_text(rows[-1])), lambda parts: parts[-1]
    ),
}
