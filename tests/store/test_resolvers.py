"""Resolvers: what each makes of a conflict, when it leaves it alone, and how they are configured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given

from couchlite.database import Database
from couchlite.errors import BadRequest
from couchlite.javascript import FunctionPool
from couchlite.jsontext import canonical
from couchlite.merging.functions import DesignFunctions
from couchlite.merging.resolvers import Conflict, Leaf, LeftAlone, Resolution, Resolver
from couchlite.merging.settings import Settings, parse_resolver

from .test_merge_laws import edited

STUB = {"content_type": "text/plain", "digest": "md5-1", "length": 1, "revpos": 1, "stub": True}
OTHER = STUB | {"digest": "md5-2"}


def conflict(base: Any, *leaves: Any) -> Conflict:
    return Conflict("d", [Leaf(f"2-{at}", leaf) for at, leaf in enumerate(leaves)], base)


async def told(resolver: Resolver, base: Any, *leaves: Any) -> Any:
    """The document, and the leaves that were overruled; or the reason why there is none."""
    found = await resolver.resolve(conflict(base, *leaves))
    return found.reason if isinstance(found, LeftAlone) else (found.document, found.overruled)


async def test_manual_leaves_everything_alone() -> None:
    assert await told(parse_resolver("manual"), {}, {"a": 1}, {}) == "it is left to people"


BASE = {"a": 1, "tags": ["x"]}
LEFT = {"a": 2, "tags": ["x", "y"]}
RIGHT = {"a": 3, "tags": ["x", "z"]}


@pytest.mark.parametrize(
    ("options", "base", "leaves", "expected"),
    [
        pytest.param(
            {}, {"a": 1, "b": 1}, [{"a": 2, "b": 1}, {"a": 1, "b": 2}], ({"a": 2, "b": 2}, ()), id="clean"
        ),
        pytest.param({}, BASE, [LEFT, RIGHT], "the leaves clash at /a", id="a clash"),
        pytest.param(
            {"rules": {"/a": "max"}},
            BASE,
            [LEFT, RIGHT],
            ({"a": 3, "tags": ["x", "y", "z"]}, ()),
            id="with rules",
        ),
        pytest.param(
            {"clashes": "winner"},
            BASE,
            [LEFT, RIGHT],
            ({"a": 2, "tags": ["x", "y", "z"]}, ("2-1",)),
            id="the winner decides",
        ),
        pytest.param(
            {"clashes": "winner"},
            {"a": 1},
            [{"a": 2}, {"a": 1, "b": 1}, {}],
            ({"a": 2, "b": 1}, ("2-2",)),
            id="only who wanted something else is overruled",
        ),
        pytest.param(
            {},
            None,
            [dict.fromkeys("abcde", 1), {}],
            "the leaves clash at /a, /b, /c and 2 more; what the leaves come from isn't known",
            id="without a base",
        ),
    ],
)
async def test_three_way(options: Any, base: Any, leaves: Any, expected: Any) -> None:
    assert await told(parse_resolver("three-way", options), base, *leaves) == expected


@pytest.mark.parametrize(
    ("options", "base", "leaves", "expected"),
    [
        pytest.param(
            {}, {"a": 1, "b": 1}, [{"b": 1}, {"a": 1}], ({"a": 1, "b": 1}, ()), id="nothing is removed"
        ),
        pytest.param({}, {"a": 1}, [{"b": 1}, {}], ({"b": 1}, ()), id="but for what all removed"),
        pytest.param({}, {"a": 1}, [{"a": 2}, {}], ({"a": 2}, ()), id="removing undone, changing kept"),
        pytest.param(
            {}, {"x": [1, 2]}, [{"x": [1, 3]}, {"x": [2]}], ({"x": [1, 2, 3]}, ()), id="arrays as sets"
        ),
        pytest.param(
            {}, None, [{"x": [1]}, {"x": [2], "y": 1}], ({"x": [1, 2], "y": 1}, ()), id="without a base"
        ),
        pytest.param({}, None, [{"x": 1}, {"x": 2}], "clash at /x", id="values still clash"),
        pytest.param(
            {"rules": {"/x": "by:id"}},
            {"x": [{"id": 1, "n": 1}, {"id": 2}]},
            [{"x": [{"id": 1, "n": 2}]}, {"x": [{"id": 1, "n": 1}, {"id": 2}, {"id": 3}]}],
            ({"x": [{"id": 1, "n": 2}, {"id": 2}, {"id": 3}]}, ()),
            id="elements by a field",
        ),
        pytest.param(
            {"rules": {"/x": "list"}},
            {"x": [1, 1]},
            [{"x": [1]}, {"x": [1, 1], "y": 1}],
            ({"x": [1], "y": 1}, ()),
            id="an array that is no set",
        ),
    ],
)
async def test_union(options: Any, base: Any, leaves: Any, expected: Any) -> None:
    found = await told(parse_resolver("union", options), base, *leaves)
    assert expected in found if isinstance(expected, str) else found == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param([1, 2.5], 1, id="numbers"),
        pytest.param(["2025-05-01T12:00:00+02:00", "2025-05-01T11:00:00Z"], 1, id="dates as points in time"),
        pytest.param(["2025-05-02", "2025-05-01T11:00:00Z"], 0, id="dates with and without a time"),
        pytest.param(["b", "a"], 0, id="texts"),
        pytest.param([1, 1], "several leaves have the same /t", id="of the same age"),
        pytest.param([1, "2"], "the values of /t can't be compared", id="of different kinds"),
        pytest.param([1, None], "the values of /t can't be compared", id="null"),
        pytest.param([1, ...], "the values of /t can't be compared", id="missing"),
    ],
)
async def test_last_write_wins(times: Any, expected: Any) -> None:
    leaves = [{"n": at} if time is ... else {"n": at, "t": time} for at, time in enumerate(times)]
    found = await told(parse_resolver("last-write-wins", {"field": "/t"}), None, *leaves)
    assert found == (expected if isinstance(expected, str) else (leaves[expected], (f"2-{1 - expected}",)))


async def test_leaves_that_mean_the_same_overrule_nobody() -> None:
    found = await told(
        parse_resolver("last-write-wins", {"field": "/t"}), None, {"t": 1, "a": 1}, {"a": 1.0, "t": 1}
    )
    assert found == ({"t": 1, "a": 1}, ())


@given(edited())
async def test_resolvers_agree_whatever_the_order_of_the_losers(case: tuple[Any, list[Any]]) -> None:
    base, leaves = case
    for name in ("three-way", "union"):
        resolver = parse_resolver(name)
        found = [await resolver.resolve(conflict(base, *order)) for order in (leaves, leaves[::-1])]
        documents = [canonical(one.document) if isinstance(one, Resolution) else None for one in found]
        assert documents[0] == documents[1]


# Functions of design documents


@pytest.fixture
async def functions(database: Database) -> AsyncIterator[DesignFunctions]:
    pool = FunctionPool()
    yield DesignFunctions(database, pool)
    await pool.close()


def store_function(database: Database, source: str) -> None:
    database.put({"_id": "_design/d", "resolvers": {"f": source}})


async def asked(functions: DesignFunctions, *leaves: Any, base: Any = None) -> Resolution | LeftAlone:
    resolver = parse_resolver("javascript", {"function": "d/f"})
    return await resolver.resolve(conflict(base, *leaves), functions)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("return {n: base.n + leaves[0].n + leaves[1].n}", {"n": 6}, id="a new document"),
        pytest.param(
            "return Object.assign({}, leaves[1], {by: leaves[0]._rev, id: base._id})",
            {"n": 3, "by": "2-0", "id": "d"},
            id="_id and _rev are known, and not taken over",
        ),
        pytest.param("leaves[0].n = 9; return leaves[0]", {"n": 9}, id="a changed leaf"),
    ],
)
async def test_a_function_merges(
    database: Database, functions: DesignFunctions, body: str, expected: Any
) -> None:
    store_function(database, f"function (base, leaves) {{ {body} }}")
    found = await asked(functions, {"n": 2}, {"n": 3}, base={"n": 1})
    assert found == Resolution(expected)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("function (base, leaves) {}", "left it alone", id="undefined"),
        pytest.param(
            "function (base, leaves) { return base }", "left it alone", id="null, for an unknown base"
        ),
        pytest.param("function () { return [1] }", "gave something else than a document", id="no document"),
        pytest.param("function () { throw new Error('no') }", "failed: Error: no", id="an error"),
        pytest.param("function (", "compilation_error", id="not to be compiled"),
        pytest.param("", "missing resolvers function f", id="not there"),
        pytest.param(
            "function () { return {_attachments: {a: {digest: 'x'}}} }",
            "attachments that no leaf has",
            id="an attachment out of nothing",
        ),
    ],
)
async def test_a_function_that_does_not_merge_leaves_alone(
    database: Database, functions: DesignFunctions, source: str, reason: str
) -> None:
    store_function(database, source)
    found = await asked(functions, {"n": 2}, {"n": 3})
    assert isinstance(found, LeftAlone)
    assert reason in found.reason


async def test_a_design_document_that_is_not_there(functions: DesignFunctions) -> None:
    found = await asked(functions, {"n": 2}, {"n": 3})
    assert found == LeftAlone("_design/d/f failed: not_found: missing")


async def test_a_function_is_the_newest_one(database: Database, functions: DesignFunctions) -> None:
    store_function(database, "function () { return {v: 1} }")
    assert await asked(functions, {}, {"n": 3}) == Resolution({"v": 1})
    database.put(database.get("_design/d") | {"resolvers": {"f": "function () { return {v: 2} }"}})
    assert await asked(functions, {}, {"n": 3}) == Resolution({"v": 2})


async def test_a_function_may_delete(database: Database, functions: DesignFunctions) -> None:
    store_function(database, "function () { return {_deleted: true} }")
    found = await asked(functions, {"n": 1}, {"n": 2})
    assert found == Resolution({}, deleted=True, overruled=("2-0", "2-1"))


async def test_attachments_a_function_says_nothing_of_are_merged(
    database: Database, functions: DesignFunctions
) -> None:
    store_function(database, "function (base, leaves) { return {n: 1} }")
    left, right = {"_attachments": {"a": STUB}}, {"_attachments": {"b": OTHER}}
    found = await asked(functions, left, right, base={})
    assert found == Resolution({"n": 1, "_attachments": {"a": STUB, "b": OTHER}})
    found = await asked(functions, left, {"_attachments": {"a": OTHER}}, base={})
    assert isinstance(found, LeftAlone) and found.clashes[0].pointer == "/_attachments/a"


async def test_a_function_may_choose_attachments(database: Database, functions: DesignFunctions) -> None:
    store_function(database, "function (base, leaves) { return {_attachments: leaves[1]._attachments} }")
    leaves = {"_attachments": {"a": STUB}}, {"_attachments": {"a": OTHER}}
    assert await asked(functions, *leaves, base={}) == Resolution({"_attachments": {"a": OTHER}})


async def test_without_a_pool_functions_are_left_alone() -> None:
    found = await parse_resolver("javascript", {"function": "d/f"}).resolve(conflict(None, {}, {}))
    assert found == LeftAlone("functions of design documents can't be run here")


# Settings


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        pytest.param([], "the settings must be an object", id="no object"),
        pytest.param(
            {"resolver": []},
            "the settings can't have 'resolver', only automatic, resolvers",
            id="a wrong name",
        ),
        pytest.param({"automatic": 1}, "automatic must be true or false", id="automatic"),
        pytest.param({"resolvers": {}}, "resolvers must be an array", id="no array"),
        pytest.param({"resolvers": [1]}, "resolvers[0] must be an object", id="an element that is no object"),
        pytest.param(
            {"resolvers": [{"resolver": "manual"}, {"selector": {}}]},
            "resolvers[1]: None is not a resolver",
            id="no resolver",
        ),
        pytest.param(
            {"resolvers": [{"resolver": "lww"}]},
            "'lww' is not a resolver; there are manual, three-way",
            id="an unknown resolver",
        ),
        pytest.param(
            {"resolvers": [{"resolver": "manual", "for": 1}]},
            "resolvers[0] can't have 'for'",
            id="a wrong member",
        ),
        pytest.param(
            {"resolvers": [{"resolver": "manual", "options": {"a": 1}}]},
            "manual has no option 'a'; it has none",
            id="a wrong option",
        ),
        pytest.param(
            {"resolvers": [{"resolver": "three-way", "options": []}]},
            "the options of three-way must be an object",
            id="options that are no object",
        ),
        pytest.param(
            {"resolvers": [{"resolver": "three-way", "options": {"clashes": "mine"}}]},
            'the option clashes is "leave" or "winner", not \'mine\'',
            id="clashes",
        ),
        pytest.param(
            {"resolvers": [{"resolver": "three-way", "options": {"rules": {"/a": "sum"}}}]},
            "resolvers[0]: 'sum' is not a rule",
            id="a wrong rule",
        ),
        pytest.param(
            {"resolvers": [{"resolver": "last-write-wins"}]}, "needs the option field", id="no field"
        ),
        pytest.param(
            {"resolvers": [{"resolver": "javascript", "options": {"function": "f"}}]},
            "needs the option function",
            id="no function",
        ),
        pytest.param(
            {"resolvers": [{"resolver": "manual", "selector": {"$no": 1}}]},
            "resolvers[0]: Invalid operator: $no",
            id="a wrong selector",
        ),
    ],
)
def test_settings_that_cannot_be_understood(settings: Any, reason: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Settings.parse(settings)
    assert reason in refused.value.reason


def test_the_first_resolver_that_matches_the_winner_is_taken() -> None:
    settings = Settings.parse(
        {
            "automatic": True,
            "resolvers": [
                {"selector": {"type": "note"}, "resolver": "union"},
                {"selector": {"_id": {"$gt": "m"}}, "resolver": "three-way"},
                {"selector": {"type": "note"}, "resolver": "manual"},
            ],
        }
    )
    assert settings.automatic
    assert settings.choose("a", Leaf("1-a", {"type": "note"})).name == "union"
    assert settings.choose("z", Leaf("1-a", {"type": "note"})).name == "union"
    assert settings.choose("z", Leaf("1-a", {})).name == "three-way"
    assert settings.choose("a", Leaf("1-a", {})).name == "manual"
    assert not Settings.parse({}).automatic
