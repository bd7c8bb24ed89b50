"""What a client is told that looks for full-text search."""

from __future__ import annotations

import pytest

from .in_process import Site

UNAVAILABLE = {"error": "service unavailable", "reason": "Search is not available"}


@pytest.fixture
async def db(web: Site) -> Site:
    await web.ask("PUT", "/db")
    await web.ask("PUT", "/db/_design/v", {})
    return web


@pytest.mark.parametrize(
    ("method", "target", "status", "told"),
    [
        pytest.param("GET", "_design/v/_search/x?q=a", 503, UNAVAILABLE, id="a query"),
        pytest.param("POST", "_design/v/_search/x", 503, UNAVAILABLE, id="a query in a body"),
        pytest.param("GET", "_design/v/_search_info/x", 503, UNAVAILABLE, id="an index"),
        pytest.param("GET", "_design/v/_search_disk_size/x", 503, UNAVAILABLE, id="its size"),
        pytest.param(
            "GET",
            "_design/none/_search/x",
            404,
            {"error": "not_found", "reason": "missing"},
            id="no such design document",
        ),
        pytest.param(
            "GET",
            "_design/v/_search/x/y",
            400,
            {"error": "bad_request", "reason": "path not recognized"},
            id="no such address",
        ),
        pytest.param("POST", "_search_cleanup", 202, {"ok": True}, id="nothing to clean up"),
        pytest.param("POST", "_nouveau_cleanup", 202, {"ok": True}, id="nor of the other kind"),
    ],
)
async def test_there_is_no_search(db: Site, method: str, target: str, status: int, told: object) -> None:
    reply = await db.ask(method, f"/db/{target}", {} if method == "POST" else None)
    assert (reply.status, reply.json()) == (status, told)
