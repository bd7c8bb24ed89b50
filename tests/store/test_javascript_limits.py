"""Functions that mean harm, or fail in ways of their own, and the processes they run in.

Each must end with an error for its own caller, and without harm to anybody else.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import uvloop

from couchlite.errors import CouchliteError, Forbidden, InternalError
from couchlite.javascript import Design, FunctionPool, FunctionThread, Limits
from couchlite.javascript.child import FILTER
from couchlite.javascript.pool import ChildPool
from tests.waiting import until

from .functions import DOCS, LIMITS, USER, child_pids, filtering, passing, pool, validating

__all__ = ["pool"]  # the fixture

TIME, MEMORY = "took more than 0.3 s", "took more than 32 MiB of memory"


@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [
        pytest.param("for (;;);", "os_process_error", TIME, id="an infinite loop"),
        pytest.param(
            "try { for (;;); } catch (e) { return 1 }", "os_process_error", TIME, id="one that catches"
        ),
        pytest.param(
            "try { for (;;); } finally { for (;;); }", "os_process_error", TIME, id="one that goes on"
        ),
        pytest.param(
            "/(a+)+$/.test('a'.repeat(40) + 'b')", "os_process_error", TIME, id="a regular expression"
        ),
        pytest.param(
            "[1].sort.call({length: 2**53 - 1}, () => 0)", "os_process_error", TIME, id="a built-in"
        ),
        pytest.param("new Proxy({}, {get() { for (;;); }}).x", "os_process_error", TIME, id="a trap"),
        pytest.param("throw {toJSON() { for (;;); }}", "os_process_error", TIME, id="an error that loops"),
        pytest.param("for (;;) emit('x'.repeat(1e6))", "os_process_error", TIME, id="giant emits"),
        pytest.param("for (;;) log('x'.repeat(1e6))", "os_process_error", TIME, id="giant logs"),
        pytest.param(
            "var a = []; for (;;) a.push(Array(1000).fill(1))", "os_process_error", "memory", id="a bomb"
        ),
        pytest.param(
            "new Array(2**32 - 1).fill(0)", "os_process_error", MEMORY, id="a bomb of one statement"
        ),
        pytest.param(
            "var a = []; try { for (;;) a.push(Array(1000)) } catch (e) { throw a }",
            None,
            None,
            id="a bomb that catches",
        ),
        pytest.param("var s = 'x'; for (;;) s += s", "InternalError", "string too long", id="a long string"),
        pytest.param(
            "function f() { return 1 + f() } return f()",
            "RangeError",
            "Maximum call stack size exceeded",
            id="deep recursion",
        ),
        pytest.param(
            "var o = {}; for (var i = 0; i < 1e5; i++) o = {o}; throw o",
            "unnamed_error",
            None,
            id="a deep value",
        ),
        pytest.param("throw 'x'.repeat(5e6)", "unnamed_error", None, id="a long error"),
        pytest.param("throw Array(3e5).fill({a: 1})", "unnamed_error", None, id="a large error"),
    ],
)
async def test_hostile_functions(
    pool: FunctionPool, body: str, error: str | None, reason: str | None
) -> None:
    hostile = filtering(f"function (doc) {{ if (doc.v == 1) {{ {body} }} return true }}")
    with pytest.raises(InternalError) as failed:
        await passing(pool, hostile)
    assert error in (None, failed.value.error)
    assert reason is None or reason in failed.value.reason
    assert len(failed.value.reason) < 100_000
    assert await passing(pool, filtering("function (doc) { return doc.v == 1 }")) == ["d1"]


async def test_a_time_or_memory_limit_names_the_document(pool: FunctionPool) -> None:
    with pytest.raises(InternalError, match=r"filters/f of _design/d took more than 0.3 s for document d2\."):
        await passing(pool, filtering("function (doc) { while (doc.v == 2); }"))
    with pytest.raises(InternalError, match=r"MiB of memory for document d2\."):
        await passing(pool, filtering("function (doc) { if (doc.v == 2) Array(2**32 - 1).fill(0) }"))


@pytest.mark.parametrize(
    "poison",
    [
        "Object.prototype.toJSON = Array.prototype.toJSON = String.prototype.toJSON = () => 'lie'",
        "JSON.parse = JSON.stringify = Date.now = Reflect.apply = () => { throw 'poisoned' }",
        "String.prototype.slice = String.prototype.split = () => { throw 'poisoned' }",
        "Array.isArray = Object.getPrototypeOf = () => { throw 1 }; String = Error = InternalError = null",
        "for (var i of '01') Object.defineProperty(Array.prototype, i, {set() { throw 1 }, configurable: 1})",
        "Object.defineProperty(Object.prototype, 'passes', {get: () => '111', set() {}, configurable: true})",
        "Object.defineProperty(Object.prototype, 'then', {get() { throw 1 }, configurable: true})",
        "Object.setPrototypeOf(doc, new Proxy({}, {get() { throw 'poisoned' }}))",
        "Object.freeze(globalThis); Object.freeze(Object.prototype)",
        "this.filters = null; delete this._id; Object.freeze(this)",
        "emit = sum = log = toJSON = isArray = require = null",
        "if (typeof Object == 'function') for (var n of Object.getOwnPropertyNames(top)) delete top[n]",
    ],
)
async def test_poisoned_surroundings_change_nothing(pool: FunctionPool, poison: str) -> None:
    design = filtering(f"var top = this; function (doc) {{ {poison}; return doc.v == 1 }}")
    assert await passing(pool, design) == await passing(pool, design) == ["d1"]
    design = validating(f"var top = this; function (doc) {{ {poison}; throw({{forbidden: 'no'}}) }}")
    with pytest.raises(CouchliteError):  # as it may have poisoned how its own objects are shown
        await pool.validate(design, {"_id": "a"}, None, USER, {})


async def test_there_is_nothing_to_reach(pool: FunctionPool) -> None:
    names = (
        "std os process console print load import_ fetch setTimeout Worker performance navigator scriptArgs"
    )
    found = " + ".join(f"typeof {name}" for name in names.split())
    source = f"function (doc) {{ throw {found} + Object.keys(globalThis).sort().join() }}"
    with pytest.raises(InternalError) as told:
        await passing(pool, filtering(source))
    expected = "undefined" * len(names.split()) + "emit,isArray,log,require,sum,toJSON"
    assert json.loads(told.value.reason) == expected


async def test_functions_of_two_databases_share_nothing(pool: FunctionPool) -> None:
    source = """function (doc) {
        var seen = typeof secret !== 'undefined' || 'secret' in Object.prototype;
        secret = doc.v; Object.prototype.secret = 1; Array.prototype.push = null;
        return seen;
    }"""
    one, other = filtering(source, "one"), filtering(source, "other")
    await passing(pool, one)
    assert await passing(pool, one) == ["d0", "d1", "d2"]
    assert await passing(pool, other) == ["d1", "d2"]


async def test_functions_of_one_design_document_share_no_globals(pool: FunctionPool) -> None:
    filters = {
        "f": "function (doc) { g = 1; return true }",
        "g": "function (doc) { return typeof g == 'number' }",
    }
    design = Design("db", {"_id": "_design/d", "filters": filters})
    await pool.filter_docs(design, "f", DOCS, {})
    assert await pool.filter_docs(design, "g", DOCS, {}) == [False, False, False]


async def test_a_runaway_function_is_in_nobodys_way(pool: FunctionPool) -> None:
    runaway = [
        asyncio.create_task(passing(pool, filtering("function (doc) { for (;;); }", database)))
        for database in ("one", "one", "one", "two")
    ]
    await asyncio.sleep(0.1)
    assert await passing(pool, filtering("function (doc) { return doc.v == 1 }", "three")) == ["d1"]
    assert not any(task.done() for task in runaway)
    errors = await asyncio.gather(*runaway, return_exceptions=True)
    assert [getattr(error, "error", None) for error in errors] == ["os_process_error"] * 4


async def test_the_time_limit_is_for_a_document_not_for_a_batch(pool: FunctionPool) -> None:
    source = "function (doc) { for (var end = Date.now() + 50; Date.now() < end;); return true }"
    docs = [{"_id": f"d{number}"} for number in range(15)]
    assert len(await passing(pool, filtering(source), docs)) == 15


async def test_what_a_function_hoards_is_dropped_when_it_is_too_much(pool: FunctionPool) -> None:
    source = (
        "function (doc) { hoard = (typeof hoard == 'undefined') ? [] : hoard;"
        "hoard.push(Array(100000).fill(doc.v)); return doc.v % 2 }"
    )
    docs = [{"_id": f"d{number}", "v": number} for number in range(100)]
    assert len(await passing(pool, filtering(source), docs)) == 50


async def test_documents_of_all_sizes(pool: FunctionPool) -> None:
    docs = [{"_id": f"d{number}", "text": "é" * (number % 7) ** 7} for number in range(1200)]
    design = filtering("function (doc) { return doc.text.length > 200000 }")
    assert await passing(pool, design, docs) == [f"d{number}" for number in range(1200) if number % 7 == 6]


# Processes


async def test_no_process_is_started_before_it_is_needed_and_one_is_enough(pool: FunctionPool) -> None:
    design = filtering("function (doc) { return true }")
    assert child_pids() == []
    for _ in range(3):
        await passing(pool, design)
        assert len(child_pids()) == 1


async def test_an_idle_process_is_ended(pool: FunctionPool) -> None:
    children = ChildPool(lambda: LIMITS, idle_s_max=0.2)
    program = filtering("function (doc) { return true }").program("filters", "f")
    for _ in range(2):
        assert (await children.call("db", program, FILTER, b'{"docs":[{}]}'))["passes"] == "1"
        assert len(child_pids()) == 1
        await until(lambda: not child_pids())
    children.close()


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
async def test_a_process_that_was_ended_from_outside_is_replaced(pool: FunctionPool, name: str) -> None:
    design = filtering("function (doc) { return doc.v == 1 }")
    await passing(pool, design)
    [pid] = child_pids()
    os.kill(pid, signal.Signals[name])
    assert await passing(pool, design) == ["d1"]
    assert pid not in child_pids()


async def test_a_process_that_ends_in_a_call_is_replaced(pool: FunctionPool) -> None:
    wait = "for (var end = Date.now() + 300; Date.now() < end;);"
    call = asyncio.create_task(passing(pool, filtering(f"function (doc) {{ {wait} return doc.v == 1 }}")))
    await until(lambda: bool(child_pids()))
    await asyncio.sleep(0.1)
    os.kill(child_pids()[0], signal.SIGKILL)
    assert await call == ["d1"]


async def test_a_process_that_hangs_is_given_up() -> None:
    pool = FunctionPool(Limits(wall_time_s=0.5))
    design = filtering("function (doc) { return doc.v == 1 }")
    await passing(pool, design)
    os.kill(child_pids()[0], signal.SIGSTOP)
    with pytest.raises(InternalError, match="os_process_error"):
        await passing(pool, design)
    assert await passing(pool, design) == ["d1"]
    await pool.close()


async def test_a_call_that_is_no_longer_wanted_ends_its_process(pool: FunctionPool) -> None:
    call = asyncio.create_task(passing(pool, filtering("function (doc) { for (;;); }")))
    await until(lambda: bool(child_pids()))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert child_pids() == []


async def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import asyncio, os, signal\n"
        "from couchlite.javascript import Design, FunctionPool\n"
        "async def main():\n"
        "    pool = FunctionPool()\n"
        "    design = Design('db', {'_id': '_design/d', 'filters': {'f': '(doc) => true'}})\n"
        "    await pool.filter_docs(design, 'f', [{}], {})\n"
        "    print(pool._children._idle[0]._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    output, _nothing = await parent.communicate()
    await until(lambda: not Path(f"/proc/{int(output)}").exists())


def test_a_thread_for_callers_without_an_event_loop() -> None:
    with FunctionThread(LIMITS) as functions:
        design = validating("function (n) { if (!n.ok) throw({forbidden: 'no'}) }")
        functions.run(functions.pool.validate(design, {"_id": "a", "ok": 1}, None, USER, {}))
        with pytest.raises(Forbidden):
            functions.run(functions.pool.validate(design, {"_id": "a"}, None, USER, {}))
    assert child_pids() == []


def test_in_the_servers_event_loop() -> None:
    async def main() -> list[str]:
        pool = FunctionPool(LIMITS)
        found = await passing(pool, filtering("function (doc) { return doc.v == 1 }"))
        await pool.close()
        return found

    assert uvloop.run(main()) == ["d1"]
