"""Which index serves a Mango query, and what it has to read."""

from __future__ import annotations

from typing import Any

import pytest

from couchlite.errors import BadRequest
from couchlite.mango import normalize, planner
from couchlite.mango.conditions import EMPTY, MAX, MIN, field_ranges, has_required_fields, indexable_fields
from couchlite.mango.indexes import MangoIndex, of_design_document, parse_definition
from couchlite.mango.planner import Wanted


def index(name: str, *fields: str, partial: Any = None) -> MangoIndex:
    return MangoIndex(f"_design/{name}", name, tuple((field, "asc") for field in fields), partial)


INDEXES = [index("a", "a"), index("ab", "a", "b"), index("b", "b"), index("part", "a", partial={"c": 1})]


def plan(
    selector: Any, sort: Any = (), use_index: Any = (), *, fallback: bool = True, explain: bool = False
) -> planner.Plan:
    wanted = Wanted(normalize(selector), list(sort), list(use_index), fallback)
    return planner.plan(INDEXES, wanted, explain=explain)


@pytest.mark.parametrize(
    ("selector", "sort", "use_index", "expected"),
    [
        ({"a": 1}, [], [], "a"),
        ({"a": 1, "b": 2}, [], [], "ab"),
        ({"b": {"$gt": 1}}, [], [], "b"),
        ({"c": 1}, [], [], "_all_docs"),
        ({}, [], [], "_all_docs"),
        ({}, ["a"], [], "a"),
        ({"a": 1}, ["b"], [], "ab"),
        ({"a": {"$gt": 1}}, ["b"], [], "b"),
        ({"a": 1, "b": {"$gt": 0}}, ["b"], [], "ab"),
        ({"a": {"$exists": False}}, [], [], "_all_docs"),
        ({"$or": [{"a": 1}, {"a": 2}]}, [], [], "a"),
        ({"$or": [{"a": 1}, {"b": 2}]}, [], [], "_all_docs"),
        ({"a": 1}, [], ["part"], "part"),
        ({"a": 1}, [], ["part", "part"], "part"),
        ({"a": 1}, [], ["none"], "a"),
        ({"_id": {"$gt": "x"}}, ["_id"], [], "_all_docs"),
    ],
)
def test_the_index_that_is_chosen(selector: Any, sort: Any, use_index: Any, expected: str) -> None:
    chosen = plan(selector, sort, use_index).index
    assert chosen is not None and chosen.name == expected


@pytest.mark.parametrize(
    ("selector", "start", "end"),
    [
        ({"a": 1}, [1], [1]),
        ({"a": {"$gt": 1}}, [1], []),
        ({"a": {"$lte": 1}}, [], [1]),
        ({"a": {"$gte": 1, "$lt": 5}}, [1], [5]),
        ({"a": {"$gte": 1, "$lte": 1}}, [1], [1]),
        ({"a": 1, "b": {"$gt": 2}}, [1, 2], [1]),
        ({"a": {"$beginsWith": "x"}}, ["x"], ["x\uffff"]),
        ({"a": {"$in": [1, 2]}}, [], []),
    ],
)
def test_what_is_read_of_it(selector: Any, start: list[Any], end: list[Any]) -> None:
    found = plan(selector)
    assert (found.start_key(), found.end_key()) == (start, end)


@pytest.mark.parametrize(
    "selector",
    [{"a": {"$gt": 2, "$lt": 1}}, {"a": {"$eq": 1, "$lt": 1}}, {"$and": []}, {"$or": []}],
)
def test_what_can_match_nothing_reads_nothing(selector: Any) -> None:
    assert plan(selector).is_empty


def test_a_contradiction_is_all_that_is_kept_of_the_bounds() -> None:
    assert field_ranges(normalize({"a": {"$gt": 2, "$lt": 1}, "b": 1})) == [("a", EMPTY)]
    assert field_ranges(normalize({"a": {"$exists": True}})) == [("a", ("$gt", MIN, "$lt", MAX))]


def test_only_conjunctions_are_looked_into() -> None:
    selector = normalize({"a": 1, "$or": [{"b": 1}, {"c": 1}], "d": {"$regex": "x"}})
    assert indexable_fields(selector) == ["a"]
    assert has_required_fields(selector, ["a", "d"]) and not has_required_fields(selector, ["b"])


@pytest.mark.parametrize(
    ("sort", "use_index", "fallback", "error", "reason"),
    [
        (["c"], [], True, "no_usable_index", "try indexing by the sort fields"),
        (["a", "c"], [], True, "no_usable_index", "try indexing by the sort fields"),
        ([], ["none"], False, "invalid_index", "_design/none specified by `use_index`"),
        ([], ["a", "x"], False, "invalid_index", "_design/a, x specified by `use_index`"),
    ],
)
def test_what_is_refused(sort: Any, use_index: Any, fallback: bool, error: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        plan({"a": 1}, sort, use_index, fallback=fallback)
    assert caught.value.error == error


def test_an_explanation_says_what_became_of_the_others() -> None:
    found = plan({"a": 1, "b": 2}, explain=True)
    assert [(other.name, usable, why) for other, usable, why, _rank in found.candidates] == [
        ("part", False, "is_partial"),
        ("b", True, "less_overlap"),
        ("a", True, "less_overlap"),
        ("_all_docs", True, "unfavored_type"),
    ]


def test_an_index_that_is_left_behind_twice_tells_the_first_reason() -> None:
    """Named, though partial, and then not usable."""
    found = plan({"b": 1}, use_index=["part"], explain=True)
    [told] = [candidate for candidate in found.candidates if candidate[0].name == "part"]
    assert told[1:] == (False, "is_partial", 3 + 2)


def test_indexes_are_read_from_design_documents() -> None:
    views = {
        "x": {"map": {"fields": {"a": "desc"}, "partial_filter_selector": {"b": {"$eq": 1}}}, "options": {}},
        "y": {"map": "function () {}", "options": {}},
        "z": {"map": {"fields": {"a": "asc"}}},
    }
    [found] = of_design_document({"_id": "_design/d", "language": "query", "views": views})
    assert (found.name, found.fields, found.partial) == ("x", (("a", "desc"),), {"b": {"$eq": 1}})
    assert of_design_document({"_id": "_design/d", "views": views}) == []


def test_a_definition_is_normalised() -> None:
    given = {"fields": ["a", {"b": "asc"}], "partial_filter_selector": {"c": 1}}
    expected = {"fields": {"a": "asc", "b": "asc"}, "partial_filter_selector": {"c": {"$eq": 1}}}
    assert parse_definition(given) == expected
