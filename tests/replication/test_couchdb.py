"""With a real CouchDB at COUCH_URL (administrator adm, password pass): it replicates with us, we with it, in
both directions. Afterwards both ends have the same leaves, winners, histories and attachments."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator

import pytest

from .databases import Couch, contents, couch, fill, graft
from .faults import line

# Several processes may run the tests against one CouchDB.
A, B = (f"couchlite-test-{os.getpid()}-{letter}" for letter in "ab")

pytestmark = pytest.mark.skipif("COUCH_URL" not in os.environ, reason="needs a CouchDB at COUCH_URL")


@pytest.fixture
async def couchdb() -> AsyncIterator[Couch]:
    async with couch(os.environ.get("COUCH_URL", "").rstrip("/")) as client:
        for name in (A, B):
            await client.ask("DELETE", f"/{name}")
        yield client
        for name in (A, B):
            await client.ask("DELETE", f"/{name}")


@pytest.mark.parametrize("runner", ["couchlite", "couchdb"])
@pytest.mark.parametrize("source", ["couchlite", "couchdb"])
@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "singly"])
async def test_both_ends_are_equal(
    server: Couch, couchdb: Couch, runner: str, source: str, bulk: bool
) -> None:
    both = {"couchlite": server, "couchdb": couchdb}
    target = both["couchdb" if source == "couchlite" else "couchlite"]
    await fill(both[source], A)
    ends = both[source].endpoint(A), target.endpoint(B)
    status, told = await both[runner].replicate(*ends, create_target=True, use_bulk_get=bulk)
    assert status == 200, told
    assert await contents(target, B) == await contents(both[source], A)

    edit = graft("conflict", 5, ["0" * 32, "f" * 32], resolved=True)
    await both[source].ask("POST", f"/{A}/_bulk_docs", {"docs": [edit], "new_edits": False})
    status, told = await both[runner].replicate(*ends, create_target=True, use_bulk_get=bulk)
    assert status == 200 and told["history"][0]["docs_written"] == told["history"][1]["docs_written"] + 1
    assert await contents(target, B) == await contents(both[source], A)


async def test_a_cut_off_attachment_of_couchdb_goes_on_where_it_broke(server: Couch, couchdb: Couch) -> None:
    content = random.Random(1).randbytes(3_000_000)
    await couchdb.ask("PUT", f"/{A}")
    path = f"/{A}/doc/a%20video"
    status, _ = await couchdb.ask("PUT", path, content, headers={"Content-Type": "video/mp4"})
    assert status == 201
    async with line(couchdb.url) as (connection, url):
        connection.bytes_max = 500_000
        source = couchdb.endpoint(A) | {"url": f"{url}/{A}"}
        options = {"create_target": True, "retries_per_request": 2}
        status, told = await server.replicate(source, server.endpoint("copy"), **options)
        assert status == 200, told
        assert connection.lost >= 6 and connection.came < 1.4 * len(content)
    assert await contents(server, "copy") == await contents(couchdb, A)
