"""Which index serves a query, and which rows of it: mango_cursor.erl's choice, with the reasons it gives.

An index is usable when every document that matches has all its fields, and when it is in the wanted order.
Of the usable ones that wins whose first fields cover most of the fields that the selector bounds, then the
one with fewest fields, then the first by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BadRequest
from .conditions import (
    EMPTY,
    MAX,
    MIN,
    FieldRange,
    field_ranges,
    fields_of,
    has_required_fields,
    indexable_fields,
    is_constant,
    is_text_search,
)
from .indexes import ALL_DOCS, MangoIndex
from .normal_form import Selector

_CATCH_ALL = ("_id", FieldRange("$gt", None, "$lt", MAX))
_NOTHING: tuple[Selector, ...] = ({"$and": []}, {"$or": []})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What decides the choice."""

    selector: Selector
    sort: list[str]
    use_index: list[str]
    """A design document without its prefix, and maybe the name of an index in it."""
    allow_fallback: bool
    in_partition: bool = False
    """Asked of one partition."""
    of_partitioned: bool = False
    """Asked of a partitioned database."""


@dataclass(slots=True)
class Plan:
    """The chosen index and its bounds; no index at all only when a plan is to be explained."""

    index: MangoIndex | None
    ranges: list[FieldRange]
    candidates: list[tuple[MangoIndex, bool, str, int]] = field(default_factory=list)
    """The others: whether they were usable, why they weren't chosen, and how far they were from it."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing can match."""
        return self.ranges == [EMPTY]

    def start_key(self) -> list[Any]:
        """How the keys of matching rows begin at least."""
        found = []
        for one in self.ranges:
            if one.low is MIN:
                break
            found.append(one.low)
        return found

    def end_key(self) -> list[Any]:
        """How they begin at most; whatever follows is within."""
        found = []
        for one in self.ranges:
            if one.high is MAX:
                break
            found.append(one.high)
        return found


def plan(indexes: Sequence[MangoIndex], wanted: Wanted, *, explain: bool = False) -> Plan:
    """:raises BadRequest: there is no index for the order that is wanted, or none as was demanded."""
    every = sorted({ALL_DOCS, *indexes}, key=lambda index: index.order)
    named = [index for index in every if is_named(index, wanted.use_index)]
    whole = [index for index in every if index.partial is None]
    offered = [index for index in every if index in whole or index in named]
    offered = [index for index in offered if index.ddoc is None or index.partitioned == wanted.in_partition]
    problems = {index: _problems(index, wanted) for index in offered}
    usable = [index for index in offered if not problems[index]]
    if not usable and not explain:
        scope = "" if not wanted.of_partitioned else "partitioned " if wanted.in_partition else "global "
        reason = f"No {scope}index exists for this sort, try indexing by the sort fields."
        raise BadRequest(reason, error="no_usable_index")
    chosen = [index for index in usable if index in named]
    if not chosen:
        if not wanted.allow_fallback and (wanted.use_index or len(usable) <= 1):
            raise BadRequest(_not_as_demanded(wanted.use_index), error="invalid_index")
        chosen = usable
    favoured = [index for index in chosen if index.ddoc is not None] or chosen
    ranked = _ranked(favoured, wanted.selector)
    if not ranked:
        found = Plan(None, [])
    else:
        winner, ranges, _distance = ranked[0]
        found = Plan(winner, [EMPTY] if wanted.selector in _NOTHING else ranges)
    if explain:
        groups = (every, whole, offered, usable, chosen, favoured)
        found.candidates = _candidates(groups, problems, ranked)
    return found


def is_named(index: MangoIndex, use_index: Sequence[str]) -> bool:
    """Whether `use_index` means this one."""
    if not use_index or index.ddoc is None:
        return False
    ddoc = use_index[0] if use_index[0].startswith("_design/") else f"_design/{use_index[0]}"
    return index.ddoc == ddoc and use_index[1:] in ([], [index.name])


def _not_as_demanded(use_index: Sequence[str]) -> str:
    if not use_index:
        return "You must specify an index with the `use_index` parameter."
    name = ", ".join((use_index[0].removeprefix("_design/"), *use_index[1:]))
    return f"_design/{name} specified by `use_index` could not be found or it is not suitable."


def covers(index: MangoIndex, fields: Sequence[str] | None) -> bool:
    """Whether an index holds all these fields; None stands for all that a document has."""
    return fields is not None and index.ddoc is not None and {"_id", *index.columns} >= set(fields)


def hints(selector: Selector) -> dict[str, Any]:
    """Which of a selector's fields an index could serve."""
    indexable = indexable_fields(selector)
    others = set(fields_of(selector)) - set(indexable)
    return {
        "type": "json",
        "indexable_fields": indexable,
        "unindexable_fields": sorted(others, key=str.encode),
    }


# --- usable or not


def _problems(index: MangoIndex, wanted: Wanted) -> list[str]:
    """Why an index can't serve a query; CouchDB shows the first reason."""
    selector, sort = wanted.selector, wanted.sort
    columns = index.columns
    if index.ddoc is None:
        if not sort:
            return []
        problems = [] if "_id" in indexable_fields(selector) else ["field_mismatch"]
        return problems if columns[: len(sort)] == sort else [*problems, "sort_order_mismatch"]
    problems = ["needs_text_search"] if is_text_search(selector) else []
    required = [name for name in columns if name not in (*sort, "_id", "_rev")]
    if not has_required_fields(selector, required):
        problems.append("field_mismatch")
    if not _is_in_order(columns, sort, selector):
        problems.append("sort_order_mismatch")
    return problems


def _is_in_order(columns: Sequence[str], sort: list[str], selector: Selector) -> bool:
    """Whether the rows of an index are in a wanted order, apart from fields with one value only."""
    if not sort:
        return True
    for at, column in enumerate(columns):
        if column == sort[0]:
            return list(columns[at : at + len(sort)]) == sort
        if not is_constant(selector, column):
            return False
    return False


# --- the best


_Ranked = tuple[MangoIndex, list[FieldRange], int]
"""An index, the bounds of its first fields, and of how many bounded fields it makes no use."""


def _ranked(indexes: Sequence[MangoIndex], selector: Selector) -> list[_Ranked]:
    bounds = field_ranges(selector)
    found = []
    for index in indexes:
        known = bounds if index.ddoc is not None else [*bounds, _CATCH_ALL]
        ranges = []
        for column in index.columns:
            one = next((bound for name, bound in known if name == column), None)
            if one is None:
                break
            ranges.append(one)
        found.append((index, ranges, len(known) - len(ranges)))
    return sorted(found, key=lambda ranked: (ranked[2], len(ranked[0].fields), ranked[0].order))


def _candidates(
    groups: tuple[Sequence[MangoIndex], ...], problems: dict[MangoIndex, list[str]], ranked: list[_Ranked]
) -> list[tuple[MangoIndex, bool, str, int]]:
    """All indexes but the chosen one, with the step at which each was left behind."""
    every, whole, offered, usable, chosen, favoured = groups
    steps = [
        ("unfavored_type", True, set(chosen) - set(favoured)),
        ("excluded_by_user", True, set(usable) - set(chosen)),
        ("", False, set(offered) - set(usable)),
        ("scope_mismatch", False, set(whole) - set(offered)),
        ("is_partial", False, set(every) - set(whole)),
    ]
    tags: list[tuple[MangoIndex, bool, str, int]] = []
    rank = max(1, len(ranked))
    for number, (reason, is_usable, left_behind) in enumerate(steps):
        tags += [(index, is_usable, reason or problems[index][0], rank) for index in left_behind]
        if left_behind and number < len(steps) - 1:
            rank += 1
    width = len(ranked[0][0].fields) if ranked else 0
    for number, (index, _ranges, distance) in enumerate(ranked[1:], 1):
        if distance > 0:
            reason = "less_overlap"
        else:
            reason = "too_many_fields" if len(index.fields) > width else "alphabetically_comes_after"
        tags.insert(0, (index, True, reason, number))
    # One that was named although it is partial may have been left behind twice: the earlier reason is told.
    found: dict[MangoIndex, tuple[bool, str, int]] = {}
    for index, is_usable, reason, rank in reversed(tags):
        usable_before, first_reason, rank_before = found.get(index, (True, reason, 0))
        found[index] = (usable_before and is_usable, first_reason, rank_before + rank)
    if ranked:
        found.pop(ranked[0][0], None)
    order = sorted(found, key=lambda index: index.order, reverse=True)
    return [(index, *found[index]) for index in order]
