"""Selectors: what they match, their normal form, and what is said of bad ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from couchlite.errors import CouchliteError
from couchlite.mango import compile_selector, normalize

RECORDED = Path(__file__).parent.parent / "web" / "golden" / "mango"


def recorded_finds() -> Iterator[Any]:
    """Recorded `_find` requests that depend on nothing but the selector."""
    for name in ("mango-array-ops", "mango-combination", "mango-bad-selectors", "mango-text-collation"):
        docs: list[dict[str, Any]] = []
        for number, step in enumerate(json.loads((RECORDED / f"{name}.json").read_bytes())["steps"]):
            path, body = step["request"]["path"], step["request"].get("body")
            answer = step["response"].get("body")
            if path.endswith("/_bulk_docs"):
                docs = body["docs"]
            elif path.endswith("/_find") and "sort" not in body:
                answered_without_a_look = (
                    "docs" in answer and "bookmark" not in answer
                )  # such as {"$and": []}
                if not answered_without_a_look:
                    yield pytest.param(body["selector"], docs, answer, id=f"{name} step {number}")


@pytest.mark.parametrize(("selector", "docs", "answer"), list(recorded_finds()))
def test_recorded_finds(selector: Any, docs: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    if "error" in answer:
        with pytest.raises(CouchliteError) as refused:
            compile_selector(selector)
        assert refused.value.status == 400
        assert refused.value.error == answer["error"]
        assert answer["reason"] in (refused.value.reason, "<any>")
    else:
        matches = compile_selector(selector)
        assert [doc["_id"] for doc in docs if matches(doc)] == [doc["_id"] for doc in answer["docs"]]


@pytest.mark.parametrize(
    ("selector", "matching", "others"),
    [
        pytest.param({}, [{}, {"a": 1}], [], id="the empty selector matches everything"),
        pytest.param({"a": None}, [{"a": None}], [{}], id="null is not absence"),
        pytest.param({"a": 1}, [{"a": 1.0}], [{"a": True}, {"a": "1"}], id="a number equals only numbers"),
        pytest.param({"a": {}}, [{"a": {}}], [{"a": {"b": 1}}], id="an empty object is a value"),
        pytest.param(
            {"a": {"b": {"c": 1}}}, [{"a": {"b": {"c": 1}}}], [{"a": {"b.c": 1}}], id="nested names"
        ),
        pytest.param({"a.b.c": 1}, [{"a": {"b": {"c": 1}}}], [{"a.b.c": 1}], id="a path"),
        pytest.param({"a\\.b": 1}, [{"a.b": 1}], [{"a": {"b": 1}}], id="an escaped dot is part of the name"),
        pytest.param({"a.1": "y"}, [{"a": ["x", "y"]}], [{"a": ["x"]}, {"a": "xy"}], id="an index in a path"),
        pytest.param({"a.-1": "y"}, [], [{"a": ["x", "y"]}], id="indexes don't count from the end"),
        pytest.param(
            {"a": {"$gt": 1}}, [{"a": 2}, {"a": ""}, {"a": []}], [{"a": True}, {}], id="across types"
        ),
        pytest.param({"a": {"$lt": 1}}, [{"a": 0.5}, {"a": None}], [{"a": "0"}, {}], id="less across types"),
        pytest.param({"a": {"$gt": "a"}}, [{"a": "A"}], [{"a": "a"}, {"a": "_"}], id="strings by collation"),
        pytest.param({"a": "\u00e9"}, [{"a": "e\u0301"}], [{"a": "e"}], id="composed or not, it is equal"),
        pytest.param({"a": "x"}, [{"a": "x"}, {"a": "x\x01"}], [{"a": "X"}], id="ignorable characters"),
        pytest.param({"_id": {"$gt": "a"}}, [{"_id": "b"}], [{"_id": "A"}], id="ids are compared by bytes"),
        pytest.param({"_id": {"$lt": []}}, [], [{"_id": "a"}], id="to bytes, arrays are less than strings"),
        pytest.param({"_id": {"$in": ["a", 5]}}, [{"_id": "a"}], [{"_id": "A"}], id="$in of ids"),
        pytest.param({"a": {"$exists": False}}, [{}, {"b": 1}], [{"a": None}], id="absence"),
        pytest.param(
            {"a.b": {"$exists": False}}, [{"a": {}}], [{"a": 1}], id="absent, but not without a path"
        ),
        pytest.param({"a": {"$not": {"$exists": True}}}, [{}], [{"a": 1}], id="absence by negation"),
        pytest.param({"a": {"$ne": 1}}, [{"a": 2}], [{"a": 1}, {}], id="unequal needs a field"),
        pytest.param({"$not": {"a": 1}}, [{"a": 2}], [{"a": 1}, {}], id="so does a negated equality"),
        pytest.param(
            {"$not": {"a": {"$regex": "x"}}}, [{"a": "y"}, {"a": 1}], [{"a": "x"}, {}], id="negated terminal"
        ),
        pytest.param(
            {"a": {"$elemMatch": {"$not": {"b": 1}}}},
            [{"a": [{}]}, {"a": [{"b": 2}]}],
            [{"a": [{"b": 1}]}, {"a": []}],
            id="inside $elemMatch a negation is just that",
        ),
        pytest.param(
            {"a": {"$elemMatch": {"$nor": [{"b": 1}]}}},
            [{"a": [{"b": 2}]}],
            [{"a": [{"b": 1}]}],
            id="inner $nor",
        ),
        pytest.param(
            {"a": {"$allMatch": {"$gt": 1}}}, [{"a": [2]}], [{"a": []}, {"a": [1, 2]}], id="$allMatch"
        ),
        pytest.param(
            {"a": {"$keyMapMatch": {"$regex": "^x"}}}, [{"a": {"xy": 1}}], [{"a": ["xy"]}], id="names"
        ),
        pytest.param(
            {"a": {"$in": [1, "x"]}}, [{"a": 1.0}, {"a": ["x"]}], [{"a": [["x"]]}], id="$in an array"
        ),
        pytest.param({"a": {"$nin": [1]}}, [{"a": 2}, {"a": []}], [{"a": [1, 2]}, {}], id="$nin"),
        pytest.param({"a": {"$nin": []}}, [{"a": 1}], [{}], id="$nin of nothing"),
        pytest.param(
            {"a": {"$all": [1]}}, [{"a": [1, 2]}], [{"a": [1.0]}, {"a": 1}], id="$all tells 1 from 1.0"
        ),
        pytest.param(
            {"a": {"$all": [[1]]}}, [{"a": [1.0]}, {"a": [[1]]}], [{"a": [2]}], id="$all of one array"
        ),
        pytest.param(
            {"a": {"$mod": [3, -1]}}, [{"a": -4}], [{"a": 2}, {"a": -4.0}], id="remainders have a sign"
        ),
        pytest.param({"a": {"$mod": [0, 0]}}, [], [{"a": 0}], id="nothing is divisible by zero"),
        pytest.param({"a": {"$type": "number"}}, [{"a": 1}, {"a": 1.5}], [{"a": True}, {}], id="$type"),
        pytest.param(
            {"a": {"$size": 2}}, [{"a": [1, 2]}], [{"a": "ab"}, {"a": {"b": 1, "c": 2}}], id="$size"
        ),
        pytest.param(
            {"a": {"$beginsWith": "a"}}, [{"a": "ab"}], [{"a": "Ab"}, {"a": ["a"]}], id="$beginsWith"
        ),
        pytest.param(
            {"a": {"$regex": "^.$"}}, [{"a": "x"}], [{"a": "\u00e9"}, {"a": 1}], id="bytes, not letters"
        ),
        pytest.param({"a": {"$regex": "(?<=x)y++"}}, [{"a": "xyy"}], [{"a": "y"}], id="PCRE's syntax"),
        pytest.param({"$and": []}, [{}], [], id="an empty conjunction holds"),
        pytest.param({"$or": []}, [{}], [], id="so does an empty disjunction, in CouchDB"),
    ],
)
def test_matching(selector: Any, matching: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    matches = compile_selector(selector)
    assert [doc for doc in matching + others if matches(doc)] == matching


@pytest.mark.parametrize(
    ("selector", "normal"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"a": 1}, {"a": {"$eq": 1}}, id="implicit equality"),
        pytest.param({"a": 1, "b": 2}, {"$and": [{"a": {"$eq": 1}}, {"b": {"$eq": 2}}]}, id="implicit and"),
        pytest.param(
            {"a": {"$or": [1, {"b": 2}]}}, {"$or": [{"a": {"$eq": 1}}, {"a.b": {"$eq": 2}}]}, id="paths"
        ),
        pytest.param({"$nor": [{"a": {"$lt": 1}}]}, {"$and": [{"a": {"$gte": 1}}]}, id="negations vanish"),
        pytest.param(
            {"$not": {"$and": [{"a": {"$in": []}}, {"a": {"$size": 1}}]}},
            {"$or": [{"a": {"$nin": []}}, {"a": {"$not": {"$size": 1}}}]},
            id="De Morgan",
        ),
        pytest.param({"$text": "x"}, {"$default": {"$text": "x"}}, id="$text"),
    ],
)
def test_the_normal_form(selector: Any, normal: Any) -> None:
    assert normalize(selector) == normal


@pytest.mark.parametrize(
    ("selector", "error", "reason"),
    [
        ("x", "invalid_selector_json", "Selector must be a JSON object, not: <<120>>"),
        ({"$and": "\u00e9"}, "bad_arg", "Bad argument for operator $and: <<195,169>>"),
        ({"a": {"$size": {"x": [1, True, None, "", 0.1]}}}, "bad_arg", None),
        ({"a": {"$size": True}}, "bad_arg", "Bad argument for operator $size: true"),
        ({"a": {"$mod": [2.0, 1]}}, "bad_arg", "Bad argument for operator $mod: [2.0,1]"),
        ({"a": {"$in": 1e22}}, "bad_arg", "Bad argument for operator $in: 1.0e22"),
        ({"a": {"$regex": "("}}, "bad_arg", "Bad argument for operator $regex: <<40>>"),
        ({"a": {"$where": 1}}, "not_supported", "Unsupported operator: $where"),
        ({"a": {"$default": 1}}, "bad_field", None),
        ({"$not": {"$text": "x"}}, "bad_arg", None),
        ({"$not": {}}, "invalid_selector", "One or more conditions is missing a field name."),
        ({"a": {"": 5}}, "invalid_field_name", "Invalid field name: a."),
    ],
)
def test_bad_selectors(selector: Any, error: str, reason: str | None) -> None:
    with pytest.raises(CouchliteError) as refused:
        compile_selector(selector)
    assert (refused.value.status, refused.value.error) == (400, error)
    assert reason in (None, refused.value.reason)


def test_arguments_are_shown_as_erlang_shows_them() -> None:
    shown = "{[{<<120>>,[1,true,null,<<>>,0.1,-0.0,1.0e-7,123456.5,1.0e10,9.007199254740992e15]}]}"
    argument = {"x": [1, True, None, "", 0.1, -0.0, 1e-7, 123456.5, 1e10, 2.0**53]}
    with pytest.raises(CouchliteError) as refused:
        compile_selector({"a": {"$size": argument}})
    assert refused.value.reason == f"Bad argument for operator $size: {shown}"


def test_a_search_that_would_take_for_ever_ends_without_a_match() -> None:
    assert not compile_selector({"a": {"$regex": "^(a|aa)+$"}})({"a": "a" * 60 + "b"})


def test_selectors_nested_too_deeply_are_refused() -> None:
    selector: Any = {"a": 1}
    for _ in range(5000):
        selector = {"$not": selector}
    with pytest.raises(CouchliteError, match="nested too deeply"):
        compile_selector(selector)


@pytest.mark.parametrize("operator", ["$eq", "$gt", "$in", "$all"])
def test_values_may_be_nested_as_deeply_as_they_like(operator: str) -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    assert compile_selector({"a": {operator: [deep]}})({"a": [deep]}) == (operator != "$gt")
