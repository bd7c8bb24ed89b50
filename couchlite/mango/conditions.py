"""What a selector in normal form tells about single fields: which it mentions, which must exist, and between
what bounds their values lie.

Source: mango_idx_view.erl and mango_selector.erl, odd as they are in places: only conjunctions are looked
into, and of a field whose bounds contradict each other nothing else is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..collation import compare
from .normal_form import Selector


class End:
    """What is less, or greater, than every value."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


MIN, MAX = End("MIN"), End("MAX")


class FieldRange(NamedTuple):
    """The values a field may have."""

    low_is: str
    low: Any
    high_is: str
    high: Any


EMPTY = FieldRange("", MAX, "", MIN)
"""No value at all."""
_ALL = FieldRange("$gt", MIN, "$lt", MAX)
_HIGHEST_CHARACTER = "\uffff"
_INDEXABLE = frozenset({"$lt", "$lte", "$eq", "$gt", "$gte", "$beginsWith", "$exists"})


def fields_of(selector: Selector) -> list[str]:
    """All fields that a selector mentions outside of parts of values."""
    if not selector:
        return []
    ((name, argument),) = selector.items()
    if name.startswith("$") and isinstance(argument, list):
        return [field for part in argument for field in fields_of(part)]
    return [name]


def indexable_fields(selector: Selector) -> list[str]:
    """The fields that an index could serve, in order."""
    return sorted(set(_indexable_fields(selector)), key=str.encode)


def _indexable_fields(selector: Selector) -> list[str]:
    if not selector:
        return []
    ((name, argument),) = selector.items()
    if name == "$and":
        return [field for part in argument for field in _indexable_fields(part)]
    if name.startswith("$"):
        return []
    return [name] if next(iter(argument)) in _INDEXABLE else []


def has_required_fields(selector: Selector, required: Sequence[str]) -> bool:
    """Whether documents that match have all these fields."""
    return not _not_required([selector], list(required))


def _not_required(selectors: Sequence[Selector], fields: list[str]) -> list[str]:
    """Which of the fields the conjunction of some selectors does not demand."""
    for selector in selectors:
        if not selector or not fields:
            continue
        ((name, argument),) = selector.items()
        if name == "$and":
            fields = _not_required(argument, fields)
        elif name == "$or":
            missing = {field for part in argument for field in _not_required([part], fields)}
            fields = [field for field in fields if field in missing]
        elif argument != {"$exists": False}:
            fields = [field for field in fields if field != name]
    return fields


def is_constant(selector: Selector, field: str) -> bool:
    """Whether a field has one value in all documents that match."""
    if not selector:
        return False
    ((name, argument),) = selector.items()
    if name == "$and":
        return any(is_constant(part, field) for part in argument)
    return name == field and isinstance(argument, dict) and list(argument) == ["$eq"]


def is_text_search(selector: Any) -> bool:
    """Whether a text index would be needed."""
    if not isinstance(selector, dict) or not selector:
        return False
    ((name, argument),) = list(selector.items())[:1]
    if name == "$default":
        return True
    parts = argument if isinstance(argument, list) else [argument]
    return any(is_text_search(part) for part in parts)


def field_ranges(selector: Selector) -> list[tuple[str, FieldRange]]:
    """The bounds of all indexable fields; of only one, if nothing can lie between them."""
    found = []
    for field in indexable_fields(selector):
        one = _range(selector, field, _ALL)
        if one is EMPTY:
            return [(field, EMPTY)]
        found.append((field, one))
    return found


def _range(selector: Selector, field: str, so_far: FieldRange) -> FieldRange:
    ((name, argument),) = selector.items()
    if name == "$and":
        for part in argument:
            if so_far is not EMPTY:
                so_far = _range(part, field, so_far)
        return so_far
    if name != field:
        return so_far
    ((operator, bound),) = argument.items()
    return _narrowed(operator, bound, so_far)


def _narrowed(operator: str, bound: Any, so_far: FieldRange) -> FieldRange:
    if operator == "$beginsWith":
        lower = _narrowed("$gte", bound, so_far)
        return lower if lower is EMPTY else _narrowed("$lte", bound + _HIGHEST_CHARACTER, lower)
    if operator not in ("$lt", "$lte", "$eq", "$gte", "$gt"):
        return so_far
    above_low, below_high = _compare(bound, so_far.low), _compare(so_far.high, bound)
    only = FieldRange("$eq", bound, "$eq", bound)
    is_low, is_high = so_far.low_is in ("$gte", "$eq"), so_far.high_is in ("$lte", "$eq")
    if above_low > 0 and below_high > 0:  # in between
        return {
            "$lt": so_far._replace(high_is="$lt", high=bound),
            "$lte": so_far._replace(high_is="$lte", high=bound),
            "$eq": only,
            "$gte": so_far._replace(low_is="$gte", low=bound),
            "$gt": so_far._replace(low_is="$gt", low=bound),
        }[operator]
    if above_low < 0:
        return so_far if operator in ("$gte", "$gt") else EMPTY
    if above_low == 0:
        return {
            "$lt": EMPTY,
            "$lte": only if is_low else EMPTY,
            "$eq": only if is_low else EMPTY,
            "$gte": so_far,
            "$gt": so_far._replace(low_is="$gt"),
        }[operator]
    if below_high == 0:
        return {
            "$lt": so_far._replace(high_is="$lt"),
            "$lte": so_far,
            "$eq": only if is_high else EMPTY,
            "$gte": only if is_high else EMPTY,
            "$gt": EMPTY,
        }[operator]
    return so_far if operator in ("$lt", "$lte") else EMPTY


def _compare(left: Any, right: Any) -> int:
    if left is MIN or right is MAX:
        return -1
    if left is MAX or right is MIN:
        return 1
    return compare(left, right)
