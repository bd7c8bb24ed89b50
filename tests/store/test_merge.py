"""The three-way merge by examples: base, leaves and rules in, a document and clashes out."""

from __future__ import annotations

from typing import Any

import pytest

from couchlite.errors import BadRequest
from couchlite.merging import MISSING, Rules, merge, settle
from couchlite.merging.text import chunks


def case(name: str, base: Any, leaves: list[Any], merged: Any, *clashes: str, rules: Any = None) -> Any:
    """`clashes`: as "kind pointer"."""
    return pytest.param(base, leaves, rules or {}, merged, clashes, id=name)


def member(name: str, base: Any, leaves: list[Any], merged: Any, *kinds: str, rule: str | None = None) -> Any:
    """The same for a member of a document. A `kinds` item is a kind, and the rest of a pointer."""

    def document(value: Any) -> Any:
        return {} if value is MISSING else {"x": value}

    clashes = [f"{kind.split()[0]} /x{''.join(kind.split()[1:])}" for kind in kinds]
    rules = {"/x": rule} if rule else {}
    return case(
        name, document(base), [document(leaf) for leaf in leaves], document(merged), *clashes, rules=rules
    )


TEXT = "one\ntwo\nthree\nfour\n"
ATTACHED = {"content_type": "text/plain", "digest": "md5-1", "length": 1, "revpos": 1, "stub": True}
NEWER = ATTACHED | {"digest": "md5-2", "revpos": 2}
NEWEST = ATTACHED | {"digest": "md5-3", "revpos": 2}

OBJECTS = [
    case(
        "changes of different members are both kept",
        {"a": 1, "b": 1},
        [{"a": 2, "b": 1}, {"a": 1, "b": 2}],
        {"a": 2, "b": 2},
    ),
    case("equal changes agree", {"a": 1}, [{"a": 2}, {"a": 2}], {"a": 2}),
    case("two values for a member clash", {"a": 1}, [{"a": 2}, {"a": 3}], {"a": 2}, "edit /a"),
    case("a member removed by one leaf is gone", {"a": 1, "b": 1}, [{"b": 1}, {"a": 1, "b": 2}], {"b": 2}),
    case("removing clashes with changing", {"a": 1}, [{}, {"a": 2}], {}, "delete /a"),
    case("the same the other way round", {"a": 1}, [{"a": 2}, {}], {"a": 2}, "delete /a"),
    case("removed by both", {"a": 1}, [{}, {}], {}),
    case("different members added", {}, [{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
    case("one member added with two values", {}, [{"a": 1}, {"a": 2}], {"a": 1}, "add /a"),
    case(
        "objects added by both are put together",
        {},
        [{"a": {"b": 1}}, {"a": {"c": 2}}],
        {"a": {"b": 1, "c": 2}},
    ),
    case(
        "nested changes",
        {"a": {"b": {"c": 1, "d": 1}}},
        [{"a": {"b": {"c": 2, "d": 1}}}, {"a": {"b": {"c": 1, "d": 3, "e": 4}}}],
        {"a": {"b": {"c": 2, "d": 3, "e": 4}}},
    ),
    case(
        "a value that became an object clashes with another value",
        {"a": 1},
        [{"a": {}}, {"a": 2}],
        {"a": {}},
        "edit /a",
    ),
    case(
        "names are escaped in pointers",
        {"a/b": {"~": 1}},
        [{"a/b": {"~": 2}}, {"a/b": {"~": 3}}],
        {"a/b": {"~": 2}},
        "edit /a~1b/~0",
    ),
    case(
        "the spelling of a number is no change",
        {"a": 1, "b": 1},
        [{"a": 1.0, "b": 1}, {"a": 1, "b": 2}],
        {"a": 1, "b": 2},
    ),
    case("true is not 1", {"a": 1}, [{"a": True}, {"a": 1}], {"a": True}),
    case("null is a value", {"a": 1}, [{"a": None}, {"a": 1}], {"a": None}),
    case("three leaves, two of which agree", {"a": 1}, [{"a": 1}, {"a": 2}, {"a": 2}], {"a": 2}),
    case(
        "three leaves with three changes",
        {"a": 1, "b": 1, "c": 1},
        [{"a": 2, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 1}, {"a": 1, "b": 1, "c": 2}],
        {"a": 2, "b": 2, "c": 2},
    ),
    case("a single leaf is the result", {"a": 1}, [{"a": 2}], {"a": 2}),
    case("a deleted document", {"a": 1}, [MISSING, {"a": 1}], MISSING),
    case("a deleted document that was changed", {"a": 1}, [{"a": 2}, MISSING], {"a": 2}, "delete "),
]

NO_BASE = [
    case("what is equal agrees", None, [{"a": 1, "b": 1}, {"a": 1, "b": 2}], {"a": 1, "b": 1}, "no_base /b"),
    case("what one leaf lacks clashes", None, [{"a": 1}, {}], {"a": 1}, "no_base /a"),
    case(
        "objects are compared by members",
        None,
        [{"o": {"a": 1, "b": 1}}, {"o": {"a": 1, "b": 2}}],
        {"o": {"a": 1, "b": 1}},
        "no_base /o/b",
    ),
    case("arrays as a whole", None, [{"a": [1]}, {"a": [1, 2]}], {"a": [1]}, "no_base /a"),
    case(
        "sets by elements",
        None,
        [{"a": [1, 2]}, {"a": [2, 3]}],
        {"a": [1, 2]},
        "no_base /a/0",
        "no_base /a/2",
        rules={"/a": "set"},
    ),
    case("max needs no base", None, [{"a": 1}, {"a": 3}], {"a": 3}, rules={"/a": "max"}),
]

ARRAYS = [
    member("appended by one", [1, 2], [[1, 2, 3], [1, 2]], [1, 2, 3]),
    member("inserted at different places", [1, 2], [[0, 1, 2], [1, 2, 3]], [0, 1, 2, 3]),
    member("appended by both", [1], [[1, "b"], [1, "a"]], [1, "a", "b"]),
    member("the same appended by both", [1], [[1, 2], [1, 2]], [1, 2]),
    member("one appended what the other did and more", [1], [[1, 2], [1, 2, 3]], [1, 2, 3]),
    member("runs are not interleaved", [], [["m", "a"], ["k", "z"]], ["k", "z", "m", "a"]),
    member("removed by one, appended by the other", [1, 2, 3], [[1, 3], [1, 2, 3, 4]], [1, 3, 4]),
    member("removed by both", [1, 2, 3], [[1, 3], [1, 2]], [1]),
    member("moved by one", [1, 2, 3], [[3, 1, 2], [1, 2, 3, 4]], [3, 1, 2, 4]),
    member("moved by one, changed by nobody, removed by the other", [1, 2, 3], [[3, 1, 2], [1, 2]], [1, 2]),
    member("different elements moved", [1, 2, 3, 4], [[2, 3, 4, 1], [4, 1, 2, 3]], [4, 2, 3, 1]),
    member(
        "moved to different places",
        [1, 2, 3, 4, 5],
        [[5, 1, 2, 3, 4], [1, 2, 5, 3, 4]],
        [5, 1, 2, 3, 4],
        "order",
    ),
    member(
        "an element changed by one, its neighbour by the other", [1, 2, 3], [[9, 2, 3], [1, 8, 3]], [9, 8, 3]
    ),
    member("an element changed in two ways", [1, 2, 3], [[1, 7, 3], [1, 8, 3]], [1, 7, 3], "edit /1"),
    member(
        "an element changed by one and removed by the other",
        [1, 2, 3],
        [[1, 3], [1, 8, 3]],
        [1, 3],
        "delete /1",
    ),
    member(
        "objects in an array, different members changed",
        [{"a": 1, "b": 1}],
        [[{"a": 2, "b": 1}], [{"a": 1, "b": 2}]],
        [{"a": 2, "b": 2}],
    ),
    member(
        "an object changed beside a new one",
        [{"a": 1, "b": 1, "c": 1}],
        [[{"a": 1, "b": 1, "c": 2}, {"z": 1}], [{"a": 3, "b": 1, "c": 1}]],
        [{"a": 3, "b": 1, "c": 2}, {"z": 1}],
    ),
    member("equal elements", [0, 0, 0], [[0, 0, 0, 0], [0, 0]], [0, 0, 0]),
    member("added by both", MISSING, [[1], [2]], [1, 2]),
    member("an array changed into something else", [1], [[1, 2], "x"], [1, 2], "edit"),
    member("set: no order, nothing twice", [1, 2], [[3, 2, 1, 3], [2, 4]], [3, 2, 4], rule="set"),
    member(
        "set: order is never disputed", [1, 2, 3], [[3, 2, 1, 4], [2, 3, 1, 5]], [3, 2, 1, 4, 5], rule="set"
    ),
    member(
        "by field: found wherever it stands",
        [{"id": 1, "n": 1, "m": 1}, {"id": 2}],
        [[{"id": 2}, {"id": 1, "n": 2, "m": 1}], [{"id": 1, "n": 1, "m": 3}, {"id": 2}, {"id": 3}]],
        [{"id": 2}, {"id": 1, "n": 2, "m": 3}, {"id": 3}],
        rule="by:id",
    ),
    member(
        "by field: the same added by both",
        [],
        [[{"id": 1, "a": 1}], [{"id": 1, "b": 2}]],
        [{"id": 1, "a": 1, "b": 2}],
        rule="by:id",
    ),
    member(
        "by field: removed by one and changed by the other",
        [{"id": 1, "a": 1}],
        [[], [{"id": 1, "a": 2}]],
        [],
        "delete /0",
        rule="by:id",
    ),
    member("by field: without it they are a list", [1], [[1, 2], [0, 1]], [0, 1, 2], rule="by:id"),
]

TEXTS = [
    member(
        "different lines", TEXT, [TEXT.replace("one", "1"), TEXT.replace("four", "4")], "1\ntwo\nthree\n4\n"
    ),
    member("different words of a line", "a b c\nd\n", ["A b c\nd\n", "a b C\nd\n"], "A b C\nd\n"),
    member("the same word", "a b c\nd\n", ["A b c\nd\n", "x b c\nd\n"], "A b c\nd\n", "text"),
    member("lines added at one place", "a\n", ["a\nb\n", "a\nc\n"], "a\nb\n", "text"),
    member("lines added at one place, as told", "a\n", ["a\nc\n", "a\nb\n"], "a\nb\nc\n", rule="lines"),
    member("lines added by one and changed by the other", "a b", ["a b\nc", "a B"], "a B\nc", rule="lines"),
    member("a line that clashes", "a\nz", ["b\nz\nc", "d\nz\nc"], "b\nz\nc", "text", rule="lines"),
    member("text of one line is a value", "a b", ["A b", "a B"], "A b", "edit"),
    member("text of one line, as told", "a b", ["A b", "a B"], "A B", rule="text"),
    member(
        "three sides",
        TEXT,
        [TEXT.replace(*pair) for pair in (("one", "1"), ("two x", ""), ("four", "4"))],
        "1\ntwo\nthree\n4\n",
    ),
]

RULES = [
    member("counter: what was added is added", 10, [13, 9], 12, rule="counter"),
    member("counter: also the same twice", 10, [11, 11], 12, rule="counter"),
    member("counter: one leaf", 10, [11, 10], 11, rule="counter"),
    member("counter: fractions are summed exactly", 0.1, [0.2, 0.3], 0.4, rule="counter"),
    member("counter: from nothing", MISSING, [1, 2], 3, rule="counter"),
    member("counter: that is no number", 1, ["a", 2], "a", "edit", rule="counter"),
    member("counter: removed", 1, [MISSING, 2], MISSING, "delete", rule="counter"),
    member("max", 1, [2, 5, 3], 5, rule="max"),
    member("min", 9, [2, 5, 3], 2, rule="min"),
    member("max of dates", "2025-01-01", ["2025-03-01", "2025-02-01"], "2025-03-01", rule="max"),
    member("max: what one leaf lowered is lowered", 5, [5, 3], 3, rule="max"),
    member(
        "value: an object as a whole",
        {"a": 1, "b": 1},
        [{"a": 2, "b": 1}, {"a": 1, "b": 2}],
        {"a": 2, "b": 1},
        "edit",
        rule="value",
    ),
    member("winner", 1, [2, 3], 2, rule="winner"),
    member("winner: of those that changed it", 1, [1, 3, 4], 3, rule="winner"),
    case(
        "newest: by another field",
        {"a": 1, "t": 1},
        [{"a": 2, "t": 2}, {"a": 3, "t": 3}],
        {"a": 3, "t": 3},
        rules={"/a": "newest:/t", "/t": "max"},
    ),
    case(
        "newest: of the same age",
        {"a": 1, "t": 1},
        [{"a": 2, "t": 2}, {"a": 3, "t": 2}],
        {"a": 2, "t": 2},
        "edit /a",
        rules={"/a": "newest:/t"},
    ),
    case(
        "rules inside of arrays",
        {"items": [{"id": 1, "n": 1}]},
        [{"items": [{"id": 1, "n": 2}]}, {"items": [{"id": 1, "n": 3}]}],
        {"items": [{"id": 1, "n": 4}]},
        rules={"/items": "by:id", "/items/*/n": "counter"},
    ),
    case(
        "rules at any depth",
        {"a": {"b": {"at": 1}}},
        [{"a": {"b": {"at": 2}}}, {"a": {"b": {"at": 3}}}],
        {"a": {"b": {"at": 3}}},
        rules={"/a/**/at": "max", "/**": "text"},
    ),
]

ATTACHMENTS = [
    case(
        "an attachment added by each",
        {},
        [{"_attachments": {"a": ATTACHED}}, {"_attachments": {"b": NEWER}}],
        {"_attachments": {"a": ATTACHED, "b": NEWER}},
    ),
    case(
        "the same data stored at other times",
        {"_attachments": {"a": ATTACHED}},
        [
            {"x": 1, "_attachments": {"a": ATTACHED | {"revpos": 3}}},
            {"y": 1, "_attachments": {"a": ATTACHED}},
        ],
        {"_attachments": {"a": ATTACHED}, "x": 1, "y": 1},
    ),
    case(
        "changed by both",
        {"_attachments": {"a": ATTACHED}},
        [{"_attachments": {"a": NEWER}}, {"_attachments": {"a": NEWEST}}],
        {"_attachments": {"a": NEWER}},
        "attachment /_attachments/a",
    ),
    case(
        "removed by one, changed by the other",
        {"_attachments": {"a": ATTACHED}},
        [{"_attachments": {"a": NEWER}}, {}],
        {"_attachments": {"a": NEWER}},
        "delete /_attachments/a",
    ),
    case(
        "removed by each",
        {"_attachments": {"a": ATTACHED, "b": NEWER}},
        [{"_attachments": {"a": ATTACHED}}, {"_attachments": {"b": NEWER}}],
        {},
    ),
]


@pytest.mark.parametrize(
    ("base", "leaves", "rules", "merged", "clashes"),
    [*OBJECTS, *NO_BASE, *ARRAYS, *TEXTS, *RULES, *ATTACHMENTS],
)
def test_merge(base: Any, leaves: Any, rules: Any, merged: Any, clashes: Any) -> None:
    found = merge(base, leaves, Rules.parse(rules))
    assert (MISSING if found.deleted else found.document) == merged
    assert tuple(f"{clash.kind} {clash.pointer}" for clash in found.clashes) == clashes
    assert all(len(clash.values) == len(leaves) for clash in found.clashes)


def test_members_have_an_order_that_does_not_depend_on_the_leaves() -> None:
    base = {"a": 1, "z": 1}
    left = {"a": 1, "n": 1, "k": 1, "z": 2}
    right = {"a": 1, "m": 1, "z": 1, "end": 1}
    for leaves in ([left, right], [right, left]):
        assert list(merge(base, leaves).document) == ["a", "m", "n", "k", "z", "end"]


def test_what_is_nested_very_deep_is_a_value() -> None:
    def nested(value: Any) -> Any:
        for _ in range(500):
            value = {"a": value}
        return value

    found = merge(nested({"x": 1, "y": 1}), [nested({"x": 2, "y": 1}), nested({"x": 1, "y": 2})])
    [clash] = found.clashes
    assert clash.pointer == "/a" * 100


def test_a_thousand_leaves_are_merged_at_once() -> None:
    leaves: list[Any] = [{"log": ["start", f"{number:03}"], str(number): 1} for number in range(1000)]
    found = merge({"log": ["start"]}, leaves)
    assert found.is_clean
    assert found.document["log"] == ["start", *(f"{number:03}" for number in range(1000))]
    assert len(found.document) == 1001


@pytest.mark.parametrize(
    "kinds",
    [pytest.param(2, id="0 and 1"), pytest.param(700, id="some"), pytest.param(20_000, id="all unlike")],
)
def test_long_arrays_are_merged_in_time_and_lose_nothing(kinds: int) -> None:
    base = [number * 7919 % kinds for number in range(10_000)]
    left = [-number if number % 3 == 0 else one for number, one in enumerate(base)]
    right = [*base, "right"]
    right[5_000:5_000] = ["inserted"]
    merged = merge({"x": base}, [{"x": left}, {"x": right}]).document["x"]
    assert [one for one in merged if one not in ("inserted", "right")] == left
    assert merged[-1] == "right"
    assert "inserted" in merged
    if kinds > len(base):
        assert merged.index("inserted") == 5_000


def test_choices_settle_clashes() -> None:
    base = {"a": 1, "list": [1, 2, 3, 4], "gone": 1}
    left = {"a": 2, "list": [1, 3, 9]}
    right = {"a": 3, "list": [1, 8, 3, 7], "gone": 2}
    merged = merge(base, [left, right])
    assert [clash.pointer for clash in merged.clashes] == ["/a", "/list/1", "/list/2", "/gone"]
    assert settle(merged, {}).document == left
    chosen = {at: clash.values[1] for at, clash in enumerate(merged.clashes)}
    assert settle(merged, chosen).document == right
    assert settle(merged, {0: MISSING, 2: MISSING}).document == {"list": [1, 3]}
    assert merged.document == left
    gone = merge(base, [MISSING, right])
    assert gone.deleted and not settle(gone, {0: right}).deleted


def test_the_chunks_of_a_text_show_where_it_clashes() -> None:
    found = list(chunks("a\nb\nc\n", ["a\nx\nc\n", "a\ny\nc\nd\n"]))
    assert [(chunk.merged, chunk.base, chunk.values) for chunk in found] == [
        ("a\n", "a\n", ("a\n", "a\n")),
        (None, "b\n", ("x\n", "y\n")),
        ("c\n", "c\n", ("c\n", "c\n")),
        ("d\n", "", ("", "d\n")),
    ]


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        pytest.param([], "rules must be an object of JSON pointers and rules", id="no object"),
        pytest.param({"a": "set"}, "the pattern 'a' must begin with a slash", id="no pointer"),
        pytest.param({"/a": "sets"}, "'sets' is not a rule", id="no rule"),
        pytest.param({"/a": 1}, "1 is not a rule", id="no text"),
        pytest.param({"/a": "by:"}, "the rule 'by:' needs the name of a field, as in by:id", id="by what"),
        pytest.param(
            {"/a": "newest:t"}, "needs a JSON pointer, as in newest:/updated_at", id="newest by what"
        ),
        pytest.param({"/a": "set:x"}, "'set:x' is not a rule", id="an argument too many"),
    ],
)
def test_rules_that_cannot_be_understood(rules: Any, reason: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Rules.parse(rules)
    assert reason in refused.value.reason
