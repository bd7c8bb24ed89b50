"""The comparison behind the recorded scenarios: what it lets pass and what it finds."""

from __future__ import annotations

from typing import Any

import pytest

from .likeness import differences, lookup


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, id="members in another order"),
        pytest.param("<seq>", "12-abc_D", id="a sequence"),
        pytest.param("<seq>", "12", id="a sequence that is only a number"),
        pytest.param("<any>", [None], id="anything"),
        pytest.param("<object>", {"a": 1}, id="an object"),
        pytest.param("<int>", 7, id="an integer"),
        pytest.param("<number>", 7.5, id="a number"),
        pytest.param("id=<uuid>; n=<int>", "id=" + "0" * 32 + "; n=-5", id="placeholders within a string"),
        pytest.param("Expires=<time>", "Expires=Mon, 23-Nov-2026 01:05:39 GMT", id="a cookie's time"),
        pytest.param("<b>bold (really)</b>", "<b>bold (really)</b>", id="text that only looks special"),
        pytest.param(12345678901234567890123, 12345678901234567890123, id="a long integer"),
    ],
)
def test_alike(expected: Any, actual: Any) -> None:
    assert list(differences(expected, actual)) == []


@pytest.mark.parametrize(
    ("expected", "actual", "told"),
    [
        pytest.param(1, 1.0, ": expected 1, got 1.0", id="an integer is no float"),
        pytest.param(0.0, -0.0, ": expected 0.0, got -0.0", id="zero has a sign"),
        pytest.param(True, 1, ": expected True, got 1", id="true is not 1"),
        pytest.param("<int>", True, ": expected '<int>', got True", id="true is no integer"),
        pytest.param("<int>", "5", ": expected '<int>', got '5'", id="a digit in quotes is no integer"),
        pytest.param("<uuid>", "0" * 31, f": expected '<uuid>', got '{'0' * 31}'", id="a short uuid"),
        pytest.param("<array>", {}, ": expected '<array>', got {}", id="an object is no array"),
        pytest.param({"a/b": 1}, {}, "/a~1b: expected 1, got nothing", id="a missing member"),
        pytest.param({}, {"x": 1}, "/x: expected nothing, got 1", id="an extra member"),
        pytest.param([1], [1, 2], "/1: expected nothing, got 2", id="an extra element"),
        pytest.param([1, 2], [1], "/1: expected 2, got nothing", id="a missing element"),
        pytest.param([1, 2], [2, 1], "/0: expected 1, got 2", id="another order"),
    ],
)
def test_different(expected: Any, actual: Any, told: str) -> None:
    assert next(differences(expected, actual)) == told


def test_order_matters_only_where_it_is_not_waived() -> None:
    expected, actual = {"a": [1, 2], "b": [1, 2]}, {"a": [2, 1], "b": [2, 1]}
    assert [found[:4] for found in differences(expected, actual, unordered=["/a"])] == ["/b/0", "/b/1"]
    assert list(differences(expected, actual, unordered=["/*"])) == []
    assert list(differences({"a": [1, 1]}, {"a": [1, 2]}, unordered=["/a"])) != []


def test_ignored_places_may_differ_or_be_missing() -> None:
    expected, actual = {"a": {"x": 1, "y": 2}, "b": {"x": 3}}, {"a": {"x": 9, "y": 2}, "b": {}}
    assert list(differences(expected, actual, ignore=["/*/x"])) == []
    assert len(list(differences(expected, actual, ignore=["/a"]))) == 1


def test_a_pointer_leads_to_its_value_or_to_an_error() -> None:
    value = {"a/b": [10, {"c~d": "found"}]}
    assert lookup(value, "/a~1b/1/c~0d") == "found"
    assert lookup(value, "") == value
    for pointer in ("/nothing", "/a~1b/5", "/a~1b/x", "/a~1b/0/deeper"):
        with pytest.raises(LookupError):
            lookup(value, pointer)
