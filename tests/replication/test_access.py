"""How a peer is reached: through proxies, with tokens, and with sessions that end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .databases import Couch, contents
from .faults import faulty_proxy
from .socks import socks_proxy
from .test_faults import fill_a_little


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("password", [None, "right"])
async def test_requests_go_through_a_socks_proxy(
    server: Couch, other: Couch, by_name: bool, password: str | None
) -> None:
    await fill_a_little(other, "original")
    credentials = None if password is None else (b"me", password.encode())
    host = "nowhere.invalid" if by_name else "192.0.2.1"
    port = other.url.rpartition(":")[2]
    async with socks_proxy(credentials) as proxy:
        login = "" if password is None else f"me:{password}@"
        source = {"url": f"http://{host}:{port}/original", "auth": other.endpoint("")["auth"]}
        options = {"create_target": True, "source_proxy": f"socks5://{login}127.0.0.1:{proxy.port}"}
        status, told = await server.replicate(source, server.endpoint("copy"), **options)
        assert status == 200, told
        assert proxy.hosts == {host}
    assert await contents(server, "copy") == await contents(other, "original")


@pytest.mark.parametrize("what", ["wrong password", "nobody there"])
async def test_a_socks_proxy_that_does_not_work(server: Couch, what: str) -> None:
    async with socks_proxy((b"me", b"right")) as proxy:
        port = proxy.port if what == "wrong password" else 9
        options = {"proxy": f"socks5://me:secret@127.0.0.1:{port}", "retries_per_request": 0}
        status, told = await server.replicate("http://192.0.2.1/x", "http://192.0.2.1/y", **options)
    assert status == 500 and "http://192.0.2.1/x/" in told["reason"]
    assert "secret" not in str(told)


async def test_a_token_goes_along_with_every_request(server: Couch, other: Couch) -> None:
    await fill_a_little(other, "original")
    async with faulty_proxy(other.url) as proxy:
        proxy.wants_token = "Bearer header.payload.signature"
        source = {"url": f"{proxy.url}/original", "headers": {"Authorization": proxy.wants_token}}
        status, told = await server.replicate(source, server.endpoint("copy"), create_target=True)
        assert status == 200, told
        wrong = source | {"headers": {"Authorization": "Bearer other"}}
        status, told = await server.replicate(wrong, server.endpoint("copy"))
        assert (status, told["error"]) == (401, "unauthorized")
    assert await contents(server, "copy") == await contents(other, "original")


@pytest.mark.parametrize("end", ["source", "target"])
async def test_a_session_that_ends_at_any_request_is_begun_anew(
    server: Couch, other: Couch, end: str
) -> None:
    original = other if end == "source" else server
    await fill_a_little(original, "original")
    wanted = await contents(original, "original")
    async with faulty_proxy(other.url) as proxy:
        proxy.wants_session = True
        # Asked, refused, logged in, asked again: from then on there is a session to end.
        faulty, requests = 3, 4
        while faulty <= requests:
            proxy.prepare("401" if faulty > 3 else "", faulty)
            name = f"copy-{faulty}"
            distant: dict[str, Any] = {"auth": other.endpoint("")["auth"]}
            if end == "source":
                ends = {"url": f"{proxy.url}/original", **distant}, server.endpoint(name)
            else:
                ends = server.endpoint("original"), {"url": f"{proxy.url}/{name}", **distant}
            status, told = await server.replicate(*ends, create_target=True)
            assert status == 200, (faulty, told)
            assert told["history"][0]["doc_write_failures"] == 0, (faulty, told)
            assert await contents(server if end == "source" else other, name) == wanted, faulty
            requests = max(requests, proxy.count if faulty == 3 else 0)
            faulty += 1
        assert requests > 8


async def test_a_validation_function_s_401_is_a_refusal(server: Couch, other: Couch) -> None:
    """It is the document that was refused, not the session that has ended."""
    await server.ask("PUT", "/original")
    await server.ask("PUT", "/original/doc", {"_attachments": {"a": {"data": "QUJD"}}})
    await other.ask("PUT", "/copy")
    function = "function(doc) { throw({unauthorized: 'not you'}); }"
    await other.ask("PUT", "/copy/_design/v", {"validate_doc_update": function})
    async with faulty_proxy(other.url) as proxy:
        proxy.wants_session = True
        target = {"url": f"{proxy.url}/copy", "auth": other.endpoint("")["auth"]}
        async with asyncio.timeout(20):
            status, told = await server.replicate(server.endpoint("original"), target)
    assert (status, told["history"][0]["doc_write_failures"]) == (200, 1)
    _, told = await server.ask("GET", "/_replications/_explain?doc_id=doc")
    [event] = told["replications"][0]["events"]
    assert (event["outcome"], event["error"], event["reason"]) == ("refused", "unauthorized", "not you")
