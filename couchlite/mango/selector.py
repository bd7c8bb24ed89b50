"""Selectors compiled to Python functions: each operator becomes a closure, so that matching only calls.

What matches is what mango_selector.erl's match/3 says, odd as it is in places: of all operators only
`$exists: false` matches an absent field; `$all` compares as Erlang does, so that 1 isn't 1.0, and doesn't
match when empty, while `$and` and `$or` do; `_id` is compared by its bytes, not by collation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import regex
from ..collation import compare, compare_strings, sort_key
from .fields import NOT_FOUND, Absent, getter, parse_field
from .normal_form import Selector, normalize
from .terms import compare_terms, same_term

Matcher = Callable[[Any], bool]
Order = Callable[[Any, Any], int]


def compile_selector(selector: Any) -> Matcher:
    """A function that tells whether a document (as JSON gives it, with `_id` and `_rev`) matches.

    BadRequest, with CouchDB's error word and reason, for what isn't a selector.
    """
    return compile_normalized(normalize(selector))


def compile_normalized(selector: Selector) -> Matcher:
    """The same of a selector in normal form."""
    return _compile(selector, compare) if selector else _always


def _compile(selector: Selector, order: Order) -> Matcher:
    ((name, argument),) = selector.items()
    if name in _COMBINATIONS:
        return _COMBINATIONS[name]([_compile(part, order) for part in argument])
    if name == "$not":
        return _negation(_compile(argument, order))
    if name in _OF_PARTS:
        return _OF_PARTS[name](_compile(argument, order))
    if name in _HOLDS:
        return _comparison(_HOLDS[name], argument, order)
    if name == "$in":
        return _in(argument, order)
    if name == "$nin":
        return _negation(_in(argument, order))
    if name in _TERMINALS:
        return _TERMINALS[name](argument)
    if name == "":  # a condition on the value itself, as $elemMatch has them
        return _compile(argument, order)
    return _field(name, argument, order)


def _field(name: str, condition: Selector, order: Order) -> Matcher:
    get = getter(parse_field(name))
    if condition == {"$exists": False}:
        return lambda value: get(value) is NOT_FOUND
    matches = _compile(condition, compare_terms if name == "_id" else order)

    def match(value: Any) -> bool:
        found = get(value)
        return type(found) is not Absent and matches(found)

    return match


# Combinations


def _always(_value: Any) -> bool:
    return True


def _all(parts: list[Matcher]) -> Matcher:
    def match(value: Any) -> bool:
        for part in parts:  # noqa: SIM110 - much faster than all() with a generator
            if not part(value):
                return False
        return True

    return match


def _any(parts: list[Matcher]) -> Matcher:
    if not parts:
        return _always

    def match(value: Any) -> bool:
        for part in parts:  # noqa: SIM110 - as above
            if part(value):
                return True
        return False

    return match


def _none(parts: list[Matcher]) -> Matcher:
    return _negation(_any(parts)) if parts else _always


def _negation(matches: Matcher) -> Matcher:
    return lambda value: not matches(value)


_COMBINATIONS: dict[str, Callable[[list[Matcher]], Matcher]] = {"$and": _all, "$or": _any, "$nor": _none}


# Conditions on parts of a value


def _some_element(matches: Matcher) -> Matcher:
    return lambda value: type(value) is list and any(map(matches, value))


def _every_element(matches: Matcher) -> Matcher:
    return lambda value: type(value) is list and value != [] and all(map(matches, value))


def _some_name(matches: Matcher) -> Matcher:
    return lambda value: type(value) is dict and any(map(matches, value))


_OF_PARTS: dict[str, Callable[[Matcher], Matcher]] = {
    "$elemMatch": _some_element,
    "$allMatch": _every_element,
    "$keyMapMatch": _some_name,
}


# Comparisons

# What an operator says of a value that is less than the argument, equal to it, greater.
Verdicts = tuple[bool, bool, bool]
_HOLDS: dict[str, Verdicts] = {
    "$lt": (True, False, False),
    "$lte": (True, True, False),
    "$eq": (False, True, False),
    "$ne": (True, False, True),
    "$gte": (False, True, True),
    "$gt": (False, False, True),
}


def _comparison(verdicts: Verdicts, argument: Any, order: Order) -> Matcher:
    if order is compare and type(argument) in (int, float):
        return _comparison_with_number(verdicts, argument)
    if order is compare and type(argument) is str:
        return _comparison_with_string(verdicts, argument)
    less, equal, greater = verdicts

    def match(value: Any) -> bool:
        outcome = order(value, argument)
        return less if outcome < 0 else greater if outcome else equal

    return match


def _comparison_with_number(verdicts: Verdicts, argument: int | float) -> Matcher:
    less, equal, greater = verdicts

    def match(value: Any) -> bool:
        kind = type(value)
        if kind is int or kind is float:
            return less if value < argument else greater if value > argument else equal
        return less if value is None or kind is bool else greater

    return match


def _comparison_with_string(verdicts: Verdicts, argument: str) -> Matcher:
    less, equal, greater = verdicts
    only_equality = less == greater
    plain = argument.isascii() and argument.isprintable()

    def match(value: Any) -> bool:
        if type(value) is not str:
            return greater if type(value) in (list, dict) else less
        if value == argument:
            return equal
        if only_equality and plain and value.isascii() and value.isprintable():
            return less  # no two such strings collate as equal
        outcome = compare_strings(value, argument)
        return less if outcome < 0 else greater if outcome else equal

    return match


def _in(arguments: list[Any], order: Order) -> Matcher:
    """Whether the value, or one of its elements, equals one of the arguments."""
    is_one = _is_one_by_collation(arguments) if order is compare else _is_one_by_terms(arguments)
    return lambda value: any(map(is_one, value)) if type(value) is list else is_one(value)


def _is_one_by_collation(arguments: list[Any]) -> Matcher:
    keys = frozenset(map(sort_key, arguments))
    return lambda value: sort_key(value) in keys


def _is_one_by_terms(arguments: list[Any]) -> Matcher:
    strings = frozenset(argument for argument in arguments if type(argument) is str)

    def match(value: Any) -> bool:
        if type(value) is str:
            return value in strings
        return any(compare_terms(value, argument) == 0 for argument in arguments)

    return match


# Terminals of other kinds


def _contains_all(arguments: list[Any]) -> Matcher:
    whole = arguments[0] if len(arguments) == 1 and type(arguments[0]) is list else None

    def match(value: Any) -> bool:
        if type(value) is not list or not arguments:
            return False
        if whole is not None and same_term(whole, value, exact=False):
            return True
        return all(any(same_term(part, argument, exact=True) for part in value) for argument in arguments)

    return match


def _exists(should: bool) -> Matcher:
    return lambda _value: should


def _has_type(name: str) -> Matcher:
    return lambda value: _TYPE_NAME[type(value)] == name


_TYPE_NAME = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def _remainder(arguments: list[int]) -> Matcher:
    divisor, remainder = arguments

    def match(value: Any) -> bool:
        if type(value) is not int or divisor == 0:  # CouchDB crashes on a divisor of 0
            return False
        rest = abs(value) % abs(divisor)  # Erlang's rem has the sign of the dividend
        return (rest if value >= 0 else -rest) == remainder

    return match


def _begins_with(prefix: str) -> Matcher:
    return lambda value: type(value) is str and value.startswith(prefix)


def _matches_pattern(pattern: str) -> Matcher:
    found = regex.searcher(pattern)
    return lambda value: type(value) is str and found(value)


def _has_size(size: int) -> Matcher:
    return lambda value: type(value) is list and len(value) == size


def _found_by_text_search(_argument: Any) -> Matcher:
    """`$text` has to be answered by an index, so CouchDB lets everything pass here."""
    return _always


_TERMINALS: dict[str, Callable[[Any], Matcher]] = {
    "$all": _contains_all,
    "$exists": _exists,
    "$type": _has_type,
    "$mod": _remainder,
    "$beginsWith": _begins_with,
    "$regex": _matches_pattern,
    "$size": _has_size,
    "$default": _found_by_text_search,
}
