"""_bulk_docs, _bulk_get, _revs_diff, _missing_revs over HTTP: what the recorded scenarios leave out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from couchlite import doc_texts
from couchlite.users import PREFIX

from .in_process import Reply, Site

EMPTY_REV = "1-967a00dff5e02add41819138abb3284d"
UNKNOWN_REV = "9-" + "0" * 32
CONFLICT = {"error": "conflict", "reason": "Document update conflict."}
TEXT = b"some text that is compressed when it is kept " * 10


async def send(site: Site, docs: list[Any], query: str = "", **members: Any) -> Reply:
    return await site.ask("POST", f"/db/_bulk_docs{query}", {"docs": docs, **members})


async def get(site: Site, docs: list[Any], query: str = "") -> list[Any]:
    reply = await site.ask("POST", f"/db/_bulk_get{query}", {"docs": docs})
    assert reply.status == 200, reply
    results: list[Any] = reply.json()["results"]
    return results


def error(reply: Reply) -> tuple[int, str, str]:
    return reply.status, reply.json()["error"], reply.json()["reason"]


# --- _bulk_docs


async def test_results_are_in_the_order_of_the_documents(db: Site) -> None:
    rev = (await send(db, [{"_id": "known"}])).json()[0]["rev"]
    docs: list[Any] = [
        {"_id": "z"},
        {"_id": "known"},
        {"_id": "a", "_rev": UNKNOWN_REV},
        {"_id": "known", "_rev": rev, "v": 2},
        {"_id": "_local/l", "_rev": "0-4"},
        {"_id": "z"},
        {"_id": 'q"', "_deleted": True},
        {"_id": "_local/l", "_rev": "1-x"},
    ]
    rows = (await send(db, docs)).json()
    assert [row["id"] for row in rows] == [doc["_id"] for doc in docs]
    assert [row.get("ok", row.get("error")) for row in rows] == [
        True,
        "conflict",
        "conflict",
        True,
        True,
        "conflict",
        True,
        "bad_request",
    ]
    assert rows[0] == {"ok": True, "id": "z", "rev": EMPTY_REV}
    assert rows[1] == {"id": "known", **CONFLICT}
    assert rows[4]["rev"] == "0-5"


async def test_documents_without_an_id_get_one(db: Site) -> None:
    rows = (await send(db, [{"v": 1}, {"v": 1}])).json()
    ids = {row["id"] for row in rows}
    assert len(ids) == 2 and all(len(doc_id) == 32 for doc_id in ids)
    for doc_id in ids:
        assert (await db.ask("GET", f"/db/{doc_id}")).json()["v"] == 1


async def test_replicated_edits_are_answered_only_when_refused(db: Site) -> None:
    docs = [{"_id": "a", "_rev": "1-x"}, {"_id": "_local/l", "_rev": "0-3"}]
    reply = await send(db, docs, new_edits=False)
    assert (reply.status, reply.json()) == (201, [])
    refused = await send(db, [{"_id": "_design/d", "_rev": "1-y", "views": 1}], new_edits=False)
    [row] = refused.json()
    assert (refused.status, row["id"], row["rev"]) == (201, "_design/d", "1-y")
    assert row["error"] == "invalid_design_doc"


@pytest.mark.parametrize(("query", "members"), [("?w=2", {}), ("", {"w": 2}), ("?w=x", {"w": 3})])
async def test_more_copies_than_there_can_be(db: Site, query: str, members: dict[str, Any]) -> None:
    reply = await send(db, [{"_id": "a"}, {"_id": "a"}], query, **members)
    accepted = {"ok": True, "id": "a", "rev": EMPTY_REV, "accepted": True}
    assert (reply.status, reply.json()) == (202, [accepted, {"id": "a", **CONFLICT}])


async def test_all_or_nothing_is_not_to_be_had(db: Site) -> None:
    reply = await send(db, [{"_id": "a"}, {"_id": "b", "_rev": "1-x"}], all_or_nothing=True)
    refusal = {"error": "not_implemented", "reason": "all_or_nothing is not supported"}
    assert reply.status == 417
    assert reply.json() == [{"id": "a", "rev": "0-", **refusal}, {"id": "b", "rev": "1-x", **refusal}]
    assert (await db.ask("GET", "/db/a")).status == 404


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param({}, "POST body must include `docs` parameter.", id="no documents"),
        pytest.param({"docs": {}}, "`docs` parameter must be an array.", id="an object of documents"),
        pytest.param(
            {"docs": [{"_id": "a"}], "new_edits": "false"},
            "`new_edits` parameter must be a boolean.",
            id="a text where a boolean belongs",
        ),
        pytest.param(
            {"docs": [{"_id": "a"}], "new_edits": False},
            "When `new_edits: false`, the document needs `_rev` or `_revisions` specified",
            id="a replicated document without a revision",
        ),
        pytest.param({"docs": [{}, 1]}, "Document must be a JSON object", id="a number among the documents"),
        pytest.param(
            {"docs": [{"_id": "_x"}]}, "Only reserved document ids may start with underscore.", id="id"
        ),
    ],
)
async def test_a_body_that_is_refused_as_a_whole(db: Site, body: Any, expected: str) -> None:
    reply = await db.ask("POST", "/db/_bulk_docs", body)
    assert (reply.status, reply.json()["reason"]) == (400, expected)
    assert (await db.ask("GET", "/db")).json()["doc_count"] == 0


async def test_documents_of_a_partitioned_database_have_partitions(web: Site) -> None:
    web.server.create("db", partitioned=True)
    reply = await send(web, [{"_id": "p:a"}, {"_id": "bad"}])
    assert error(reply) == (400, "illegal_docid", "Doc id must be of form partition:id")


async def test_limits_hold_in_bulk(db: Site) -> None:
    db.server.config.set("couchdb", "max_document_size", "20")
    reply = await send(db, [{"_id": "a"}, {"_id": "b", "text": "x" * 20}])
    assert error(reply) == (413, "document_too_large", "b")
    db.server.config.set("couchdb", "max_attachment_size", "3")
    attachment = {"data": base64.b64encode(b"1234").decode()}
    reply = await send(db, [{"_id": "c", "_attachments": {"a.txt": attachment}}])
    assert error(reply) == (413, "attachment_too_large", "a.txt")
    db.server.config.set("couchdb", "max_document_id_length", "3")
    assert error(await send(db, [{"_id": "abcd"}]))[:2] == (400, "illegal_docid")


async def test_more_documents_than_the_event_loop_should_wait_for(
    db: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("bulk", "submission"):
        monkeypatch.setattr(f"http_api.{module}.IN_LOOP_MAX_EDITS", 5)
    docs = [{"_id": str(number)} for number in range(200)]
    rows = (await send(db, docs)).json()
    assert [row["id"] for row in rows] == [doc["_id"] for doc in docs]
    assert {row["rev"] for row in rows} == {EMPTY_REV}
    grafts = [{"_id": str(number), "_rev": "1-x"} for number in range(200)]
    assert (await send(db, grafts, new_edits=False)).json() == []
    assert (await db.ask("GET", "/db/7?conflicts=true")).json()["_conflicts"] == ["1-x"]
    assert error(await send(db, [*docs, 1]))[0] == 400


async def test_a_missing_stub_refuses_all(db: Site) -> None:
    reply = await send(db, [{"_id": "a"}, {"_id": "b", "_attachments": {"x": {"stub": True}}}])
    assert error(reply) == (412, "missing_stub", "Invalid attachment stub in b for x")
    assert (await db.ask("GET", "/db/a")).status == 404


# --- _bulk_get


async def load(site: Site) -> None:
    """A document of each kind."""
    attachments = {
        "a.txt": {"content_type": "text/plain", "data": base64.b64encode(TEXT).decode()},
        "b.bin": {"content_type": "application/octet-stream", "data": "AAEC"},
    }
    await send(
        site, [{"_id": "plain", "v": 'q"'}, {"_id": "empty"}, {"_id": "att", "_attachments": attachments}]
    )
    grafts: list[dict[str, Any]] = [
        {"_id": "deleted", "_rev": "1-" + "a" * 32, "_deleted": True, "v": 1},
        {"_id": "odd", "_rev": '1-x"y'},
        {"_id": "deep", "_revisions": {"start": 3, "ids": ["c" * 32, "b" * 32, "a" * 32]}, "v": 3},
        {"_id": "two", "_revisions": {"start": 2, "ids": ["b" * 32, "a" * 32]}, "v": "b"},
        {"_id": "two", "_revisions": {"start": 2, "ids": ["c" * 32, "a" * 32]}, "v": "c"},
    ]
    assert (await send(site, grafts, new_edits=False)).json() == []


KINDS = ["plain", "empty", "att", "deleted", "odd", "deep", "two", "none"]


@pytest.mark.parametrize("query", ["", "?revs=true", "?attachments=true&revs=true&att_encoding_info=true"])
async def test_leaves_are_those_of_a_single_get(db: Site, query: str) -> None:
    await load(db)
    results = await get(db, [{"id": doc_id} for doc_id in KINDS], query)
    assert [result["id"] for result in results] == KINDS
    for result in results[:-1]:
        single = await db.ask(
            "GET",
            f"/db/{result['id']}{query or '?'}&open_revs=all",
            headers={"Accept": "application/json"},
        )
        assert result["docs"] == single.json()
    missing = {"id": "none", "rev": "undefined", "error": "not_found", "reason": "missing"}
    assert results[-1]["docs"] == [{"error": missing}]


async def test_revisions_by_name(db: Site) -> None:
    await load(db)
    asked = [
        {"id": "deep", "rev": "3-" + "c" * 32},
        {"id": "deep", "rev": "3-" + "C" * 32},
        {"id": "two", "rev": "2-" + "b" * 32},
        {"id": "plain", "rev": UNKNOWN_REV},
        {"id": "odd", "rev": '1-x"y'},
    ]
    results = await get(db, asked)
    found = [result["docs"][0].get("ok", {}).get("_rev") for result in results]
    assert found == ["3-" + "c" * 32, "3-" + "c" * 32, "2-" + "b" * 32, None, '1-x"y']
    missing = {"id": "plain", "rev": UNKNOWN_REV, "error": "not_found", "reason": "missing"}
    assert results[3]["docs"] == [{"error": missing}]


async def test_latest_gives_the_leaves_that_a_revision_led_to(db: Site) -> None:
    await load(db)
    asked = [{"id": "two", "rev": "1-" + "a" * 32}, {"id": "deep", "rev": "2-" + "b" * 32}]
    results = await get(db, asked, "?latest=true")
    revs = [[doc["ok"]["_rev"] for doc in result["docs"]] for result in results]
    assert revs == [["2-" + "b" * 32, "2-" + "c" * 32], ["3-" + "c" * 32]]


async def test_attachments_that_the_client_has_are_left_out(db: Site) -> None:
    await load(db)
    rev = (await get(db, [{"id": "att"}]))[0]["docs"][0]["ok"]["_rev"]
    await db.ask("PUT", f"/db/att/new?rev={rev}", b"new", headers={"Content-Type": "text/x"})
    [known, unknown] = await get(
        db, [{"id": "att", "atts_since": [rev]}, {"id": "att", "atts_since": [UNKNOWN_REV]}]
    )
    attachments = known["docs"][0]["ok"]["_attachments"]
    assert attachments["a.txt"]["stub"] is True
    assert base64.b64decode(attachments["new"]["data"]) == b"new"
    assert base64.b64decode(unknown["docs"][0]["ok"]["_attachments"]["a.txt"]["data"]) == TEXT


async def test_wrong_items_are_told_one_by_one(db: Site) -> None:
    await load(db)
    items: list[Any] = [
        5,
        {},
        {"rev": "1-x"},
        {"id": ""},
        {"id": "_x"},
        {"id": "plain", "rev": None},
        {"id": "plain", "rev": "x"},
        {"id": "plain", "atts_since": "x"},
        {"id": "plain", "atts_since": ["1-x", 7]},
        {"id": "plain", "unknown": 1},
    ]
    results = await get(db, items)
    errors = [result["docs"][0].get("error") for result in results]
    assert [(told["id"], told["rev"], told["reason"]) for told in errors[:-1]] == [
        (None, None, "document must be a JSON object"),
        (None, None, "document must be a JSON object"),
        (None, None, "document id missed"),
        ("", None, "Document id must not be empty"),
        ("_x", None, "Only reserved document ids may start with underscore."),
        ("plain", None, "Invalid rev format"),
        ("plain", "x", "Invalid rev format"),
        ("plain", "x", "att_since value must be array of revs."),
        ("plain", 7, "Invalid rev format"),
    ]
    assert errors[-1] is None


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ("?rev=1-x", {"docs": []}, '"rev" query parameter is not acceptable'),
        ("?atts_since=[]", {"docs": []}, '"atts_since" query parameter is not acceptable'),
        ("", {}, "Missing JSON list of 'docs'."),
        ("", {"docs": "x"}, "`docs` parameter must be an array."),
        ("", {"docs": [{"id": 5}]}, "Document id must be a string"),
        ("", [], "Request body must be a JSON object"),
    ],
)
async def test_requests_refused_as_a_whole(db: Site, query: str, body: Any, expected: str) -> None:
    reply = await db.ask("POST", f"/db/_bulk_get{query}", body)
    assert (reply.status, reply.json()["reason"]) == (400, expected)


async def test_an_answer_of_many_pages_keeps_its_order(db: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("http_api.bulk.PAGE_DOCUMENTS", 5)
    monkeypatch.setattr(doc_texts, "PAGE_BYTES", 600)
    await load(db)
    ids = [f"{number:02}" for number in range(12)]
    await send(db, [{"_id": doc_id, "text": "x" * 200} for doc_id in ids])
    asked = [doc_id for pair in zip(ids, [*KINDS, *KINDS], strict=False) for doc_id in pair]
    results = await get(db, [{"id": doc_id} for doc_id in asked])
    assert [result["id"] for result in results] == asked


@pytest.mark.parametrize("kind", ["mixed", "related"])
async def test_multipart(db: Site, kind: str) -> None:
    await load(db)
    asked = [{"id": "plain"}, {"id": "att"}, {"id": "none"}, {"id": "plain", "rev": UNKNOWN_REV}]
    reply = await db.ask("POST", "/db/_bulk_get", {"docs": asked}, headers={"Accept": f"multipart/{kind}"})
    outer, parts = split(reply.headers["content-type"], reply.body)
    assert outer == f"multipart/{kind}"
    assert parts[0][0] == {"Content-Type": "application/json"}
    assert json.loads(parts[0][1])["_id"] == "plain"
    head = parts[1][0]
    assert (head["X-Doc-Id"], head["X-Rev-Id"][:2]) == ("att", "1-")
    inner, attached = split(head["Content-Type"], parts[1][1])
    assert inner == "multipart/related"
    members = json.loads(attached[0][1])["_attachments"]
    assert [members[name]["follows"] for name in ("a.txt", "b.bin")] == [True, True]
    assert attached[2][1] == b"\0\1\2"
    failed = 'application/json; error="true"'
    assert [part[0]["Content-Type"] for part in parts[2:]] == [failed, failed]
    undefined = {"rev": "undefined", "reason": "missing", "id": "none", "error": "not_found"}
    assert json.loads(parts[2][1]) == undefined
    assert json.loads(parts[3][1]) == {"rev": UNKNOWN_REV, "error": "not_found", "reason": "missing"}


async def test_multipart_of_nothing_is_empty(db: Site) -> None:
    reply = await db.ask("POST", "/db/_bulk_get", {"docs": []}, headers={"Accept": "multipart/mixed"})
    assert (reply.status, reply.body) == (200, b"")


def split(content_type: str, body: bytes) -> tuple[str, list[tuple[dict[str, str], bytes]]]:
    """The kind of a multipart body and its parts, each with its headers."""
    kind, _, boundary = content_type.partition("; boundary=")
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.strip('"').encode())
    assert pieces[-1].startswith(b"--")
    parts = []
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        lines = head.decode().strip().split("\r\n")
        parts.append((dict(line.split(": ", 1) for line in lines), content))
    return kind, parts


async def test_users_see_of_others_nothing_in_bulk_either(web: Site) -> None:
    web.server.create("_users")
    web.server.open("_users").set_security({})
    for name in ("ann", "bob"):
        user: dict[str, Any] = {"name": name, "password": "secret", "roles": [], "type": "user"}
        assert (await web.ask("PUT", f"/_users/{PREFIX}{name}", user)).status == 201
    asked = {"docs": [{"id": f"{PREFIX}ann"}, {"id": f"{PREFIX}bob"}]}
    reply = await web.ask("POST", "/_users/_bulk_get", asked, auth=("bob", "secret"))
    [other, own] = reply.json()["results"]
    assert other["docs"][0]["error"]["error"] == "not_found"
    assert own["docs"][0]["ok"]["name"] == "bob"
    reply = await web.ask("POST", "/_users/_bulk_get", asked)
    assert [result["docs"][0]["ok"]["name"] for result in reply.json()["results"]] == ["ann", "bob"]


# --- _revs_diff, _missing_revs


async def test_what_is_missing_and_what_may_be_its_ancestors(db: Site) -> None:
    await load(db)
    wanted = {
        "plain": [UNKNOWN_REV],
        "deep": ["3-" + "c" * 32, "2-" + "b" * 32, "1-" + "0" * 32],
        "two": ["3-" + "0" * 32, "1-" + "a" * 32],
        "none": ["1-B", "1-a"],
        "known": [],
        "empty": [EMPTY_REV],
    }
    diffs = (await db.ask("POST", "/db/_revs_diff", wanted)).json()
    plain = (await db.ask("GET", "/db/plain")).json()["_rev"]
    assert diffs == {
        "plain": {"missing": [UNKNOWN_REV], "possible_ancestors": [plain]},
        "deep": {"missing": ["1-" + "0" * 32]},
        "two": {
            "missing": ["3-" + "0" * 32],
            "possible_ancestors": ["2-" + "c" * 32, "2-" + "b" * 32],
        },
        "none": {"missing": ["1-B", "1-a"]},
    }
    missing = (await db.ask("POST", "/db/_missing_revs", wanted)).json()
    assert missing == {"missing_revs": {doc_id: diff["missing"] for doc_id, diff in diffs.items()}}


async def test_differences_of_more_documents_than_a_page_holds(
    db: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("http_api.bulk.PAGE_DOCUMENTS", 3)
    wanted = {str(number): [UNKNOWN_REV] for number in range(10)}
    diffs = (await db.ask("POST", "/db/_revs_diff", wanted)).json()
    assert diffs == {doc_id: {"missing": revs} for doc_id, revs in wanted.items()}


@pytest.mark.parametrize(
    "body", [{"a": "1-x"}, {"a": None}, {"a": ["x"]}, {"a": [1]}, {"a": ["1-x", {}]}, [], 1]
)
async def test_differences_of_what_are_no_revisions(db: Site, body: Any) -> None:
    for operation in ("_revs_diff", "_missing_revs"):
        reply = await db.ask("POST", f"/db/{operation}", body)
        assert (reply.status, reply.json()["error"]) == (400, "bad_request")


@pytest.mark.parametrize("operation", ["_bulk_docs", "_bulk_get", "_revs_diff", "_missing_revs"])
async def test_method_type_and_rights(db: Site, operation: str) -> None:
    reply = await db.ask("GET", f"/db/{operation}")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    reply = await db.ask("POST", f"/db/{operation}", b"{}", headers={"Content-Type": "text/plain"})
    assert error(reply) == (415, "bad_content_type", "Content-Type must be application/json")
    reply = await db.ask("POST", f"/db/{operation}", {}, auth=None)
    assert error(reply) == (401, "unauthorized", "You are not authorized to access this db.")
