"""Peers that resolve the same conflict at once agree when they meet, and nobody's edit is gone unrecorded."""

from __future__ import annotations

import random
import tempfile
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from couchlite import Database, Server, document, jsontext
from couchlite.merging import Rules
from couchlite.revision import Rev

CONTENTS = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3) | st.just([{"x": 1, "y": 2}]), max_size=4),
    min_size=2,
    max_size=5,
)


def conflict(database: Database, contents: list[dict[str, Any]], seen: list[int] | None = None) -> list[str]:
    """A document in conflict, the same on every database but for what it has `seen`; its leaves."""
    first = database.put({"_id": "x", "a": 0})
    edits = []
    for number, content in enumerate(contents):
        if seen is not None and number not in seen:
            continue
        edits.append(document.parse({"_id": "x", **content}))
        edits[-1].path = (Rev(2, bytes([number + 1]) * 16), Rev.parse(first))
    database.submit_replicated(edits).result()
    return living(database)


def living(database: Database) -> list[str]:
    return [leaf.rev for leaf in database.leaves("x") if not leaf.deleted]


def exchange(source: Database, target: Database) -> None:
    """Send all leaves with their histories."""
    with source.snapshot() as snapshot:
        found = snapshot.document("x")
        assert found is not None
        revisions = [snapshot.revision(found, leaf) for leaf in found.leaves()]
    edits = []
    for revision in revisions:
        edits.append(document.parse(dict(jsontext.loads(revision.body)), "x"))
        edits[-1].path, edits[-1].deleted = revision.path, revision.deleted
    target.submit_replicated(edits).result()


def gossip(databases: list[Database], order: random.Random) -> None:
    """Replicate along a ring, in any order; twice, so that all have heard of all."""
    for _ in range(2):
        pairs = [(one, other) for one in databases for other in databases if one is not other]
        order.shuffle(pairs)
        for source, target in pairs[: 2 * len(databases)]:
            exchange(source, target)
    for source, target in pairwise([*databases, *databases]):
        exchange(source, target)


def shuffled(value: Any, order: random.Random) -> Any:
    """The same value with the members of its objects in another order."""
    if isinstance(value, dict):
        names = list(value)
        order.shuffle(names)
        return {name: shuffled(value[name], order) for name in names}
    return [shuffled(element, order) for element in value] if isinstance(value, list) else value


@pytest.mark.parametrize("peers", [2, 3, 10])
@given(contents=CONTENTS, merged=CONTENTS, order=st.randoms(use_true_random=False))
@settings(max_examples=5, deadline=None)
def test_the_same_merge_made_on_several_peers_is_the_same_revision(
    peers: int, contents: list[dict[str, Any]], merged: list[dict[str, Any]], order: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as directory, Server(directory) as server:
        databases = [server.create(f"db{number}") for number in range(peers)]
        for database in databases:
            leaves = conflict(database, contents)
            order.shuffle(leaves)
            database.resolve("x", leaves, shuffled(merged[0], order))
        gossip(databases, order)
        for database in databases:
            assert len(living(database)) == 1
            assert database.leaves("x") == databases[0].leaves("x")
            assert database.check() == []


@given(contents=CONTENTS, order=st.randoms(use_true_random=False), peers=st.integers(2, 4))
@settings(max_examples=15, deadline=None)
def test_peers_that_merge_by_rules_agree_even_if_they_saw_different_leaves(
    contents: list[dict[str, Any]], order: random.Random, peers: int
) -> None:
    """Each resolves what it happens to see, until nothing is left; no leaf is gone without a record."""
    with tempfile.TemporaryDirectory() as directory, Server(directory) as server:
        databases = [server.create(f"db{number}") for number in range(peers)]
        for database in databases:
            conflict(database, contents, order.sample(range(len(contents)), order.randint(1, len(contents))))
        for _round in range(4):
            for database in databases:
                if len(leaves := living(database)) > 1:
                    database.resolve("x", leaves, Rules.parse({"/**": "winner"}))
            gossip(databases, order)
        for database in databases:
            assert len(living(database)) == 1
            assert database.leaves("x") == databases[0].leaves("x")
            assert database.get("x") == databases[0].get("x")
        recorded = {
            str(rev) for database in databases for entry in database.resolutions("x") for rev in entry.leaves
        }
        for database in databases:
            with database.snapshot() as snapshot:
                found = snapshot.document("x")
                assert found is not None
                overruled = [leaf.parent for leaf in found.leaves() if leaf.info.deleted]
            assert all(node is not None and str(node.rev) in recorded for node in overruled)


@given(contents=CONTENTS, order=st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_undoing_on_two_peers_is_the_same_too(contents: list[dict[str, Any]], order: random.Random) -> None:
    with tempfile.TemporaryDirectory() as directory, Server(directory) as server:
        databases = [server.create("one"), server.create("two")]
        for database in databases:
            leaves = conflict(database, contents)
            before = [database.get("x", rev) for rev in leaves]
            done = database.resolve("x", leaves, order.choice([None, leaves[-1]]))
            database.undo(done.number)
            after = [database.get("x", rev) for rev in living(database)]
            assert sorted(map(_content, before)) == sorted(map(_content, after))
            assert _content(before[0]) == _content(after[0])
        same = databases[0].leaves("x") == databases[1].leaves("x")
        gossip(databases, order)
        assert databases[0].leaves("x") == databases[1].leaves("x")
        assert (len(living(databases[0])) == len(contents)) == same


def _content(value: dict[str, Any]) -> str:
    return repr(sorted((name, repr(member)) for name, member in value.items() if name[0] != "_"))
