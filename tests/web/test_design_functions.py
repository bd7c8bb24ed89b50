"""Show, update, list and rewrite functions over HTTP, beyond what was recorded."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from http_api import lists

from .in_process import Reply, Site

SHOWS = {
    "text": "function (doc, req) { return 'hello ' + (doc ? doc._id : req.id) }",
    "seen": "function (doc, req) { delete req.info; return {json: {doc: doc, req: req}} }",
    "given": "function (doc, req) { return JSON.parse(req.body) }",
    "thrown": "function (doc, req) { throw JSON.parse(req.body) }",
    "failing": "function (doc, req) { throw new Error('no luck') }",
    "sent": "function (doc, req) { start({headers: {'X-Sent': '1'}}); send('a'); send('b'); return 'c' }",
    "provided": """function (doc, req) {
        registerType('own', 'application/own; charset=utf-8', 'application/x-own');
        provides('html', function () { send('<'); return 'html' });
        provides('own', function () { return {body: 'own' } });
    }""",
    "module": "function () { return require('lib/outer').text + this._id }",
}
UPDATES = {
    "count": """function (doc, req) {
        doc = doc || {_id: req.id, count: 0}; doc.count++; return [doc, 'now ' + doc.count] }""",
    "given": "function (doc, req) { return JSON.parse(req.body) }",
    "form": "function (doc, req) { return [null, {json: req.form}] }",
}
LISTS = {
    "lines": """function (head, req) {
        start({headers: {'X-Head': toJSON(head)}});
        var row; while (row = getRow()) send(toJSON(row) + '\\n');
        return 'end' }""",
    "first": "function () { return toJSON(getRow()) }",
    "none": "function () {}",
    "redirect": "function () { start({code: 302, headers: {Location: '/elsewhere'}}) }",
    "late": """function () {
        getRow(); start({code: 203}); send('a'); getRow(); start({code: 202}); send('b') }""",
    "provided": """function () {
        provides('json', function () { return '{}' }); provides('html', function () { return '<p>' }) }""",
    "early failure": "function () { send('unseen'); throw {error: 'forbidden', reason: 'not you'} }",
    "large": "function () { var row; while (row = getRow()) send(row.doc.pad); return 'end' }",
    "huge": "function () { getRow(); for (var i = 0; i < 200; i++) send('x'.repeat(100000)) }",
    "twice": "function () { while (getRow()); return toJSON([getRow(), getRow()]) }",
}
DESIGN = {
    "lib": {
        "outer": "exports.text = require('./inner').text",
        "inner": "exports.text = 'from ' + module.id + ' of '",
    },
    "shows": SHOWS,
    "updates": UPDATES,
    "lists": LISTS,
    "views": {
        "n": {"map": "function (doc) { emit(doc.n, null) }"},
        "sum": {"map": "function (doc) { emit(doc.n, doc.n) }", "reduce": "_sum"},
        "own": {
            "map": "function (doc) { emit(doc.n, doc.n) }",
            "reduce": "function (keys, values) { return sum(values) }",
        },
    },
}
PLACE = "/db/_design/d"


@pytest.fixture
async def db(web: Site) -> Site:
    await web.ask("PUT", "/db")
    assert (await web.ask("PUT", PLACE, DESIGN)).status == 201
    docs = [{"_id": name, "n": number} for number, name in enumerate("abc")]
    await web.ask("POST", "/db/_bulk_docs", {"docs": docs})
    return web


async def show(db: Site, path: str, body: Any = None, **headers: str) -> Reply:
    return await db.ask("GET" if body is None else "POST", f"{PLACE}/_show/{path}", body, headers=headers)


# Show functions


async def test_a_show_function_sees_a_document_or_none(db: Site) -> None:
    assert (await show(db, "text/a")).body == b"hello a"
    assert (await show(db, "text/none/such")).body == b"hello none/such"
    await db.ask("PUT", "/db/_local/x", {"here": True})
    docs = [(await show(db, f"seen{path}")).json()["doc"] for path in ("", "/none", "/a", "/_local/x")]
    assert docs[:2] == [None, None]
    assert docs[2]["_revisions"] == {"start": 1, "ids": [docs[2]["_rev"][2:]]}
    assert docs[3] == {
        "_id": "_local/x",
        "_rev": "0-1",
        "here": True,
        "_revisions": {"start": 0, "ids": ["1"]},
    }


async def test_what_a_function_sees_of_a_request(db: Site) -> None:
    target = f"{PLACE}/_show/seen/a%2Fb?key=%22k%22&x=1+2"
    headers = {"x-odd": "é", "Cookie": "a=1", "Content-Type": "application/x-www-form-urlencoded"}
    req = (await db.ask("POST", target, b"f=1&g=%20", headers=headers)).json()["req"]
    assert req["headers"]["X-Odd"] == "é" and not {"Authorization", "Cookie"} & req["headers"].keys()
    path = ["db", "_design", "d", "_show", "seen"]
    assert req | {"uuid": "", "headers": {}, "secObj": {}, "peer": ""} == {
        "uuid": "",
        "id": "a/b",
        "method": "POST",
        "requested_path": [*path, 'a/b?key="k"&x=1 2'],
        "path": [*path, "a/b"],
        "raw_path": target,
        "query": {"key": "k", "x": "1 2"},
        "headers": {},
        "body": "f=1&g=%20",
        "peer": "",
        "form": {"f": "1", "g": " "},
        "cookie": {},
        "userCtx": {"db": "db", "name": "adm", "roles": ["_admin"]},
        "secObj": {},
    }


@pytest.mark.parametrize(
    ("answer", "status", "content_type", "body"),
    [
        ("plain", 200, "text/html; charset=utf-8", b"plain"),
        ({"body": "b", "code": 203, "headers": {"content-type": "text/x"}}, 203, "text/x", b"b"),
        ({"json": {"a": [1]}}, 200, "application/json", b'{"a":[1]}\n'),
        ({"json": None}, 200, "application/json", b"null\n"),
        ({"base64": "AAE="}, 200, "application/binary", b"\0\1"),
        ({"code": 299, "headers": {"Content-Length": "7", "X-N": 5}}, 299, "application/json", b""),
        ("", 200, "application/json", b""),
    ],
)
async def test_responses(db: Site, answer: Any, status: int, content_type: str, body: bytes) -> None:
    reply = await show(db, "given", answer)
    assert (reply.status, reply.headers["content-type"], reply.body) == (status, content_type, body)
    assert reply.headers.get("content-security-policy") == (None if "json" in answer else "sandbox")
    assert reply.headers.get("x-n") == ("5" if status == 299 else None)


@pytest.mark.parametrize(
    "answer",
    [5, True, [], {"body": 5}, {"base64": "A"}, {"base64": 1}, {"code": 99}, {"code": "x"}, {"unknown": 1},
     {"headers": []}, {"headers": {"A": "b\r\nC: d"}}, {"headers": {"A b": "c"}}, {"headers": {"A": {}}}],
)  # fmt: skip
async def test_what_is_no_response(db: Site, answer: Any) -> None:
    reply = await show(db, "given", answer)
    assert reply.status == 500 and reply.json()["error"] in ("render_error", "external_response_error")
    assert (await show(db, "text/a")).status == 200


@pytest.mark.parametrize(
    ("thrown", "status", "error"),
    [
        (["error", "not_found", "why"], 404, "not_found"),
        (["error", "unauthorized", "why"], 401, "unauthorized"),
        (["fatal", "own", "why"], 500, "own"),
        ({"error": "forbidden", "reason": "why"}, 403, "forbidden"),
        (["error", "not_acceptable", "why"], 406, "not_acceptable"),
        ({"forbidden": "why"}, 500, "render_error"),
        ("why", 500, "render_error"),
    ],
)
async def test_what_a_function_throws(db: Site, thrown: Any, status: int, error: str) -> None:
    reply = await show(db, "thrown", thrown)
    assert (reply.status, reply.json()["error"]) == (status, error)
    assert "why" in reply.json()["reason"]


async def test_a_failure_about_a_document_that_is_not_there(db: Site) -> None:
    assert (await show(db, "failing/a")).json()["reason"].startswith("function raised error: Error: no luck")
    assert (await show(db, "failing/none")).json() == {"error": "not_found", "reason": "document not found"}


async def test_a_show_is_made_again_only_when_something_changed(db: Site) -> None:
    etag = (await show(db, "text/a")).headers["etag"]
    again = {"If-None-Match": etag}
    assert (await show(db, "text/a", **again)).status == 304
    assert (await show(db, "text/b", **again)).status == 200
    assert (await show(db, "text/a", Accept="text/x", **again)).status == 200
    await db.ask("PUT", f"{PLACE}/_update/count/a", b"")
    assert (await show(db, "text/a", **again)).status == 200


async def test_a_head_of_a_show(db: Site) -> None:
    reply = await db.ask("HEAD", f"{PLACE}/_show/text/a")
    assert (reply.status, reply.headers["content-length"], reply.body) == (200, "7", b"")


async def test_what_was_sent_comes_before_what_is_returned(db: Site) -> None:
    reply = await show(db, "sent")
    assert (reply.body, reply.headers["x-sent"]) == (b"abc", "1")


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        ("text/html", "text/html; charset=utf-8", b"<html"),
        ("application/x-own", "application/x-own", b"own"),
        ("text/*;q=0.5, application/own", "application/own; charset=utf-8", b"own"),
        ("text/html, application/own;q=0.5", "text/html; charset=utf-8", b"<html"),
    ],
)
async def test_the_provided_type_that_fits_best(
    db: Site, accept: str, content_type: str, body: bytes
) -> None:
    reply = await show(db, "provided", Accept=accept)
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, content_type, body)


async def test_what_is_not_provided(db: Site) -> None:
    reply = await show(db, "provided", Accept="image/png")
    assert (reply.status, reply.json()["error"]) == (406, "not_acceptable")
    assert (await show(db, "provided?format=own")).body == b"own"
    assert (await show(db, "provided?format=unknown")).status == 406


async def test_modules_require_each_other(db: Site) -> None:
    assert (await show(db, "module")).body == b"from lib/inner of _design/d"


@pytest.mark.parametrize(
    ("path", "error", "reason"),
    [
        ("d/_show", "show_error", "Invalid path."),
        ("d/_update", "update_error", "Invalid path."),
        ("d/_list/first", "list_error", "Invalid path."),
        ("d/_list/first/a/b/c", "list_error", "Invalid path."),
        ("d/_show/none", "not_found", "missing json key: none"),
        ("e/_show/none", "not_found", "missing json key: shows"),
        ("d/_list/none such/n", "not_found", "missing json key: none such"),
        ("d/_list/first/none", "not_found", "missing_named_view"),
        ("d/_list/first/none/n", "not_found", "missing"),
        ("none/_show/text", "not_found", "missing"),
        ("d/_rewrite/x", "rewrite_error", "Invalid path."),
    ],
)
async def test_what_is_not_there(db: Site, path: str, error: str, reason: str) -> None:
    await db.ask("PUT", "/db/_design/e", {})
    reply = await db.ask("GET", f"/db/_design/{path.replace(' ', '%20')}")
    assert (reply.status, reply.json()) == (404, {"error": error, "reason": reason})


# Update functions


async def test_an_update_function_stores_what_it_returns(db: Site) -> None:
    for number in (1, 2):
        reply = await db.ask("PUT", f"{PLACE}/_update/count/x%2Fy", b"")
        assert (reply.status, reply.body) == (201, f"now {number}".encode())
        assert reply.headers["x-couch-id"] == "x%2Fy"
    doc = (await db.ask("GET", "/db/x%2Fy")).json()
    assert doc == {"_id": "x/y", "_rev": reply.headers["x-couch-update-newrev"], "count": 2}


async def test_updates_at_the_same_time_conflict_and_lose_nothing(db: Site) -> None:
    replies = await asyncio.gather(*[db.ask("PUT", f"{PLACE}/_update/count/z", b"") for _ in range(8)])
    stored = [reply for reply in replies if reply.status == 201]
    assert {reply.status for reply in replies} <= {201, 409}
    assert (await db.ask("GET", "/db/z")).json()["count"] == len(stored)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ([None, "ok"], 200),
        (["text", "ok"], 200),
        ([{"_id": "new"}, {"code": 202, "body": "later"}], 202),
        ([{"_id": "new", "_attachments": {"f": {"data": "YWJj"}}}, "ok"], 201),
        ([{"_id": "_local/new"}, "ok"], 201),
        ([{"_id": "a"}, "ok"], 409),
        ([{"n": 1}, "ok"], 400),
        ([{"_id": "new", "_odd": 1}, "ok"], 400),
        ([{"_id": "new"}], 500),
        ([{"_id": "new"}, 5], 500),
        (None, 500),
    ],
)
async def test_what_an_update_function_may_return(db: Site, given: Any, status: int) -> None:
    assert (await db.ask("POST", f"{PLACE}/_update/given", given)).status == status
    is_stored = status in (201, 202)
    name = given[0]["_id"] if is_stored else "new"
    assert (await db.ask("GET", f"/db/{name}")).status == (200 if is_stored else 404)


async def test_an_update_function_is_for_all_methods_but_get(db: Site) -> None:
    for method, status in (("PUT", 201), ("DELETE", 201), ("GET", 405), ("HEAD", 405)):
        assert (await db.ask(method, f"{PLACE}/_update/count/m")).status == status, method
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await db.ask("PUT", f"{PLACE}/_update/form", b"a=1", headers=form)).json() == {"a": "1"}


async def test_what_an_update_function_makes_is_validated(db: Site) -> None:
    source = "function (doc) { if (doc.count > 1) throw({forbidden: 'enough'}) }"
    await db.ask("PUT", "/db/_design/v", {"validate_doc_update": source})
    assert (await db.ask("PUT", f"{PLACE}/_update/count/v", b"")).status == 201
    reply = await db.ask("PUT", f"{PLACE}/_update/count/v", b"")
    assert (reply.status, reply.json()["reason"]) == (403, "enough")


# List functions


async def listed(db: Site, path: str, body: Any = None, **headers: str) -> Reply:
    return await db.ask("GET" if body is None else "POST", f"{PLACE}/_list/{path}", body, headers=headers)


@pytest.mark.parametrize(
    ("path", "head", "rows"),
    [
        ("n", {"total_rows": 3, "offset": 0}, ["a", "b", "c"]),
        ("n?skip=1&limit=1", {"total_rows": 3, "offset": 1}, ["b"]),
        ("n?descending=true&startkey=1", {"total_rows": 3, "offset": 1}, ["b", "a"]),
        ("n?keys=[2,0]", {"total_rows": 3, "offset": 2}, ["c", "a"]),
        ("n?key=9", {"total_rows": 3, "offset": 3}, []),
        ("d/n?limit=1", {"total_rows": 3, "offset": 0}, ["a"]),
        ("sum", {}, [3]),
        ("own?group=true&startkey=1", {}, [1, 2]),
        ("_all_docs?startkey=%22b%22", {"total_rows": 4, "offset": 2}, ["b", "c"]),
        ("_all_docs?keys=[%22a%22]", {"total_rows": 4, "offset": None}, ["a"]),
    ],
)
async def test_a_list_function_gets_rows(db: Site, path: str, head: Any, rows: list[Any]) -> None:
    reply = await listed(db, f"lines/{path}")
    assert (reply.status, json.loads(reply.headers["x-head"])) == (200, head)
    *lines, end = reply.body.decode().split("\n")
    found = [json.loads(line) for line in lines]
    assert ([row.get("id", row["value"]) for row in found], end) == (rows, "end")


async def test_options_of_the_view_may_be_in_the_body(db: Site) -> None:
    reply = await listed(db, "lines/n?limit=1", {"keys": [1, 2], "limit": 2, "more": "for the function"})
    assert reply.body.count(b"\n") == 1 and b'"id":"b"' in reply.body
    assert (await listed(db, "lines/n", [1])).status == 400
    assert (await db.ask("PUT", f"{PLACE}/_list/lines/n", {})).status == 405


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("first", 200, b'{"id":"a","key":0,"value":null}'),
        ("none", 200, b""),
        ("redirect", 302, b""),
        ("late", 203, b"ab"),
        ("twice", 200, b"[null,null]"),
        ("early failure", 403, b'{"error":"forbidden","reason":"not you"}\n'),
    ],
)
async def test_list_functions(db: Site, name: str, status: int, body: bytes) -> None:
    reply = await listed(db, f"{name.replace(' ', '%20')}/n")
    assert (reply.status, reply.body) == (status, body)


async def test_a_list_function_provides_types(db: Site) -> None:
    reply = await listed(db, "provided/n", Accept="text/html")
    assert (reply.body, reply.headers["content-type"]) == (b"<p>", "text/html; charset=utf-8")
    assert (await listed(db, "provided/n", Accept="image/png")).status == 406
    assert (await db.ask("HEAD", f"{PLACE}/_list/provided/n")).body == b""


async def test_lists_of_many_rows(db: Site) -> None:
    docs = [{"_id": f"d{at:04}", "n": 10 + at, "pad": f"{at:04}" * 250} for at in range(2500)]
    await db.ask("POST", "/db/_bulk_docs", {"docs": docs})
    reply = await listed(db, "large/n?startkey=10&include_docs=true")
    assert reply.body == b"".join(doc["pad"].encode() for doc in docs) + b"end"  # type: ignore[attr-defined]
    assert len((await listed(db, "huge/n")).body) == 200 * 100_000


async def test_lists_do_not_wait_for_the_functions_of_their_views(db: Site) -> None:
    await db.ask("PUT", "/db/new", {"n": 4})
    replies = await asyncio.gather(*[listed(db, "lines/own?group=true") for _ in range(6)])
    assert [reply.body.count(b"\n") for reply in replies] == [4] * 6


async def test_a_client_that_leaves_takes_its_list_along(db: Site) -> None:
    docs = [{"_id": f"d{at}", "n": 10 + at, "pad": "x" * 100_000} for at in range(100)]
    await db.ask("POST", "/db/_bulk_docs", {"docs": docs})
    reader, writer = await asyncio.open_connection("127.0.0.1", db.port)
    target = f"GET {PLACE}/_list/large/n?startkey=10&include_docs=true HTTP/1.1\r\nHost: x\r\n"
    writer.write(f"{target}Authorization: Basic YWRtOnBhc3M=\r\n\r\n".encode())
    await reader.read(1000)
    writer.close()
    assert len((await listed(db, "large/n?startkey=10&include_docs=true")).body) == 100 * 100_000 + 3


async def test_clients_that_do_not_read_are_not_waited_for(db: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "CLIENT_IDLE_S", 0.3)
    source = "function () { getRow(); for (var i = 0; i < 500; i++) send('x'.repeat(100000)); }"
    await db.ask("PUT", "/db/_design/s", {"lists": {"f": source}, "views": {"n": DESIGN["views"]["n"]}})
    target = "GET /db/_design/s/_list/f/n HTTP/1.1\r\nHost: x\r\n"
    idle = []
    for _ in range(4):
        reader, writer = await asyncio.open_connection("127.0.0.1", db.port, limit=1)
        idle.append((reader, writer))
        writer.write(f"{target}Authorization: Basic YWRtOnBhc3M=\r\n\r\n".encode())
    try:
        assert (await listed(db, "first/n")).body.startswith(b'{"id":"a"')
    finally:
        for _reader, writer in idle:
            writer.transport.abort()


# Rewrites


async def rewriting(db: Site, rewrites: Any) -> None:
    await db.ask("PUT", "/db/_design/r", {"rewrites": rewrites, "shows": SHOWS, "views": DESIGN["views"]})


RULES = [
    {"from": "/doc/:id", "to": "../../:id"},
    {"from": "/seen/:a/*", "to": "_show/seen/*", "query": {"x": ":a", "list": "no", "key": [":a", 1]}},
    {"from": "/number/:n", "to": "_view/n", "query": {"key": ":n"}, "formats": {"n": "int"}},
    {"from": "/only", "to": "../../a", "method": "PUT"},
    {"from": "/only", "to": "../../b", "method": "GET"},
    {"from": "/again", "to": "_rewrite/doc/c"},
    {"from": "/forever", "to": "_rewrite/forever"},
    {"from": "/elsewhere", "to": "../../../_all_dbs"},
]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("doc/a", "a"),
        ("number/2", "c"),
        ("only", "b"),
        ("again", "c"),
        ("forever", "Exceeded rewrite recursion limit"),
        ("none", "missing"),
        ("", "missing"),
        ("elsewhere", "insecure"),
    ],
)
async def test_rules(db: Site, path: str, found: str) -> None:
    await rewriting(db, RULES[:-1] if found != "insecure" else RULES)
    answer = (await db.ask("GET", f"/db/_design/r/_rewrite/{path}")).json()
    rows = answer.get("rows", [{}])
    error = answer.get("reason") if answer.get("error") != "insecure_rewrite_rule" else "insecure"
    assert found == (answer.get("_id") or rows[0].get("id") or error)


async def test_a_rule_fills_the_query(db: Site) -> None:
    await rewriting(db, RULES[:-1])
    reply = await db.ask("GET", "/db/_design/r/_rewrite/seen/1%2F2/b/c?own=3&list=yes")
    req = reply.json()["req"]
    assert req["id"] == "b/c"
    assert req["query"] == {"x": "1/2", "a": "1/2", "own": "3", "list": "no", "key": ["1/2", 1]}


async def test_rewritten_requests_keep_their_method_body_and_rights(db: Site) -> None:
    await rewriting(db, RULES[:-1])
    target = "/db/_design/r/_rewrite/doc/new"
    assert (await db.ask("PUT", target, {"n": 7})).status == 201
    assert (await db.ask("GET", "/db/new")).json()["n"] == 7
    assert (await db.ask("HEAD", target)).body == b""
    assert (await db.ask("GET", target, auth=None)).status == 401


FUNCTION = """function (req) {
    var name = req.path[4], given = req.query.give && JSON.parse(req.query.give);
    if (name == 'give') return given;
    if (name == 'put') return {path: '../../' + req.path[5], method: 'PUT', body: '{"from": "function"}',
        headers: {'Content-Type': 'application/json'}, query: {}};
    if (name == 'body') return '../../_bulk_docs';
    if (name == 'throw') throw 'why';
}"""


@pytest.mark.parametrize(
    ("give", "status", "answer"),
    [
        ("../../a", 200, {"_id": "a"}),
        ({"path": "_view/n?limit=1", "query": {}}, 200, {"total_rows": 3}),
        ({"path": "_view/n", "query": {"limit": "-1"}}, 400, {"error": "query_parse_error"}),
        ({"path": "../../../db/b"}, 200, {"_id": "b"}),
        ({"code": 299, "body": '{"own": 1}', "headers": {"X-Own": "1"}}, 299, {"own": 1}),
        (None, 404, {"error": "rewrite_error"}),
        ([], 500, {"reason": "bad rewrite"}),
        ({"method": "GET"}, 500, {"reason": "Rewrite result must produce a new path."}),
        ({"path": 5}, 500, {"reason": "bad path"}),
        ({"path": "x", "headers": {"a": 1}}, 500, {"error": "rewrite_error"}),
        ({"code": 100}, 500, {"reason": "bad code"}),
    ],
)
async def test_a_function_rewrites(db: Site, give: Any, status: int, answer: dict[str, Any]) -> None:
    await rewriting(db, FUNCTION)
    give_text = json.dumps(give).replace(" ", "%20").replace('"', "%22").replace("?", "%3F")
    reply = await db.ask("GET", f"/db/_design/r/_rewrite/give?give={give_text}")
    assert (reply.status, reply.json() | answer) == (status, reply.json())


async def test_a_function_rewrites_method_and_body(db: Site) -> None:
    await rewriting(db, FUNCTION)
    assert (await db.ask("GET", "/db/_design/r/_rewrite/put/made")).status == 201
    assert (await db.ask("GET", "/db/made")).json()["from"] == "function"
    posted = await db.ask("POST", "/db/_design/r/_rewrite/body", {"docs": [{"_id": "posted"}]})
    assert (posted.status, (await db.ask("GET", "/db/posted")).status) == (201, 200)
    assert (await db.ask("GET", "/db/_design/r/_rewrite/throw")).json()["error"] == "rewrite_error"


# Hostile functions


@pytest.mark.parametrize("path", ["_show/endless/a", "_update/endless/a", "_list/endless/n", "_rewrite/x"])
async def test_a_runaway_function_is_stopped_and_disturbs_nobody(
    db: Site, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    db.server.config.set("couchdb", "os_process_timeout", "300")
    endless = "function (one) { for (;;); }"
    functions = {"updates": {"endless": endless}, "rewrites": endless}
    shown = {"shows": {"endless": endless}, "lists": {"endless": "function () { getRow(); for (;;); }"}}
    await db.ask("PUT", "/db/_design/h", functions | shown | {"views": {"n": DESIGN["views"]["n"]}})
    method = "PUT" if "_update" in path else "GET"
    running = [asyncio.create_task(db.ask(method, f"/db/_design/h/{path}")) for _ in range(3)]
    while not all(task.done() for task in running):
        assert (await db.ask("GET", "/db/a")).status == 200
        await asyncio.sleep(0.05)
    for task in running:
        reply = task.result()
        assert (reply.status, reply.json()["error"]) == (500, "os_process_error")
        assert "took more than 0.3 s" in reply.json()["reason"]
    assert "_design/h failed for " + ("document a" if path.endswith("/a") else "") in caplog.text
    assert (await db.ask("GET", "/db/a")).json()["_rev"].startswith("1-")
    assert (await show(db, "text/a")).body == b"hello a"


async def test_a_function_may_use_so_much_memory(db: Site) -> None:
    source = "function () { return '' + new Array(2000000).fill(1).length }"
    await db.ask("PUT", "/db/_design/m", {"shows": {"f": source}})
    assert (await db.ask("GET", "/db/_design/m/_show/f")).body == b"2000000"
    db.server.config.set("couchlite", "function_memory_bytes", str(16 << 20))
    reply = await db.ask("GET", "/db/_design/m/_show/f")
    assert (reply.status, reply.json()["error"]) == (500, "os_process_error")
    assert "16 MiB of memory" in reply.json()["reason"]
