"""_all_docs, _design_docs, _local_docs: rows, offsets and options, against a listing written naively."""

from __future__ import annotations

import base64
import json
import random
from typing import Any
from urllib.parse import quote

import pytest

from couchlite import doc_texts, listing
from couchlite.users import PREFIX

from .in_process import Reply, Site

EMPTY_REV = "1-967a00dff5e02add41819138abb3284d"
IDS = ["1", "10", "2", "A", "B", "_design/x", "_design/y", "a", "b", "c", 'q"\n\\', "z", "é", "\U0001f600"]
LONG_ID = "long" * 150
TEXT = b"some text that is compressed when it is kept " * 10


async def load(site: Site, *ids: str, **fields: Any) -> None:
    docs = [{"_id": doc_id, **fields} for doc_id in ids]
    assert (await site.ask("POST", "/db/_bulk_docs", {"docs": docs})).status == 201


async def listed(site: Site, target: str, body: Any = None) -> Any:
    reply = await site.ask("GET" if body is None else "POST", f"/db/{target}", body)
    assert reply.status == 200, reply
    return reply.json()


async def ids_of(site: Site, target: str, body: Any = None) -> list[str]:
    return [row["key"] for row in (await listed(site, target, body))["rows"]]


def error(reply: Reply) -> tuple[int, str, str]:
    return reply.status, reply.json()["error"], reply.json()["reason"]


# --- ranges


def naive(ids: list[str], options: dict[str, Any]) -> tuple[int, list[str]]:
    """Offset and ids; `ids` are in byte order."""
    descending = options.get("descending", False)
    rows = ids[::-1] if descending else ids

    def place(key: Any) -> bytes:
        return key.encode() if isinstance(key, str) else b""  # what is no string comes before all ids

    def is_before_start(doc_id: str) -> bool:
        start = place(options["startkey"])
        return doc_id.encode() > start if descending else doc_id.encode() < start

    def is_behind_end(doc_id: str) -> bool:
        end = place(options["endkey"])
        if doc_id.encode() == end:
            return not options.get("inclusive_end", True)
        return doc_id.encode() < end if descending else doc_id.encode() > end

    before = sum(map(is_before_start, rows)) if "startkey" in options else 0
    rest = rows[before:]
    if "endkey" in options:
        rest = [doc_id for doc_id in rest if not is_behind_end(doc_id)]
    skip = options.get("skip", 0)
    rest = rest[skip:]
    return min(len(ids), before + skip), rest[: options.get("limit", len(rest))]


def some_options(chance: random.Random) -> dict[str, Any]:
    keys: list[Any] = [*IDS, LONG_ID, LONG_ID[:-1], "", "b!", "zzzz", "_design/", None, 1, {}, ["a"]]
    options: dict[str, Any] = {}
    for name, values in (
        ("startkey", keys),
        ("endkey", keys),
        ("descending", [True, False]),
        ("inclusive_end", [True, False]),
        ("skip", [0, 1, 3, 100]),
        ("limit", [0, 1, 4, 100]),
    ):
        if chance.random() < 0.4:
            options[name] = chance.choice(values)
    return options


@pytest.mark.parametrize("page_rows", [1000, 3], ids=["in one page", "in many pages"])
async def test_ranges_are_what_a_naive_listing_gives(
    db: Site, monkeypatch: pytest.MonkeyPatch, page_rows: int
) -> None:
    monkeypatch.setattr(listing, "PAGE_ROWS", page_rows)
    ids = sorted([*IDS, LONG_ID, LONG_ID + "er"], key=str.encode)
    await load(db, *ids, "gone", "gone too")
    for doc_id in ("gone", "gone too"):
        assert (await db.ask("DELETE", f"/db/{quote(doc_id)}?rev={EMPTY_REV}")).status == 200
    chance = random.Random(7)
    for _ in range(150):
        options = some_options(chance)
        query = "&".join(f"{name}={quote(json.dumps(value))}" for name, value in options.items())
        offset, expected = naive(ids, options)
        for found in (await listed(db, f"_all_docs?{query}"), await listed(db, "_all_docs", options)):
            assert (found["total_rows"], found["offset"]) == (len(ids), offset), options
            assert [row["id"] for row in found["rows"]] == expected, options
            assert all(row == row | {"key": row["id"], "value": {"rev": EMPTY_REV}} for row in found["rows"])


async def test_design_documents_have_ranks_among_all_but_a_total_of_their_own(db: Site) -> None:
    await load(db, *IDS)
    whole = await listed(db, "_design_docs")
    assert [row["id"] for row in whole["rows"]] == ["_design/x", "_design/y"]
    assert (whole["total_rows"], whole["offset"]) == (2, 2)
    assert await ids_of(db, "_design_docs?descending=true&limit=1") == ["_design/y"]
    assert await ids_of(db, '_design_docs?startkey="b"') == []
    assert await ids_of(db, '_design_docs?startkey="A"&skip=1') == ["_design/y"]
    assert await ids_of(db, '_design_docs?keys=["a","_design/y","_design/none"]') == [
        "_design/y",
        "_design/none",
    ]


async def test_local_documents_are_not_counted(db: Site) -> None:
    ids = [f"_local/{number}" for number in range(5)]
    await load(db, *ids, v=1)
    whole = await listed(db, "_local_docs?update_seq=true")
    assert (whole["total_rows"], whole["offset"], whole["update_seq"]) == (None, None, None)
    assert whole["rows"][0] == {"id": ids[0], "key": ids[0], "value": {"rev": "0-1"}}
    assert await ids_of(db, "_local_docs?descending=true&skip=1&limit=2") == [ids[3], ids[2]]
    assert (
        await ids_of(db, '_local_docs?startkey="_local/1"&endkey="_local/3"&inclusive_end=false') == ids[1:3]
    )
    assert await ids_of(db, '_local_docs?keys=["_local/4","a","_local/none"]') == [ids[4], "_local/none"]
    [row] = (await listed(db, "_local_docs?limit=1&include_docs=true"))["rows"]
    assert row["doc"] == {"_id": ids[0], "_rev": "0-1", "v": 1}
    assert await ids_of(db, "_all_docs") == []


async def test_local_documents_come_in_pages(db: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("http_api.listings.PAGE_ROWS", 2)
    ids = [f"_local/{number}" for number in range(7)]
    await load(db, *ids)
    assert await ids_of(db, "_local_docs") == ids
    assert await ids_of(db, "_local_docs?descending=true&skip=3") == ids[3::-1]


async def test_a_document_id_is_a_bound_too_where_there_is_no_key(db: Site) -> None:
    await load(db, "a", "b", "c")
    assert await ids_of(db, "_all_docs?startkey_docid=b") == ["b", "c"]
    assert await ids_of(db, "_all_docs?end_key_doc_id=b&inclusive_end=false") == ["a"]
    assert await ids_of(db, '_all_docs?startkey="a"&startkey_docid=b') == ["a", "b", "c"]


async def test_the_bytes_are_couchdbs(db: Site) -> None:
    empty = await db.ask("GET", "/db/_all_docs")
    assert empty.body == b'{"total_rows":0,"offset":0,"rows":[\r\n\r\n]}\n'
    await load(db, "a", 'q"\x1f')
    rev = EMPTY_REV.encode()
    rows = b'{"id":"a","key":"a","value":{"rev":"%b"}},\r\n{"id":"q\\"\\u001F","key":"q\\"\\u001F","value":'
    whole = await db.ask("GET", "/db/_all_docs")
    assert whole.body == (
        b'{"total_rows":2,"offset":0,"rows":[\r\n' + rows % rev + b'{"rev":"%b"}}\r\n]}\n' % rev
    )
    queries = await db.ask("POST", "/db/_all_docs/queries", {"queries": [{"limit": 0}, {"limit": 0}]})
    one = b'{"total_rows":2,"offset":0,"rows":[\r\n\r\n]}'
    assert queries.body == b'{"results":[\r\n%b,\r\n%b\r\n]}\n' % (one, one)


async def test_an_odd_revision_is_spelt_as_json(db: Site) -> None:
    await db.ask(
        "POST", "/db/_bulk_docs", {"new_edits": False, "docs": [{"_id": "a", "_rev": '1-x"y\\', "v": 1}]}
    )
    [row] = (await listed(db, "_all_docs?include_docs=true"))["rows"]
    assert row["value"] == {"rev": '1-x"y\\'}
    assert row["doc"] == {"_id": "a", "_rev": '1-x"y\\', "v": 1}


async def test_the_update_sequence_is_that_of_the_database(db: Site) -> None:
    await load(db, "a")
    found = await listed(db, "_all_docs?update_seq=true")
    assert found["update_seq"] == (await listed(db, ""))["update_seq"]


async def test_head_has_no_rows(db: Site) -> None:
    await load(db, "a")
    reply = await db.ask("HEAD", "/db/_all_docs")
    assert (reply.status, reply.body) == (200, b"")


# --- documents


async def test_documents_are_shown_as_a_get_shows_them(db: Site) -> None:
    attachment = {"content_type": "text/plain", "data": base64.b64encode(TEXT).decode()}
    await load(db, "attached", _attachments={"t.txt": attachment}, v=1)
    await load(db, "empty", "_design/d")
    await load(db, "plain", "é", v="text")
    history = {"start": 2, "ids": ["b" * 32, "a" * 32]}
    docs: list[dict[str, Any]] = [
        {"_id": "conflicted", "_rev": "1-" + "c" * 32, "v": 2},
        {"_id": "conflicted", "_revisions": history, "v": 3},
        {"_id": "deleted", "_rev": "1-" + "c" * 32, "_deleted": True},
    ]
    await db.ask("POST", "/db/_bulk_docs", {"docs": docs, "new_edits": False})
    for options in ("", "&conflicts=true", "&att_encoding_info=true", "&attachments=true"):
        rows = (await listed(db, f"_all_docs?include_docs=true{options}"))["rows"]
        assert [row["id"] for row in rows] == ["_design/d", "attached", "conflicted", "empty", "plain", "é"]
        by_keys = await listed(
            db, f"_all_docs?include_docs=true{options}", {"keys": [row["id"] for row in rows]}
        )
        assert by_keys["rows"] == rows
        for row in rows:
            single = await db.ask(
                "GET", f"/db/{quote(row['id'])}?x=y{options}", headers={"Accept": "application/json"}
            )
            assert row["doc"] == single.json()
    conflicted = (await listed(db, '_all_docs?include_docs=true&conflicts=true&key="conflicted"'))["rows"][0]
    assert conflicted["doc"]["_conflicts"] == ["1-" + "c" * 32]


async def test_what_is_large_comes_in_pages_too(db: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doc_texts, "PAGE_BYTES", 1000)
    monkeypatch.setattr(doc_texts, "READ_AHEAD_DOCUMENTS", 2)
    monkeypatch.setattr("couchlite.changes_docs.PAGE_BYTES", 1000)
    ids = [f"{number:02}" for number in range(20)]
    await load(db, *ids, text="x" * 300)
    for options in ("", "&attachments=true", "&descending=true"):
        rows = (await listed(db, f"_all_docs?include_docs=true{options}"))["rows"]
        assert sorted(row["doc"]["_id"] for row in rows) == ids
    rows = (await listed(db, "_all_docs?include_docs=true", {"keys": [*ids, "none", *ids]}))["rows"]
    assert [row.get("doc", {}).get("_id") for row in rows] == [*ids, None, *ids]


async def test_millions_of_deleted_documents_would_not_be_read_at_once(
    db: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_ROWS", 5)
    docs = [{"_id": f"{number:03}", "_deleted": True} for number in range(100)]
    await db.ask("POST", "/db/_bulk_docs", {"docs": [*docs, {"_id": "last"}]})
    with web_snapshot(db) as snapshot:
        page = snapshot.docs()
        assert (page.ids, page.resume) == ([], b"004\0")
    assert await ids_of(db, "_all_docs") == ["last"]
    assert await ids_of(db, "_all_docs?descending=true&limit=1") == ["last"]


def web_snapshot(site: Site) -> Any:
    return site.server.open("db").snapshot()


# --- keys


async def test_keys_are_answered_one_by_one(db: Site) -> None:
    await load(db, "a", "b", "_local/l", LONG_ID)
    deleted = (await db.ask("DELETE", f"/db/b?rev={EMPTY_REV}")).json()["rev"]
    no_ids: list[Any] = [1, None, {"x": []}, ""]
    keys = ["b", "a", "none", "a", *no_ids, "_local/l", "_local/none", LONG_ID]
    found = await listed(db, "_all_docs?include_docs=true", {"keys": keys})
    live = {"value": {"rev": EMPTY_REV}}
    assert (found["total_rows"], found["offset"]) == (2, None)
    assert found["rows"] == [
        {"id": "b", "key": "b", "value": {"rev": deleted, "deleted": True}, "doc": None},
        {"id": "a", "key": "a", **live, "doc": {"_id": "a", "_rev": EMPTY_REV}},
        {"key": "none", "error": "not_found"},
        {"id": "a", "key": "a", **live, "doc": {"_id": "a", "_rev": EMPTY_REV}},
        *({"key": key, "error": "not_found"} for key in no_ids),
        {
            "id": "_local/l",
            "key": "_local/l",
            "value": {"rev": "0-1"},
            "doc": {"_id": "_local/l", "_rev": "0-1"},
        },
        {"key": "_local/none", "error": "not_found"},
        {"id": LONG_ID, "key": LONG_ID, **live, "doc": {"_id": LONG_ID, "_rev": EMPTY_REV}},
    ]


async def test_keys_are_turned_round_then_skipped_and_cut(db: Site) -> None:
    keys = [str(number) for number in range(10)]
    assert await ids_of(db, "_all_docs", {"keys": keys, "skip": 2, "limit": 3}) == ["2", "3", "4"]
    assert await ids_of(db, "_all_docs?descending=true&skip=2&limit=3", {"keys": keys}) == ["7", "6", "5"]
    assert await ids_of(db, f"_all_docs?keys={quote(json.dumps(keys))}") == keys


async def test_more_keys_than_a_page_holds(db: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("http_api.listings.PAGE_ROWS", 3)
    keys = [str(number) for number in range(10)]
    await load(db, *keys[:5])
    assert await ids_of(db, "_all_docs", {"keys": keys}) == keys


# --- queries


async def test_queries_are_answered_in_their_order(db: Site) -> None:
    await load(db, "a", "b", "c")
    body = {"queries": [{"keys": ["c", "none"]}, {"skip": 1}, {"key": "b", "limit": 5}]}
    found = (await listed(db, "_all_docs/queries?limit=1", body))["results"]
    assert [[row["key"] for row in result["rows"]] for result in found] == [["c"], ["b"], ["b"]]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "POST body must include `queries` parameter."),
        ({"queries": {}}, "`queries` member must be an array."),
        ({"queries": [1]}, "`queries` member must be an array of objects."),
        ({"queries": [{}, {"limit": -1}]}, "Invalid value for positive integer: -1"),
    ],
)
async def test_queries_that_are_none(db: Site, body: Any, expected: str) -> None:
    reply = await db.ask("POST", "/db/_all_docs/queries", body)
    assert (reply.status, reply.json()["reason"]) == (400, expected)


# --- options that are wrong

PARSE = "query_parse_error"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("limit=-1", (PARSE, 'Invalid value for positive integer: "-1"'), id="a negative limit"),
        pytest.param("limit=x", (PARSE, 'Invalid value for integer: "x"'), id="a limit that is no number"),
        pytest.param("skip=", (PARSE, "Invalid value for integer: []"), id="a skip without a value"),
        pytest.param('skip="', (PARSE, 'Invalid value for integer: "\\""'), id="a skip that is a quote"),
        pytest.param(
            f"limit={10**20}",
            (PARSE, f"Limit is too large, must not exceed {2**59 - 1}"),
            id="a limit beyond all rows",
        ),
        pytest.param(
            f"limit=1{'0' * 5000}",
            (PARSE, f"Limit is too large, must not exceed {2**59 - 1}"),
            id="a limit of thousands of digits",
        ),
        pytest.param("descending=x", (PARSE, 'Invalid boolean parameter: "x"'), id="a boolean that is none"),
        pytest.param("reduce=true", (PARSE, "Reduce is invalid for map-only views."), id="reduce"),
        pytest.param("group=true", (PARSE, "Invalid use of grouping on a map view."), id="group"),
        pytest.param(
            "group=false&group_level=2",
            (PARSE, "Can't specify group=false and group_level>0 at the same time"),
            id="group and its level",
        ),
        pytest.param("stale=x", (PARSE, "Invalid value for `stale`."), id="stale"),
        pytest.param("update=x", (PARSE, "Invalid value for `update`."), id="update"),
        pytest.param("stable=x", (PARSE, "Invalid value for `stable`."), id="stable"),
        pytest.param("startkey=x", ("bad_request", "invalid UTF-8 JSON"), id="a key that is no JSON"),
        pytest.param(
            "keys=1", ("bad_request", "`keys` parameter must be an array."), id="keys that are none"
        ),
        pytest.param(
            'keys=["a","b"]&key="a"',
            (PARSE, "`keys` is incompatible with `key`, `start_key` and `end_key`"),
            id="keys and a key",
        ),
        pytest.param(
            "partition=p",
            (PARSE, "`partition` parameter is not supported on this db"),
            id="a partition where there are none",
        ),
        pytest.param(
            "partition=_p",
            ("illegal_partition", "Partition must not start with an underscore"),
            id="a partition that can't be",
        ),
    ],
)
async def test_a_query_that_is_refused(db: Site, query: str, expected: tuple[str, str]) -> None:
    for operation in ("_all_docs", "_design_docs", "_local_docs"):
        reply = await db.ask("GET", f"/db/{operation}?{query.replace(chr(34), '%22')}")
        assert error(reply) == (400, *expected)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"limit": "1"}, 'Invalid value for integer: <<"1">>'),
        ({"limit": 1.5}, "Invalid value for integer: 1.5"),
        ({"skip": None}, "Invalid value for integer: null"),
        ({"descending": 1}, "Invalid boolean parameter: 1"),
        ({"keys": ["a"], "key": "b"}, "`keys` is incompatible with `key`, `start_key` and `end_key`"),
    ],
)
async def test_a_body_that_is_refused(db: Site, body: Any, expected: str) -> None:
    assert error(await db.ask("POST", "/db/_all_docs", body)) == (400, PARSE, expected)


async def test_what_means_nothing_here_is_ignored(db: Site) -> None:
    await load(db, "a")
    for query in ("unknown=1", "reduce=false", "stale=ok", "update=lazy", "stable=true", "sorted=false"):
        assert await ids_of(db, f"_all_docs?{query}") == ["a"]
    for body in ({"unknown": [1]}, {"descending": "TRUE"}, {"group_level": 0}, {"update": True}):
        assert await ids_of(db, "_all_docs", body) == ["a"]


async def test_the_limit_can_be_configured(db: Site) -> None:
    await load(db, "a", "b", "c")
    db.server.config.set("query_server_config", "query_limit", "2")
    assert await ids_of(db, "_all_docs") == ["a", "b"]
    reply = await db.ask("GET", "/db/_all_docs?limit=3")
    assert error(reply) == (400, PARSE, "Limit is too large, must not exceed 2")


async def test_a_partition_is_a_range(web: Site) -> None:
    web.server.create("db", partitioned=True)
    await load(web, "p:a", "p:b", "q:a", "_design/d")
    assert await ids_of(web, "_all_docs?partition=p") == ["p:a", "p:b"]
    assert await ids_of(web, '_all_docs?partition=p&startkey="p:b"') == ["p:b"]
    assert await ids_of(web, "_all_docs?partition=p&descending=true&limit=1") == ["p:b"]
    assert await ids_of(web, '_all_docs?partition=p&startkey="q:a"') == []


# --- who may


async def test_only_administrators_list_all_users(web: Site) -> None:
    web.server.create("_users")
    web.server.open("_users").set_security({})
    name = {"name": "bob", "password": "secret", "roles": [], "type": "user"}
    assert (await web.ask("PUT", f"/_users/{PREFIX}bob", name)).status == 201
    await web.ask("PUT", "/_users/_design/d", {"x": 1})
    assert (await web.ask("GET", "/_users/_all_docs")).json()["total_rows"] == 2
    for target in ("_all_docs", "_all_docs/queries"):
        method = "GET" if target == "_all_docs" else "POST"
        reply = await web.ask(method, f"/_users/{target}", auth=("bob", "secret"))
        assert error(reply) == (401, "unauthorized", "You are not a server admin.")
    reply = await web.ask("GET", "/_users/_design_docs?include_docs=true", auth=("bob", "secret"))
    assert [row["doc"] for row in reply.json()["rows"]] == [None]


async def test_methods(db: Site) -> None:
    for target, allowed in (("_all_docs", "GET,HEAD,POST"), ("_all_docs/queries", "POST")):
        reply = await db.ask("DELETE", f"/db/{target}")
        assert (reply.status, reply.headers["allow"]) == (405, allowed)
