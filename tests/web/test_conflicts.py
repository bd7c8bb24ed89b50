"""/{db}/_conflicts over HTTP: lists, one document, resolutions, undoing, who may do what."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest

from http_api import conflicts

from .in_process import Reply, Site

A, B, C = ("a" * 32, "b" * 32, "c" * 32)
MEMBER, STRANGER = ("member", "pw"), ("stranger", "pw")


async def ask(
    web: Site, method: str, path: str, body: Any = None, status: int = 200, **options: Any
) -> dict[str, Any]:
    """The answer to a request, which must have this status."""
    reply: Reply = await web.ask(method, path, body, **options)
    assert reply.status == status, reply.body
    answer: dict[str, Any] = reply.json()
    return answer


async def fork(web: Site, doc_id: str, **contents: dict[str, Any]) -> tuple[str, list[str]]:
    """A conflict: its base, and its leaves, the winner first."""
    url = f"/db/{quote(doc_id, safe='')}"
    base = (await ask(web, "PUT", url, {"text": "base"}, 201))["rev"]
    docs = [
        {"_id": doc_id, "_revisions": {"start": 2, "ids": [digit * 32, base[2:]]}, **content}
        for digit, content in contents.items()
    ]
    await ask(web, "POST", "/db/_bulk_docs", {"docs": docs, "new_edits": False}, 201)
    return base, [f"2-{digit * 32}" for digit in sorted(contents, reverse=True)]


@pytest.fixture
async def db(web: Site) -> Site:
    await ask(web, "PUT", "/db", status=201)
    return web


# --- the list


async def test_conflicts_are_listed_by_id_with_the_options_of_listings(db: Site) -> None:
    for doc_id in ("a", "b", "c/d", "e"):
        await fork(db, doc_id, a={}, b={"n": 1})
    await ask(db, "PUT", "/db/peaceful", {}, 201)
    rows = (await ask(db, "GET", "/db/_conflicts"))["rows"]
    assert [row["id"] for row in rows] == ["a", "b", "c/d", "e"]
    assert rows[0] | {"since": ""} == {"id": "a", "rev": f"2-{B}", "leaves": 2, "since": "", "size": 9}
    assert rows[0]["since"].startswith(time.strftime("20", time.gmtime()))
    for query, ids in (
        ("limit=2", ["a", "b"]),
        ("skip=1&limit=2", ["b", "c/d"]),
        ("descending=true&limit=1", ["e"]),
        ('startkey="b"&endkey="c/d"', ["b", "c/d"]),
        ('startkey="b"&endkey="c/d"&inclusive_end=false', ["b"]),
        ('descending=true&startkey="c"&limit=5', ["b", "a"]),
        ("limit=0", []),
    ):
        rows = (await ask(db, "GET", f"/db/_conflicts?{query}"))["rows"]
        assert [row["id"] for row in rows] == ids, query


async def test_statistics_come_with_the_list_when_asked_for(db: Site) -> None:
    await fork(db, "a", a={}, b={})
    await fork(db, "b", a={}, b={}, c={})
    answer = await ask(db, "GET", "/db/_conflicts?statistics=true&limit=1")
    assert len(answer["rows"]) == 1
    statistics = answer["statistics"]
    assert statistics["oldest"] <= statistics["newest"]
    del statistics["oldest"], statistics["newest"]
    assert statistics == {"documents": 2, "leaves": 5, "leaves_max": 3, "bytes": 10}


# --- one document


@pytest.mark.parametrize("address", ["x/y", "x%2Fy", "_design/d", "_design%2Fd"])
async def test_one_conflict_shows_leaves_bases_and_tree(db: Site, address: str) -> None:
    doc_id = address.replace("%2F", "/")
    base, leaves = await fork(db, doc_id, a={"text": "A"}, b={"text": "B"})
    await ask(db, "POST", "/db/_compact", {}, 202)
    answer = await ask(db, "GET", f"/db/_conflicts/{address}")
    assert [answer[name] for name in ("id", "rev", "common_ancestor", "base")] == [
        doc_id,
        leaves[0],
        base,
        base,
    ]
    assert answer["leaves"] == [
        {"rev": leaves[0], "size": 12, "doc": {"_id": doc_id, "_rev": leaves[0], "text": "B"}},
        {"rev": leaves[1], "size": 12, "base": base, "doc": {"_id": doc_id, "_rev": leaves[1], "text": "A"}},
    ]
    assert answer["bases"] == {base: {"_id": doc_id, "_rev": base, "text": "base"}}
    assert answer["deleted_leaves"] == []
    branches = {branch["leaf"]: (branch["parent"], len(branch["revs"])) for branch in answer["branches"]}
    assert sorted(branches.values(), key=str) == [(base, 1), (None, 2)]
    assert {rev["status"] for branch in answer["branches"] for rev in branch["revs"]} == {"available"}


async def test_some_leaves_and_no_bodies_can_be_asked_for(db: Site) -> None:
    base, leaves = await fork(db, "x", a={"text": "A"}, b={"text": "B"}, c={"text": "C"})
    answer = await ask(db, "GET", f'/db/_conflicts/x?leaves=["{leaves[2]}","{leaves[1]}"]&include_docs=false')
    assert [leaf["rev"] for leaf in answer["leaves"]] == leaves[1:]
    assert (answer["base"], answer["bases"]) == (base, {})
    assert all("doc" not in leaf for leaf in answer["leaves"])


# --- resolving


async def test_a_document_that_was_merged_by_the_caller_ends_the_conflict(db: Site) -> None:
    base, leaves = await fork(db, "x", a={"text": "A"}, b={"text": "B"})
    done = await ask(
        db, "POST", "/db/_conflicts/x", {"leaves": leaves, "document": {"text": "AB"}, "using": "editor"}, 201
    )
    assert done["ok"] and done["id"] == "x"
    assert (await ask(db, "GET", "/db/x?conflicts=true")) == {"_id": "x", "_rev": done["rev"], "text": "AB"}
    assert (await ask(db, "GET", "/db/_conflicts"))["rows"] == []
    [entry] = (await ask(db, "GET", "/db/_conflicts/x/_resolutions"))["rows"]
    assert entry.pop("time") >= "2020"
    assert entry == {
        "resolution": done["resolution"],
        "id": "x",
        "by": "adm",
        "using": "editor",
        "leaves": leaves,
        "base": base,
        "rev": done["rev"],
        "can_undo": True,
    }


async def test_pick_delete_and_a_choice_of_leaves(db: Site) -> None:
    _, leaves = await fork(db, "x", a={"text": "A"}, b={"text": "B"}, c={"text": "C"})
    body: dict[str, Any] = {"leaves": leaves, "only": leaves[1:], "pick": leaves[2]}
    await ask(db, "POST", "/db/_conflicts/x", body, 201)
    answer = await ask(db, "GET", "/db/_conflicts/x")
    assert [leaf["doc"]["text"] for leaf in answer["leaves"]] == ["A", "C"]
    body = {"leaves": [leaf["rev"] for leaf in answer["leaves"]], "delete": True}
    await ask(db, "POST", "/db/_conflicts/x", body, 201)
    assert (await ask(db, "GET", "/db/x", status=404))["reason"] == "deleted"


async def test_an_undone_resolution_is_a_conflict_again(db: Site) -> None:
    _, leaves = await fork(db, "x", a={"text": "A"}, b={"text": "B"})
    done = await ask(db, "POST", "/db/_conflicts/x", {"leaves": leaves, "document": {}}, 201)
    wanted = {"resolution": done["resolution"]}
    assert "of this document" in (await ask(db, "POST", "/db/_conflicts/y/_undo", wanted, 404))["reason"]
    await ask(db, "POST", "/db/_conflicts/x/_undo", wanted, 201)
    answer = await ask(db, "GET", "/db/_conflicts/x")
    assert [leaf["doc"]["text"] for leaf in answer["leaves"]] == ["B", "A"]
    again = await ask(db, "POST", "/db/_conflicts/x/_undo", wanted, 409)
    assert (again["error"], again["reason"]) == ("conflict", "It was undone already.")
    rows = (await ask(db, "GET", "/db/_conflicts/_resolutions"))["rows"]
    assert [(row.get("undoes"), row.get("undone_by"), row.get("can_undo")) for row in rows] == [
        (1, None, None),
        (None, 2, False),
    ]
    assert len((await ask(db, "GET", "/db/_conflicts/_resolutions?before=2"))["rows"]) == 1


async def test_a_clean_merge_is_shown_first_and_then_made(db: Site) -> None:
    base, leaves = await fork(db, "x", a={"text": "base", "n": 1}, b={"text": "B"})
    proposal = await ask(db, "POST", "/db/_conflicts/x/_merge", {})
    assert proposal == {
        "id": "x",
        "leaves": leaves,
        "merged": leaves,
        "base": base,
        "document": {"text": "B", "n": 1},
        "clashes": [],
    }
    done = await ask(db, "POST", "/db/_conflicts/x", {"leaves": proposal["leaves"], "rules": {}}, 201)
    assert (await ask(db, "GET", "/db/x")) == {"_id": "x", "_rev": done["rev"], "text": "B", "n": 1}
    [entry] = (await ask(db, "GET", "/db/_conflicts/x/_resolutions"))["rows"]
    assert entry["using"] == "three-way"


async def test_clashes_are_told_and_nothing_is_written(db: Site) -> None:
    _, leaves = await fork(db, "x", a={"text": "A", "n": 1}, b={"n": 2})
    clash = {
        "pointer": "/text",
        "kind": "delete",
        "base": {"value": "base"},
        "values": [{"rev": leaves[0], "missing": True}, {"rev": leaves[1], "value": "A"}],
    }
    rules = {"/n": "max"}
    proposal = await ask(db, "POST", "/db/_conflicts/x/_merge", {"rules": rules})
    assert proposal["clashes"] == [clash]
    answer = await ask(db, "POST", "/db/_conflicts/x", {"leaves": leaves, "rules": rules}, 409)
    assert answer == {"error": "conflict", "reason": "The leaves clash: /text.", "clashes": [clash]}
    assert len((await ask(db, "GET", "/db/_conflicts/x"))["leaves"]) == 2


async def test_attachments_are_merged_by_their_stubs(db: Site) -> None:
    def data(text: str) -> dict[str, str]:
        return {"content_type": "text/plain", "data": b64encode(text.encode()).decode()}

    _, leaves = await fork(
        db,
        "x",
        a={"text": "base", "_attachments": {"one": data("1")}},
        b={"text": "base", "_attachments": {"two": data("2")}},
    )
    await ask(db, "POST", "/db/_conflicts/x", {"leaves": leaves, "rules": {}}, 201)
    for name, text in (("one", b"1"), ("two", b"2")):
        assert (await db.ask("GET", f"/db/x/{name}")).body == text


async def test_leaves_that_were_not_seen_are_named(db: Site) -> None:
    _, leaves = await fork(db, "x", a={"text": "A"}, b={"text": "B"}, c={"text": "C"})
    answer = await ask(db, "POST", "/db/_conflicts/x", {"leaves": leaves[1:], "document": {}}, 409)
    assert answer == {
        "error": "conflict",
        "reason": f"The document's leaves have changed (new: {leaves[0]}).",
        "leaves": leaves,
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("GET", "/db/_conflicts?limit=x", None, 400, "query_parse_error"),
        ("GET", "/db/_conflicts?statistics=x", None, 400, "query_parse_error"),
        ("GET", "/db/_conflicts?include_docs=true", None, 400, "query_parse_error"),
        ("GET", "/db/_conflicts/none", None, 404, "not_found"),
        ("GET", "/db/_conflicts/_none", None, 400, "illegal_docid"),
        ("GET", "/db/_conflicts/%FF", None, 400, "illegal_docid"),
        ("GET", "/db/_conflicts/x?leaves=1", None, 400, "bad_request"),
        ("GET", '/db/_conflicts/x?leaves=["1-x"]', None, 400, "bad_request"),
        ("GET", "/db/_conflicts/_resolutions?before=x", None, 400, "query_parse_error"),
        ("GET", "/none/_conflicts", None, 404, "not_found"),
        ("PUT", "/db/_conflicts/x", {}, 405, "method_not_allowed"),
        ("POST", "/db/_conflicts", {}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x", {}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x", [], 400, "bad_request"),
        ("POST", "/db/_conflicts/x", {"leaves": ["x"], "delete": True}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x", {"leaves": [1], "delete": True}, 400, "bad_request"),
        ("POST", "/db/_conflicts/none", {"leaves": ["1-a"], "delete": True}, 404, "not_found"),
        ("POST", "/db/_conflicts/x", {"leaves": "SEEN"}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x", {"leaves": "SEEN", "delete": 1}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x", {"leaves": "SEEN", "delete": True, "pick": "1-a"}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x", {"leaves": "SEEN", "pick": "1-a"}, 400, "bad_request"),
        (
            "POST",
            "/db/_conflicts/x",
            {"leaves": "SEEN", "merge": ["1-a"], "delete": True},
            400,
            "bad_request",
        ),
        ("POST", "/db/_conflicts/x", {"leaves": "SEEN", "document": 1}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x", {"leaves": "SEEN", "document": {"_x": 1}}, 400, "doc_validation"),
        ("POST", "/db/_conflicts/x", {"leaves": "SEEN", "document": {}, "using": 1}, 400, "bad_request"),
        (
            "POST",
            "/db/_conflicts/x",
            {"leaves": "SEEN", "document": {"_attachments": {"a": {"stub": True}}}},
            412,
            "missing_stub",
        ),
        (
            "POST",
            "/db/_conflicts/x",
            {"leaves": "SEEN", "document": {"_attachments": {"a": {"follows": True, "length": 1}}}},
            400,
            "bad_request",
        ),
        ("POST", "/db/_conflicts/x/_merge", {"rules": {"/a": "no"}}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x/_merge", {"rules": 1}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x/_merge", {"only": ["2-" + A]}, 400, "bad_request"),
        ("POST", "/db/_conflicts/none/_merge", {}, 404, "not_found"),
        ("POST", "/db/_conflicts/x", {"leaves": "SEEN", "rules": []}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x", {"leaves": ["1-a"], "rules": {}}, 409, "conflict"),
        ("POST", "/db/_conflicts/x/_undo", {}, 400, "bad_request"),
        ("POST", "/db/_conflicts/x/_undo", {"resolution": 1}, 404, "not_found"),
        ("POST", "/db/_conflicts/x/_undo", {"resolution": -1}, 404, "not_found"),
        ("POST", "/db/_conflicts/x/_undo", {"resolution": 10**30}, 404, "not_found"),
    ],
)
async def test_bad_input_is_told_so(
    db: Site, method: str, path: str, body: Any, status: int, error: str
) -> None:
    _, leaves = await fork(db, "x", a={}, b={})
    if isinstance(body, dict) and body.get("leaves") == "SEEN":
        body["leaves"] = leaves
    answer = await ask(db, method, path, body, status)
    assert answer["error"] == error
    assert len((await ask(db, "GET", "/db/_conflicts/x"))["leaves"]) == 2


async def test_a_body_must_be_announced_as_json(db: Site) -> None:
    reply = await db.ask("POST", "/db/_conflicts/x", b"{}", headers={"Content-Type": "text/plain"})
    assert reply.status == 415


# --- who may do what


async def members_only(db: Site) -> None:
    for name, password in (MEMBER, STRANGER):
        user = {"name": name, "password": password, "roles": [], "type": "user"}
        await ask(db, "PUT", f"/_users/org.couchdb.user:{name}", user, 201)
    security = {"members": {"names": [MEMBER[0]]}, "admins": {"roles": ["_admin"]}}
    await ask(db, "PUT", "/db/_security", security)


async def test_members_read_and_resolve_others_do_not(db: Site) -> None:
    await ask(db, "PUT", "/_users", status=201)
    _, leaves = await fork(db, "x", a={}, b={})
    _, of_design = await fork(db, "_design/d", a={}, b={})
    await members_only(db)
    body = {"leaves": leaves, "delete": True}
    for path in ("/db/_conflicts", "/db/_conflicts/x", "/db/_conflicts/x/_resolutions"):
        await ask(db, "GET", path, auth=MEMBER)
        await ask(db, "GET", path, status=403, auth=STRANGER)
        await ask(db, "GET", path, status=401, auth=None)
    await ask(db, "POST", "/db/_conflicts/x", body, 403, auth=STRANGER)
    done = await ask(db, "POST", "/db/_conflicts/x", body, 201, auth=MEMBER)
    await ask(db, "POST", "/db/_conflicts/x/_undo", {"resolution": done["resolution"]}, 201, auth=MEMBER)
    [*_, first] = (await ask(db, "GET", "/db/_conflicts/x/_resolutions"))["rows"]
    assert first["by"] == "member"
    await ask(db, "POST", "/db/_conflicts/_design/d", {"leaves": of_design, "delete": True}, 403, auth=MEMBER)
    await ask(db, "GET", "/_users/_conflicts", status=403, auth=MEMBER)


async def test_validation_functions_judge_every_revision_of_a_resolution(db: Site) -> None:
    _, leaves = await fork(db, "x", a={"text": "A"}, b={"text": "B"})
    function = """function (doc, old) {
        if (old && old.text === "A" && doc._deleted) throw({forbidden: "A stays"});
        if (doc.text === "bad") throw({forbidden: "bad text"});
    }"""
    await ask(db, "PUT", "/db/_design/v", {"validate_doc_update": function}, 201)
    body: dict[str, Any] = {"leaves": leaves, "document": {"text": "bad"}}
    assert (await ask(db, "POST", "/db/_conflicts/x", body, 403))["reason"] == "bad text"
    body["document"] = {"text": "good"}
    assert (await ask(db, "POST", "/db/_conflicts/x", body, 403))["reason"] == "A stays"
    assert len((await ask(db, "GET", "/db/_conflicts/x"))["leaves"]) == 2
    await ask(db, "DELETE", f"/db/_design/v?rev={(await ask(db, 'GET', '/db/_design/v'))['_rev']}")
    await ask(db, "POST", "/db/_conflicts/x", body, 201)


async def test_leaves_too_large_for_the_memory_are_not_merged(
    db: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, leaves = await fork(db, "x", a={"text": "A" * 600}, b={"text": "B" * 600}, c={"text": "C"})
    monkeypatch.setattr(conflicts, "SIZE_MAX_BYTES", 1000)
    for path, body in (("/_merge", {}), ("", {"leaves": leaves, "rules": {}})):
        answer = await ask(db, "POST", f"/db/_conflicts/x{path}", body, 413)
        assert answer["reason"].startswith("The leaves are larger than")
    await ask(db, "POST", "/db/_conflicts/x/_merge", {"only": leaves[:2]})
    await ask(db, "POST", "/db/_conflicts/x", {"leaves": leaves, "pick": leaves[0]}, 201)


async def test_who_may_not_write_a_document_may_not_bring_the_base_of_its_conflict(db: Site) -> None:
    """What a merge starts from decides what comes out of it."""
    await ask(db, "PUT", "/_users", status=201)
    docs = [
        {"_id": doc_id, "_revisions": {"start": 2, "ids": [digit * 32, "c" * 32]}, "text": digit}
        for doc_id in ("x", "_design/d")
        for digit in "ab"
    ]
    await ask(db, "POST", "/db/_bulk_docs", {"docs": docs, "new_edits": False}, 201)
    function = "function (doc, old, user) { if (user.name === 'member') throw({forbidden: 'read only'}); }"
    await ask(db, "PUT", "/db/_design/v", {"validate_doc_update": function}, 201)
    await members_only(db)
    data = {"f": {"stub": True, "digest": "md5-AAAAAAAAAAAAAAAAAAAAAA==", "revpos": 1}}
    bases = [{"_id": doc_id, "_rev": f"1-{'c' * 32}", "text": "a"} for doc_id in ("x", "_design/d")]
    more = [*bases, {"_id": "x", "_rev": f"1-{'c' * 32}", "_attachments": data}]
    path = "/db/_conflicts/_bases"
    assert (await ask(db, "POST", path, {"docs": more}, 201, auth=MEMBER))["stored"] == 0
    assert (await ask(db, "POST", path, {"docs": [*reversed(more)]}, 201))["stored"] == 2


@pytest.mark.parametrize("is_validated", [False, True])
async def test_a_thousand_leaves_take_a_moment(db: Site, is_validated: bool) -> None:
    if is_validated:
        function = "function (doc, old) { if (doc.text === 'bad') throw({forbidden: 'bad'}); }"
        await ask(db, "PUT", "/db/_design/v", {"validate_doc_update": function}, 201)
    base = (await ask(db, "PUT", "/db/x", {"text": "base"}, 201))["rev"]
    docs = [
        {"_id": "x", "_revisions": {"start": 2, "ids": [f"{n:032x}", base[2:]]}, "text": str(n)}
        for n in range(1000)
    ]
    await ask(db, "POST", "/db/_bulk_docs", {"docs": docs, "new_edits": False}, 201)
    assert (await ask(db, "GET", "/db/_conflicts"))["rows"][0]["leaves"] == 1000
    shown = await ask(db, "GET", "/db/_conflicts/x")
    assert {leaf["doc"]["text"] for leaf in shown["leaves"]} == {str(n) for n in range(1000)}
    body = {"leaves": [leaf["rev"] for leaf in shown["leaves"]], "rules": {"/text": "max"}}
    done = await ask(db, "POST", "/db/_conflicts/x", body, 201)
    assert (await ask(db, "GET", "/db/x"))["text"] == "999"
    assert (await ask(db, "GET", "/db/_conflicts"))["rows"] == []
    await ask(db, "POST", "/db/_conflicts/x/_undo", {"resolution": done["resolution"]}, 201)
    assert (await ask(db, "GET", "/db/_conflicts"))["rows"][0]["leaves"] == 1000
