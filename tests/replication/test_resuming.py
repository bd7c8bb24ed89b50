"""Attachments whose download is cut off: what has come is kept, and the rest is asked for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from .databases import Couch, contents
from .faults import Line, line

LARGE = random.Random(1).randbytes(3_000_000)
CUT_BYTES = 400_000


async def attach(server: Couch, path: str, kind: str, content: bytes) -> None:
    status, _ = await server.ask("PUT", path, content, headers={"Content-Type": kind})
    assert status == 201


async def rev_of(server: Couch, path: str) -> str:
    _, doc = await server.ask("GET", path)
    return str(doc["_rev"])


@pytest.fixture
async def cutting(other: Couch) -> AsyncIterator[tuple[Line, str]]:
    """A line to the other server on which every connection is lost after CUT_BYTES."""
    async with line(other.url) as (connection, url):
        connection.bytes_max = CUT_BYTES
        yield connection, url


async def pull(server: Couch, url: str, **options: Any) -> tuple[int, Any]:
    source = {"url": f"{url}/original", "auth": server.endpoint("")["auth"]}
    return await server.replicate(source, server.endpoint("copy"), create_target=True, **options)


async def test_a_large_attachment_comes_piece_by_piece(
    server: Couch, other: Couch, cutting: tuple[Line, str]
) -> None:
    await other.ask("PUT", "/original")
    await attach(other, "/original/large/file%20%C3%A9", "video/mp4", LARGE)
    status, told = await pull(server, cutting[1], retries_per_request=2)
    assert (status, told["history"][0]["docs_written"]) == (200, 1)
    assert await contents(server, "copy") == await contents(other, "original")
    connection = cutting[0]
    assert connection.lost >= len(LARGE) // CUT_BYTES
    assert connection.came < 1.4 * len(LARGE), "nothing came twice but what was on its way"


async def test_the_attachments_after_it_come_too(
    server: Couch, other: Couch, cutting: tuple[Line, str]
) -> None:
    await other.ask("PUT", "/original")
    await attach(other, "/original/many/a", "video/mp4", LARGE[:1_000_000])
    text = b"words, words and words " * 5_000
    for name, kind, content in (
        ("b", "text/plain", text),
        ("c", "image/png", LARGE[:600_000]),
        ("d", "image/gif", b""),
    ):
        rev = await rev_of(other, "/original/many")
        await attach(other, f"/original/many/{name}?rev={rev}", kind, content)
    docs = [{"_id": f"plain-{number}"} for number in range(20)]
    await other.ask("POST", "/original/_bulk_docs", {"docs": docs})
    status, told = await pull(server, cutting[1], retries_per_request=3)
    assert (status, told["history"][0]["docs_written"]) == (200, 21)
    assert await contents(server, "copy") == await contents(other, "original")
    assert cutting[0].came < 1.6 * 1_600_000


async def test_every_leaf_comes_once(server: Couch, other: Couch, cutting: tuple[Line, str]) -> None:
    """A cut in one leaf of a document does not make the others come again."""
    await other.ask("PUT", "/original")
    for number in range(4):
        digest = f"{number}" * 32
        grafted = {"_id": "doc", "_revisions": {"start": 1, "ids": [digest]}}
        await other.ask("POST", "/original/_bulk_docs", {"docs": [grafted], "new_edits": False})
        await attach(
            other, f"/original/doc/file?rev=1-{digest}", "video/mp4", LARGE[number * 300_000 :][:300_000]
        )
    status, told = await pull(server, cutting[1], retries_per_request=3)
    assert (status, told["history"][0]["docs_written"]) == (200, 4)
    assert await contents(server, "copy") == await contents(other, "original")
    assert cutting[0].came < 1.6 * 1_200_000


# --- sources that are not what they seem


class Source:
    """A server of one document whose attachment breaks off in the middle, and goes on with `rest`."""

    def __init__(self, content: bytes, rest: bytes, *, ranges: bool) -> None:
        self.content = content
        self.rest = rest
        self.ranges = ranges
        self.asked: list[str | None] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path == "/db/":
            return web.json_response({"update_seq": "1-x", "instance_start_time": "1"})
        if path == "/db/_changes":
            row = {"seq": "1-x", "id": "doc", "changes": [{"rev": "1-a"}]}
            return web.json_response({"results": [row], "last_seq": "1-x", "pending": 0})
        if path == "/db/doc":
            digest = hashlib.md5(self.content).digest()
            stub = {
                "content_type": "video/mp4",
                "revpos": 1,
                "length": len(self.content),
                "stub": True,
                "digest": "md5-" + base64_of(digest),
            }
            doc = {
                "_id": "doc",
                "_rev": "1-" + "a" * 32,
                "_revisions": {"start": 1, "ids": ["a" * 32]},
                "_attachments": {"file": stub},
            }
            return web.json_response([{"ok": doc}])
        if path == "/db/doc/file":
            return await self._attachment(request)
        return web.json_response({"error": "not_found", "reason": "missing"}, status=404)

    async def _attachment(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        whole, half = self.content, len(self.content) // 2
        if len(self.asked) > 1:
            whole = self.content[:half] + self.rest
        tag = base64_of(hashlib.md5(whole).digest())
        headers = {"ETag": f'"{tag}"'}
        start = 0
        if asked is not None and self.ranges:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        response.content_length = len(whole) - start
        await response.prepare(request)
        if len(self.asked) == 1:
            await response.write(whole[:half])
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write(whole[start:])
        return response


def base64_of(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("changes", [False, True], ids=["the same", "changed meanwhile"])
async def test_what_goes_on_has_to_be_the_same(server: Couch, ranges: bool, changes: bool) -> None:
    content, half = LARGE[:200_000], LARGE[100_000:200_000]
    source = Source(content, half[::-1] if changes else half, ranges=ranges)
    runner = web.ServerRunner(web.Server(source.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/db"
    try:
        status, told = await server.replicate(
            url, server.endpoint("copy"), create_target=True, use_checkpoints=False, retries_per_request=1
        )
    finally:
        await runner.cleanup()
    assert source.asked[0] is None and source.asked[1].startswith("bytes=")
    assert int(source.asked[1].removeprefix("bytes=").rstrip("-")) > 0
    if changes:
        assert status == 200 and source.asked[2:] == [None], "it began again"
        assert (await server.ask("GET", "/copy/doc/file"))[1] == content[:100_000] + half[::-1]
    else:
        assert (status, len(source.asked)) == (200, 2), told
        assert (await server.ask("GET", "/copy/doc/file"))[1] == content
