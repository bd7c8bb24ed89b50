"""Selectors in one consistent form, and what is wrong with those that can't be brought into it.

In the normal form every object has one member. Its name is an operator or a whole path; implicit equality and
implicit conjunction are spelled out; paths stand directly around terminal operators; and negations are pushed
down to where they vanish into the opposite operator, if there is one:

    {"a": {"b": 1, "$not": {"c": {"$gt": 2}}}}
    {"$and": [{"a.b": {"$eq": 1}}, {"a.c": {"$lte": 2}}]}

That changes what a selector means: an absent field matches neither `$gt` nor `$lte`. So the steps, their
order and where they stop (inside `$elemMatch` and its like no negation is pushed) are mango_selector.erl's.
With one exception: CouchDB fails on a `$nor` inside those, so that they match nothing; here it means `$nor`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import regex
from ..errors import BadRequest
from .terms import term_text

Selector = dict[str, Any]

# CouchDB sets no bound. This one keeps the recursion of this package far from Python's.
NESTING_MAX = 100


def normalize(selector: Any) -> Selector:
    """The normal form; `{}`, which matches all, is its own. BadRequest in CouchDB's words if it has none."""
    if not isinstance(selector, dict):
        raise _error("invalid_selector_json", f"Selector must be a JSON object, not: {term_text(selector)}")
    if not selector:
        return {}
    normal = _push_negations(_join_fields(_spell_out(selector, 0), ""))
    if "" in normal:
        raise _error("invalid_selector", "One or more conditions is missing a field name.")
    return normal


def _error(error: str, reason: str) -> BadRequest:
    return BadRequest(reason, error=error)


def _only_member(selector: Selector) -> tuple[str, Any]:
    ((name, argument),) = selector.items()
    return name, argument


# Step 1: implicit operators made explicit, arguments checked.


def _spell_out(selector: Any, nesting: int) -> Selector:
    if nesting > NESTING_MAX:
        raise _error("invalid_selector", "Selector is nested too deeply.")
    if not isinstance(selector, dict) or not selector:
        return {"$eq": selector}
    if len(selector) > 1:
        return {"$and": [_spell_out({name: part}, nesting + 1) for name, part in selector.items()]}
    name, argument = _only_member(selector)
    if name in _COMBINATIONS:
        _check(isinstance(argument, list), name, argument)
        return {name: [_spell_out(part, nesting + 1) for part in argument]}
    if name in _OF_ONE_SELECTOR:
        _check(isinstance(argument, dict), name, argument)
        return {name: _spell_out(argument, nesting + 1)}
    if not name.startswith("$"):
        return {name: _spell_out(argument, nesting + 1)}
    if name == "$text":
        _check(type(argument) in (str, int, float, bool), name, argument)
        return {"$default": {"$text": argument}}
    if name in _UNSUPPORTED:
        raise _error("not_supported", f"Unsupported operator: {name}")
    if name not in _TERMINALS or (name in _OF_A_STRING and not isinstance(argument, str)):
        raise _error("invalid_operator", f"Invalid operator: {name}")
    _check(_TERMINALS[name](argument), name, argument)
    return selector


def _check(good: bool, operator: str, argument: Any) -> None:
    if not good:
        raise _error("bad_arg", f"Bad argument for operator {operator}: {term_text(argument)}")


def _is_anything(_argument: Any) -> bool:
    return True


def _is_list(argument: Any) -> bool:
    return isinstance(argument, list)


def _is_pair_of_integers(argument: Any) -> bool:
    return isinstance(argument, list) and len(argument) == 2 and all(type(part) is int for part in argument)


_COMBINATIONS = frozenset({"$and", "$or", "$nor"})
_OF_ONE_SELECTOR = frozenset({"$not", "$elemMatch", "$allMatch", "$keyMapMatch"})
_OF_A_STRING = frozenset({"$regex", "$beginsWith"})
_UNSUPPORTED = frozenset({"$where", "$geoWithin", "$geoIntersects", "$near", "$nearSphere"})
_TERMINALS: dict[str, Callable[[Any], bool]] = {
    "$lt": _is_anything,
    "$lte": _is_anything,
    "$eq": _is_anything,
    "$ne": _is_anything,
    "$gte": _is_anything,
    "$gt": _is_anything,
    "$in": _is_list,
    "$nin": _is_list,
    "$all": _is_list,
    "$exists": lambda argument: isinstance(argument, bool),
    "$type": lambda argument: isinstance(argument, str),
    "$size": lambda argument: type(argument) is int and argument >= 0,
    "$mod": _is_pair_of_integers,
    "$regex": regex.is_pattern,
    "$beginsWith": _is_anything,
    "$default": _is_anything,
}


# Step 2: field names joined to paths and moved down to the terminal operators.


def _join_fields(selector: Selector, path: str) -> Selector:
    name, argument = _only_member(selector)
    if name in _COMBINATIONS:
        return {name: [_join_fields(part, path) for part in argument]}
    if name == "$not":
        return {name: _join_fields(argument, path)}
    if name in _OF_ONE_SELECTOR:
        return {path: {name: _join_fields(argument, "")}}
    if name == "$default":
        if path or not _is_text(argument):
            reason = f"Invalid field normalization on selector: {term_text(selector)}"
            raise _error("bad_field", reason)
        return selector
    if name.startswith("$"):
        return {path: selector}
    return _join_fields(argument, f"{path}.{name}" if path else name)


def _is_text(argument: Any) -> bool:
    return isinstance(argument, dict) and list(argument) == ["$text"]


# Step 3: negations pushed down.


def _push_negations(selector: Selector) -> Selector:
    name, argument = _only_member(selector)
    if name == "$not":
        return _negate(argument)
    if name == "$nor":
        return {"$and": [_negate(part) for part in argument]}
    if name in ("$and", "$or"):
        return {name: [_push_negations(part) for part in argument]}
    return selector


def _negate(selector: Selector) -> Selector:
    name, argument = _only_member(selector)
    if name == "$not":
        return _push_negations(argument)
    if name == "$nor":
        return {"$or": [_push_negations(part) for part in argument]}
    if name in _DE_MORGAN:
        return {_DE_MORGAN[name]: [_negate(part) for part in argument]}
    if name in _OPPOSITE:
        return {_OPPOSITE[name]: argument}
    if name == "$exists":
        return {name: not argument}
    if name == "$default":
        _check(False, "$not", selector)
    return {"$not": selector} if name.startswith("$") else {name: _negate(argument)}


_DE_MORGAN = {"$and": "$or", "$or": "$and"}
_OPPOSITE = {
    "$lt": "$gte",
    "$lte": "$gt",
    "$eq": "$ne",
    "$ne": "$eq",
    "$gte": "$lt",
    "$gt": "$lte",
    "$in": "$nin",
    "$nin": "$in",
}
