"""Whichever request of a replication goes wrong, and however: the replication is complete in the end."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from .databases import Couch, contents, fill, graft
from .faults import DELAY_S, FAULTS, faulty_proxy


async def fill_a_little(server: Couch, name: str) -> None:
    await server.ask("PUT", f"/{name}")
    docs: list[dict[str, Any]] = [{"_id": f"doc-{number}"} for number in range(3)]
    docs += [{"_id": "_design/d"}, {"_id": "attached", "_attachments": {"a": {"data": "QUJD" * 30_000}}}]
    await server.ask("POST", f"/{name}/_bulk_docs", {"docs": docs})
    grafts = [graft("conflict", 1, [digit * 32]) for digit in "12"]
    await server.ask("POST", f"/{name}/_bulk_docs", {"docs": grafts, "new_edits": False})


@pytest.mark.parametrize("end", ["source", "target"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_replication_gets_over_it(server: Couch, other: Couch, end: str, fault: str) -> None:
    await fill_a_little(server if end == "target" else other, "original")
    wanted = await contents(server if end == "target" else other, "original")
    async with faulty_proxy(other.url) as proxy:
        faulty, requests = 1, 1
        while faulty <= requests:
            proxy.prepare(fault, faulty)
            name = f"copy-{faulty}"
            distant = {"auth": other.endpoint("")["auth"]}
            if end == "source":
                ends = {"url": f"{proxy.url}/original", **distant}, server.endpoint(name)
            else:
                ends = server.endpoint("original"), {"url": f"{proxy.url}/{name}", **distant}
            timeout_ms = int(DELAY_S * 500) if fault == "delayed" else 5_000
            status, told = await server.replicate(*ends, create_target=True, connection_timeout=timeout_ms)
            assert status == 200, (faulty, told)
            copied = server if end == "source" else other
            assert await contents(copied, name) == wanted, f"the fault of request {faulty}"
            requests = max(requests, proxy.count if faulty == 1 else 0)
            faulty += 1
        assert requests > 6


async def test_what_is_lost_for_good_is_told(server: Couch, other: Couch) -> None:
    await fill_a_little(server, "original")
    async with faulty_proxy("http://127.0.0.1:9") as proxy:
        target = {"url": f"{proxy.url}/copy", "auth": other.endpoint("")["auth"]}
        status, told = await server.replicate(server.endpoint("original"), target, retries_per_request=1)
    assert (status, told["error"]) == (500, "http_error_code")


async def test_a_run_that_broke_off_is_gone_on_with(server: Couch, other: Couch) -> None:
    await server.ask("PUT", "/original")
    for start in range(0, 100, 10):
        docs = [{"_id": f"{number:03}"} for number in range(start, start + 10)]
        await server.ask("POST", "/original/_bulk_docs", {"docs": docs})
    async with faulty_proxy(other.url) as proxy:
        target = {"url": f"{proxy.url}/copy", "auth": other.endpoint("")["auth"]}
        options = {"create_target": True, "worker_batch_size": 10, "retries_per_request": 0}
        proxy.prepare("500", 14)
        status, _ = await server.replicate(server.endpoint("original"), target, **options)
        assert status == 500
        proxy.prepare("", 0)
        status, told = await server.replicate(server.endpoint("original"), target, **options)
        assert status == 200
        assert 0 < told["history"][0]["docs_written"] < 100
    assert (await other.ask("GET", "/copy"))[1]["doc_count"] == 100


# --- servers that know less


async def test_a_source_without_multipart_and_bulk_get_gives_everything(server: Couch, other: Couch) -> None:
    await fill(other, "original")
    async with faulty_proxy(other.url) as proxy:
        proxy.is_plain = True
        source = {"url": f"{proxy.url}/original", "auth": other.endpoint("")["auth"]}
        options = {"create_target": True, "http_connections": 1}
        status, told = await server.replicate(source, server.endpoint("copy"), **options)
    assert (status, told["history"][0]["bulk_get_docs"]) == (200, 0)
    assert await contents(server, "copy") == await contents(other, "original")


@pytest.mark.parametrize("password", ["pass", "wrong"])
async def test_a_server_that_refuses_basic_is_asked_for_a_session(
    server: Couch, other: Couch, password: str
) -> None:
    await fill_a_little(other, "original")
    async with faulty_proxy(other.url) as proxy:
        proxy.wants_session = True
        auth = {"basic": {"username": "adm", "password": password}}
        source = {"url": f"{proxy.url}/original", "auth": auth}
        status, told = await server.replicate(source, server.endpoint("copy"), create_target=True)
    assert (status, told.get("error")) == ((200, None) if password == "pass" else (401, "unauthorized"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a second address on loopback")
async def test_bodies_go_compressed_to_distant_servers(server: Couch, other: Couch) -> None:
    await server.ask("PUT", "/original")
    docs = [{"_id": f"{number}", "text": "b" * 99} for number in range(99)]
    await server.ask("POST", "/original/_bulk_docs", {"docs": docs})
    async with faulty_proxy(other.url, "127.0.0.2") as proxy:  # not the address that means this machine
        target = {"url": f"{proxy.url}/copy", "auth": other.endpoint("")["auth"]}
        status, told = await server.replicate(server.endpoint("original"), target, create_target=True)
        assert (status, told["history"][0]["docs_written"]) == (200, 99)
        assert "gzip" in proxy.encodings


async def test_requests_go_through_a_proxy(server: Couch, other: Couch) -> None:
    await fill_a_little(other, "original")
    source = {"url": "http://nowhere.invalid/original", "auth": other.endpoint("")["auth"]}
    async with faulty_proxy(other.url) as proxy:
        options = {"create_target": True, "source_proxy": proxy.url}
        status, told = await server.replicate(source, server.endpoint("copy"), **options)
        assert status == 200, told
        assert proxy.count > 5
    assert await contents(server, "copy") == await contents(other, "original")
