"""couchdb3, a client for Python: what its documentation shows, blocking and asynchronous."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from couchdb3 import exceptions
from couchdb3.aio import AsyncServer
from couchdb3.sync import Database, Server

from .site import PASSWORD, USER, Site

TITLES = {"views": {"titles": {"map": "function (doc) { if (doc.type === 'post') emit(doc.title, 1) }"}}}


@pytest.fixture
def server(common_site: Site) -> Iterator[Server]:
    with Server(common_site.url, user=USER, password=PASSWORD) as client:
        yield client


@pytest.fixture
def posts(server: Server, request: pytest.FixtureRequest) -> Database:
    """A database of the test's own, with ten posts."""
    database = server.create(request.node.name.removeprefix("test_"))
    docs = [{"_id": f"post-{n}", "type": "post", "title": f"Title {n}", "words": n * 100} for n in range(10)]
    assert all(row["ok"] for row in database.bulk_docs(docs))
    return database


def test_a_server_tells_about_itself(server: Server, common_site: Site) -> None:
    assert server.up() and server.check()
    assert server.info()["couchdb"] == "Welcome"
    assert "told" not in server
    database = server.create("told")
    assert "told" in server and "told" in server.all_dbs(startkey='"t"', limit=10)
    assert [info["key"] for info in server.dbs_info(["told", "missing"])] == ["told", "missing"]
    with pytest.raises(exceptions.PreconditionFailedError):
        server.create("told")
    assert database.info()["doc_count"] == 0
    assert server.active_tasks() == []
    assert server.membership()["all_nodes"] == server.membership()["cluster_nodes"]
    assert server.cluster_setup()["state"] in (
        "single_node_enabled",
        "single_node_disabled",
        "cluster_disabled",
    )
    assert server.node_stats()["couchdb"]["httpd"]["requests"]["value"] > 0
    assert server.node_system()["uptime"] >= 0
    assert server.set_node_config("cors", "origins", "http://one.example") == ""
    assert server.set_node_config("cors", "origins", "*") == "http://one.example"
    assert server.node_config()["cors"] == server.node_config(section="cors") == {"origins": "*"}
    assert server.delete_node_config("cors", "origins") == "*"
    assert server.reload_node_config()
    assert server.delete("told") and "told" not in server


def test_a_user_logs_in_with_a_cookie(server: Server, posts: Database, common_site: Site) -> None:
    if "_users" not in server:
        server.create("_users")
    ok, user_id, _rev = server.save_user("ada", password="secret", roles=["writers"])
    assert ok and user_id == "org.couchdb.user:ada"
    server.save_user("ada", password="engine", roles=["writers"])
    assert not server.check_user("ada", "secret")
    assert server.check_user("ada", "engine")
    with Server(common_site.url, user="ada", password="engine", auth_method="cookie") as ada:
        with pytest.raises(exceptions.ForbiddenError):
            ada.get(posts.name)
        posts.update_security(
            members={"names": [], "roles": ["writers"]}, admins={"names": [], "roles": ["_admin"]}
        )
        assert posts.security().members.roles == ["writers"]
        theirs = ada.get(posts.name)
        theirs.save(theirs["post-1"] | {"read_by": "ada"})
        with pytest.raises(exceptions.ForbiddenError):
            theirs.update_security()
    assert posts["post-1"]["read_by"] == "ada"


def test_documents(posts: Database) -> None:
    doc_id, ok, first = posts.save({"_id": "mydoc-id", "name": "Hello", "type": "World"})
    assert (doc_id, ok) == ("mydoc-id", True) and "mydoc-id" in posts
    doc = posts.get("mydoc-id", check=True)
    doc.update({"name": "Hello World"})
    _, _, second = posts.save(doc)
    assert posts.rev("mydoc-id") == second
    with pytest.raises(exceptions.ConflictError):
        posts.save({"_id": "mydoc-id", "_rev": first})
    assert posts.get("mydoc-id", rev=first)["name"] == "Hello"
    assert [known["status"] for known in posts.get("mydoc-id", revs_info=True)["_revs_info"]] == [
        "available"
    ] * 2
    assert posts.get("missing") is None
    with pytest.raises(exceptions.NotFoundError):
        posts.get("missing", check=True)
    copied = posts.copy("mydoc-id", "my copy", rev=first)
    assert posts["my copy"]["name"] == "Hello"
    assert posts.copy("mydoc-id", "my copy", destrev=copied[2])[2].startswith("2-")
    assert posts.delete("mydoc-id", rev=second) and "mydoc-id" not in posts
    generated, _, rev = posts.create({"name": "without an id"})
    assert len(generated) == 32 and posts.purge({generated: [rev]})["purged"] == {generated: [rev]}
    assert generated not in posts


def test_many_documents(posts: Database) -> None:
    found = posts.bulk_get([{"id": "post-1"}, {"id": "nobody"}], revs=True)
    assert found[0]["docs"][0]["ok"]["_revisions"]["start"] == 1
    assert found[1]["docs"][0]["error"]["error"] == "not_found"
    assert posts.all_docs().total_rows == 10
    rows = posts.all_docs(keys=["post-3", "nobody"], include_docs=True).rows
    assert rows[0].doc["title"] == "Title 3" and rows[1]["error"] == "not_found"
    grafted = {
        "_id": "post-1",
        "_rev": "2-" + "a" * 32,
        "_revisions": {"start": 2, "ids": ["a" * 32, "b" * 32]},
    }
    assert posts.bulk_docs([grafted], new_edits=False) == []
    assert len(posts.get("post-1", conflicts=True)["_conflicts"]) == 1
    assert posts.compact()


def test_attachments(posts: Database, tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(bytes(range(256)) * 1000)
    _, _, rev = posts.put_attachment("post-1", "picture.png", str(file), rev=posts.rev("post-1"))
    _, _, rev = posts.put_attachment(
        "post-1", "note.txt", content=b"grosse", content_type="text/plain", rev=rev
    )
    picture = posts.get_attachment("post-1", "picture.png")
    assert picture.content == file.read_bytes() and picture.content_type == "image/png"
    digest = b64encode(hashlib.md5(file.read_bytes()).digest()).decode()
    assert posts["post-1"]["_attachments"]["picture.png"]["digest"] == f"md5-{digest}"
    inline = posts.get("post-1", attachments=True)["_attachments"]["note.txt"]
    assert inline["data"] == b64encode(b"grosse").decode()
    assert posts.delete_attachment("post-1", "picture.png", rev)
    assert list(posts["post-1"]["_attachments"]) == ["note.txt"]


def test_views_and_queries(posts: Database) -> None:
    posts.put_design("shown", **TITLES)
    assert "titles" in posts.get_design("shown")["views"]
    assert [row["id"] for row in posts.design_docs()["rows"]] == ["_design/shown"]
    titles = posts.view("shown", "titles", startkey='"Title 7"', include_docs=True)
    assert [row.doc["words"] for row in titles.rows] == [700, 800, 900]
    assert posts.compact("shown")

    result, design, name = posts.save_index({"fields": ["type", "words"]}, ddoc="by", name="words")
    assert (result, design, name) == ("created", "_design/by", "words")
    assert posts.save_index({"fields": ["type", "words"]}, ddoc="by", name="words")[0] == "exists"
    selector = {"type": "post", "words": {"$gte": 500}}
    pages, bookmark = [], None
    while docs := (page := posts.find(selector, fields=["words"], limit=2, bookmark=bookmark))["docs"]:
        pages.append([doc["words"] for doc in docs])
        bookmark = page["bookmark"]
    assert pages == [[500, 600], [700, 800], [900]]
    assert posts.explain(selector)["index"]["name"] == "words"
    assert [index["name"] for index in posts.indexes()["indexes"]] == ["_all_docs", "words"]
    assert posts.delete_index("_design/by", "words")


def test_changes(posts: Database) -> None:
    changes = posts.changes()
    assert len(changes["results"]) == 10
    since = changes["last_seq"]
    posts.save({"_id": "new"})
    assert [row["id"] for row in posts.changes(since=since, feed="longpoll")["results"]] == ["new"]
    assert len(posts.changes(doc_ids=["post-1", "new"])["results"]) == 2
    assert [
        row["id"] for row in posts.changes(selector={"words": {"$gt": 800}}, include_docs=True)["results"]
    ] == ["post-9"]
    with posts.changes_stream(since=since) as stream:
        assert next(iter(stream))["id"] == "new"
    with posts.changes_stream(selector={"type": "post"}, limit=3, timeout=1000) as stream:
        assert ["last_seq" in row for row in stream] == [False, False, False, True]


def test_partitions(server: Server) -> None:
    shops = server.create("shops", partitioned=True)
    berlin = shops.get_partition("berlin")
    berlin.save({"_id": "order-1", "total": 3})
    berlin.save({"_id": "berlin:order-2", "total": 4})
    shops.save({"_id": "paris:order-1", "total": 5})
    assert "order-1" in berlin and berlin["order-1"]["_id"] == "berlin:order-1"
    assert berlin.info()["doc_count"] == 2
    assert [row.id for row in berlin.all_docs().rows] == ["berlin:order-1", "berlin:order-2"]
    assert [doc["total"] for doc in berlin.find({"total": {"$gt": 3}})["docs"]] == [4]
    shops.put_design("by", views={"total": {"map": "function (doc) { emit(doc.total) }"}}, partitioned=True)
    assert [row.key for row in berlin.view("by", "total").rows] == [3, 4]


def test_replications(server: Server, posts: Database, common_site: Site) -> None:
    address = common_site.url.replace("//", f"//{USER}:{PASSWORD}@")
    done = server.replicate(f"{address}/{posts.name}", f"{address}/replica", create_target=True)
    assert done["ok"] and done["history"][0]["docs_written"] == 10
    assert server.get("replica")["post-4"] == posts["post-4"]


async def test_the_asynchronous_client(common_site: Site) -> None:
    async with AsyncServer(common_site.url, user=USER, password=PASSWORD) as client:
        assert await client.up()
        database = await client.create("async")
        assert await client.has_db("async")
        saved = [await database.save({"_id": f"doc-{n}", "number": n}) for n in range(5)]
        assert all(ok for _, ok, _ in saved)
        assert await database.delete("doc-0", rev=await database.rev("doc-0"))
        doc = await database.get("doc-1")
        await database.save(doc | {"number": 10})
        await database.put_design("by", views={"number": {"map": "function (doc) { emit(doc.number) }"}})
        assert [row.key for row in (await database.view("by", "number")).rows] == [2, 3, 4, 10]
        await database.save_index({"fields": ["number"]})
        assert len((await database.find({"number": {"$lt": 5}}))["docs"]) == 3
        since = (await database.changes(since="now"))["last_seq"]
        async with database.changes_stream(since=since) as stream:
            await database.save({"_id": "live"})
            assert (await anext(aiter(stream)))["id"] == "live"
