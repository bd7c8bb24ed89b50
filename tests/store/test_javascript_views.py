"""Map and reduce functions that mean harm: contained, told about, and in nobody's way."""

from __future__ import annotations

from typing import Any

import pytest

from couchlite.errors import CouchliteError, InternalError
from couchlite.javascript import Design, FunctionPool
from couchlite.jsontext import dumps, loads

from .functions import child_pids, filtering, passing, pool

__all__ = ["pool"]  # the fixture

DOCS = [dumps({"_id": f"d{number}", "v": number}) for number in range(3)]
ROWS = [dumps({"id": f"d{number}", "key": number, "value": number}) for number in range(3)]


def viewing(map: str = "function (doc) {}", reduce: str = "_sum", scope: str = "db", **more: Any) -> Design:
    """As an index gives its functions to the pool."""
    return Design(scope, {"_id": "_design/d", "map": map, "reduce": reduce, **more})


async def mapped(pool: FunctionPool, source: str, scope: str = "db", **more: Any) -> list[Any]:
    return await pool.map_docs(viewing(source, scope=scope, **more), DOCS)


async def reduced(pool: FunctionPool, source: str, *, limit: bool = True) -> Any:
    """Of three rows, in two groups of which one has a partial reduction, too."""
    groups = [(ROWS[:2], [], []), (ROWS[:1], [b"7"], ROWS[1:])]
    return await pool.reduce_groups(viewing(reduce=source), groups, finish=True, limit=limit)


async def is_alive(pool: FunctionPool) -> bool:
    return await passing(pool, filtering("function (doc) { return doc.v == 1 }"), list(map(loads, DOCS))) == [
        "d1"
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param("for (;;);", "took more than 0.3 s for document d1", id="an infinite loop"),
        pytest.param("for (;;) emit(1)", "for document d1", id="endless emits"),
        pytest.param("for (;;) emit('x'.repeat(1e6))", "for document d1", id="endless giant emits"),
        pytest.param("for (var i = 0; i < 30; i++) emit('x'.repeat(5e4))", "gave back", id="much emitted"),
        pytest.param("emit('x'.repeat(3e6))", "gave back more than 1 MiB", id="a giant emit"),
        pytest.param(
            "new Array(2**32 - 1).fill(0)", "MiB of memory for document d1", id="an allocation bomb"
        ),
        pytest.param("emit({toJSON() { for (;;); }})", "0.3 s for document d1", id="a key that loops"),
        pytest.param("emit(new Proxy([], {get() { for (;;); }}))", "0.3 s for document d1", id="a trap"),
        pytest.param("throw {toString() { for (;;); }}", "0.3 s for document d1", id="an error that loops"),
        pytest.param("throw 'fatal_error'", "function raised 'fatal_error'", id="a fatal error"),
    ],
)
async def test_hostile_map_functions(pool: FunctionPool, body: str, reason: str) -> None:
    with pytest.raises(InternalError) as failed:
        await mapped(pool, f"function (doc) {{ if (doc.v == 1) {{ {body} }} emit(doc.v) }}")
    assert reason in failed.value.reason
    assert await is_alive(pool)


@pytest.mark.parametrize(
    "body",
    [
        "function f() { return 1 + f() } f()",
        "var o = []; o[0] = o; emit(o)",
        "emit(1n)",
        "undefined.x",
        "throw {toString() { throw 1 }}",
        "doc.v = {}; emit(doc.v.v.v)",
        "emit.call(null, {toJSON() { throw 'x' }})",
        "require('views/lib/none')",
    ],
)
async def test_a_document_that_a_function_fails_on_has_no_rows(pool: FunctionPool, body: str) -> None:
    found = await mapped(pool, f"function (doc) {{ if (doc.v == 1) {{ {body} }} emit(doc.v) }}")
    assert found == [[[0, None]], [], [[2, None]]]


@pytest.mark.parametrize(
    "trick",
    [
        "Object.prototype.toJSON = Array.prototype.toJSON = () => 'lie'",
        "JSON.stringify = JSON.parse = () => 'lie'",
        "Array.prototype.push = Array.prototype.map = Array.prototype.join = () => 'lie'",
        "Object.freeze = Object.isFrozen = () => 'lie'; doc.v = 'lie'",
        "Object.defineProperty(Object.prototype, '0', {set() { throw 'lie' }, configurable: true})",
        "Object.setPrototypeOf(Array.prototype, null)",
        "var real = emit; emit = () => {}; emit('lie'); emit = real",
        "Symbol.iterator = null; Array.prototype[Symbol.iterator] = () => { throw 'lie' }",
        "globalThis.batchMs = 0; Date.now = () => 1e15",
    ],
)
async def test_prototype_tricks_are_of_no_use(pool: FunctionPool, trick: str) -> None:
    """A function may spoil its own rows, never the answer they come in, nor what other functions see."""
    source = f"function (doc) {{ emit(doc.v); if (doc.v == 0) {{ {trick} }} }}"
    try:
        found = await mapped(pool, source)
    except CouchliteError:
        found = await mapped(pool, "function (doc) { emit(doc.v) }")
    assert [rows[0][0] for rows in found[1:] if rows] in ([1, 2], ["lie", "lie"])
    assert await mapped(pool, "function (doc) { emit(doc.v) }") == [[[number, None]] for number in range(3)]
    assert await is_alive(pool)


async def test_functions_of_two_databases_share_nothing(pool: FunctionPool) -> None:
    source = """function (doc) {
        emit(typeof secret + typeof doc.secret);
        secret = doc; Object.prototype.secret = 1; require('views/lib/own').secret = 1 }"""
    lib = {"views": {"lib": {"own": "exports.own = 1"}}}
    first, second, third = await mapped(pool, source, "one", **lib)
    assert (first, second) == ([["undefinedundefined", None]], [["objectnumber", None]])
    assert (await mapped(pool, source, "other", **lib))[0] == first
    assert third == second


async def test_modules_of_views(pool: FunctionPool) -> None:
    lib = {
        "keys": "exports.of = (doc) => [module.id, require('./deep/b').times(doc.v)]",
        "deep": {"b": "var up = require('../one'); module.exports = {times: (n) => n * up}"},
        "one": "module.exports = 10",
    }
    source = """(doc) => {
        const { of } = require('views/lib/keys'); emit(of(doc), of === require('views/lib/keys').of) }"""
    found = await mapped(pool, source, views={"lib": lib})
    assert found == [[[["views/lib/keys", number * 10], True]] for number in range(3)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param("for (;;);", "took more than 0.3 s", id="an infinite loop"),
        pytest.param("new Array(2**32 - 1).fill(0)", "MiB of memory", id="an allocation bomb"),
        pytest.param("return {toJSON() { for (;;); }}", "took more than 0.3 s", id="a value that loops"),
        pytest.param("throw 'fatal_error'", "function raised 'fatal_error'", id="a fatal error"),
    ],
)
async def test_hostile_reduce_functions(pool: FunctionPool, body: str, reason: str) -> None:
    with pytest.raises(InternalError) as failed:
        await reduced(pool, f"function (keys, values, rereduce) {{ {body} }}")
    assert reason in failed.value.reason
    assert await is_alive(pool)


async def test_a_giant_reduction(pool: FunctionPool) -> None:
    source = "function (keys, values) { return 'x'.repeat(8000) }"
    for value in await reduced(pool, source):
        assert value["reduce_overflow_error"].startswith("Reduce output must shrink more rapidly")
    assert await reduced(pool, source, limit=False) == ["x" * 8000] * 2
    with pytest.raises(InternalError, match="gave back more than 1 MiB"):
        await reduced(pool, "function () { return 'x'.repeat(2e6) }", limit=False)


async def test_a_reduction_that_throws_is_null(pool: FunctionPool) -> None:
    assert await reduced(pool, "function (keys, values, again) { if (!again) throw 'x'; return 1 }") == [1, 1]
    assert await reduced(pool, "function () { function f() { f() } f() }") == [None, None]


async def test_one_process_serves_all_these(pool: FunctionPool) -> None:
    await mapped(pool, "function (doc) { emit(1) }")
    await reduced(pool, "function () { return 1 }")
    assert len(child_pids()) == 1
