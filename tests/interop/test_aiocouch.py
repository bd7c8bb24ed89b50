"""aiocouch, an asynchronous client for Python: what its documentation shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiocouch
import pytest
from aiocouch import CouchDB, Database, exception

from .site import PASSWORD, USER, Site

# aiocouch hands credentials over in a way that aiohttp will not take any more in its version 4.
pytestmark = [
    pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'auth' parameter is deprecated:DeprecationWarning"),
]


@pytest.fixture
async def couch(common_site: Site) -> AsyncIterator[CouchDB]:
    async with CouchDB(common_site.url, user=USER, password=PASSWORD) as client:
        await client.check_credentials()
        yield client


@pytest.fixture
async def animals(couch: CouchDB, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A database of the test's own, with five animals."""
    database = await couch.create(request.node.name.removeprefix("test_"))
    async with database.create_docs([f"animal-{number}" for number in range(5)]) as bulk:
        async for doc in bulk:
            doc["legs"] = int(doc.id[-1]) * 2
    assert len(bulk.ok) == 5 and bulk.error == []
    yield database
    await database.delete()


async def test_databases(couch: CouchDB, common_site: Site) -> None:
    assert (await couch.info())["couchdb"] == "Welcome"
    created = await couch.create("made")
    assert "made" in await couch.keys()
    with pytest.raises(aiocouch.PreconditionFailedError):
        await couch.create("made")
    assert (await couch.create("made", exists_ok=True)).id == "made"
    assert (await created.info())["doc_count"] == 0
    await created.delete()
    with pytest.raises(aiocouch.NotFoundError):
        await couch["made"]
    with pytest.raises(aiocouch.BadRequestError):
        await couch.create("Wrong Name")
    async with CouchDB(common_site.url, user=USER, password="wrong") as stranger:
        with pytest.raises(aiocouch.UnauthorizedError):
            await stranger.check_credentials()


async def test_documents(animals: Database) -> None:
    baboon = await animals.create("a baboon/ü", data={"legs": 2})
    await baboon.save()
    assert baboon.rev is not None and baboon.rev.startswith("1-")
    with pytest.raises(aiocouch.ConflictError):
        await animals.create("a baboon/ü")
    stale = await animals["a baboon/ü"]
    async with aiocouch.document.Document(animals, "a baboon/ü") as edited:
        edited["name"] = "Rafiki"
    stale["name"] = "Kong"
    with pytest.raises(aiocouch.ConflictError):
        await stale.save()
    await baboon.fetch(discard_changes=True)
    assert baboon["name"] == "Rafiki"
    assert await baboon.revs() == [edited.rev, stale.rev]
    assert (await animals.get(baboon.id, rev=stale.rev)).json == {"legs": 2}
    assert (await baboon.info())["rev"] == baboon.rev
    await baboon.copy("copied")
    assert (await animals["copied"])["name"] == "Rafiki"
    await baboon.delete()
    with pytest.raises(aiocouch.NotFoundError):
        await animals[baboon.id]
    assert (await animals.get(baboon.id, default={"legs": 0}))["legs"] == 0


async def test_many_documents(animals: Database) -> None:
    assert [key async for key in animals.akeys()] == [f"animal-{number}" for number in range(5)]
    assert [doc["legs"] async for doc in animals.docs(["animal-3", "animal-1"])] == [6, 2]
    assert [doc["legs"] async for doc in animals.docs(prefix="animal-")] == [0, 2, 4, 6, 8]
    async with animals.update_docs(["animal-1", "new"], create=True) as bulk:
        async for doc in bulk:
            doc["seen"] = True
    assert [doc.id for doc in bulk.ok] == ["animal-1", "new"]
    async with animals.update_docs(["animal-1", "animal-2"]) as bulk:
        async for doc in bulk:
            doc["late"] = True
        async with aiocouch.document.Document(animals, "animal-1") as other:
            other["early"] = True
    assert [doc.id for doc in bulk.error] == ["animal-1"]
    assert [doc.id for doc in bulk.ok] == ["animal-2"]
    assert await (await animals["animal-1"]).conflicts() == []
    purged = await animals._purge({"new": [(await animals["new"]).rev]})
    assert list(purged["purged"]) == ["new"]


async def test_views_and_queries(animals: Database) -> None:
    design = await animals.design_doc("by")
    legs = await design.create_view("legs", map_function="function (doc) { emit(doc.legs, doc._id) }")
    assert [row["value"] for row in (await legs.get(descending=True, limit=2)).rows] == [
        "animal-4",
        "animal-3",
    ]
    assert [doc.id async for doc in legs.docs(startkey=5)] == ["animal-3", "animal-4"]
    assert [doc.id async for doc in legs.docs([4])] == ["animal-2"]
    await animals.index({"fields": ["legs"]}, name="legs")
    found = [doc.id async for doc in animals.find({"legs": {"$lt": 6}}, sort=[{"legs": "desc"}])]
    assert found == ["animal-2", "animal-1", "animal-0"]
    assert [doc.id async for doc in animals.find({"legs": {"$gt": 0}}, limit=2)] == ["animal-1", "animal-2"]


async def test_attachments(animals: Database) -> None:
    doc = await animals["animal-1"]
    attachment = doc.attachment("a picture ü.png")
    assert not await attachment.exists()
    await attachment.save(b"\x00picture" * 10_000, "image/png")
    await doc.fetch()
    assert await doc.attachment("a picture ü.png").fetch() == b"\x00picture" * 10_000
    assert await attachment.exists() and attachment.content_type == "image/png"
    await attachment.delete()
    with pytest.raises(aiocouch.NotFoundError):
        await attachment.fetch()


async def test_security(animals: Database, couch: CouchDB) -> None:
    async with await animals.security() as rights:
        rights.add_member("ada")
        rights.add_admin_role("keepers")
    stored = await animals.security()
    assert stored.members == ["ada"] and "keepers" in (stored.admin_roles or [])
    stored.remove_member("ada")
    await stored.save()
    assert (await animals.security()).members == []


async def test_changes(animals: Database) -> None:
    seen = [event async for event in animals.changes(include_docs=True)]
    assert [event.id for event in seen] == [f"animal-{number}" for number in range(5)]
    async for event in animals.changes(last_event_id=seen[3].sequence):
        assert isinstance(event, aiocouch.event.ChangedEvent)
        assert (await event.doc())["legs"] == 8
    doc = await animals["animal-0"]
    live = animals.changes(feed="continuous", since=seen[-1].sequence)
    first = asyncio.ensure_future(anext(live))
    await doc.delete()
    assert isinstance(await first, aiocouch.event.DeletedEvent)
    await live.aclose()


async def test_a_cookie(couch: CouchDB, animals: Database, common_site: Site) -> None:
    login = common_site.request("POST", "/_session", {"name": USER, "password": PASSWORD})
    cookie = login.headers["Set-Cookie"].split("AuthSession=")[1].split(";")[0]
    async with CouchDB(common_site.url, cookie=cookie) as with_cookie:
        await with_cookie.check_credentials()
        assert (await (await with_cookie[animals.id])["animal-4"])["legs"] == 8
    async with CouchDB(common_site.url) as anonymous:
        with pytest.raises(exception.UnauthorizedError):
            await anonymous[animals.id]
