"""The order of JSON values: CouchDB's recorded order, and the laws that `compare` and `sort_key` share."""

import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from couchlite.collation import compare, raw_sort_key, sort_key

RECORDED = Path(__file__).parent.parent / "web" / "golden" / "views"

# Text with what collation is about: case, accents composed and not, ignorable characters, other scripts.
TEXT = (
    st.text(st.sampled_from("aAbßæœéñ\u0301\u0300\u0327\x00\x01\t -_.,1\uff12中あאЯ😀\ufff0\uffff\U0010ffff"))
    | st.text()
)
NUMBERS = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**70), 2**70)
    | st.builds(lambda exponent, step: 2**exponent + step, st.integers(50, 1100), st.integers(-3, 3))
    | st.builds(lambda exponent, step: -(10**exponent) + step, st.integers(15, 400), st.integers(-3, 3))
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


def order_of_keys(left: Any, right: Any) -> int:
    left_key, right_key = sort_key(left), sort_key(right)
    return (left_key > right_key) - (left_key < right_key)


@pytest.mark.parametrize("name", ["view-collation-types", "view-collation-strings"])
def test_the_order_is_the_one_recorded_from_couchdb(name: str) -> None:
    steps = json.loads((RECORDED / f"{name}.json").read_bytes())["steps"]
    keys = {doc["_id"]: doc["k"] for doc in steps[1]["request"]["body"]["docs"]}
    recorded = [row["id"] for row in steps[3]["response"]["body"]["rows"]]
    random.Random(1).shuffle(docs := list(keys))
    assert sorted(docs, key=lambda doc: (sort_key(keys[doc]), doc)) == recorded
    assert all(compare(keys[one], keys[other]) <= 0 for one, other in pairwise(recorded))


@given(VALUES, VALUES)
@example(-0.0, 0)
@example(2**53, 2**53 + 1)
@example(2.0**53, 2**53 + 1)
@example(-(2**53) - 1, -(2.0**53))
@example(10**400, 1.7976931348623157e308)
@example(-(10**400), -(10**401))
@example(5e-324, 0)
@example(["a"], ["a", None])
@example({"a": 1}, {"a": 1, "b": 1})
def test_keys_are_ordered_as_values_are(left: Any, right: Any) -> None:
    assert order_of_keys(left, right) == sign(compare(left, right)) == -sign(compare(right, left))


@given(NUMBERS, NUMBERS)
def test_numbers_are_ordered_exactly(left: int | float, right: int | float) -> None:
    assert order_of_keys(left, right) == (left > right) - (left < right)


@given(st.lists(SCALARS, max_size=4), st.lists(SCALARS, max_size=4))
def test_an_array_is_ordered_by_its_first_difference(left: list[Any], right: list[Any]) -> None:
    expected = next((order for pair in zip(left, right, strict=False) if (order := compare(*pair))), None)
    assert sign(compare(left, right)) == sign(len(left) - len(right) if expected is None else expected)


@given(VALUES, VALUES)
def test_no_key_is_the_beginning_of_another(left: Any, right: Any) -> None:
    left_key, right_key = sort_key(left), sort_key(right)
    assert left_key == right_key or not left_key.startswith(right_key)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(1, 1.0, id="an integer and the same number as a float"),
        pytest.param("\u00e9", "e\u0301", id="an accent composed or not"),
        pytest.param("ab\x00c", "abc", id="a control character counts for nothing"),
        pytest.param({"a": [1]}, {"a": [1.0]}, id="inside containers, too"),
    ],
)
def test_equal_though_not_the_same(left: Any, right: Any) -> None:
    assert compare(left, right) == 0
    assert sort_key(left) == sort_key(right)


@pytest.mark.parametrize(
    ("lesser", "greater"),
    [
        pytest.param("a", "A", id="lower case comes first, but only as the last resort"),
        pytest.param("A", "b", id="case matters less than the letter"),
        pytest.param("a", "á", id="an accent matters less than the letter after it"),
        pytest.param("áb", "ac", id="an accent matters less than a later letter"),
        pytest.param({"b": 1, "a": 2}, {"b": 2, "a": 1}, id="members count in the order they were written"),
        pytest.param({"a": 9}, {"b": 1}, id="the name of a member counts before its value"),
        pytest.param([], {}, id="arrays come before objects"),
        pytest.param("\uffff", [], id="every string comes before every array"),
        pytest.param(10**300, "", id="every number comes before every string"),
        pytest.param(True, -(10**300), id="booleans come before all numbers"),
    ],
)
def test_lesser_and_greater(lesser: Any, greater: Any) -> None:
    assert compare(lesser, greater) < 0
    assert sort_key(lesser) < sort_key(greater)


def test_deep_nesting_is_no_obstacle() -> None:
    deep: Any = 1
    deeper: Any = 2
    for _ in range(50_000):
        deep, deeper = [deep], [deeper]
    assert compare(deep, deeper) < 0
    assert sort_key(deep) < sort_key(deeper)


def test_icu_is_loaded_only_when_a_string_needs_it() -> None:
    program = (
        "import sys; from couchlite.collation import sort_key;"
        "sort_key([1, None]); before = 'icu' in sys.modules;"
        "sort_key('a'); print(before, 'icu' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


# "collation": "raw"

_RAW_RANK: dict[type, int] = {int: 0, float: 0, dict: 4, list: 5, str: 6}


def _raw_order(left: Any, right: Any) -> int:
    """Erlang's order of terms: of atoms by their names, of {[{Name, Value} ...]}, of lists, of binaries."""
    atoms: dict[Any, int] = {False: 1, None: 2, True: 3}
    known = [_RAW_RANK.get(type(one)) for one in (left, right)]
    ranks = [atoms[one] if rank is None else rank for rank, one in zip(known, (left, right), strict=True)]
    if ranks[0] != ranks[1]:
        return ranks[0] - ranks[1]
    if isinstance(left, dict):
        left = [part for member in left.items() for part in member]
        right = [part for member in right.items() for part in member]
    if isinstance(left, list):
        for one, other in zip(left, right, strict=False):
            if order := _raw_order(one, other):
                return order
        return len(left) - len(right)
    if isinstance(left, str):
        left, right = left.encode(), right.encode()
    return 0 if left is None else (left > right) - (left < right)


@given(VALUES, VALUES)
def test_the_raw_order_is_that_of_erlangs_terms(left: Any, right: Any) -> None:
    order = _raw_order(left, right)
    one, other = raw_sort_key(left), raw_sort_key(right)
    assert (one > other) - (one < other) == (order > 0) - (order < 0)
    assert one == other or not (one.startswith(other) or other.startswith(one))


def test_the_raw_order_of_couchdb() -> None:
    ordered: list[Any] = [
        *(-1e300, -1, 0, 1, 1.5, 2**53, 2**53 + 1, 1e300),
        *(False, None, True),
        *({}, {"a": 1, "b": 2}, {"a": None}, {"a": "x"}, {"aa": 1}, {"b": 1}),
        *([], [1], [1, 2], [2], [None], [{}], [[]], ["A"], ["a"]),
        *(
            "",
            "\x00",
            "\x00a",
            "\x01",
            "1",
            "10",
            "2",
            "A",
            "B",
            "a",
            "a\x00",
            "aa",
            "b",
            "á",
            "\uffff",
            "😀",
        ),
    ]
    mixed = sorted(ordered, key=lambda value: hash(repr(value)))
    assert sorted(mixed, key=raw_sort_key) == ordered
