"""Databases on servers, as tests fill and compare them: through the HTTP API, so that any server will do."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

ADMIN = ("adm", "pass")


@dataclass(frozen=True, slots=True)
class Couch:
    """A server, as its administrator sees it."""

    session: aiohttp.ClientSession
    url: str

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of an answer; bytes are sent and given back as they are."""
        fields = {"Authorization": "Basic " + base64.b64encode(":".join(ADMIN).encode()).decode()}
        if isinstance(body, bytes):
            data = body
        else:
            data = json.dumps(body).encode() if body is not None else b""
            fields["Content-Type"] = "application/json"
        url = URL(self.url + path, encoded=True)
        async with self.session.request(
            method, url, data=io.BytesIO(data), headers=fields | (headers or {})
        ) as answer:
            text = await answer.read()
            if answer.content_type == "application/json":
                return answer.status, json.loads(text)
            return answer.status, text

    async def replicate(self, source: Any, target: Any, **options: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/_replicate", {"source": source, "target": target, **options})

    def endpoint(self, name: str) -> dict[str, Any]:
        """A database of this server, as a replication names it."""
        basic = {"username": ADMIN[0], "password": ADMIN[1]}
        return {"url": f"{self.url}/{name}", "auth": {"basic": basic}}


@asynccontextmanager
async def couch(url: str) -> AsyncIterator[Couch]:
    async with aiohttp.ClientSession() as session:
        yield Couch(session, url)


async def fill(server: Couch, name: str) -> None:
    """Make a database with everything that is hard to replicate."""
    await server.ask("PUT", f"/{name}")
    grafts = [
        # two branches that were edited in turns, and one that was deleted
        graft("conflict", 3, ["c" * 32, "b" * 32, "a" * 32], branch="left"),
        graft("conflict", 4, ["f" * 32, "e" * 32, "d" * 32, "a" * 32], branch="right"),
        graft("conflict", 2, ["9" * 32, "a" * 32], _deleted=True),
        graft("gone", 2, ["1" * 32, "2" * 32], _deleted=True, why="not needed"),
        graft("stemmed", 7, ["7" * 32, "6" * 32]),
        graft("two-roots", 1, ["5" * 32], root=1),
        graft("two-roots", 2, ["4" * 32, "3" * 32], root=2),
    ]
    docs = [{"_id": f"plain-{number:03}", "number": number} for number in range(150)]
    docs += [
        {"_id": name, "name": name} for name in ("a/b", "ünïcode ☃", "a+b c", "per%cent", 'quo"te', "~t.-_:")
    ]
    docs += [
        {"_id": "_design/app", "filters": {"odd": "function(doc) { return doc.number % 2 == 1; }"}},
        {"_id": "_design/with/slash", "x": 1},
        {"_id": "numbers", "big": 2**70, "tiny": 1e-5, "one": 1.0, "none": None},
    ]
    status, rows = await server.ask("POST", f"/{name}/_bulk_docs", {"docs": grafts, "new_edits": False})
    assert status == 201 and rows == [], rows
    status, rows = await server.ask("POST", f"/{name}/_bulk_docs", {"docs": docs})
    assert status == 201 and all("rev" in row for row in rows), rows
    await add_attachments(server, name)


def graft(doc_id: str, start: int, ids: list[str], **fields: Any) -> dict[str, Any]:
    return {"_id": doc_id, "_revisions": {"start": start, "ids": ids}, **fields}


async def add_attachments(server: Couch, name: str) -> None:
    text = base64.b64encode(b"words, " * 1000).decode()
    inline = {"note.txt": {"content_type": "text/plain", "data": text}, "é ☃": {"data": "AAEC"}}
    _, made = await server.ask("PUT", f"/{name}/inline", {"_attachments": inline})
    stubs = {"note.txt": {"stub": True}, "é ☃": {"stub": True}, "new": {"data": "AQ=="}}
    status, _ = await server.ask("PUT", f"/{name}/inline", {"_rev": made["rev"], "_attachments": stubs})
    assert status == 201
    large = bytes(range(256)) * 8 * 1024  # 2 MiB
    for doc_id, content_type in (("large", "application/octet-stream"), ("large/text", "text/plain")):
        headers = {"Content-Type": content_type}
        status, _ = await server.ask("PUT", f"/{name}/{quote(doc_id, safe='')}/file", large, headers=headers)
        assert status == 201


async def contents(server: Couch, name: str) -> dict[str, Any]:
    """Of every document its winner, its leaves with their histories, and its attachments' bytes."""
    _, feed = await server.ask("GET", f"/{name}/_changes?style=all_docs")
    found = {}
    for row in feed["results"]:
        path = f"/{name}/{quote(row['id'], safe='')}".replace("_design%2F", "_design/")
        accept = {"Accept": "application/json"}
        status, leaves = await server.ask("GET", f"{path}?open_revs=all&revs=true", headers=accept)
        assert status == 200, (row, leaves)
        shown = {leaf["ok"]["_rev"]: leaf["ok"] for leaf in leaves}
        assert {change["rev"] for change in row["changes"]} == shown.keys()
        bodies = {}
        for rev, leaf in shown.items():
            for attachment in leaf.get("_attachments", {}):
                _, body = await server.ask("GET", f"{path}/{quote(attachment, safe='')}?rev={rev}")
                bodies[rev, attachment] = body
        found[row["id"]] = (row["changes"][0]["rev"], shown, bodies)
    return found
