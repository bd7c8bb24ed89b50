"""Functions of design documents: what they can do, and what is said when they fail."""

import json
from typing import Any

import pytest

from couchlite.errors import BadRequest, CouchliteError, Forbidden, InternalError, NotFound, Unauthorized
from couchlite.javascript import Design, FunctionPool

from .functions import DOCS, USER, filtering, passing, pool, validating

__all__ = ["pool"]  # the fixture


# Filters


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("function (doc, req) { return doc.v > 0; }", ["d1", "d2"], id="a nameless function"),
        pytest.param(
            "function (doc) { return doc.v; };", ["d1", "d2"], id="what counts is whether it is truthy"
        ),
        pytest.param("(doc, req) => doc.v === 1", ["d1"], id="an arrow function"),
        pytest.param("(function (doc) { return doc.v == 1 })", ["d1"], id="in parentheses"),
        pytest.param(
            "// function (\nfunction (doc) { return doc.v == 1 } // end", ["d1"], id="with comments"
        ),
        pytest.param("var one = 1; function (doc) { return doc.v == one }", ["d1"], id="after a statement"),
        pytest.param("function (doc) { return doc.v == 1 }; var after = 1;", ["d1"], id="before a statement"),
        pytest.param("function (doc, req) { return doc.v == req.query.v }", ["d2"], id="with the request"),
        pytest.param(
            "function (doc) { return this.tag == 'x' && doc.v == 1 }", ["d1"], id="this is the document"
        ),
        pytest.param(
            "function (doc) { return `${doc?.v ?? ''}`.startsWith('1') }", ["d1"], id="modern syntax"
        ),
        pytest.param("function (doc) { emit(1, 2); return sum([doc.v, 1]) == 2 }", ["d1"], id="emit and sum"),
        pytest.param("function (doc) { return isArray([]) && toJSON(doc.v) === '1' }", ["d1"], id="helpers"),
        pytest.param(
            "function (doc) { seen = (typeof seen == 'undefined') ? doc.v : seen; return seen == 0 }",
            ["d0", "d1", "d2"],
            id="globals of its own, kept between documents",
        ),
        pytest.param(
            "function (doc) { doc.v = 9; return true }", ["d0", "d1", "d2"], id="documents may be changed"
        ),
    ],
)
async def test_filter_functions(pool: FunctionPool, source: str, expected: list[str]) -> None:
    design = filtering(source, tag="x")
    assert await passing(pool, design, request={"query": {"v": "2"}}) == expected


async def test_documents_may_be_given_as_text(pool: FunctionPool) -> None:
    design = filtering("function (doc, req) { return doc.v > req.more }")
    docs = [json.dumps(doc).encode() for doc in DOCS]
    assert await pool.filter_docs(design, "f", docs, b'{"more":1}') == [False, False, True]
    assert await pool.filter_docs(design, "f", [], b"{}") == []


async def test_view_filters_pass_what_emits(pool: FunctionPool) -> None:
    views = {"odd": {"map": "function (doc) { if (doc.v % 2) emit(doc._id, null); }"}}
    design = Design("db", {"_id": "_design/d", "views": views})
    assert await pool.filter_view(design, "odd", DOCS) == [False, True, False]


@pytest.mark.parametrize(
    ("source", "error", "reason"),
    [
        pytest.param("function (doc) { throw new Error('boom') }", "Error", "boom", id="an error"),
        pytest.param("function (doc) { return doc.x.y }", "TypeError", None, id="a mistake"),
        pytest.param("function (doc) { return zzz }", "ReferenceError", None, id="an unknown name"),
        pytest.param("function (doc) { throw {error: 'e', reason: 'r'} }", "e", "r", id="CouchDB's old form"),
        pytest.param("function (doc) { throw ['error', 'e', 'r'] }", "e", "r", id="CouchDB's form"),
        pytest.param("function (doc) { throw 'text' }", "unnamed_error", '"text"', id="a text"),
        pytest.param("function (doc) { throw undefined }", "unnamed_error", "undefined", id="nothing"),
        pytest.param("function (doc) { throw null }", "os_process_error", None, id="null"),
        pytest.param(
            "function (doc) { throw '\\ud800' }", "unnamed_error", '"\\ud800"', id="half a character"
        ),
        pytest.param(
            "function (doc) { throw {get name() { throw 1 }} }",
            "unnamed_error",
            "[object Object]",
            id="a trap",
        ),
        pytest.param("function (doc) { return (", "compilation_error", None, id="a syntax error"),
        pytest.param(
            "function named(doc) {}",
            "compilation_error",
            "Expression does not eval to a function. (function named(doc) {})",
            id="a statement",
        ),
        pytest.param(
            "42", "compilation_error", "Expression does not eval to a function. (42)", id="a number"
        ),
        pytest.param("async (doc) => true", "compilation_error", None, id="a promise of a function"),
        pytest.param({"a": 1}, "compilation_error", None, id="no text at all"),
        pytest.param("require('lib/none')", "compilation_error", None, id="requiring while it is compiled"),
        pytest.param(
            "function (doc) { require('lib/none') }",
            "invalid_require_path",
            'Object has no property "none". {"bad":"throw 1","syntax":"("}',
            id="no such module",
        ),
        pytest.param(
            "function (doc) { require('lib') }",
            "invalid_require_path",
            "Must require a JavaScript string, not: object",
            id="a module that is none",
        ),
        pytest.param(
            "function (doc) { require('lib/bad') }",
            "compilation_error",
            "Module require('lib/bad') raised error 1",
            id="a module that fails",
        ),
        pytest.param(
            "function (doc) { require('lib/syntax') }", "compilation_error", None, id="a broken module"
        ),
    ],
)
async def test_errors_of_filters(pool: FunctionPool, source: Any, error: str, reason: str | None) -> None:
    design = filtering(source, lib={"bad": "throw 1", "syntax": "("})
    with pytest.raises(InternalError) as failed:
        await passing(pool, design)
    assert (failed.value.status, failed.value.error) == (500, error)
    assert reason in (None, failed.value.reason)


async def test_a_missing_function(pool: FunctionPool) -> None:
    design = filtering("")
    with pytest.raises(NotFound, match="missing filters function f on design doc _design/d"):
        await passing(pool, design)
    with pytest.raises(NotFound, match="missing json key: other"):
        design.find("filters", "other")
    assert design.find("filters", "f") == ""


async def test_other_languages_are_not_spoken(pool: FunctionPool) -> None:
    with pytest.raises(InternalError, match="unknown_query_language: erlang"):
        await passing(pool, filtering("fun(Doc, Req) -> true end.", language="erlang"))


async def test_a_failure_is_logged_with_the_document(pool: FunctionPool, caplog: Any) -> None:
    source = "function (doc) { log(doc.v); log('half \\ud800'); if (doc.v == 1) throw new Error('boom') }"
    with caplog.at_level("INFO"), pytest.raises(InternalError):
        await passing(pool, filtering(source))
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "db: filters/f of _design/d: 0"
    assert messages[1] == "db: filters/f of _design/d: half \ufffd"
    assert messages[-1].startswith("db: filters/f of _design/d failed for document d1: Error: boom at ")


async def test_modules(pool: FunctionPool) -> None:
    lib = {
        "a": "exports.twice = function (n) { return 2 * n; };",
        "deep": {
            "b": "exports.v = require('../a').twice(21); exports.c = require('./c');"
            "exports.d = require('lib/d');",
            "c": "module.exports = 'whole';",
        },
        "d": "exports.n = 0; exports.up = function () { return ++exports.n; };",
        "e": "exports.f = require('./f'); exports.done = true;",
        "f": "exports.e = require('./e');",
    }
    source = """function (doc) {
        var b = require('lib/deep/b'), e = require('lib/e');
        return b.v === 42 && b.c === 'whole' && b.d.up() === doc.v + 1 && e.f.e.done
            && typeof module === 'undefined';
    }"""
    assert await passing(pool, filtering(source, lib=lib)) == ["d0", "d1", "d2"]


# Validation


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("function (n, o, u, s) {}", None, id="nothing is thrown"),
        pytest.param("function (n) { return {forbidden: 'x'} }", None, id="what it returns doesn't matter"),
        pytest.param("(n) => { throw({forbidden: 'f'}) }", (403, "forbidden", "f"), id="forbidden"),
        pytest.param(
            "function (n) { throw({unauthorized: 'u'}) }", (401, "unauthorized", "u"), id="unauthorized"
        ),
        pytest.param(
            "function (n) { throw({forbidden: {a: 1}}) }", (403, "forbidden", {"a": 1}), id="structured"
        ),
        pytest.param(
            "function (n) { throw({forbidden: null}) }", (403, "forbidden", None), id="without a reason"
        ),
        pytest.param(
            "function (n) { throw({forbidden: 'f', more: 1}) }", (403, "forbidden", "f"), id="and more"
        ),
        pytest.param(
            "function (n) { throw({conflict: 'c'}) }", (500, "unknown_error", "c"), id="something else"
        ),
        pytest.param("function (n) { throw 'text' }", (500, "unknown_error", "text"), id="a text"),
        pytest.param("function (n) { throw true }", None, id="true is no refusal"),
        pytest.param("function (n) { throw 1 }", None, id="nor is 1"),
        pytest.param(
            "function (n) { throw ['error', 'forbidden', 'r'] }", (403, "forbidden", "r"), id="an array"
        ),
        pytest.param(
            "function (n) { throw ['error', 'not_found', 'r'] }", (404, "not_found", "r"), id="another"
        ),
        pytest.param("function (n) { throw new Error('boom') }", (500, "Error", "boom"), id="an error"),
        pytest.param("function (n) { throw undefined }", (500, "unnamed_error", "undefined"), id="undefined"),
        pytest.param("function (n) { require('lib/check')(n) }", (403, "forbidden", "by lib"), id="a module"),
        pytest.param(
            "42", (500, "compilation_error", "Expression does not eval to a function. (42)"), id="none"
        ),
    ],
)
async def test_validation(pool: FunctionPool, source: str, expected: tuple[int, str, Any] | None) -> None:
    design = validating(
        source, lib={"check": "module.exports = function (n) { throw({forbidden: 'by lib'}) }"}
    )
    try:
        await pool.validate(design, {"_id": "a"}, None, USER, {})
    except CouchliteError as refused:
        assert (refused.status, refused.error, refused.reason) == expected
    else:
        assert expected is None


async def test_what_a_validation_function_sees(pool: FunctionPool) -> None:
    design = validating("function (n, o, u, s) { throw({forbidden: [n, o, u, s, this._id]}) }")
    security = {"members": {"roles": []}}
    with pytest.raises(Forbidden) as refused:
        await pool.validate(design, {"_id": "a", "v": [1, {"y": None}]}, b'{"_id":"a"}', USER, security)
    seen: Any = refused.value.reason
    assert seen == [{"_id": "a", "v": [1, {"y": None}]}, {"_id": "a"}, USER, security, "_design/d"]


async def test_many_documents_are_judged_one_by_one(pool: FunctionPool) -> None:
    source = """function (n, o, u, s) {
        if (n.v % 3 == 0) throw({forbidden: n._id});
        if (n.v % 3 == 1 && !o) throw({unauthorized: 'new'});
        if (u.roles.length != 1) throw({forbidden: 'the user was changed'});
        u.roles.push('admin');
        if (n.v == 5) null.x;
    }"""
    pairs: list[tuple[bytes | dict[str, Any], dict[str, Any] | None]] = [
        ({"_id": f"d{v}", "v": v}, {"_id": f"d{v}"} if v % 2 else None) for v in range(1500)
    ]
    refusals = await pool.refusals(validating(source), pairs, USER, {})
    assert [getattr(refusal, "reason", None) for refusal in refusals[:5]] == ["d0", None, None, "d3", "new"]
    assert [type(refusal) for refusal in refusals[3:6]] == [Forbidden, Unauthorized, InternalError]
    assert [refusal.reason for refusal in refusals if isinstance(refusal, Forbidden)] == [
        f"d{v}" for v in range(0, 1500, 3)
    ]


# Compiling views


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        pytest.param({}, None, id="no views"),
        pytest.param(
            {"v": {"map": "function (doc) { emit(1); }", "reduce": "_sum"}}, None, id="built-in reduce"
        ),
        pytest.param(
            {"v": {"map": "(d) => 1", "reduce": "function (k, v) { return sum(v); }"}}, None, id="reduce"
        ),
        pytest.param(
            {"lib": {"m": "syntax error"}, "v": {"map": "(d) => 1"}}, None, id="modules aren't views"
        ),
        pytest.param(
            {"v": {"map": "function (doc) {"}}, "map function in the 'v'", id="a map that doesn't end"
        ),
        pytest.param({"v": {"map": "42"}}, "map function in the 'v'", id="a map that is a number"),
        pytest.param(
            {"v": {"map": "(d) => 1", "reduce": "function ("}},
            "reduce function in the 'v'",
            id="a bad reduce",
        ),
        pytest.param(
            {"v": {"map": "for (;;);"}}, "map function in the 'v'", id="one that runs while compiled"
        ),
    ],
)
async def test_checking_views(pool: FunctionPool, views: dict[str, Any], expected: str | None) -> None:
    design = Design("db", {"_id": "_design/d", "views": views})
    if expected is None:
        await pool.check_views(design)
    else:
        with pytest.raises(
            BadRequest, match=rf"compilation_error: Compilation of the {expected} view failed: "
        ):
            await pool.check_views(design)


async def test_an_empty_map_is_missing(pool: FunctionPool) -> None:
    with pytest.raises(NotFound, match="missing function"):
        await pool.check_views(Design("db", {"_id": "_design/d", "views": {"v": {"map": ""}}}))
