"""The revision tree: its laws as properties, its oddities and CouchDB's as examples."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchlite.revision import Rev
from couchlite.revtree import ROOT, Node, RevTree, Run
from tests.model import ModelTree, shape
from tests.strategies import Arrival, forged_histories, histories

NO_LIMIT = 1000


def path(*texts: str) -> list[Rev]:
    return [Rev.parse(text) for text in texts]


def tree_of(*paths: list[Rev], limit: int = NO_LIMIT) -> RevTree:
    """Merge paths, each carrying the name of its newest revision."""
    return merged([Arrival(tuple(revs), str(revs[0])) for revs in paths], limit)


def merged(arrivals: list[Arrival], limit: int = NO_LIMIT) -> RevTree:
    tree = RevTree.empty()
    for arrival in arrivals:
        tree.merge(arrival.path, arrival.info)
        tree.stem(limit)
    return tree


def leaf_paths(tree: RevTree) -> list[list[str]]:
    return [[str(rev) for rev in tree.path(leaf)] for leaf in tree.leaves()]


def is_deleted(info: Any) -> bool:
    """For trees whose infos are texts: some are deleted, which ones is fixed."""
    return "7" in str(info)


def assert_sound(tree: RevTree) -> None:
    """What the representation promises: every run ends in a leaf, and none branches off another's end."""
    runs = tree.to_runs()
    assert len(runs) == len(tree.leaves())
    for at, run in enumerate(runs):
        assert len(run.digests) == len(run.infos) > 0
        if run.parent_run != ROOT:
            parent = runs[run.parent_run]
            assert run.parent_run < at
            assert 0 <= run.parent_offset < len(parent.digests) - 1
            assert run.first_generation == parent.first_generation + run.parent_offset + 1


# Laws.


@given(histories())
def test_merging_a_path_that_is_known_changes_nothing(arrivals: list[Arrival]) -> None:
    tree = merged(arrivals)
    once = shape(tree)
    for arrival in arrivals:
        assert tree.merge(arrival.path, "other") == "internal_node"
        tree.stem(NO_LIMIT)
    assert shape(tree) == once


@given(histories(), st.randoms(use_true_random=False))
def test_order_of_merging_does_not_affect_the_resulting_tree(arrivals: list[Arrival], random: Any) -> None:
    shuffled = random.sample(arrivals, len(arrivals))
    tree, other = merged(arrivals), merged(shuffled)
    assert shape(tree) == shape(other)
    assert [leaf.rev for leaf in tree.sorted_leaves(is_deleted)] == [
        leaf.rev for leaf in other.sorted_leaves(is_deleted)
    ]


@given(histories(), st.integers(0, 12))
def test_replicas_that_exchange_their_leaves_hold_the_same_tree(arrivals: list[Arrival], cut: int) -> None:
    here, there = merged(arrivals[:cut]), merged(arrivals[cut:])
    sent = [(here.path(leaf), leaf.info) for leaf in here.leaves()]
    for leaf in there.leaves():
        here.merge(there.path(leaf), leaf.info)
    for revs, info in sent:
        there.merge(revs, info)
    here.stem(NO_LIMIT)
    there.stem(NO_LIMIT)
    assert leaf_paths(here) == leaf_paths(there)


@given(histories())
def test_every_revision_that_arrived_is_found_with_the_ancestors_it_came_with(
    arrivals: list[Arrival],
) -> None:
    tree = merged(arrivals)
    for arrival in arrivals:
        node = tree.find(arrival.path[0])
        assert node is not None
        assert node.info == arrival.info
        assert tuple(tree.path(node))[: len(arrival.path)] == arrival.path
        assert not tree.missing(arrival.path)


@given(histories(), st.integers(1, 6))
def test_stemming_keeps_the_leaves_and_what_is_near_them(arrivals: list[Arrival], limit: int) -> None:
    tree = merged(arrivals)
    before = [tree.path(leaf) for leaf in tree.leaves()]
    tree.stem(limit)
    assert_sound(tree)
    after = [tree.path(leaf) for leaf in tree.leaves()]
    assert [revs[0] for revs in after] == [revs[0] for revs in before]
    for kept, whole in zip(after, before, strict=True):
        assert kept == whole[: len(kept)]
        assert len(kept) >= min(limit, len(whole))
    if len(after) == 1:
        assert len(after[0]) <= limit
    once = shape(tree)
    tree.stem(limit)
    assert shape(tree) == once


@given(forged_histories(), st.integers(1, 6), st.integers(0, 9))
def test_any_paths_merge_and_stem_as_in_the_model(
    arrivals: list[Arrival], limit: int, unlimited: int
) -> None:
    tree, model = RevTree.empty(), ModelTree()
    for at, arrival in enumerate(arrivals):
        assert tree.merge(arrival.path, arrival.info) == model.merge(arrival.path, arrival.info)
        assert_sound(tree)
        assert shape(tree) == model.shape()
        for changed in (tree, model):
            changed.stem(NO_LIMIT if at == unlimited else limit)
        assert_sound(tree)
        assert shape(tree) == model.shape()


@given(forged_histories(), st.lists(st.builds(Rev, st.integers(1, 5), st.sampled_from([b"a", b"b", b"z"]))))
def test_any_revisions_are_missing_and_removed_as_in_the_model(
    arrivals: list[Arrival], revs: list[Rev]
) -> None:
    tree, model = RevTree.empty(), ModelTree()
    for arrival in arrivals:
        for changed in (tree, model):
            changed.merge(arrival.path, arrival.info)
            changed.stem(NO_LIMIT)
    wanted = sorted(revs)
    for node in model.nodes():
        if node.rev in wanted:
            wanted.remove(node.rev)
    assert tree.missing(revs) == wanted
    leaves = [path[-1].rev for path in model.leaf_paths()]
    removed = tree.remove(revs)
    model.remove(revs)
    assert shape(tree) == model.shape()
    assert set(removed) == set(revs) & set(leaves)


@given(forged_histories())
def test_a_tree_survives_its_runs(arrivals: list[Arrival]) -> None:
    tree = merged(arrivals)
    runs = tree.to_runs()
    again = RevTree.from_runs(runs)
    assert again.to_runs() == runs
    assert shape(again) == shape(tree)


@given(histories())
def test_ancestors_and_descendants_agree_with_the_paths(arrivals: list[Arrival]) -> None:
    tree = merged(arrivals)
    nodes = list(tree.nodes())
    paths = {node: tree.path(node) for node in nodes}
    for node in nodes:
        leaves = [leaf for leaf in tree.leaves() if node.rev in paths[leaf]]
        assert tree.descendant_leaves(node) == leaves
        assert node.is_leaf == (leaves == [node])
        for other in nodes:
            shared = [rev for rev in paths[node] if rev in paths[other]]
            common = tree.common_ancestor(node, other)
            assert (common.rev if common else None) == (shared[0] if shared else None)


@given(histories())
def test_every_node_comes_after_its_parent(arrivals: list[Arrival]) -> None:
    seen: set[Node] = set()
    for node in merged(arrivals).nodes():
        assert node.parent is None or node.parent in seen
        assert node not in seen
        seen.add(node)


# Examples of merging.

CHAIN = path("3-c", "2-b", "1-a")

MERGES = [
    pytest.param([], CHAIN, "new_leaf", [["3-c", "2-b", "1-a"]], id="a path into an empty tree is the path"),
    pytest.param([CHAIN], CHAIN, "internal_node", [["3-c", "2-b", "1-a"]], id="the same path again"),
    pytest.param([CHAIN], CHAIN[1:], "internal_node", [["3-c", "2-b", "1-a"]], id="a part of it"),
    pytest.param([CHAIN], CHAIN[:1], "internal_node", [["3-c", "2-b", "1-a"]], id="its leaf alone"),
    pytest.param(
        [CHAIN], path("4-d", "3-c"), "new_leaf", [["4-d", "3-c", "2-b", "1-a"]], id="an edit of the leaf"
    ),
    pytest.param(
        [CHAIN],
        path("2-x", "1-a"),
        "new_branch",
        [["2-x", "1-a"], ["3-c", "2-b", "1-a"]],
        id="an edit of an inner revision",
    ),
    pytest.param(
        [CHAIN, path("2-x", "1-a")],
        path("3-y", "2-x", "1-a"),
        "new_leaf",
        [["3-c", "2-b", "1-a"], ["3-y", "2-x", "1-a"]],
        id="a new leaf is no new branch, though branches exist",
    ),
    pytest.param(
        [CHAIN], path("1-z"), "new_branch", [["1-z"], ["3-c", "2-b", "1-a"]], id="an unrelated revision"
    ),
    pytest.param(
        [path("5-e")],
        path("5-e", "4-d", "3-c"),
        "internal_node",
        [["5-e", "4-d", "3-c"]],
        id="the ancestors of a root that stood alone",
    ),
    pytest.param(
        [path("5-e"), path("5-f")],
        path("6-g", "5-f", "4-d"),
        "new_leaf",
        [["5-e"], ["6-g", "5-f", "4-d"]],
        id="a path from before a root to beyond its leaf",
    ),
    pytest.param(
        [CHAIN],
        path("5-e", "4-d"),
        "new_branch",
        [["3-c", "2-b", "1-a"], ["5-e", "4-d"]],
        id="a path that begins after the leaf is no continuation",
    ),
    pytest.param(
        [CHAIN, path("5-e", "4-d")],
        path("4-d", "3-c"),
        "new_leaf",
        [["5-e", "4-d", "3-c", "2-b", "1-a"]],
        id="what was missing between two trees joins them",
    ),
    pytest.param(
        [path("3-c", "2-b"), path("3-c", "2-x")],
        path("4-d", "3-c"),
        "new_leaf",
        [["3-c", "2-x"], ["4-d", "3-c", "2-b"]],
        id="a revision with two parents is continued in the first place",
    ),
    pytest.param(
        [path("3-c", "2-x"), path("3-c", "2-b")],
        path("4-d", "3-c"),
        "new_leaf",
        [["3-c", "2-x"], ["4-d", "3-c", "2-b"]],
        id="the first place is that of the lesser parent, whichever came first",
    ),
]


@pytest.mark.parametrize(("known", "arriving", "result", "paths"), MERGES)
def test_merging(known: list[list[Rev]], arriving: list[Rev], result: str, paths: list[list[str]]) -> None:
    tree = tree_of(*known)
    assert tree.merge(arriving, "new") == result
    tree.stem(NO_LIMIT)
    assert_sound(tree)
    assert leaf_paths(tree) == paths


INTERLEAVED = [
    path("4-d", "3-c", "2-a", "1-1"),
    path("1-1"),
    path("2-b", "1-1"),
    path("3-e", "2-b", "1-1"),
    path("2-a", "1-1"),
    path("3-f", "2-b", "1-1"),
]


@given(st.permutations(INTERLEAVED))
def test_interleaved_branches_grow_the_same_tree(paths: list[list[Rev]]) -> None:
    tree = tree_of(*paths)
    assert leaf_paths(tree) == [
        ["3-e", "2-b", "1-1"],
        ["3-f", "2-b", "1-1"],
        ["4-d", "3-c", "2-a", "1-1"],
    ]
    known = {str(node.rev): node.info for node in tree.nodes()}
    assert known.pop("3-c") is None
    assert all(info == name for name, info in known.items())


def test_the_ancestors_of_a_known_leaf_replace_what_it_carries_when_they_join_a_tree() -> None:
    tree = tree_of(path("5-e"), path("3-c", "2-b", "1-a"))
    tree.merge(path("5-e", "4-d", "3-c", "2-b", "1-a"), "five again")
    tree.stem(NO_LIMIT)
    assert leaf_paths(tree) == [["5-e", "4-d", "3-c", "2-b", "1-a"]]
    assert tree.leaves()[0].info == "five again"


def test_the_ancestors_of_a_known_leaf_do_not_replace_what_it_carries_when_nothing_is_joined() -> None:
    tree = tree_of(path("5-e"))
    tree.merge(path("5-e", "4-d"), "five again")
    assert tree.leaves()[0].info == "5-e"


def test_of_two_trees_cut_to_the_same_leaf_the_one_known_earlier_prevails() -> None:
    tree = tree_of(path("2-b"), path("3-c"), limit=1)
    tree.merge(path("3-c", "2-b"), "three again")
    tree.stem(1)
    assert [(str(node.rev), node.info) for node in tree.nodes()] == [("3-c", "3-c")]


def test_of_two_trees_cut_to_the_same_root_the_one_with_the_lesser_leaf_prevails() -> None:
    tree = tree_of(path("1-a"), path("2-b"), path("3-x", "2-b"))
    tree.merge(path("2-b", "1-a"), "two again")
    tree.merge(path("3-w", "2-b", "1-a"), "3-w")
    tree.stem(2)
    assert leaf_paths(tree) == [["3-w", "2-b"], ["3-x", "2-b"]]
    assert next(tree.nodes()).info == "two again"


def test_a_revision_known_by_name_takes_what_arrives_for_it() -> None:
    tree = tree_of(path("3-c", "2-b"))
    assert tree.merge(path("2-b"), "two") == "internal_node"
    found = tree.find(Rev(2, b"b"))
    assert found is not None
    assert found.info == "two"
    found.info = "changed"
    assert [node.info for node in tree.nodes()] == ["changed", "3-c"]


# Winners.

WINNERS = [
    pytest.param(["2-b", "1-z"], [], "2-b", id="the higher generation"),
    pytest.param(["2-b", "2-a"], [], "2-b", id="the greater digest of one generation"),
    pytest.param(["10-a", "9-z"], [], "10-a", id="generations are numbers"),
    pytest.param(["3-c", "2-b", "1-a"], ["3-c", "2-b"], "1-a", id="not deleted before deleted"),
    pytest.param(["3-c", "2-b"], ["3-c", "2-b"], "3-c", id="all deleted"),
    pytest.param(["2-ab", "2-a"], [], "2-ab", id="of digests the longer when one begins with the other"),
]


@pytest.mark.parametrize(("leaves", "deleted", "winner"), WINNERS)
def test_the_winner_is(leaves: list[str], deleted: list[str], winner: str) -> None:
    tree = tree_of(*(path(leaf) for leaf in leaves))
    ordered = tree.sorted_leaves(deleted.__contains__)
    assert str(ordered[0].rev) == winner
    assert tree.winner(deleted.__contains__) == ordered[0]
    assert len(ordered) == len(leaves)


# Stemming.

STEMS = [
    pytest.param([path("4-d", "3-c", "2-b", "1-a")], 2, [["4-d", "3-c"]], id="a chain is cut at the old end"),
    pytest.param(
        [path("4-d", "3-c", "2-b", "1-a"), path("4-x", "3-c")],
        2,
        [["4-d", "3-c"], ["4-x", "3-c"]],
        id="branches stay joined where both keep the fork",
    ),
    pytest.param(
        [path("4-d", "3-c", "2-b", "1-a"), path("4-x", "3-c")],
        1,
        [["4-d"], ["4-x"]],
        id="branches fall apart where neither keeps the fork",
    ),
    pytest.param(
        [path("5-e", "4-d", "3-c", "2-b", "1-a"), path("3-x", "2-b")],
        2,
        [["3-x", "2-b"], ["5-e", "4-d"]],
        id="a short branch keeps the fork for itself",
    ),
    pytest.param(
        [path("5-e", "4-d", "3-c", "2-b", "1-a"), path("3-x", "2-b")],
        3,
        [["3-x", "2-b", "1-a"], ["5-e", "4-d", "3-c", "2-b", "1-a"]],
        id="a short branch keeps the ancestors of a long one too",
    ),
    pytest.param(
        [path("9-i", "8-h", "7-g", "6-f", "5-e", "4-d", "3-c"), path("5-x", "4-d"), path("5-y", "4-d")],
        2,
        [["5-x", "4-d"], ["5-y", "4-d"], ["9-i", "8-h"]],
        id="several short branches keep their fork together",
    ),
]


@pytest.mark.parametrize(("known", "limit", "paths"), STEMS)
def test_stemming(known: list[list[Rev]], limit: int, paths: list[list[str]]) -> None:
    tree = tree_of(*known)
    tree.stem(limit)
    assert_sound(tree)
    assert leaf_paths(tree) == paths


def test_a_replica_that_stems_less_gives_back_what_was_stemmed() -> None:
    whole = path("4-d", "3-c", "2-b", "1-a")
    tree = tree_of(whole, limit=2)
    assert leaf_paths(tree) == [["4-d", "3-c"]]
    tree.merge(whole, "4-d")
    assert leaf_paths(tree) == [["4-d", "3-c", "2-b", "1-a"]]


# Questions.

LEAVES = [path("2-a", "1-1"), path("3-b", "2-9", "1-1"), path("2-d", "1-1")]


@pytest.mark.parametrize(
    ("asked", "missing", "ancestors"),
    [
        pytest.param(["4-4"], ["4-4"], ["3-b", "2-d", "2-a"], id="every older leaf may be an ancestor"),
        pytest.param(["3-4"], ["3-4"], ["2-d", "2-a"], id="a leaf of the same generation may not"),
        pytest.param(["1-4"], ["1-4"], [], id="nothing is older than the first generation"),
        pytest.param(["2-9", "1-1", "3-b"], [], [], id="what is known has no ancestors to tell"),
        pytest.param(["5-5", "2-x"], ["2-x", "5-5"], ["3-b", "2-d", "2-a"], id="the youngest decides"),
        pytest.param(["1-1", "1-1"], ["1-1"], [], id="asked for twice and there once"),
    ],
)
def test_missing_revisions_and_their_possible_ancestors(
    asked: list[str], missing: list[str], ancestors: list[str]
) -> None:
    tree = tree_of(*LEAVES)
    lacking = tree.missing(path(*asked))
    assert [str(rev) for rev in lacking] == missing
    assert [str(rev) for rev in tree.possible_ancestors(lacking, lambda _info: False)] == ancestors


def test_possible_ancestors_begin_with_the_winner() -> None:
    tree = tree_of(*LEAVES)
    ancestors = tree.possible_ancestors(path("4-4"), {"3-b", "2-d"}.__contains__)
    assert [str(rev) for rev in ancestors] == ["2-a", "3-b", "2-d"]


def test_an_empty_tree_knows_nothing() -> None:
    tree = RevTree.empty()
    assert not tree
    assert tree.leaves() == tree.sorted_leaves(is_deleted) == tree.to_runs() == list(tree.nodes()) == []
    assert tree.find(Rev(1, b"a")) is None
    assert tree.missing(CHAIN) == CHAIN[::-1]
    assert tree.remove(CHAIN) == []
    tree.stem(1)
    with pytest.raises(ValueError):
        tree.winner(is_deleted)


# Purging.


@pytest.mark.parametrize(
    ("unwanted", "removed", "paths"),
    [
        pytest.param(
            ["2-b"], [], [["3-c", "2-b", "1-a"], ["3-d", "2-b", "1-a"]], id="an inner revision stays"
        ),
        pytest.param(["3-c"], ["3-c"], [["3-d", "2-b", "1-a"]], id="a leaf goes, what others share stays"),
        pytest.param(["3-c", "3-d"], ["3-c", "3-d"], [], id="all leaves take the document with them"),
        pytest.param(["3-c", "2-b"], ["3-c"], [["3-d", "2-b", "1-a"]], id="one of each"),
        pytest.param(["9-x"], [], [["3-c", "2-b", "1-a"], ["3-d", "2-b", "1-a"]], id="an unknown one"),
    ],
)
def test_purging(unwanted: list[str], removed: list[str], paths: list[list[str]]) -> None:
    tree = tree_of(CHAIN, path("3-d", "2-b"))
    assert [str(rev) for rev in tree.remove(path(*unwanted))] == removed
    assert_sound(tree)
    assert leaf_paths(tree) == paths


# Sizes.


def chain_of(length: int) -> list[Rev]:
    return [Rev(generation, generation.to_bytes(16, "big")) for generation in range(length, 0, -1)]


def test_a_chain_of_10_000_revisions_needs_no_recursion() -> None:
    tree = tree_of(chain_of(10_000), limit=20_000)
    assert tree.path(tree.leaves()[0]) == chain_of(10_000)
    assert tree.merge([Rev(10_001, b"x"), Rev(10_000, (10_000).to_bytes(16, "big"))], None) == "new_leaf"
    tree.stem(1000)
    assert len(tree.path(tree.leaves()[0])) == 1000
    assert len(tree.to_runs()) == 1


def test_3_000_leaves_on_a_trunk() -> None:
    trunk = chain_of(3_000)
    tree = tree_of(trunk, limit=NO_LIMIT * 10)
    for rev in trunk[1:]:
        tree.merge([Rev(rev.generation + 1, b"fork"), rev], None)
    assert len(tree.leaves()) == 3_000
    assert tree.to_runs() == RevTree.from_runs(tree.to_runs()).to_runs()
    tree.stem(10)
    assert_sound(tree)
    assert len(tree.leaves()) == 3_000


def test_runs_are_as_few_as_the_leaves() -> None:
    tree = tree_of(CHAIN, path("3-d", "2-b"), path("7-x"))
    assert tree.to_runs() == [
        Run(ROOT, 0, 1, [b"a", b"b", b"c"], [None, None, "3-c"]),
        Run(0, 1, 3, [b"d"], ["3-d"]),
        Run(ROOT, 0, 7, [b"x"], ["7-x"]),
    ]
