"""Documents over HTTP: what the recorded scenarios leave out, and the rules that hold whatever they say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from .in_process import Reply, Site

EMPTY_REV = "1-967a00dff5e02add41819138abb3284d"
UNKNOWN_REV = "1-00000000000000000000000000000000"


async def put(site: Site, doc_id: str, body: Any = None, query: str = "") -> str:
    reply = await site.ask("PUT", f"/db/{doc_id}{query}", {} if body is None else body)
    assert reply.status in (200, 201), reply
    rev: str = reply.json()["rev"]
    return rev


async def graft(site: Site, doc_id: str, *revs: str, **fields: Any) -> None:
    """Store a revision with its history, newest first."""
    generation = int(revs[0].partition("-")[0])
    history = {"start": generation, "ids": [rev.partition("-")[2] for rev in revs]}
    await put(site, doc_id, {"_revisions": history, **fields}, "?new_edits=false")


def error(reply: Reply) -> tuple[int, str, str]:
    return reply.status, reply.json()["error"], reply.json()["reason"]


CONFLICT = (409, "conflict", "Document update conflict.")
MISSING = (404, "not_found", "missing")
DELETED = (404, "not_found", "deleted")


# --- reading


async def test_a_plain_get_is_the_body_between_its_id_and_revision(db: Site) -> None:
    await put(db, "a", {"z": 1, "a": [1.0, None, "\u00e9"]})
    reply = await db.ask("GET", "/db/a")
    rev = reply.json()["_rev"]
    assert reply.body.decode() == f'{{"_id":"a","_rev":"{rev}","z":1,"a":[1.0,null,"\u00e9"]}}\n'
    assert reply.headers["etag"] == f'"{rev}"'
    assert reply.headers["cache-control"] == "must-revalidate"


async def test_head_is_get_without_the_body(db: Site) -> None:
    await put(db, "a", {"v": 1})
    got, head = await db.ask("GET", "/db/a"), await db.ask("HEAD", "/db/a")
    assert head.body == b""
    volatile = ("date", "x-couch-request-id")
    assert {k: v for k, v in got.headers.items() if k not in volatile} == {
        k: v for k, v in head.headers.items() if k not in volatile
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("", {"v": 1}, id="nothing is added unless it is asked for"),
        pytest.param("?revs=maybe&unknown=true", {"v": 1}, id="what is unknown is ignored"),
        pytest.param(
            "?conflicts=true&deleted_conflicts=true", {"v": 1}, id="conflicts only if there are any"
        ),
        pytest.param("?local_seq=true", {"v": 1, "_local_seq": 1}, id="local_seq"),
        pytest.param(
            "?meta=true",
            {"v": 1, "_revs_info": [{"rev": "REV", "status": "available"}]},
            id="meta is three options in one",
        ),
    ],
)
async def test_members_that_options_add(db: Site, query: str, expected: dict[str, Any]) -> None:
    rev = await put(db, "a", {"v": 1})
    found = (await db.ask("GET", f"/db/a{query}")).json()
    assert found == json.loads(json.dumps({"_id": "a", "_rev": "REV"} | expected).replace("REV", rev))


async def test_the_tag_goes_when_meta_was_added(db: Site) -> None:
    await put(db, "a")
    assert "etag" in (await db.ask("GET", "/db/a?revs=true")).headers
    assert "etag" in (await db.ask("GET", "/db/a?conflicts=true")).headers
    assert "etag" not in (await db.ask("GET", "/db/a?revs_info=true")).headers


async def test_conflicts_are_listed_winner_first_and_by_whether_they_are_deleted(db: Site) -> None:
    await graft(db, "a", "2-b", "1-a")
    await graft(db, "a", "2-c", "1-a")
    await graft(db, "a", "3-d", "2-d", "1-a", _deleted=True)
    found = (await db.ask("GET", "/db/a?conflicts=true&deleted_conflicts=true")).json()
    assert found["_rev"] == "2-c"
    assert (found["_conflicts"], found["_deleted_conflicts"]) == (["2-b"], ["3-d"])


async def test_a_deleted_document_is_there_for_those_who_ask_for_it(db: Site) -> None:
    first = await put(db, "a", {"v": 1})
    tombstone = (await db.ask("DELETE", f"/db/a?rev={first}")).json()["rev"]
    assert error(await db.ask("GET", "/db/a")) == DELETED
    assert error(await db.ask("GET", "/db/a?revs=true")) == DELETED
    assert error(await db.ask("GET", f"/db/a?rev={first}&latest=true")) == DELETED
    assert (await db.ask("GET", f"/db/a?rev={tombstone}")).json()["_deleted"] is True
    assert (await db.ask("GET", "/db/a?deleted=true")).json()["_rev"] == tombstone
    assert (await db.ask("GET", f"/db/a?rev={first}")).json()["v"] == 1


async def test_of_several_revisions_the_last_one_counts(db: Site) -> None:
    rev = await put(db, "a")
    assert (await db.ask("GET", f"/db/a?rev={UNKNOWN_REV}&rev={rev}")).status == 200
    assert error(await db.ask("GET", f"/db/a?rev={rev}&rev={UNKNOWN_REV}")) == MISSING


async def test_open_revs_gives_each_once_and_the_missing_last(db: Site) -> None:
    await graft(db, "a", "2-b", "1-a")
    await graft(db, "a", "2-a", "1-a")
    revs = json.dumps(["3-x", "2-b", "2-a", "2-b", "1-a"])
    reply = await db.ask(
        "GET", f"/db/a?open_revs={revs}".replace(" ", ""), headers={"Accept": "application/json"}
    )
    assert [found.get("missing") or found["ok"]["_rev"] for found in reply.json()] == [
        "2-a",
        "2-b",
        "1-a",
        "3-x",
    ]


async def test_open_revs_latest_follows_to_every_leaf(db: Site) -> None:
    await graft(db, "a", "2-b", "1-a")
    await graft(db, "a", "3-c", "2-c", "1-a")
    headers = {"Accept": "application/json"}
    reply = await db.ask("GET", '/db/a?open_revs=["1-a","2-b"]&latest=true', headers=headers)
    assert [found["ok"]["_rev"] for found in reply.json()] == ["2-b", "3-c"]


async def test_odd_revisions_break_neither_json_nor_headers(db: Site) -> None:
    odd = '1-a"b\\\n\u00e9'
    await put(db, "a", {"_rev": odd}, "?new_edits=false")
    reply = await db.ask("GET", "/db/a")
    assert (reply.status, reply.json()["_rev"]) == (200, odd)
    assert (await db.ask("GET", "/db/a?revs=true")).json()["_revisions"]["ids"] == [odd[2:]]


@pytest.mark.parametrize("rev", ["1-" + "a" * 300, "1" + "0" * 300 + "-a"])
async def test_revisions_that_are_too_long_are_refused(db: Site, rev: str) -> None:
    reply = await db.ask("PUT", "/db/a?new_edits=false", {"_rev": rev})
    assert error(reply) == (400, "bad_request", "Invalid rev format")


async def test_a_history_may_be_longer_than_its_generation(db: Site) -> None:
    history = {"start": 1, "ids": ["a", "b", "c"]}
    await put(db, "a", {"_revisions": history}, "?new_edits=false")
    assert (await db.ask("GET", "/db/a?revs=true")).json()["_revisions"] == history


async def test_if_none_match_spares_the_body(db: Site) -> None:
    rev = await put(db, "a")
    for target in ("/db/a", "/db/a?revs=true", f"/db/a?rev={rev}"):
        reply = await db.ask("GET", target, headers={"If-None-Match": f'"{rev}"'})
        assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", f'"{rev}"')


# --- writing


async def test_put_answers_where_the_document_is(db: Site) -> None:
    reply = await db.ask("PUT", "/db/a%2Fb~%20c", {})
    assert reply.status == 201
    assert reply.json() == {"ok": True, "id": "a/b~ c", "rev": EMPTY_REV}
    assert reply.headers["etag"] == f'"{EMPTY_REV}"'
    assert reply.headers["location"] == f"http://127.0.0.1:{db.port}/db/a%2Fb%7E%20c"


@pytest.mark.parametrize(
    ("query", "body", "headers", "expected"),
    [
        pytest.param("", {}, {}, CONFLICT, id="an update without a revision"),
        pytest.param("", {"_rev": UNKNOWN_REV}, {}, CONFLICT, id="an update of another revision"),
        pytest.param(f"?rev={UNKNOWN_REV}", {}, {}, CONFLICT, id="the same, named in the query"),
        pytest.param("", {}, {"If-Match": UNKNOWN_REV}, CONFLICT, id="the same, named by If-Match"),
        pytest.param(
            f"?rev={EMPTY_REV}",
            {"_rev": UNKNOWN_REV},
            {},
            (
                400,
                "bad_request",
                "Document rev from request body and query string have different values",
            ),
            id="two revisions, in the query and in the body",
        ),
        pytest.param(
            f"?rev={EMPTY_REV}",
            {},
            {"If-Match": f'"{UNKNOWN_REV}"'},
            (400, "bad_request", "Document rev and etag have different values"),
            id="two revisions, in the query and in If-Match",
        ),
        pytest.param("?rev=x", {}, {}, (400, "bad_request", "Invalid rev format"), id="no revision at all"),
        pytest.param(
            "?new_edits=false",
            {},
            {},
            (
                400,
                "bad_request",
                "When `new_edits: false`, the document needs `_rev` or `_revisions` specified",
            ),
            id="a replicated edit without a revision",
        ),
        pytest.param("?w=many", {}, {}, (400, "query_parse_error", None), id="a quorum that is no number"),
    ],
)
async def test_updates_that_are_refused(
    db: Site, query: str, body: Any, headers: dict[str, str], expected: tuple[int, str, str | None]
) -> None:
    await put(db, "a")
    reply = await db.ask("PUT", f"/db/a{query}", body, headers=headers)
    assert error(reply)[:2] == expected[:2]
    assert expected[2] in (None, reply.json()["reason"])
    assert (await db.ask("GET", "/db/a")).json()["_rev"] == EMPTY_REV


@pytest.mark.parametrize("way", ["body", "query", "header"])
async def test_the_parent_may_be_named_in_three_ways(db: Site, way: str) -> None:
    rev = await put(db, "a")
    body = {"_rev": rev} if way == "body" else {}
    query = f"?rev={rev}" if way == "query" else ""
    headers = {"If-Match": f'"{rev}"'} if way == "header" else {}
    assert (await db.ask("PUT", f"/db/a{query}", body, headers=headers)).json()["rev"].startswith("2-")


async def test_a_tombstone_is_stored_with_200_and_can_be_written_over(db: Site) -> None:
    rev = await put(db, "a")
    assert (await db.ask("PUT", "/db/a", {"_rev": rev, "_deleted": True, "why": "x"})).status == 200
    assert (await put(db, "a", {"v": 2})).startswith("3-")


async def test_the_quorum_of_a_single_node_is_one(db: Site) -> None:
    assert (await db.ask("PUT", "/db/a?w=1", {})).status == 201
    assert (await db.ask("PUT", "/db/b?w=2", {})).status == 202
    assert (await db.ask("DELETE", f"/db/b?w=2&rev={EMPTY_REV}")).status == 202


async def test_batched_writes_are_stored_and_their_conflicts_not_told(db: Site) -> None:
    for _ in range(2):
        reply = await db.ask("PUT", "/db/a?batch=ok", {"v": 1})
        assert (reply.status, reply.json()) == (202, {"ok": True, "id": "a"})
    made = (await db.ask("POST", "/db?batch=ok", {"v": 1})).json()
    assert set(made) == {"ok", "id"}
    assert (await db.ask("GET", f"/db/{made['id']}")).json()["v"] == 1
    assert (await db.ask("PUT", "/db/b?batch=ok", {"_bad": 1})).status == 400


async def test_post_makes_an_id_or_takes_the_given_one(db: Site) -> None:
    made = await db.ask("POST", "/db", {"v": 1})
    assert made.status == 201
    doc_id = made.json()["id"]
    assert made.headers["location"].endswith(f"/db/{doc_id}")
    assert "etag" not in made.headers
    assert (await db.ask("POST", "/db", {"_id": doc_id})).status == 409
    assert (await db.ask("POST", "/db", b"{}", headers={"Content-Type": "text/plain"})).status == 415


async def test_delete_names_the_reason_in_couchdbs_order(db: Site) -> None:
    rev = await put(db, "a")
    assert error(await db.ask("DELETE", "/db/none?rev=zzz")) == MISSING
    assert error(await db.ask("DELETE", "/db/a?rev=zzz")) == (400, "bad_request", "Invalid rev format")
    assert error(await db.ask("DELETE", "/db/a")) == CONFLICT
    assert (await db.ask("DELETE", "/db/a", headers={"If-Match": f'"{rev}"'})).status == 200
    assert error(await db.ask("DELETE", f"/db/a?rev={rev}")) == DELETED


async def test_many_edits_at_once_of_one_document_let_one_win(db: Site) -> None:
    rev = await put(db, "a")
    replies = await asyncio.gather(
        *(db.ask("PUT", "/db/a", {"_rev": rev, "writer": writer}) for writer in range(20))
    )
    assert sorted(reply.status for reply in replies) == [201] + [409] * 19
    winner = next(reply.json()["rev"] for reply in replies if reply.status == 201)
    assert (await db.ask("GET", "/db/a?conflicts=true")).json()["_rev"] == winner


# --- limits


async def test_a_document_is_as_large_as_the_configuration_allows(db: Site) -> None:
    db.server.config.set("couchdb", "max_document_size", "100")
    assert (await db.ask("PUT", "/db/a", {"v": "x" * 90})).status == 201
    reply = await db.ask("PUT", "/db/b", {"v": "x" * 100})
    assert (reply.status, reply.json()["error"]) == (413, "document_too_large")
    db.server.config.set("couchdb", "max_attachment_size", "3")
    reply = await db.ask("PUT", "/db/b", {"_attachments": {"f": {"data": "YWJjZA=="}}})
    assert error(reply) == (413, "attachment_too_large", "f")


async def test_an_id_is_as_long_as_the_configuration_allows(db: Site) -> None:
    db.server.config.set("couchdb", "max_document_id_length", "4")
    assert (await db.ask("PUT", "/db/1234", {})).status == 201
    too_long = (400, "illegal_docid", "Document id is too long")
    assert error(await db.ask("PUT", "/db/%C3%A9%C3%A9x", {})) == too_long
    assert error(await db.ask("POST", "/db", {"_id": "12345"})) == too_long
    assert error(await db.ask("PUT", "/db/12345/file", b"x")) == too_long


async def test_an_id_is_looked_at_before_the_document(db: Site) -> None:
    illegal = (400, "illegal_docid", "Only reserved document ids may start with underscore.")
    for body in (b"false", b"{bad", None):
        assert error(await db.ask("PUT", "/db/_x", body)) == illegal


@pytest.mark.parametrize(
    ("doc_id", "reason"),
    [
        ("none", "Doc id must be of form partition:id"),
        (":x", "Partition must not be empty"),
        ("p:", "Document id must not be empty"),
        ("p:_x", "Only reserved document ids may start with underscore."),
    ],
)
async def test_a_partitioned_database_wants_partitions_in_ids(web: Site, doc_id: str, reason: str) -> None:
    web.server.create("parts", partitioned=True)
    assert (await web.ask("PUT", "/parts/p:a", {})).status == 201
    assert (await web.ask("PUT", "/parts/_design/a", {})).status == 201
    assert (await web.ask("PUT", "/parts/_local/a", {})).status == 201
    reply = await web.ask("PUT", f"/parts/{doc_id}", {})
    assert (reply.status, reply.json()["reason"]) == (400, reason)


# --- COPY


async def test_copy_takes_body_and_attachments_to_another_document(db: Site) -> None:
    data = {"f": {"data": "YQ==", "content_type": "a/b"}}
    await put(db, "a", {"v": 1, "_attachments": data})
    reply = await db.ask("COPY", "/db/a", headers={"Destination": "b%2Fc"})
    assert (reply.status, reply.json()["id"]) == (201, "b/c")
    assert reply.headers["location"].endswith("/db/b%2Fc")
    assert reply.headers["etag"] == f'"{reply.json()["rev"]}"'
    copied = (
        await db.ask("GET", "/db/b%2Fc?attachments=true", headers={"Accept": "application/json"})
    ).json()
    assert (copied["v"], copied["_attachments"]["f"]["data"]) == (1, "YQ==")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({}, (400, "Destination header is mandatory for COPY."), id="nowhere"),
        pytest.param(
            {"Destination": "http://example.com/db/b"},
            (400, "Destination URL must be relative."),
            id="to another server",
        ),
        pytest.param({"Destination": ""}, (400, "Document id must not be empty"), id="to no document"),
        pytest.param(
            {"Destination": "%ff"}, (400, "Document id must be valid UTF-8"), id="to what is no text"
        ),
        pytest.param({"Destination": "b?rev=x"}, (400, "Invalid rev format"), id="onto no revision"),
        pytest.param({"Destination": "a"}, (409, "Document update conflict."), id="onto itself"),
        pytest.param(
            {"Destination": "b", "If-Match": UNKNOWN_REV},
            (404, "missing"),
            id="of a revision that is not here",
        ),
    ],
)
async def test_copies_that_are_refused(db: Site, headers: dict[str, str], expected: tuple[int, str]) -> None:
    await put(db, "a")
    reply = await db.ask("COPY", "/db/a", headers=headers)
    assert (reply.status, reply.json()["reason"]) == expected


async def test_copy_over_a_named_revision(db: Site) -> None:
    await put(db, "a", {"v": 1})
    target = await put(db, "b")
    reply = await db.ask("COPY", "/db/a", headers={"Destination": f"b?rev={target}"})
    assert reply.json()["rev"].startswith("2-")
    assert (await db.ask("GET", "/db/b")).json()["v"] == 1


# --- local documents


async def test_local_documents_count_their_revisions_from_the_one_they_are_told(db: Site) -> None:
    assert await put(db, "_local/a") == "0-1"
    assert await put(db, "_local/a", {"_rev": "0-1", "v": 2}) == "0-2"
    assert await put(db, "_local/a") == "0-1"
    assert await put(db, "_local/a", {"_rev": "0-7"}, "?new_edits=false") == "0-7"
    assert (await db.ask("GET", "/db/_local/a?revs=true")).json()["_revisions"] == {"start": 0, "ids": ["8"]}
    assert error(await db.ask("PUT", "/db/_local/a", {"_rev": "1-abc"}))[0] == 400


async def test_a_local_documents_tag_changes_with_its_body(db: Site) -> None:
    await put(db, "_local/a", {"v": 1})
    first = (await db.ask("GET", "/db/_local/a")).headers["etag"]
    assert (await db.ask("GET", "/db/_local/a", headers={"If-None-Match": first})).status == 304
    await put(db, "_local/a", {"v": 2})
    assert (await db.ask("GET", "/db/_local/a", headers={"If-None-Match": first})).status == 200


async def test_local_documents_have_no_history_and_no_attachments(db: Site) -> None:
    await put(db, "_local/a")
    headers = {"Accept": "application/json"}
    assert error(await db.ask("GET", "/db/_local/a?rev=0-1")) == MISSING
    assert error(await db.ask("GET", "/db/_local/a?open_revs=all")) == MISSING
    revs = (await db.ask("GET", '/db/_local/a?open_revs=["0-1"]', headers=headers)).json()
    assert revs == [{"missing": "0-1"}]
    for target in ("/db/_local/a/file", "/db/_local%2Fa/file"):
        assert error(await db.ask("PUT", target, b"x"))[2] == "_local documents do not accept attachments."


async def test_local_documents_can_be_copied_both_ways(db: Site) -> None:
    await put(db, "_local/a", {"v": 1})
    assert (await db.ask("COPY", "/db/_local/a", headers={"Destination": "b"})).status == 201
    reply = await db.ask("COPY", "/db/b", headers={"Destination": "_local/c?rev=0-3"})
    assert reply.json()["rev"] == "0-4"
    assert (await db.ask("GET", "/db/_local/c")).json() == {"_id": "_local/c", "_rev": "0-4", "v": 1}


# --- rights


async def test_only_admins_change_design_documents(db: Site) -> None:
    db.server.open("db").set_security({})
    assert (await db.ask("PUT", "/db/a", {}, auth=None)).status == 201
    reply = await db.ask("PUT", "/db/_design/a", {}, auth=None)
    assert error(reply) == (401, "unauthorized", "You are not a db or server admin.")
    assert (await db.ask("PUT", "/db/_design/a/file", b"x", auth=None)).status == 401
    assert (await db.ask("COPY", "/db/a", headers={"Destination": "_design/b"}, auth=None)).status == 401
    assert (await db.ask("PUT", "/db/_design/a", {})).status == 201
    rev = (await db.ask("GET", "/db/_design/a", auth=None)).json()["_rev"]
    assert (await db.ask("DELETE", f"/db/_design/a?rev={rev}", auth=None)).status == 401
