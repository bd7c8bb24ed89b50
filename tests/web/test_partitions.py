"""Partitioned databases over HTTP: what belongs to a partition is asked of it alone, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest

from .in_process import Reply, Site

NAMES = ["foo", "foo2", "fo", "ä/x", "a\0b", "a"]
"""One is the beginning of another, one sorts otherwise with a colon behind it."""
BY_VALUE = "function (doc) { emit(doc.v, doc.w); }"
BY_PAIR = "function (doc) { emit([doc.w, doc.v], 1); }"


async def make(web: Site, count: int = 6, names: list[str] = NAMES) -> dict[str, list[dict[str, Any]]]:
    """A partitioned database with the same documents in each partition; them by partition."""
    assert (await web.ask("PUT", "/db?partitioned=true")).status == 201
    docs = {
        name: [{"_id": f"{name}:{at}", "v": at, "w": at * 7 % 5, "t": name} for at in range(count)]
        for name in names
    }
    every = [doc for some in docs.values() for doc in some]
    random.Random(5).shuffle(every)
    assert (await web.ask("POST", "/db/_bulk_docs", {"docs": every})).status == 201
    return docs


async def design(web: Site, name: str, **members: Any) -> None:
    assert (await web.ask("PUT", f"/db/_design/{name}", members)).status == 201


def in_partition(name: str, rest: str = "") -> str:
    return f"/db/_partition/{quote(name, safe='')}{rest}"


def ids(reply: Reply) -> list[str]:
    return [row["id"] for row in reply.json()["rows"]]


# --- what a partition holds


async def holds(web: Site, name: str) -> tuple[int, int]:
    told = (await web.ask("GET", in_partition(name))).json()
    assert told["db_name"] == "db" and told["partition"] == name
    return told["doc_count"], told["doc_del_count"]


async def external(web: Site, name: str) -> int:
    size: int = (await web.ask("GET", in_partition(name))).json()["sizes"]["external"]
    return size


async def test_what_partitions_hold_is_counted(web: Site) -> None:
    await make(web)
    assert [await holds(web, name) for name in NAMES] == [(6, 0)] * len(NAMES)
    assert await holds(web, "nothing") == (0, 0)
    rev = (await web.ask("GET", "/db/foo:1")).json()["_rev"]
    await web.ask("DELETE", f"/db/foo:1?rev={rev}")
    await web.ask("PUT", "/db/foo:new", {"text": "x" * 100})
    assert await holds(web, "foo") == (6, 1)
    size = await external(web, "foo")
    tombstone = (await web.ask("GET", "/db/_changes?doc_ids=[%22foo:1%22]&filter=_doc_ids")).json()
    gone = tombstone["results"][0]["changes"][0]["rev"]
    await web.ask("POST", "/db/_purge", {"foo:1": [gone]})
    assert await holds(web, "foo") == (6, 0)
    assert 0 < await external(web, "foo") < size
    assert await holds(web, "foo2") == (6, 0)
    assert web.server.open("db").check() == []


async def test_sizes_follow_what_documents_hold(web: Site) -> None:
    await make(web, count=0)
    assert (await web.ask("GET", in_partition("p"))).json()["sizes"] == {"active": 0, "external": 0}
    reply = await web.ask("PUT", "/db/p:a", {"text": "x" * 1000})
    large = await external(web, "p")
    await web.ask("PUT", f"/db/p:a?rev={reply.json()['rev']}", {"text": "x"})
    assert 0 < await external(web, "p") < large - 900


# --- which ids are allowed

IDS = [
    ("none", "illegal_docid", "Doc id must be of form partition:id"),
    (":x", "illegal_partition", "Partition must not be empty"),
    ("p:", "illegal_docid", "Document id must not be empty"),
    ("p:_x", "illegal_docid", "Only reserved document ids may start with underscore."),
    ("_p:x", "illegal_docid", "Only reserved document ids may start with underscore."),
]


@pytest.mark.parametrize(("doc_id", "error", "reason"), IDS)
async def test_no_way_leads_to_a_document_outside_of_partitions(
    web: Site, doc_id: str, error: str, reason: str
) -> None:
    await make(web, count=1)
    replies = [
        await web.ask("PUT", f"/db/{doc_id}", {}),
        await web.ask("PUT", f"/db/{doc_id}?new_edits=false", {"_rev": "1-a"}),
        await web.ask("POST", "/db", {"_id": doc_id}),
        await web.ask("POST", "/db/_bulk_docs", {"docs": [{"_id": "p:good"}, {"_id": doc_id}]}),
        await web.ask(
            "POST", "/db/_bulk_docs", {"docs": [{"_id": doc_id, "_rev": "1-a"}], "new_edits": False}
        ),
        await web.ask("COPY", "/db/foo:0", headers={"Destination": doc_id}),
        await web.ask("PUT", f"/db/{doc_id}/attachment", b"x", headers={"Content-Type": "text/plain"}),
    ]
    for reply in replies:
        assert (reply.status, reply.json()) == (400, {"error": error, "reason": reason})
    assert ids(await web.ask("GET", "/db/_all_docs?startkey=%22p%22&endkey=%22q%22")) == []


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/db/none", None),
        ("GET", "/db/none?open_revs=all", None),
        ("GET", "/db/none/attachment", None),
        ("DELETE", "/db/none?rev=1-a", None),
        ("POST", "/db/_revs_diff", {"none": ["1-a"]}),
        ("POST", "/db/_missing_revs", {"none": ["1-a"]}),
        ("POST", "/db/_purge", {"none": ["1-a"]}),
        ("POST", "/db/_all_docs", {"keys": ["foo:0", "none"]}),
        ("POST", "/db/_bulk_docs", {"docs": [{"no": "id"}]}),
        ("POST", "/db", {"no": "id"}),
        ("GET", "/db/_shards/none", None),
    ],
)
async def test_an_id_without_a_partition_is_refused_everywhere(
    web: Site, method: str, target: str, body: Any
) -> None:
    await make(web, count=1)
    reply = await web.ask(method, target, body)
    expected = {"error": "illegal_docid", "reason": "Doc id must be of form partition:id"}
    assert (reply.status, reply.json()) == (400, expected)


@pytest.mark.parametrize(("doc_id", "error", "reason"), IDS)
async def test_bulk_get_tells_which_ids_there_can_be(web: Site, doc_id: str, error: str, reason: str) -> None:
    await make(web, count=1)
    reply = await web.ask("POST", "/db/_bulk_get", {"docs": [{"id": doc_id}, {"id": "foo:0"}]})
    bad, good = reply.json()["results"]
    assert bad["docs"][0]["error"] | {"rev": None} == {
        "id": doc_id,
        "rev": None,
        "error": error,
        "reason": reason,
    }
    assert good["docs"][0]["ok"]["t"] == "foo"


async def test_design_and_local_documents_are_in_no_partition(web: Site) -> None:
    await make(web, count=1)
    await design(web, "x:y", language="none")
    assert (await web.ask("PUT", "/db/_local/x", {})).status == 201
    assert (await web.ask("GET", "/db/_design/x:y")).status == 200
    assert await holds(web, "x") == (0, 0)


# --- listings


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("descending=true", [5, 4, 3, 2, 1, 0]),
        ("limit=2", [0, 1]),
        ("limit=2&skip=1&descending=true", [4, 3]),
        ('startkey="KEY:2"', [2, 3, 4, 5]),
        ('endkey="KEY:2"&inclusive_end=false', [0, 1]),
        ('startkey="KEY:4"&endkey="KEY:1"&descending=true', [4, 3, 2, 1]),
        ('startkey="A"&endkey="\uffff"', [0, 1, 2, 3, 4, 5]),
        ('startkey="\uffff"', []),
        ('key="KEY:3"', [3]),
        ("skip=10", []),
    ],
)
async def test_a_listing_of_a_partition_is_that_part_of_the_whole(
    web: Site, query: str, expected: list[int]
) -> None:
    await make(web)
    for name in NAMES:
        here = quote(query.replace("KEY", name).replace("\0", "\\u0000"), safe="=&")
        found = ids(await web.ask("GET", in_partition(name, "/_all_docs?" + here)))
        assert found == [f"{name}:{number}" for number in expected]


# --- views


async def test_a_view_shows_the_rows_of_one_partition(web: Site) -> None:
    docs = await make(web)
    await design(web, "d", views={"v": {"map": BY_VALUE, "reduce": "_sum"}})
    for name in NAMES:
        address = in_partition(name, "/_design/d/_view/v")
        reply = (await web.ask("GET", address + "?reduce=false")).json()
        assert [row["id"] for row in reply["rows"]] == [doc["_id"] for doc in docs[name]]
        assert reply["total_rows"] == 6 * len(NAMES)
        assert ids(await web.ask("GET", address + "?reduce=false&key=3")) == [f"{name}:3"]
        assert ids(await web.ask("GET", address + "?reduce=false&keys=[4,1,9]")) == [f"{name}:4", f"{name}:1"]
        reversed_part = "?reduce=false&descending=true&startkey=4&endkey=1&skip=1"
        assert ids(await web.ask("GET", address + reversed_part)) == [f"{name}:{at}" for at in (3, 2, 1)]
        docs_shown = (await web.ask("GET", address + "?reduce=false&limit=1&include_docs=true")).json()
        assert docs_shown["rows"][0]["doc"]["t"] == name
        assert (await web.ask("GET", address)).json() == {"rows": [{"key": None, "value": 10}]}
        assert (await web.ask("GET", address + "?startkey=2&endkey=3")).json()["rows"][0]["value"] == 5
        keys = (await web.ask("GET", address + "?group=true&keys=[3,1]")).json()["rows"]
        assert keys == [{"key": 3, "value": 1}, {"key": 1, "value": 2}]
    nothing = (await web.ask("GET", in_partition("none", "/_design/d/_view/v?reduce=false"))).json()
    assert nothing["rows"] == []


@pytest.mark.parametrize("direction", ["", "&descending=true"])
async def test_groups_are_made_within_a_partition(web: Site, direction: str) -> None:
    await make(web, count=40, names=["a", "a\0b", "b"])
    await design(web, "d", views={"v": {"map": BY_PAIR, "reduce": "_count"}})
    for name in ("a", "a\0b", "b"):
        address = in_partition(name, "/_design/d/_view/v?group_level=1" + direction)
        rows = (await web.ask("GET", address)).json()["rows"]
        expected = [{"key": [w], "value": 8} for w in range(5)]
        assert rows == (expected[::-1] if direction else expected)


async def test_rows_follow_their_documents(web: Site) -> None:
    await make(web, count=3, names=["p", "q"])
    await design(web, "d", views={"v": {"map": BY_VALUE, "reduce": "_count"}})
    address = in_partition("p", "/_design/d/_view/v")
    assert (await web.ask("GET", address)).json()["rows"][0]["value"] == 3
    rev = (await web.ask("GET", "/db/p:1")).json()["_rev"]
    await web.ask("PUT", f"/db/p:1?rev={rev}", {"v": 99})
    await web.ask("PUT", "/db/p:7", {"v": -1})
    rev = (await web.ask("GET", "/db/p:0")).json()["_rev"]
    await web.ask("DELETE", f"/db/p:0?rev={rev}")
    assert ids(await web.ask("GET", address + "?reduce=false")) == ["p:7", "p:2", "p:1"]
    assert ids(await web.ask("GET", in_partition("q", "/_design/d/_view/v?reduce=false"))) == [
        "q:0",
        "q:1",
        "q:2",
    ]


async def test_several_queries_of_a_partition(web: Site) -> None:
    await make(web, names=["p", "q"])
    await design(web, "d", views={"v": {"map": BY_VALUE}})
    queries = {"queries": [{"limit": 1}, {"key": 2}, {"partition": "q", "key": 2}]}
    reply = (await web.ask("POST", in_partition("p", "/_design/d/_view/v/queries"), queries)).json()
    assert [[row["id"] for row in result["rows"]] for result in reply["results"]] == [
        ["p:0"],
        ["p:2"],
        ["q:2"],
    ]
    reply = (
        await web.ask("POST", in_partition("p", "/_all_docs/queries"), {"queries": [{"limit": 1}]})
    ).json()
    assert [row["id"] for row in reply["results"][0]["rows"]] == ["p:0"]


async def test_a_global_view_shows_all(web: Site) -> None:
    await make(web, names=["p", "q"])
    await design(web, "g", options={"partitioned": False}, views={"v": {"map": BY_VALUE}})
    assert len(ids(await web.ask("GET", "/db/_design/g/_view/v"))) == 12


REFUSED: list[tuple[str, str, str]] = [
    (
        "/db/_design/d/_view/v",
        "query_parse_error",
        "`partition` parameter is mandatory for queries to this view.",
    ),
    (
        "/db/_partition/p/_design/g/_view/v",
        "query_parse_error",
        "`partition` parameter is not supported in this design doc",
    ),
    (
        "/db/_partition/p/_design/d/_view/v?partition=q",
        "bad_request",
        "Conflicting value for `partition` in query string",
    ),
    ("/db/_partition/_p/_all_docs", "illegal_partition", "Partition must not start with an underscore"),
    ("/db/_partition/_p", "illegal_partition", "Partition must not start with an underscore"),
    ("/db/_partition/p:q/_all_docs", "illegal_partition", "Partition must not contain a colon"),
    ("/db/_partition/%ff/_all_docs", "illegal_partition", "Partition must be valid UTF-8"),
    ("/db/_partition//_all_docs", "illegal_partition", "Partition must not start with an underscore"),
    ("/db/_partition", "bad_request", "invalid_partition_req"),
    ("/whole/_partition/p", "bad_request", "database is not partitioned"),
    ("/whole/_partition/p/_all_docs", "bad_request", "database is not partitioned"),
    (
        "/whole/_all_docs?partition=p",
        "query_parse_error",
        "`partition` parameter is not supported on this db",
    ),
]


@pytest.mark.parametrize(("target", "error", "reason"), REFUSED)
async def test_what_is_refused(web: Site, target: str, error: str, reason: str) -> None:
    await make(web, count=1, names=["p"])
    await web.ask("PUT", "/whole")
    await design(web, "d", views={"v": {"map": BY_VALUE}})
    await design(web, "g", options={"partitioned": False}, views={"v": {"map": BY_VALUE}})
    reply = await web.ask("GET", target)
    assert (reply.status, reply.json()) == (400, {"error": error, "reason": reason})


@pytest.mark.parametrize(
    "rest", ["/_changes", "/p:0", "/_design/d", "/_bulk_docs", "/_local_docs", "/_design", "/x"]
)
async def test_what_a_partition_has_not(web: Site, rest: str) -> None:
    await make(web, count=1, names=["p"])
    reply = await web.ask("GET", in_partition("p", rest))
    assert (reply.status, reply.json()) == (404, {"error": "not_found", "reason": "missing"})


async def test_system_databases_can_not_be_partitioned(web: Site) -> None:
    reply = await web.ask("PUT", "/_replicator?partitioned=true")
    assert (reply.status, reply.json()["reason"]) == (400, "Cannot partition a system database")
    web.server.config.set("feature_flags", "partitioned||*", "false")
    reply = await web.ask("PUT", "/db?partitioned=true")
    assert (reply.status, reply.json()["reason"]) == (400, "Partitioned feature is not enabled.")


async def test_limits_of_partition_queries(web: Site) -> None:
    await make(web, count=5, names=["p"])
    await design(web, "d", views={"v": {"map": BY_VALUE}})
    web.server.config.set("query_server_config", "partition_query_limit", "3")
    for rest in ("/_all_docs", "/_design/d/_view/v"):
        assert len(ids(await web.ask("GET", in_partition("p", rest)))) == 3
        refused = await web.ask("GET", in_partition("p", rest + "?limit=4"))
        assert refused.json()["reason"] == "Limit is too large, must not exceed 3"
    assert len(ids(await web.ask("GET", "/db/_all_docs"))) == 6


# --- Mango


async def find(web: Site, name: str | None, op: str = "_find", /, **query: Any) -> Mapping[str, Any]:
    address = f"/db/{op}" if name is None else in_partition(name, f"/{op}")
    reply = await web.ask("POST", address, query)
    found: Mapping[str, Any] = reply.json()
    return found


@pytest.mark.parametrize("selector", [{"v": {"$gt": 2}}, {"w": 1}, {"_id": {"$gt": "a"}}, {"t": "foo"}, {}])
@pytest.mark.parametrize("is_indexed", [True, False])
async def test_find_looks_into_one_partition(web: Site, selector: Any, is_indexed: bool) -> None:
    docs = await make(web)
    if is_indexed:
        for field in ("v", "w"):
            await web.ask("POST", "/db/_index", {"index": {"fields": [field]}, "ddoc": field})
    whole = (await find(web, None, selector=selector, limit=1000))["docs"]
    for name in NAMES:
        here = {doc["_id"] for doc in docs[name]}
        found = [doc["_id"] for doc in (await find(web, name, selector=selector, limit=1000))["docs"]]
        assert sorted(found) == sorted(doc["_id"] for doc in whole if doc["_id"] in here)
        paged: list[str] = []
        bookmark = None
        while True:
            page = await find(web, name, selector=selector, limit=2, bookmark=bookmark)
            paged += [doc["_id"] for doc in page["docs"]]
            bookmark = page["bookmark"]
            if not page["docs"]:
                break
        assert paged == found


@pytest.mark.parametrize("is_indexed", [True, False])
async def test_a_query_of_a_partition_costs_what_it_holds(web: Site, is_indexed: bool) -> None:
    await make(web, count=200, names=["a", "aa", "b"])
    await web.ask("POST", "/db/_bulk_docs", {"docs": [{"_id": f"a0:{at}", "v": at} for at in range(5)]})
    if is_indexed:
        await web.ask("POST", "/db/_index", {"index": {"fields": ["v"]}, "ddoc": "v"})
    found = await find(web, "a0", selector={"v": {"$gte": 0}}, execution_stats=True, limit=100)
    assert len(found["docs"]) == 5
    assert found["execution_stats"]["total_keys_examined"] == 5


async def test_the_scope_of_an_index_decides_whether_it_serves(web: Site) -> None:
    await make(web)
    for ddoc, partitioned in (("near", True), ("far", False)):
        body = {"index": {"fields": ["v"]}, "ddoc": ddoc, "partitioned": partitioned}
        assert (await web.ask("POST", "/db/_index", body)).json()["result"] == "created"
    inside = await find(web, "foo", "_explain", selector={"v": 1})
    assert inside["index"]["ddoc"] == "_design/near" and inside["mrargs"]["partition"] == "foo"
    assert inside["index"]["partitioned"] is True and inside["partitioned"] is True
    outside = await find(web, None, "_explain", selector={"v": 1})
    assert outside["index"]["ddoc"] == "_design/far" and outside["mrargs"]["partition"] is None
    [reasons] = [
        one["analysis"]["reasons"]
        for one in outside["index_candidates"]
        if one["index"]["ddoc"] == "_design/near"
    ]
    assert reasons == [{"name": "scope_mismatch"}]


async def test_there_may_be_no_index_of_the_right_scope(web: Site) -> None:
    await make(web, count=1)
    query: dict[str, Any] = {"selector": {"v": 1}, "sort": ["v"]}
    assert "No partitioned index exists for this sort" in (await find(web, "foo", **query))["reason"]
    assert "No global index exists for this sort" in (await find(web, None, **query))["reason"]


async def test_an_index_joins_others_of_its_scope(web: Site) -> None:
    await make(web, count=1)
    first = {"index": {"fields": ["v"]}, "ddoc": "d", "name": "one", "partitioned": False}
    await web.ask("POST", "/db/_index", first)
    same = await web.ask("POST", "/db/_index", {**first, "name": "two"})
    assert same.json()["result"] == "created"
    other = await web.ask("POST", "/db/_index", {**first, "name": "three", "partitioned": True})
    assert other.status == 400 and other.json()["error"] == "invalid_partitioned_option"


async def test_find_names_no_other_partition(web: Site) -> None:
    await make(web, count=2)
    assert len((await find(web, "foo", selector={}, partition="foo"))["docs"]) == 2
    assert (await find(web, "foo", selector={}, partition="fo"))["error"] == "bad_partition"
    assert len((await find(web, None, selector={}, partition="fo"))["docs"]) == 2
    await web.ask("PUT", "/whole")
    reply = await web.ask("POST", "/whole/_find", {"selector": {}, "partition": "fo"})
    assert reply.json()["reason"] == "`partition` parameter is not supported on this db"


# --- full partitions


async def test_a_full_partition_takes_no_more(web: Site) -> None:
    await make(web, count=3, names=["p", "q"])
    await design(web, "d", views={"v": {"map": BY_VALUE}})
    web.server.config.set("couchdb", "max_partition_size", "1000")
    large = (await web.ask("PUT", "/db/p:large", {"text": "x" * 1000})).json()["rev"]
    expected = {
        "error": "partition_overflow",
        "reason": "Partition limit exceeded due to update on 'p:more'",
    }
    refused = await web.ask("PUT", "/db/p:more", {"a": 1})
    assert (refused.status, refused.json()) == (403, expected)
    assert (await web.ask("POST", "/db", {"_id": "p:more"})).status == 403
    some = await web.ask("POST", "/db/_bulk_docs", {"docs": [{"_id": "p:more"}, {"_id": "q:more"}]})
    assert some.status == 201
    assert some.json()[0] == {"id": "p:more", **expected} and some.json()[1]["ok"] is True
    data = {"_attachments": {"x": {"data": "eHh4", "content_type": "a/b"}}}
    assert (await web.ask("PUT", "/db/p:more", data)).status == 403
    # what doesn't grow goes through, and so do replicated edits, design documents and other partitions
    conflict = await web.ask("PUT", "/db/p:large", {"text": "y" * 2000, "_rev": "1-abc"})
    assert conflict.status == 409
    assert (await web.ask("PUT", "/db/p:large", {"text": "y" * 2000, "_rev": large})).status == 403
    assert (await web.ask("PUT", "/db/p:large", {"text": "y" * 1000, "_rev": large})).status == 201
    assert (await web.ask("PUT", "/db/p:more?new_edits=false", {"_rev": "1-a"})).status == 201
    await design(web, "e", views={})
    rev = (await web.ask("GET", "/db/p:0")).json()["_rev"]
    assert (await web.ask("DELETE", f"/db/p:0?rev={rev}")).status == 200
    assert len(ids(await web.ask("GET", in_partition("p", "/_design/d/_view/v")))) == 4
    # and when there is room again, everything does
    rev = (await web.ask("GET", "/db/p:large")).json()["_rev"]
    await web.ask("DELETE", f"/db/p:large?rev={rev}")
    assert (await web.ask("PUT", "/db/p:last", {"a": 1})).status == 201
    web.server.config.set("couchdb", "max_partition_size", "1")
    assert (await web.ask("PUT", "/db/p:very-last", {"a": 1})).status == 403
    web.server.config.set("couchdb", "max_partition_size", "0")
    assert (await web.ask("PUT", "/db/p:very-last", {"a": 1})).status == 201


async def test_replication_obeys_the_target(web: Site) -> None:
    await make(web, count=2, names=["p"])
    await design(web, "d", views={})
    host = f"http://adm:pass@127.0.0.1:{web.port}"
    await web.ask("PUT", "/copy?partitioned=true")
    body = {"source": f"{host}/db", "target": f"{host}/copy"}
    assert (await web.ask("POST", "/_replicate", body)).json()["history"][0]["docs_written"] == 3
    await web.ask("PUT", "/whole")
    await web.ask("PUT", "/whole/none", {})
    done = (await web.ask("POST", "/_replicate", {**body, "source": f"{host}/whole"})).json()
    assert done["history"][0]["doc_write_failures"] == 1
    assert ids(await web.ask("GET", "/copy/_all_docs")) == ["_design/d", "p:0", "p:1"]
