"""/_scheduler: what is listed of documents, in which order, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from couchlite.provision import provision

from .in_process import Site

DB = "/_scheduler/docs/team%2F_replicator"
FAILED = {"_replication_state": "failed", "_replication_state_reason": "why", "source": "name"}
STATS = {"docs_read": 1, "start_time": "2026-01-01T00:00:00Z"}
DONE = {
    "_replication_state": "completed",
    "_replication_state_time": "2026-01-02T00:00:00Z",
    "_replication_stats": STATS,
    "source": {"url": "http://u:s3cret@h/a", "headers": {"Authorization": "Basic czNjcmV0"}},
    "target": "https://u:s3cret@h/b?x=1",
}


@pytest.fixture
async def web(web: Site) -> Site:
    provision(web.server)
    await web.ask("PUT", "/team%2F_replicator")
    docs = [{"_id": f"f{number}", **FAILED} for number in range(3)] + [{"_id": "done", **DONE}]
    await web.ask("POST", "/team%2F_replicator/_bulk_docs", {"docs": docs})
    await web.ask("PUT", "/team%2F_replicator/_design/x", {})
    return web


@pytest.mark.parametrize(
    ("query", "ids", "offset"),
    [
        ("", ["done", "f0", "f1", "f2"], 0),
        ("limit=2", ["done", "f0"], 0),
        ("limit=0", [], 0),
        ("skip=1&limit=2", ["f0", "f1"], 1),
        ("skip=100", [], 5),
        ("descending=true", ["f2", "f1", "f0", "done"], 0),
        ("descending=true&limit=1&skip=1", ["f1"], 1),
        ("states=failed", ["f0", "f1", "f2"], 0),
        ("states=failed&skip=1&limit=1", ["f1"], 1),
        ("states=Failed,completed", ["done", "f0", "f1", "f2"], 0),
        ("states=running,pending", [], 0),
        ("states=", ["done", "f0", "f1", "f2"], 0),
        ("key=%22f1%22", ["f1"], 3),
        ("startkey=%22f1%22", ["f1", "f2"], 3),
        ("startkey=%22d%22&endkey=%22f0%22", ["done", "f0"], 1),
        ("include_docs=true&limit=1", ["done"], 0),
    ],
)
async def test_documents_are_listed_by_id(web: Site, query: str, ids: list[str], offset: int) -> None:
    listing = (await web.ask("GET", f"{DB}?{query}")).json()
    assert [row["doc_id"] for row in listing["docs"]] == ids
    assert (listing["total_rows"], listing["offset"]) == (5, offset)


async def test_a_document_tells_its_end_and_no_credentials(web: Site) -> None:
    done = {
        "database": "team/_replicator",
        "doc_id": "done",
        "id": None,
        "source": "http://h/a/",
        "target": "https://h/b?x=1",
        "state": "completed",
        "error_count": 0,
        "info": {"docs_read": 1},
        "start_time": "2026-01-01T00:00:00Z",
        "last_updated": "2026-01-02T00:00:00Z",
    }
    failed = {
        "database": "team/_replicator",
        "doc_id": "f0",
        "id": None,
        "source": "name",
        "target": None,
        "state": "failed",
        "error_count": 1,
        "info": {"error": "why"},
        "start_time": None,
        "last_updated": None,
    }
    for row in (done, failed):
        for path in (DB, "/_scheduler/docs/team/_replicator"):
            reply = await web.ask("GET", f"{path}/{row['doc_id']}")
            assert (reply.status, reply.json()) == (200, row)
    assert b"s3c" not in (await web.ask("GET", DB)).body


NOT_FOUND = {"error": "not found"}
MISSING = {"error": "not_found", "reason": "missing"}
NO_DATABASE = {"error": "not_found", "reason": "Database does not exist."}
INVALID_PATH = {"error": "bad_request", "reason": "Invalid path"}
STATES = {
    "error": "query_parse_error",
    "reason": "States must be one or more of [initializing,error,running,pending,crashing,completed,failed]",
}


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("", 404, NOT_FOUND),
        ("/else", 404, NOT_FOUND),
        ("/jobs/none", 404, MISSING),
        ("/jobs/none/more", 404, NOT_FOUND),
        ("/docs/_replicator/none", 404, MISSING),
        ("/docs/none%2F_replicator", 404, NO_DATABASE),
        ("/docs/none%2F_replicator/doc", 404, NO_DATABASE),
        ("/docs/none/_replicator/doc", 404, NO_DATABASE),
        ("/docs/_users", 400, INVALID_PATH),
        ("/docs/a/b", 400, INVALID_PATH),
        ("/docs/_replicator/a/b", 400, INVALID_PATH),
        ("/docs?states=odd", 400, STATES),
        ("/docs?limit=x", 400, {"error": "query_parse_error", "reason": 'Invalid value for integer: "x"'}),
        ("/jobs?limit=x", 400, {"error": "query_parse_error", "reason": "limit must be an integer"}),
        ("/jobs?skip=-1", 400, {"error": "query_parse_error", "reason": "skip not in range of [0,infinity]"}),
        ("/docs", 200, {"total_rows": 0, "offset": 0, "docs": []}),
        ("/jobs", 200, {"total_rows": 0, "offset": 0, "jobs": []}),
    ],
)
async def test_what_is_not_there_is_told_in_couchdbs_words(
    web: Site, path: str, status: int, answer: Any
) -> None:
    reply = await web.ask("GET", f"/_scheduler{path}")
    assert (reply.status, reply.json()) == (status, answer)
    assert (await web.ask("HEAD", f"/_scheduler{path}")).status == status
    assert (await web.ask("POST", f"/_scheduler{path}", {})).status == 405
    assert (await web.ask("GET", f"/_scheduler{path}", auth=None)).status == 401
