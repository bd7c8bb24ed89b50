"""Conflicts of databases settled by resolvers; and that peers which do it at once converge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from couchlite import Rev, Server, document, jsontext, resolving
from couchlite.automatic import RESOLUTIONS_MAX, AutomaticResolution
from couchlite.database import Database
from couchlite.errors import BadRequest, NotFound
from couchlite.javascript import FunctionPool
from couchlite.merging.resolvers import LeftAlone, Resolution
from couchlite.merging.settings import Settings, parse_resolver
from couchlite.resolving import Resolving

from .helpers import attachment, graft, leaves
from .test_merge_laws import edited

THREE_WAY = parse_resolver("three-way")


@pytest.fixture
async def functions() -> AsyncIterator[FunctionPool]:
    pool = FunctionPool()
    yield pool
    await pool.close()


def make_conflict(database: Database, doc_id: str = "d", *, left: Any = None, right: Any = None) -> None:
    """A base with two leaves that edit it; by default so that they can be merged."""
    start = database.put({"_id": doc_id, "a": 1, "b": 1})
    database.put({"_id": doc_id, "_rev": start, **({"a": 2, "b": 1} if left is None else left)})
    fields = {"a": 1, "b": 2} if right is None else right
    graft(database, doc_id, [f"2-{0:032}", start], **fields)


def conflicts(database: Database) -> list[str]:
    return [row.id for row in database.conflicts()]


# One conflict


async def test_a_proposal_writes_nothing(database: Database, functions: FunctionPool) -> None:
    make_conflict(database)
    found = await Resolving(database, functions).propose("d", THREE_WAY)
    assert (found.id, found.resolver, found.proposal) == ("d", "three-way", Resolution({"a": 2, "b": 2}))
    assert [rev.text for rev in found.leaves] == leaves(database, "d")
    assert conflicts(database) == ["d"]


async def test_a_conflict_is_resolved_and_recorded(database: Database, functions: FunctionPool) -> None:
    make_conflict(database)
    found = await Resolving(database, functions).resolve("d", THREE_WAY)
    assert found.done is not None
    assert conflicts(database) == []
    assert database.get("d") == {"_id": "d", "_rev": found.done.into.text, "a": 2, "b": 2}
    [record] = database.resolutions("d")
    assert (record.using, record.by) == ("three-way", None)


async def test_what_clashes_stays_as_it_is(database: Database, functions: FunctionPool) -> None:
    make_conflict(database, right={"a": 3, "b": 1})
    before = leaves(database, "d")
    found = await Resolving(database, functions).resolve("d", THREE_WAY)
    assert isinstance(found.proposal, LeftAlone)
    assert found.proposal.clashes[0].pointer == "/a"
    assert leaves(database, "d") == before


async def test_attachments_of_both_leaves_are_kept(database: Database, functions: FunctionPool) -> None:
    start = database.put({"_id": "d", "_attachments": {"old": attachment(b"old")}})
    stub = {"old": {"stub": True, "revpos": 1}}
    database.put({"_id": "d", "_rev": start, "_attachments": stub | {"here": attachment(b"here")}})
    graft(database, "d", ["2-ff", start], _attachments=stub | {"there": attachment(b"there")})
    found = await Resolving(database, functions).resolve("d", THREE_WAY)
    assert isinstance(found.proposal, Resolution)
    assert {name: database.attachment("d", name) for name in ("old", "here", "there")} == {
        "old": b"old",
        "here": b"here",
        "there": b"there",
    }


async def test_a_resolution_that_is_refused_leaves_alone(database: Database, functions: FunctionPool) -> None:
    make_conflict(database)
    refuse = "function (doc) { if (doc.a == 2 && doc.b == 2) throw {forbidden: 'not both'} }"
    database.put({"_id": "_design/v", "validate_doc_update": refuse})
    found = await Resolving(database, functions).resolve("d", THREE_WAY)
    assert found.proposal == LeftAlone("the merged document was refused: forbidden: not both")
    assert conflicts(database) == ["d"]


async def test_a_function_may_delete_the_document(database: Database, functions: FunctionPool) -> None:
    make_conflict(database)
    database.put({"_id": "_design/r", "resolvers": {"f": "function () { return {_deleted: true} }"}})
    resolver = parse_resolver("javascript", {"function": "r/f"})
    await Resolving(database, functions).resolve("d", resolver)
    assert conflicts(database) == []
    with pytest.raises(NotFound, match="deleted"):
        database.get("d")


async def test_no_conflict_is_not_found(database: Database, functions: FunctionPool) -> None:
    database.put({"_id": "d"})
    for doc_id in ("d", "other"):
        with pytest.raises(NotFound):
            await Resolving(database, functions).resolve(doc_id, THREE_WAY)


async def test_all_conflicts_by_the_settings(database: Database, functions: FunctionPool) -> None:
    make_conflict(database, "clean")
    make_conflict(database, "clash", right={"a": 3, "b": 1})
    make_conflict(database, "other", right={"a": 1, "b": 2, "type": "x"}, left={"a": 2, "b": 1, "type": "x"})
    settler = Resolving(database, functions)
    chosen = Settings.parse(
        {"resolvers": [{"selector": {"type": {"$exists": False}}, "resolver": "three-way"}]}
    )
    dry = [found async for found in settler.all(chosen, dry_run=True)]
    assert [(one.id, one.resolver, isinstance(one.proposal, Resolution)) for one in dry] == [
        ("clash", "three-way", False),
        ("clean", "three-way", True),
        ("other", "manual", False),
    ]
    assert conflicts(database) == ["clash", "clean", "other"]
    assert [found.done is not None async for found in settler.all(chosen)] == [False, True, False]
    assert conflicts(database) == ["clash", "other"]


# Settings


def test_settings_are_stored_with_the_database(tmp_path: Path) -> None:
    stored = {"automatic": True, "resolvers": [{"selector": {}, "resolver": "union"}]}
    with Server(tmp_path) as server:
        server.create("db")
        assert server.resolvers("db") == {"automatic": False, "resolvers": []}
        server.set_resolvers("db", stored)
        with pytest.raises(BadRequest, match="automatic must be true or false"):
            server.set_resolvers("db", {"automatic": "yes"})
    with Server(tmp_path) as server:
        assert server.resolvers("db") == stored
        server.delete("db")
        with pytest.raises(NotFound):
            server.resolvers("db")
        server.create("db")
        assert server.resolvers("db") == {"automatic": False, "resolvers": []}


# By themselves


def resolve_automatically(store: Server, name: str = "three-way", options: Any = None) -> None:
    listed = [{"resolver": name, "options": options or {}}]
    store.set_resolvers("notes", {"automatic": True, "resolvers": listed})


async def look(automatic: AutomaticResolution) -> None:
    while await automatic.look(everywhere=True):
        pass


async def test_nothing_happens_unless_told(
    store: Server, database: Database, functions: FunctionPool
) -> None:
    make_conflict(database)
    store.set_resolvers("notes", {"automatic": False, "resolvers": [{"resolver": "three-way"}]})
    await look(AutomaticResolution(store, functions))
    assert conflicts(database) == ["d"]


async def test_old_conflicts_and_new_ones_are_resolved(
    store: Server, database: Database, functions: FunctionPool
) -> None:
    for number in range(3):
        make_conflict(database, f"old{number}")
    make_conflict(database, "clash", right={"a": 3, "b": 1})
    resolve_automatically(store)
    automatic = AutomaticResolution(store, functions)
    await look(automatic)
    assert conflicts(database) == ["clash"]
    make_conflict(database, "new")
    await look(automatic)
    assert conflicts(database) == ["clash"]


async def test_another_process_goes_on_where_one_has_stopped(
    store: Server, database: Database, functions: FunctionPool
) -> None:
    """What it left alone isn't looked at again, unless it or the settings change."""
    make_conflict(database, right={"a": 3, "b": 1})
    resolve_automatically(store)
    await look(AutomaticResolution(store, functions))
    seq = database.state().update_seq
    make_conflict(database, "new")
    await look(AutomaticResolution(store, functions))
    assert conflicts(database) == ["d"]
    resolve_automatically(store, options={"clashes": "winner"})
    await look(AutomaticResolution(store, functions))
    assert conflicts(database) == []
    assert database.state().update_seq > seq


async def test_what_was_undone_is_not_done_again(
    store: Server, database: Database, functions: FunctionPool
) -> None:
    make_conflict(database)
    resolve_automatically(store)
    automatic = AutomaticResolution(store, functions)
    await look(automatic)
    [record] = database.resolutions("d")
    database.undo(record.number)
    await look(automatic)
    assert conflicts(database) == ["d"]
    winner = leaves(database, "d")[0]
    database.put({"_id": "d", "_rev": winner, "a": 2, "b": 1, "c": 1})
    await look(automatic)
    assert conflicts(database) == []


async def test_servers_that_disagree_come_to_an_end(
    store: Server, database: Database, functions: FunctionPool
) -> None:
    other = store.create("other")
    make_conflict(database, left={"a": 5, "b": 1}, right={"a": 3, "b": 1})
    for name, rule in (("notes", "max"), ("other", "min")):
        listed = [{"resolver": "three-way", "options": {"rules": {"/a": rule}}}]
        store.set_resolvers(name, {"automatic": True, "resolvers": listed})
    automatic = AutomaticResolution(store, functions)
    for _ in range(2 * RESOLUTIONS_MAX):
        synchronize([database, other])
        await look(automatic)
    assert len(list(database.resolutions("d"))) <= RESOLUTIONS_MAX
    assert len(list(other.resolutions("d"))) <= RESOLUTIONS_MAX


# Peers


def synchronize(peers: list[Database]) -> None:
    for source in peers:
        for target in peers:
            if source is not target:
                replicate(source, target)


def replicate(source: Database, target: Database) -> None:
    with source.snapshot() as snapshot:
        found = snapshot.document("d")
        if found is None:
            return
        texts = [
            document.render(snapshot.revision(found, leaf), revs=True)
            for leaf in found.leaves()
            if leaf.info.body
        ]
    target.submit_replicated([document.parse(jsontext.loads(text)) for text in texts]).result()


def offline_edits(peers: list[Database], base: Any, versions: list[Any]) -> None:
    """Each peer edits the document in its own way, with the others out of reach."""
    start = peers[0].put({"_id": "d", **(base or {})})
    synchronize(peers)
    for peer, fields in zip(peers, versions, strict=True):
        peer.put({"_id": "d", "_rev": start, **fields})


RESOLVERS = [
    parse_resolver("three-way"),
    parse_resolver("three-way", {"clashes": "winner"}),
    parse_resolver("union", {"clashes": "winner"}),
]


@pytest.mark.parametrize("resolver", RESOLVERS, ids=["three-way", "winner", "union"])
@given(case=edited())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_peers_that_resolve_the_same_leaves_at_once_make_the_same_revisions(
    tmp_path_factory: pytest.TempPathFactory, functions: FunctionPool, resolver: Any, case: Any
) -> None:
    base, versions = case
    with Server(tmp_path_factory.mktemp("peers")) as server:
        peers = [server.create(f"p{number}") for number in range(len(versions))]
        offline_edits(peers, base, versions)
        for order in list(permutations(peers))[:3]:  # the leaves arrive in different orders
            synchronize(list(order))
        if conflicts(peers[0]):
            outcomes = [await Resolving(peer, functions).resolve("d", resolver) for peer in peers]
            assert len({one.done.into if one.done else None for one in outcomes}) == 1
        synchronize(peers)
        assert len({tuple(leaves(peer, "d")) for peer in peers}) == 1
        if conflicts(peers[0]):
            assert resolver is RESOLVERS[0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20), st.integers(2, 4))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_peers_that_meet_and_resolve_in_any_order_converge(
    tmp_path_factory: pytest.TempPathFactory,
    functions: FunctionPool,
    meetings: list[tuple[int, int]],
    count: int,
) -> None:
    """No edit clashes here, so all of them must be there in the end. Who meets itself resolves."""
    with Server(tmp_path_factory.mktemp("peers")) as server:
        peers = [server.create(f"p{number}") for number in range(count)]
        base = {"log": ["start"], "text": "".join(f"line {n}\n" for n in range(10))}
        versions = [
            {
                **base,
                f"m{n}": n,
                "log": ["start", f"e{n}"],
                "text": base["text"].replace(f"line {2 * n}\n", f"{n}\n"),
            }
            for n in range(count)
        ]
        offline_edits(peers, base, versions)
        for source, target in meetings:
            if source == target:
                await settle(peers[source % count], functions)
            else:
                replicate(peers[source % count], peers[target % count])
        for _ in range(4):
            synchronize(peers)
            for peer in peers:
                await settle(peer, functions)
        assert len({tuple(leaves(peer, "d")) for peer in peers}) == 1
        for peer in peers:
            assert conflicts(peer) == []
            found = peer.get("d")
            assert sorted(found["log"]) == [*(f"e{n}" for n in range(count)), "start"]
            assert [found[f"m{n}"] for n in range(count)] == list(range(count))
            assert all(f"{n}\n" in found["text"] for n in range(count))


async def test_ten_peers_converge(store: Server, functions: FunctionPool) -> None:
    peers = [store.create(f"p{number}") for number in range(10)]
    versions = [{"tags": ["x", f"t{n}"], f"m{n}": n, "title": f"{n}"} for n in range(10)]
    offline_edits(peers, {"tags": ["x"], "title": ""}, versions)
    synchronize(peers)
    resolver = parse_resolver("three-way", {"rules": {"/title": "max", "/tags": "set"}})
    for peer in peers[::-1]:
        await Resolving(peer, functions).resolve("d", resolver)
    before = [leaves(peer, "d") for peer in peers]
    synchronize(peers)
    assert [leaves(peer, "d") for peer in peers] == before == [before[0]] * 10
    assert peers[3].get("d")["title"] == "9"
    assert peers[3].get("d")["tags"] == ["x", *(f"t{n}" for n in range(10))]


async def settle(peer: Database, functions: FunctionPool) -> None:
    if conflicts(peer):
        found = await Resolving(peer, functions).resolve("d", THREE_WAY)
        assert found.done is not None, found


async def test_a_thousand_leaves_are_resolved_at_once(database: Database, functions: FunctionPool) -> None:
    start = database.put({"_id": "d", "log": ["start"]})
    grafted = []
    for number in range(1000):
        edit = document.parse({"_id": "d", "log": ["start", f"{number:03}"]})
        edit.path = Rev.parse(f"2-{number:032}"), Rev.parse(start)
        grafted.append(edit)
    database.submit_replicated(grafted).result()
    found = await Resolving(database, functions).resolve("d", THREE_WAY)
    assert found.done is not None
    assert database.get("d")["log"] == ["start", *(f"{number:03}" for number in range(1000))]
    assert conflicts(database) == []


async def test_leaves_that_are_too_large_are_left_alone(
    database: Database, functions: FunctionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_conflict(database)
    monkeypatch.setattr(resolving, "SIZE_MAX_BYTES", 10)
    found = await Resolving(database, functions).resolve("d", THREE_WAY)
    assert isinstance(found.proposal, LeftAlone)
    assert conflicts(database) == ["d"]
