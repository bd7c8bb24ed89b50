"""Show, update, rewrite and list functions as processes run them: what they can reach, what stops them."""

from typing import Any

import pytest

from couchlite.errors import InternalError
from couchlite.javascript import Design, FunctionPool

from .functions import child_pids, filtering, passing, pool

__all__ = ["pool"]  # the fixture

REQUEST: dict[str, Any] = {"id": "d1", "method": "PUT", "query": {}, "headers": {}}
KINDS = ("shows", "updates", "rewrites", "lists")


def design(kind: str, source: str, scope: str = "db") -> Design:
    functions = source if kind == "rewrites" else {"f": source}
    return Design(scope, {"_id": "_design/d", kind: functions})


async def run(pool: FunctionPool, kind: str, source: str, scope: str = "db") -> Any:
    """What a function answers; for a list, the text it wrote over two times two rows."""
    made = design(kind, source, scope)
    match kind:
        case "shows":
            return await pool.show(made, "f", {"_id": "d1"}, REQUEST)
        case "updates":
            return await pool.update(made, "f", {"_id": "d1"}, REQUEST)
        case "rewrites":
            return await pool.rewrite(made, REQUEST)
    async with pool.list_rows(made, "f") as listing:
        text = ""
        left = 2
        piece = await listing.begin(b"{}", b'{"headers":{}}')
        while True:
            text += piece.text
            if piece.is_last:
                return text
            if not piece.wants_rows:
                piece = await listing.go_on()
                continue
            piece = await listing.give([b'{"id":"x"}', b'{"id":"y"}'] if left else [])
            left -= 1


async def is_alive(pool: FunctionPool) -> bool:
    return await passing(pool, filtering("function (doc) { return doc.v == 1 }")) == ["d1"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param("for (;;);", "took more than 0.3 s", id="an infinite loop"),
        pytest.param(
            "try { for (;;); } finally { for (;;); }", "took more than 0.3 s", id="one that goes on"
        ),
        pytest.param("return {toJSON() { for (;;); }}", "0.3 s", id="an answer that loops"),
        pytest.param("new Array(2**32 - 1).fill(0)", "MiB of memory", id="a bomb"),
        pytest.param("function f() { return 1 + f() } return f()", "call stack", id="deep recursion"),
        pytest.param("var s = 'x'; for (;;) s += s", "string too long", id="a long string"),
    ],
)
async def test_hostile_functions(pool: FunctionPool, kind: str, body: str, reason: str) -> None:
    if kind == "updates" and "toJSON" in body:
        body = body.replace("return ", "return [").replace("}}", "}}, 'x']")
    if kind == "lists" and "toJSON" in body:
        body = body.replace("return", "start(").replace("}}", "}}); getRow()")
    with pytest.raises(InternalError) as failed:
        await run(pool, kind, f"function () {{ {body} }}")
    assert reason in failed.value.reason
    assert len(failed.value.reason) < 100_000
    assert await is_alive(pool)


@pytest.mark.parametrize(
    "body",
    [
        "getRow(); for (;;);",
        "while (getRow()); for (;;);",
        "getRow(); new Array(2**32 - 1).fill(0)",
        "var all = []; for (;;) { getRow(); all.push(Array(1000).fill(1)) }",
    ],
)
async def test_a_list_that_turns_hostile_between_rows(pool: FunctionPool, body: str) -> None:
    with pytest.raises(InternalError, match=r"lists/f of _design/d took more"):
        await run(pool, "lists", f"function () {{ {body} }}")
    assert await is_alive(pool)
    assert await run(pool, "lists", "function () { return getRow().id }") == "x"


async def test_giant_answers(pool: FunctionPool) -> None:
    assert await run(pool, "lists", "function () { getRow(); send('x'.repeat(900000)) }") == "x" * 900_000
    for kind, source in (
        ("shows", "return 'x'.repeat(2e6)"),
        ("updates", "return [null, 'x'.repeat(2e6)]"),
        ("lists", "getRow(); send('x'.repeat(2e6))"),
    ):
        with pytest.raises(InternalError, match=r"more than (1 MiB|it may)"):
            await run(pool, kind, f"function () {{ {source} }}")
    assert await is_alive(pool)


@pytest.mark.parametrize("kind", KINDS)
async def test_functions_of_two_databases_share_nothing(pool: FunctionPool, kind: str) -> None:
    source = """function () {
        var seen = typeof secret + typeof {}.secret;
        secret = 1; Object.prototype.secret = 1; Array.prototype.join = null; registerType = null;
        if (seen != 'undefinedundefined') throw ['error', 'seen', seen];
        return ANSWER
    }""".replace("ANSWER", "[null, 'ok']" if kind == "updates" else "'ok'")
    await run(pool, kind, source, "one")
    with pytest.raises(InternalError, match="numbernumber"):
        await run(pool, kind, source, "one")
    await run(pool, kind, source, "other")


@pytest.mark.parametrize(
    "poison",
    [
        "JSON.parse = JSON.stringify = Reflect.apply = () => { throw 'poisoned' }",
        "String.prototype.slice = String.prototype.split = Array.prototype.join = () => { throw 'poisoned' }",
        "emit = sum = log = toJSON = isArray = require = start = provides = registerType = null",
        "Object.freeze(globalThis); Object.freeze(Object.prototype)",
        "req.headers = req.method = req.id = null; delete this._id",
    ],
)
async def test_poisoned_surroundings_change_nothing(pool: FunctionPool, poison: str) -> None:
    for kind, answer, expected in (
        ("shows", "'ok'", {"body": "ok"}),
        ("updates", "[{_id: 'x'}, 'ok']", ({"_id": "x"}, {"body": "ok"})),
        ("rewrites", "{path: 'ok'}", {"path": "ok"}),
        ("lists", "getRow().id + getRow().id + getRow().id", "xyx"),
    ):
        parameter = "req" if kind == "rewrites" else "other, req"
        source = f"function ({parameter}) {{ {poison}; return {answer} }}"
        assert await run(pool, kind, source) == await run(pool, kind, source) == expected, kind


async def test_there_is_nothing_to_reach(pool: FunctionPool) -> None:
    source = "function () { return Object.keys(globalThis).sort().join() + typeof tell + typeof std }"
    expected = "emit,getRow,isArray,log,provides,registerType,require,send,start,sum,toJSON"
    answer = await run(pool, "shows", source)
    assert answer == {"body": expected + "undefinedundefined"}


async def test_a_list_that_is_left_takes_its_process_along(pool: FunctionPool) -> None:
    async with pool.list_rows(design("lists", "function () { while (getRow()); }"), "f") as listing:
        assert (await listing.begin(b"{}", b"{}")).wants_rows
        assert len(child_pids()) == 1
    assert child_pids() == []


async def test_a_list_that_was_read_to_its_end_leaves_its_process_to_others(pool: FunctionPool) -> None:
    await run(pool, "lists", "function () { getRow() }")
    pids = child_pids()
    assert await is_alive(pool) and child_pids() == pids


async def test_a_function_that_hoards_is_given_another_chance(pool: FunctionPool) -> None:
    source = "var hoard = []; function () { hoard.push(Array(500000).fill(1)); return 'ok' }"
    for _ in range(12):
        assert await run(pool, "shows", source) == {"body": "ok"}


async def test_what_a_failing_function_was_about_is_logged(
    pool: FunctionPool, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InternalError):
        await run(pool, "updates", "function (doc) { log('was here'); for (;;); }")
    assert "updates/f of _design/d failed for document d1: os_process_error" in caplog.text
