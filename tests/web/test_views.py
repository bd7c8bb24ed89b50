"""Views over HTTP, beyond what was recorded: documents with rows, long answers, maintenance, failures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .in_process import Reply, Site

MAP = "function (doc) { emit(doc.n, doc.value || null) }"


async def fill(web: Site, docs: list[dict[str, Any]], *, reduce: str | None = None, **views: str) -> None:
    await web.ask("PUT", "/db")
    functions: dict[str, Any] = {"v": {"map": MAP}}
    if reduce is not None:
        functions["v"]["reduce"] = reduce
    functions |= {name: {"map": source} for name, source in views.items()}
    assert (await web.ask("PUT", "/db/_design/d", {"views": functions})).status == 201
    await web.ask("POST", "/db/_bulk_docs", {"docs": docs})


async def query(web: Site, options: str = "", view: str = "v") -> Any:
    reply = await web.ask("GET", f"/db/_design/d/_view/{view}{options}")
    assert reply.status == 200, reply.body
    return reply.json()


async def test_rows_with_their_documents(web: Site) -> None:
    await fill(
        web,
        [
            {"_id": "a", "n": 1},
            {"_id": "b", "n": 2, "value": {"_id": "a"}},
            {"_id": "c", "n": 3, "value": {"_id": "none"}},
            {"_id": "d", "n": 4, "value": {"_id": None}},
            {"_id": "e", "n": 5, "value": "text"},
        ],
    )
    rows = (await query(web, "?include_docs=true"))["rows"]
    assert [row["doc"] and row["doc"]["_id"] for row in rows] == ["a", "a", None, None, "e"]


async def test_a_row_may_name_a_revision(web: Site) -> None:
    await fill(web, [{"_id": "a", "n": 1}])
    old = (await web.ask("GET", "/db/a")).json()["_rev"]
    await web.ask("PUT", "/db/a", {"_rev": old, "n": 2, "value": {"_rev": old}})
    [row] = (await query(web, "?include_docs=true"))["rows"]
    assert (row["key"], row["doc"]["n"], row["doc"]["_rev"]) == (2, 1, old)


async def test_a_row_may_name_what_is_no_document(web: Site) -> None:
    values = [
        {"_id": 5},
        {"_rev": 5},
        {"_rev": "bad"},
        {"_id": ""},
        {"_id": "_local/none"},
        {"_id": "_local/x"},
    ]
    await fill(web, [{"_id": f"d{at}", "n": at, "value": value} for at, value in enumerate(values)])
    await web.ask("PUT", "/db/_local/x", {"here": True})
    rows = (await query(web, "?include_docs=true"))["rows"]
    assert [row["doc"] for row in rows] == [None] * 5 + [{"_id": "_local/x", "_rev": "0-1", "here": True}]


async def test_a_view_may_be_in_raw_order(web: Site) -> None:
    keys: list[Any] = [
        1,
        2,
        False,
        None,
        True,
        {"a": 1},
        ["A"],
        ["a", 1],
        ["a", 2],
        ["b"],
        "A",
        "B",
        "a",
        "á",
    ]
    await fill(web, [{"_id": f"d{at}", "n": key} for at, key in enumerate(reversed(keys))])
    source = {"map": MAP, "reduce": "_count", "options": {"collation": "raw"}}
    await web.ask("PUT", "/db/_design/raw", {"views": {"v": source}})

    async def found(options: str) -> list[Any]:
        reply = await web.ask("GET", f"/db/_design/raw/_view/v{options}")
        return [row["key"] for row in reply.json()["rows"]]

    assert await found("?reduce=false") == keys
    assert await found("?reduce=false&descending=true") == keys[::-1]
    assert await found("?group=true&startkey=%22A%22&endkey=%22a%22") == ["A", "B", "a"]
    assert await found("?group_level=1&startkey=[]&endkey=%22A%22&inclusive_end=false") == [
        ["A"],
        ["a"],
        ["b"],
    ]
    assert await found("?reduce=false&key=[%22a%22,2]") == [["a", 2]]
    reply = await web.ask("GET", "/db/_design/raw/_view/v?startkey=%22a%22&endkey=%22B%22")
    assert (reply.status, reply.json()["error"]) == (400, "query_parse_error")


async def test_attachments_come_with_documents(web: Site) -> None:
    data = {"f": {"content_type": "text/plain", "data": "YWJj"}}
    await fill(web, [{"_id": "a", "n": 1, "_attachments": data}, {"_id": "b", "n": 2}])
    rows = (await query(web, "?include_docs=true"))["rows"]
    assert rows[0]["doc"]["_attachments"]["f"]["stub"] is True
    rows = (await query(web, "?include_docs=true&attachments=true"))["rows"]
    assert rows[0]["doc"]["_attachments"]["f"]["data"] == "YWJj" and "_attachments" not in rows[1]["doc"]


async def test_conflicts_are_shown_if_asked_for(web: Site) -> None:
    await fill(web, [])
    docs = [{"_id": "a", "_rev": f"1-{digit * 32}", "n": 1} for digit in "ab"]
    await web.ask("POST", "/db/_bulk_docs", {"docs": docs, "new_edits": False})
    [row] = (await query(web, "?include_docs=true&conflicts=true"))["rows"]
    assert row["doc"]["_conflicts"] == [f"1-{'a' * 32}"]


@pytest.mark.parametrize("options", ["", "&include_docs=true", "&descending=true", "&skip=5"])
async def test_answers_of_several_pages_are_whole(web: Site, options: str) -> None:
    await fill(web, [{"_id": f"d{at:04}", "n": at, "pad": "x" * 1000} for at in range(2500)])
    rows = (await query(web, f"?update=true{options}"))["rows"]
    expected = list(range(2500))[5 if "skip" in options else 0 :]
    assert [row["key"] for row in rows] == (expected[::-1] if "descending" in options else expected)
    assert "include_docs" not in options or all(row["doc"]["n"] == row["key"] for row in rows)
    keys = [*range(0, 2500, 2), "none", 7]
    found = (await web.ask("POST", "/db/_design/d/_view/v", {"keys": keys})).json()["rows"]
    assert [row["key"] for row in found] == [*range(0, 2500, 2), 7]


async def test_reductions_follow_every_write(web: Site) -> None:
    await fill(web, [], reduce="_count")
    for at in range(5):
        await web.ask("PUT", f"/db/{at}", {"n": at % 2})
        assert (await query(web))["rows"] == [{"key": None, "value": at + 1}]
        groups = (await query(web, "?group=true"))["rows"]
        assert sum(group["value"] for group in groups) == at + 1


async def test_many_groups_are_whole(web: Site) -> None:
    await fill(web, [{"_id": f"{at}", "n": [at, at % 7]} for at in range(700)], reduce="_count")
    rows = (await query(web, "?group_level=1"))["rows"]
    assert [(row["key"], row["value"]) for row in rows] == [([at], 1) for at in range(700)]
    rows = (await query(web, "?group=true&descending=true&skip=10&limit=300"))["rows"]
    assert [row["key"][0] for row in rows] == list(range(689, 389, -1))


async def test_a_javascript_reduction_with_many_groups(web: Site) -> None:
    docs = [{"_id": f"{at}", "n": at % 300, "value": 1} for at in range(900)]
    await fill(web, docs, reduce="function (keys, values, rereduce) { return sum(values) }")
    rows = (await query(web, "?group=true"))["rows"]
    assert [(row["key"], row["value"]) for row in rows] == [(at, 3) for at in range(300)]
    assert (await query(web))["rows"] == [{"key": None, "value": 900}]


async def test_a_head_has_no_rows(web: Site) -> None:
    await fill(web, [{"_id": "a", "n": 1}])
    reply = await web.ask("HEAD", "/db/_design/d/_view/v")
    assert (reply.status, reply.body) == (200, b"")


async def test_many_may_wait_for_the_same_build(web: Site) -> None:
    await fill(web, [{"_id": f"{at}", "n": at} for at in range(1000)])
    path = "/db/_design/d/_view/v?limit=0"
    replies = await asyncio.gather(*[web.ask("GET", path) for _ in range(20)])
    assert {reply.json()["total_rows"] for reply in replies} == {1000}


async def test_a_view_that_never_ends_disturbs_nobody(web: Site) -> None:
    web.server.config.set("couchdb", "os_process_timeout", "1000")
    await fill(web, [{"_id": "a", "n": 1}], loop="function (doc) { for (;;); }")
    looping = asyncio.create_task(web.ask("GET", "/db/_design/d/_view/loop"))
    answered = 0
    while not looping.done():
        assert (await query(web))["total_rows"] == 1
        answered += 1
        await asyncio.sleep(0.05)
    assert answered > 3
    reply = looping.result()
    assert reply.status == 500 and "document a" in reply.json()["reason"]


async def test_views_in_languages_that_are_not_known(web: Site) -> None:
    await web.ask("PUT", "/db")
    await web.ask("PUT", "/db/_design/d", {"language": "basic", "views": {"v": {"map": "10 EMIT"}}})
    await web.ask("PUT", "/db/a", {})
    reply = await web.ask("GET", "/db/_design/d/_view/v")
    assert (reply.status, reply.json()["error"]) == (500, "unknown_query_language")


async def test_the_information_about_a_design_document(web: Site) -> None:
    await fill(web, [{"_id": "a", "n": 1}], other="function (doc) { emit(1) }")
    before = await info(web)
    assert before["updates_pending"]["total"] == 2 and before["update_seq"] == 0
    await query(web)
    await query(web, view="other")
    after = await info(web)
    assert after["updates_pending"]["total"] == 0 and after["update_seq"] == 2
    assert after["signature"] == before["signature"] and after["sizes"]["external"] > 0


async def info(web: Site) -> Any:
    return (await web.ask("GET", "/db/_design/d/_info")).json()["view_index"]


async def test_clean_up_removes_what_no_design_document_wants(web: Site) -> None:
    await fill(web, [{"_id": "a", "n": 1}])
    await query(web)
    directory = web.server.open("db").path / "index"
    [kept] = directory.iterdir()
    rev = (await web.ask("GET", "/db/_design/d")).json()["_rev"]
    changed = {"_rev": rev, "views": {"v": {"map": MAP}, "w": {"map": MAP + "/**/"}}}
    await web.ask("PUT", "/db/_design/d", changed)
    await query(web, view="w")
    assert len(list(directory.iterdir())) == 2
    rev = (await web.ask("GET", "/db/_design/d")).json()["_rev"]
    await web.ask("PUT", "/db/_design/d", {"_rev": rev, "views": {"v": {"map": MAP}}})
    assert accepted(await web.ask("POST", "/db/_view_cleanup", {}))
    assert list(directory.iterdir()) == [kept]
    assert (await query(web))["total_rows"] == 1


async def test_an_index_can_be_compacted_while_it_is_read(web: Site) -> None:
    await fill(web, [{"_id": f"{at}", "n": at, "value": "x" * 500} for at in range(3000)])
    await query(web, "?limit=0")
    assert accepted(await web.ask("POST", "/db/_compact/d", {}))
    for _ in range(20):
        assert (await query(web, "?limit=1"))["total_rows"] == 3000
    assert (await web.ask("POST", "/db/_compact/none", {})).status == 404


def accepted(reply: Reply) -> bool:
    return (reply.status, reply.json()) == (202, {"ok": True})


async def test_a_deleted_database_takes_its_indexes_along(web: Site) -> None:
    await fill(web, [{"_id": f"{at}", "n": at} for at in range(3000)])
    path = web.server.open("db").path
    building = asyncio.create_task(web.ask("GET", "/db/_design/d/_view/v"))
    await asyncio.sleep(0.1)
    assert (await web.ask("DELETE", "/db")).status == 200
    assert (await building).status in (200, 404)
    assert not path.exists()
    await fill(web, [{"_id": "a", "n": 1}])
    assert (await query(web))["total_rows"] == 1
