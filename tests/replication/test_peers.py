"""What a peer must do, asked of both kinds: a database opened in-process, and the same over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from couchlite.errors import MissingStub
from couchlite.security import ANONYMOUS, SYSTEM
from replicator import Endpoint, EndpointRefused, HttpPeer, LocalPeer, Options, Peer, Refusal
from replicator.peer import Change, ChangesPage, ChangesQuery, Doc, Missing, StreamedDoc
from tests.web.in_process import ADMIN, Site

from .databases import Couch, fill, graft

KINDS = ["local", "http"]


def make(site: Site, kind: str, name: str, *, anonymous: bool = False) -> Peer:
    endpoint = Endpoint(f"http://127.0.0.1:{site.port}/{name}/", *((None, "") if anonymous else ADMIN))
    if kind == "http":
        return HttpPeer(endpoint, Options(endpoint, endpoint, connection_timeout_ms=5000))
    principal = ANONYMOUS if anonymous else SYSTEM
    return LocalPeer(site.server, site.app.functions, name, principal, endpoint.url)


@pytest.fixture(params=KINDS)
async def peer(request: pytest.FixtureRequest, site: Site, server: Couch) -> AsyncIterator[Peer]:
    """A database `notes`, empty and open."""
    await server.ask("PUT", "/notes")
    made = make(site, request.param, "notes")
    await made.open()
    yield made
    await made.close()


async def pages(peer: Peer, since: Any = 0, query: ChangesQuery | None = None) -> list[ChangesPage]:
    return [page async for page in peer.changes(since, query or ChangesQuery())]


async def changes(peer: Peer, since: Any = 0, query: ChangesQuery | None = None) -> list[Change]:
    return [change for page in await pages(peer, since, query) for change in page.changes]


def doc(doc_id: str, start: int, ids: list[str], **fields: Any) -> Doc:
    return Doc(doc_id, f"{start}-{ids[0]}", value=graft(doc_id, start, ids, **fields))


# --- opening


@pytest.mark.parametrize("kind", KINDS)
async def test_a_missing_database_is_refused_by_name(site: Site, kind: str) -> None:
    peer = make(site, kind, "nowhere")
    with pytest.raises(EndpointRefused) as refusal:
        await peer.open()
    await peer.close()
    assert (refusal.value.status, refusal.value.error) == (500, "db_not_found")
    assert refusal.value.reason == f"could not open http://127.0.0.1:{site.port}/nowhere/"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("create", [False, True])
async def test_who_is_nobody_is_refused(site: Site, server: Couch, kind: str, create: bool) -> None:
    await server.ask("PUT", "/notes")
    peer = make(site, kind, "notes", anonymous=True)
    with pytest.raises(EndpointRefused) as refusal:
        await peer.open(create=create)
    await peer.close()
    assert refusal.value.status == 401


@pytest.mark.parametrize("kind", KINDS)
async def test_a_target_is_created_once(site: Site, kind: str) -> None:
    peer = make(site, kind, "new")
    first = await peer.open(create=True, create_params={"q": "3", "partitioned": "true"})
    second = await peer.open(create=True)
    await peer.close()
    assert first.instance_start_time == second.instance_start_time
    assert site.server.open("new").props == {"q": 3, "partitioned": True}


async def test_open_and_commit_tell_the_same_start(peer: Peer) -> None:
    assert (await peer.open()).instance_start_time == await peer.commit()


# --- changes


async def test_changes_list_all_leaves_winners_first(peer: Peer) -> None:
    await peer.bulk_docs([doc("a", 1, ["1" * 32]), doc("a", 1, ["2" * 32]), doc("b", 1, ["3" * 32])])
    found = {change.id: list(change.revs) for change in await changes(peer)}
    assert found == {"a": [f"1-{'2' * 32}", f"1-{'1' * 32}"], "b": [f"1-{'3' * 32}"]}
    winners = await changes(peer, query=ChangesQuery(winners_only=True))
    assert [list(change.revs) for change in winners if change.id == "a"] == [[f"1-{'2' * 32}"]]


async def test_changes_go_on_where_they_were(peer: Peer) -> None:
    await peer.bulk_docs([doc("a", 1, ["1" * 32])])
    last = (await pages(peer))[-1].last_seq
    assert await changes(peer, last) == []
    await peer.bulk_docs([doc("b", 1, ["1" * 32])])
    assert [change.id for change in await changes(peer, last)] == ["b"]
    assert await peer.count_pending(last) == 1
    assert await peer.count_pending(0) == 2


async def test_changes_come_in_pages(peer: Peer) -> None:
    await peer.bulk_docs([doc(f"{number:05}", 1, ["1" * 32]) for number in range(5000)])
    found = await changes(peer)
    assert [change.id for change in found] == [f"{number:05}" for number in range(5000)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(ChangesQuery(doc_ids=("a", "nope")), ["a"], id="by ids"),
        pytest.param(ChangesQuery(selector={"kind": "x"}), ["b"], id="by a selector"),
        pytest.param(ChangesQuery(filter="_design"), ["_design/d"], id="design documents"),
    ],
)
async def test_changes_are_filtered(peer: Peer, query: ChangesQuery, expected: list[str]) -> None:
    docs = [doc("a", 1, ["1" * 32]), doc("b", 1, ["2" * 32], kind="x"), doc("_design/d", 1, ["3" * 32])]
    assert await peer.bulk_docs(docs) == []
    assert [change.id for change in await changes(peer, query=query)] == expected


async def test_a_continuous_feed_brings_what_comes(peer: Peer) -> None:
    await peer.bulk_docs([doc("a", 1, ["1" * 32])])
    feed = peer.changes(0, ChangesQuery(continuous=True))
    assert [change.id for change in (await anext(feed)).changes] == ["a"]
    waiting = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(0.1)
    await peer.bulk_docs([doc("b", 1, ["1" * 32])])
    assert [change.id for change in (await asyncio.wait_for(waiting, 5)).changes] == ["b"]
    await feed.aclose()


# --- what is missing


async def test_revs_diff_tells_what_is_missing_and_what_may_be_its_ancestor(peer: Peer) -> None:
    await peer.bulk_docs([doc("a", 2, ["2" * 32, "1" * 32])])
    wanted = [
        Change(0, "a", [f"2-{'2' * 32}", f"3-{'3' * 32}"]),
        Change(0, "b", [f"1-{'1' * 32}"]),
        Change(0, "a", [f"1-{'1' * 32}"]),
    ]
    missing = {item.id: (list(item.revs), list(item.ancestors)) for item in await peer.revs_diff(wanted)}
    assert missing == {"a": ([f"3-{'3' * 32}"], [f"2-{'2' * 32}"]), "b": ([f"1-{'1' * 32}"], [])}


# --- documents


async def test_documents_come_with_their_histories(peer: Peer) -> None:
    sent = [
        doc("plain", 2, ["2" * 32, "1" * 32], text="ü", number=2**70),
        doc("deleted/☃", 1, ["3" * 32], _deleted=True),
    ]
    assert await peer.bulk_docs(sent) == []
    batch = await peer.bulk_get([Missing(item.id, [item.rev]) for item in sent])
    assert {item.id: without_rev(item) for item in batch.docs} == {
        "plain": graft("plain", 2, ["2" * 32, "1" * 32], text="ü", number=2**70),
        "deleted/☃": graft("deleted/☃", 1, ["3" * 32], _deleted=True),
    }
    assert not batch.single and not batch.left


def without_rev(found: Doc) -> dict[str, Any]:
    return {name: value for name, value in found.value.items() if name != "_rev"}


async def test_a_revision_that_has_been_edited_comes_as_what_it_became(peer: Peer) -> None:
    await peer.bulk_docs([doc("a", 2, ["2" * 32, "1" * 32])])
    batch = await peer.bulk_get([Missing("a", [f"1-{'1' * 32}"])])
    assert [found.rev for found in batch.docs] == [f"2-{'2' * 32}"]


async def test_all_leaves_that_are_wanted_come(peer: Peer) -> None:
    revs = [f"1-{digit * 32}" for digit in "123"]
    await peer.bulk_docs([doc("a", 1, [rev[2:]]) for rev in revs])
    batch = await peer.bulk_get([Missing("a", revs)])
    assert sorted(found.rev for found in batch.docs) == revs


async def test_what_is_not_there_is_told_one_by_one(peer: Peer) -> None:
    unknown = Missing("unknown", (f"1-{'1' * 32}",))
    batch = await peer.bulk_get([unknown])
    assert list(batch.single) == [unknown]
    async with peer.open_revs(unknown) as found:
        assert [result async for result in found] == [
            Refusal("unknown", f"1-{'1' * 32}", "not_found", "missing on the source")
        ]


async def test_refused_documents_do_not_keep_others_out(peer: Peer, server: Couch) -> None:
    source = "function(doc) { if (doc.bad) throw({forbidden: 'no'}); }"
    status, _ = await server.ask("PUT", "/notes/_design/v", {"validate_doc_update": source})
    assert status == 201
    refused = await peer.bulk_docs([doc("a", 1, ["1" * 32]), doc("b", 1, ["2" * 32], bad=True)])
    assert refused == [Refusal("b", f"1-{'2' * 32}", "forbidden", "no")]
    assert (await server.ask("GET", "/notes/a"))[0] == 200


# --- attachments


async def collect(peer: Peer, wanted: Missing) -> list[tuple[dict[str, Any], list[str]]]:
    """The documents and the digests of their attachments."""
    found = []
    async with peer.open_revs(wanted) as results:
        async for result in results:
            assert isinstance(result, StreamedDoc)
            digests = []
            async for body in result.bodies:
                digest = hashlib.md5()
                async for piece in body:
                    digest.update(piece)
                digests.append(digest.hexdigest())
            found.append((result.doc.value, digests))
    return found


@pytest.mark.parametrize("target_kind", KINDS)
async def test_attachments_are_passed_on(peer: Peer, site: Site, server: Couch, target_kind: str) -> None:
    await server.ask("DELETE", "/notes")
    await fill(server, "notes")
    await peer.open()
    target = make(site, target_kind, "copy")
    await target.open(create=True)
    for change in await changes(peer):
        if change.id in ("inline", "large", "large/text"):
            wanted = Missing(change.id, change.revs)
            async with peer.open_revs(wanted) as results:
                async for result in results:
                    assert isinstance(result, StreamedDoc)
                    assert await target.put(result) is None
            assert await collect(target, wanted) == await collect(peer, wanted)
    await target.close()


async def test_attachments_that_an_ancestor_had_are_stubs(peer: Peer, server: Couch) -> None:
    await server.ask("DELETE", "/notes")
    await fill(server, "notes")
    await peer.open()
    _, inline = await server.ask("GET", "/notes/inline?revs=true")
    parent = f"1-{inline['_revisions']['ids'][1]}"
    [(value, digests)] = await collect(peer, Missing("inline", [inline["_rev"]], [parent]))
    assert [name for name, props in value["_attachments"].items() if props.get("follows")] == ["new"]
    assert len(digests) == 1


async def test_a_stub_of_nothing_is_told(peer: Peer) -> None:
    value = graft("a", 2, ["2" * 32, "1" * 32], _attachments={"x": {"stub": True, "revpos": 1, "length": 1}})

    async def nothing() -> AsyncIterator[AsyncIterator[bytes]]:
        return
        yield

    with pytest.raises(MissingStub):
        await peer.put(StreamedDoc(Doc("a", f"2-{'2' * 32}", value=value), (), nothing()))


# --- local documents


async def test_local_documents_are_written_and_read(peer: Peer) -> None:
    assert await peer.read_doc("_local/x/y") is None
    rev = await peer.write_local("_local/x", {"_id": "_local/x", "seq": 1})
    rev = await peer.write_local("_local/x", {"_id": "_local/x", "_rev": rev, "seq": 2})
    assert await peer.read_doc("_local/x") == {"_id": "_local/x", "_rev": rev, "seq": 2}
