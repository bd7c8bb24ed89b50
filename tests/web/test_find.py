"""Mango over HTTP, beyond what was recorded: it finds what a look at each document finds, page by page."""

from __future__ import annotations

import random
from typing import Any

import pytest

from .in_process import Site


async def fill(web: Site, count: int) -> list[dict[str, Any]]:
    numbers = random.Random(3)
    docs: list[dict[str, Any]] = []
    for at in range(count):
        doc: dict[str, Any] = {"_id": f"d{at:04}", "n": numbers.randrange(20)}
        if at % 3:
            doc["s"] = numbers.choice(["ä", "a", "b", "B", "ab"])
        docs.append(doc)
    await web.ask("PUT", "/db")
    await web.ask("POST", "/db/_bulk_docs", {"docs": docs})
    return docs


async def find(web: Site, **query: Any) -> dict[str, Any]:
    reply = await web.ask("POST", "/db/_find", query)
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json()
    return found


async def index(web: Site, *fields: str, **more: Any) -> None:
    reply = await web.ask(
        "POST", "/db/_index", {"index": {"fields": list(fields), **more}, "ddoc": "_".join(fields)}
    )
    assert reply.status == 200


SELECTORS: list[dict[str, Any]] = [
    {"n": 5},
    {"n": {"$gt": 3, "$lte": 9}},
    {"n": {"$in": [1, 2]}, "s": {"$gt": "a"}},
    {"s": {"$gte": "ab"}},
    {"s": {"$beginsWith": "a"}},
    {"n": {"$lt": 4}, "s": "B"},
    {"$or": [{"n": 1, "s": "a"}, {"n": 2, "s": "b"}]},
    {"n": {"$not": {"$gt": 3}}},
]


C = "8f278bd56214f3e8298171a730d963ab483a9af3"
Y = "88153f9cec344afb02b1344c0f819ae05b612a24"
"""Names that CouchDB 3.5.0 made up."""


@pytest.mark.parametrize("selector", SELECTORS)
async def test_indexes_change_nothing_but_the_order(web: Site, selector: dict[str, Any]) -> None:
    await fill(web, 300)
    scanned = {doc["_id"] for doc in (await find(web, selector=selector, limit=1000))["docs"]}
    await index(web, "n", "s")
    await index(web, "s")
    await index(web, "n")
    found = (await find(web, selector=selector, limit=1000))["docs"]
    assert {doc["_id"] for doc in found} == scanned and len(found) == len(scanned)
    assert scanned


@pytest.mark.parametrize("sort", [[], ["n"], [{"n": "desc"}], [{"_id": "desc"}]])
@pytest.mark.parametrize("fields", [[], ["_id", "n"]])
async def test_bookmarks_lead_through_all_pages_while_documents_come_and_go(
    web: Site, sort: list[Any], fields: list[str]
) -> None:
    docs = await fill(web, 60)
    await index(web, "n")
    selector = {"_id": {"$gt": None}} if sort == [{"_id": "desc"}] else {"n": {"$gte": 0}}
    seen: list[str] = []
    bookmark = None
    while True:
        page = await find(web, selector=selector, sort=sort, limit=7, bookmark=bookmark, fields=fields)
        if not page["docs"]:
            break
        seen += [doc["_id"] for doc in page["docs"]]
        bookmark = page["bookmark"]
        rev = (await web.ask("GET", f"/db/{seen[-1]}")).json()["_rev"]  # the one that the bookmark names
        await web.ask("DELETE", f"/db/{seen[-1]}?rev={rev}")
    assert sorted(seen) == [doc["_id"] for doc in docs]


async def test_a_query_whose_fields_are_all_in_the_index_reads_no_documents(web: Site) -> None:
    await fill(web, 50)
    await index(web, "n")
    query = {"selector": {"n": {"$gt": 5}}, "fields": ["n", "_id"], "execution_stats": True, "limit": 100}
    found = await find(web, **query)
    assert found["execution_stats"]["total_docs_examined"] == 0
    assert found["execution_stats"]["total_keys_examined"] >= len(found["docs"]) > 0
    assert all(doc["n"] > 5 and doc["_id"] for doc in found["docs"])
    explained = (await web.ask("POST", "/db/_explain", query)).json()
    assert explained["covering"] is True and explained["mrargs"]["include_docs"] is False


async def test_a_partial_index_is_used_when_it_is_named(web: Site) -> None:
    await fill(web, 50)
    await index(web, "s", partial_filter_selector={"n": {"$gt": 10}})
    whole = await find(web, selector={"s": {"$gt": ""}}, limit=100)
    part = await find(web, selector={"s": {"$gt": ""}}, limit=100, use_index="s")
    assert "warning" in whole and "warning" not in part
    assert {doc["_id"] for doc in part["docs"]} == {doc["_id"] for doc in whole["docs"] if doc["n"] > 10}


async def test_stale_answers_are_to_be_had(web: Site) -> None:
    await fill(web, 10)
    await index(web, "n")
    await find(web, selector={"n": {"$gte": 0}})
    await web.ask("PUT", "/db/new", {"n": 99})
    assert (await find(web, selector={"n": 99}, update=False))["docs"] == []
    assert len((await find(web, selector={"n": 99}))["docs"]) == 1


async def test_members_may_query_but_not_make_indexes(web: Site) -> None:
    await fill(web, 5)
    security = {"members": {"names": ["ann"], "roles": []}, "admins": {"names": [], "roles": []}}
    await web.ask("PUT", "/db/_security", security)
    ann = {"_id": "org.couchdb.user:ann", "name": "ann", "type": "user", "roles": [], "password": "x"}
    await web.ask("PUT", "/_users", None)
    assert (await web.ask("PUT", "/_users/org.couchdb.user:ann", ann)).status == 201
    as_ann = ("ann", "x")
    reply = await web.ask("POST", "/db/_find", {"selector": {}}, auth=as_ann)
    assert (reply.status, len(reply.json()["docs"])) == (200, 5)
    reply = await web.ask("POST", "/db/_index", {"index": {"fields": ["n"]}}, auth=as_ann)
    assert reply.status in (401, 403)


async def test_a_query_by_view_address_shows_the_rows_of_an_index(web: Site) -> None:
    await fill(web, 10)
    await index(web, "n")
    name = (await web.ask("GET", "/db/_index")).json()["indexes"][1]["name"]
    reply = (await web.ask("GET", f"/db/_design/n/_view/{name}?group_level=1")).json()
    assert sum(row["value"] for row in reply["rows"]) == 10


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("descending", [True, False])
async def test_what_stays_is_shown_once_whatever_is_written_between_pages(
    web: Site, indexed: bool, descending: bool
) -> None:
    """Documents come and go, and move within the index, before the bookmark and behind it."""
    docs = await fill(web, 80)
    if indexed:
        await index(web, "n")
    touched = {doc["_id"] for doc in docs[::3]}
    numbers = random.Random(9)
    order: list[Any] = [{"n" if indexed else "_id": "desc"}] if descending else []
    selector = {"n": {"$gte": 0}} if indexed else {"_id": {"$gt": None}}
    seen: list[str] = []
    bookmark = None
    while True:
        page = await find(web, selector=selector, sort=order, limit=6, bookmark=bookmark)
        if not page["docs"]:
            break
        seen += [doc["_id"] for doc in page["docs"]]
        bookmark = page["bookmark"]
        writes: list[dict[str, Any]] = [
            {"_id": f"{letter}{len(seen)}", "n": numbers.randrange(20)} for letter in ("c", "e")
        ]
        for doc_id in numbers.sample(sorted(touched), 3):
            reply = await web.ask("GET", f"/db/{doc_id}")
            if reply.status == 200:
                gone = {"_deleted": True} if numbers.random() < 0.3 else {}
                writes.append({**reply.json(), "n": numbers.randrange(20), **gone})
        await web.ask("POST", "/db/_bulk_docs", {"docs": writes})
        if len(seen) > 400:
            break
    untouched = [doc["_id"] for doc in docs if doc["_id"] not in touched]
    assert sorted(doc_id for doc_id in seen if doc_id in untouched) == untouched
    if not indexed:
        assert len(seen) == len(set(seen))


async def test_reading_from_several_nodes_is_told_of_as_such(web: Site) -> None:
    await fill(web, 20)
    stats = (await find(web, selector={"n": {"$gte": 0}}, r=2, execution_stats=True))["execution_stats"]
    assert (stats["total_docs_examined"], stats["total_quorum_docs_examined"]) == (0, 20)


@pytest.mark.parametrize(
    ("target", "body", "error", "reason"),
    [
        (
            "_find",
            {"selector": {}, "sort": "a"},
            "invalid_sort_json",
            'Sort must be an array of sort specs, not: <<"a">>',
        ),
        (
            "_find",
            {"selector": {}, "sort": [{"a": "up", "b\u00e9": 1}]},
            "invalid_sort_field",
            'Invalid sort field: {[{<<"a">>,<<"up">>},{<<98,195,169>>,1}]}',
        ),
        (
            "_find",
            {"selector": {"n": 1}, "sort": ["n", "n"]},
            "no_usable_index",
            "No index exists for this sort, try indexing by the sort fields.",
        ),
        (
            "_index/_bulk_delete",
            {"docids": ["a", None]},
            "invalid_bulk_docs",
            "Bulk Delete requires an array of non-null docids. Docids: [<<97>>,null]",
        ),
        ("_index/_bulk_delete", {"docids": [1]}, "invalid_index_name", "Invalid index name: 1"),
    ],
)
async def test_what_is_refused(web: Site, target: str, body: Any, error: str, reason: str) -> None:
    await fill(web, 3)
    await index(web, "n")
    reply = await web.ask("POST", f"/db/{target}", body)
    assert (reply.status, reply.json()) == (400, {"error": error, "reason": reason})


@pytest.mark.parametrize(
    ("wanted", "ddoc", "name"),
    [
        pytest.param({"index": {"fields": ["c"]}}, C, C, id="neither"),
        pytest.param(
            {"index": {"fields": ["x"]}, "name": "n"},
            "d73ecc7bed6c7368ed34588ea51420eb5caddb76",
            "n",
            id="a name",
        ),
        pytest.param(
            {"index": {"fields": ["x"]}, "ddoc": "dd"},
            "dd",
            "2ea8cb1ed011603b93d84bfba34eaa4c7a20f515",
            id="a design document",
        ),
        pytest.param(
            {
                "index": {"fields": ["y"], "partial_filter_selector": {"z": {"$gt": 5.5}}},
                "partitioned": False,
            },
            Y,
            Y,
            id="options",
        ),
    ],
)
async def test_an_index_without_a_name_gets_couchdbs(
    web: Site, wanted: dict[str, Any], ddoc: str, name: str
) -> None:
    await web.ask("PUT", "/db")
    made = (await web.ask("POST", "/db/_index", wanted)).json()
    assert made == {"result": "created", "id": f"_design/{ddoc}", "name": name}
