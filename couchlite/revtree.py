"""The revision tree of a document: pure values, no I/O, no recursion, no idea of what a revision carries.

The story. Every edit names the revision it was made on, so the edits of a document form a tree. On one server
it is a line. When two servers edit the same revision and then replicate, the line forks: each tip (leaf) is a
version somebody made and nobody has overruled, and all servers must pick the same one to show, the winner.
Old revisions are forgotten at the root end (stemming), so that a tree may fall apart into several, whose
roots are not of generation 1. What arrives by replication is a path: a leaf with such ancestors as its sender
still knows. Merging fits it to what is known here, at any point, in any order of arrival. A path may be what
was missing between two trees; merging then adds it to the older one, and the next stemming makes them one.

The laws (tests/store/test_revtree.py states them as properties; the semantics are couch_key_tree.erl's):

1. Merging (and stemming to a limit nobody reaches) is idempotent, commutative and associative: servers that
   have received the same paths, in whatever order, hold the same tree. That is, as long as a revision has one
   parent, which true digests guarantee. One that was sent with two different parents stands in the tree
   twice; then, as in CouchDB, order matters.
2. The winner depends on the leaves alone: not deleted before deleted, then the higher generation, then the
   greater digest.
3. No edge that was ever merged is lost but by `stem` and `remove`; neither of them loses another leaf.
4. What a revision carries is never replaced, with one exception that CouchDB has: when a path makes two trees
   one, what the path and the younger tree share carries what the path brought.

The representation. Each leaf owns the part of its path that no other leaf owns, as one run: lists of digests
and infos, oldest first, and the run it branches off. A run always ends in a leaf and every leaf ends a run,
so the history of most documents is a single run, and the usual operations cost a few steps for each *leaf*
and not for each revision. A child run begins one generation after the revision it was made on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from .revision import Rev

MergeResult = Literal["new_leaf", "new_branch", "internal_node"]
"""What a merge did: lengthened the tree at a leaf (or began it), added a leaf elsewhere, or added no leaf."""

ROOT = -1
"""`Run.parent_run` of a run that branches off nothing known."""


class Run(NamedTuple):
    """A run in flat form, for storing: see `RevTree.to_runs`."""

    parent_run: int
    """Index of the run it branches off, or ROOT."""
    parent_offset: int
    """Where in that run its parent stands."""
    first_generation: int
    digests: list[bytes]
    """Oldest first; the last is a leaf."""
    infos: list[Any]
    """What each of them carries; None when it is known by name only."""


class _Run:
    """A leaf with its own part of the path to it, oldest first."""

    __slots__ = ("digests", "first", "infos", "parent")

    def __init__(self, parent: _Run | None, first: int, digests: list[bytes], infos: list[Any]) -> None:
        self.parent = parent
        self.first = first
        self.digests = digests
        self.infos = infos

    @property
    def last(self) -> int:
        """The generation of its leaf."""
        return self.first + len(self.digests) - 1

    @property
    def leaf_key(self) -> tuple[int, bytes]:
        return self.first + len(self.digests) - 1, self.digests[-1]


class Node:
    """A revision in its place in a tree. Good until the tree changes; two of the same place are equal."""

    __slots__ = ("_run", "generation")

    def __init__(self, run: _Run, generation: int) -> None:
        self._run = run
        self.generation = generation

    @property
    def digest(self) -> bytes:
        return self._run.digests[self.generation - self._run.first]

    @property
    def rev(self) -> Rev:
        return Rev(self.generation, self.digest)

    @property
    def info(self) -> Any:
        """What the revision carries; None when it is known by name only. Can be set."""
        return self._run.infos[self.generation - self._run.first]

    @info.setter
    def info(self, info: Any) -> None:
        self._run.infos[self.generation - self._run.first] = info

    @property
    def parent(self) -> Node | None:
        """The revision it was made on, as far as known."""
        run: _Run | None = self._run
        if self.generation == self._run.first:
            run = self._run.parent
        return None if run is None else Node(run, self.generation - 1)

    @property
    def is_leaf(self) -> bool:
        return self.generation == self._run.last

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        return self._run is other._run and self.generation == other.generation

    def __hash__(self) -> int:
        return hash((id(self._run), self.generation))

    def __repr__(self) -> str:
        return f"<Node {self.rev}>"


class RevTree:
    """The revisions of one document. Mutable."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    @classmethod
    def empty(cls) -> RevTree:
        return cls()

    @classmethod
    def from_runs(cls, runs: Sequence[Run]) -> RevTree:
        """The tree that `to_runs` described."""
        tree = cls()
        tree._runs = [_Run(None, run[2], list(run[3]), list(run[4])) for run in runs]
        if len(runs) > 1:
            for own, run in zip(tree._runs, runs, strict=True):
                if run[0] != ROOT:
                    own.parent = tree._runs[run[0]]
        return tree

    def to_runs(self) -> list[Run]:
        """The tree as linear runs, in a form that is cheap to store and to read back. Parents come first."""
        runs = self._parents_first()
        index = {id(run): at for at, run in enumerate(runs)}
        return [
            Run(ROOT, 0, run.first, list(run.digests), list(run.infos))
            if run.parent is None
            else Run(
                index[id(run.parent)],
                run.first - 1 - run.parent.first,
                run.first,
                list(run.digests),
                list(run.infos),
            )
            for run in runs
        ]

    # What there is.

    def __bool__(self) -> bool:
        return bool(self._runs)

    def leaves(self) -> list[Node]:
        """Every leaf, in the order of their revisions, oldest generation first."""
        runs = self._runs
        if len(runs) > 1:
            runs = sorted(runs, key=_leaf_key)
        return [Node(run, run.last) for run in runs]

    def sorted_leaves(self, is_deleted: Callable[[Any], bool]) -> list[Node]:
        """Every leaf, the winner first. `is_deleted` is asked about the info of each."""
        runs = self._runs
        if len(runs) > 1:
            runs = sorted(runs, key=lambda run: (not is_deleted(run.infos[-1]), run.leaf_key), reverse=True)
        return [Node(run, run.last) for run in runs]

    def winner(self, is_deleted: Callable[[Any], bool]) -> Node:
        """The leaf that every server shows. ValueError when the tree is empty."""
        run = max(self._runs, key=lambda run: (not is_deleted(run.infos[-1]), run.leaf_key))
        return Node(run, run.last)

    def nodes(self) -> Iterator[Node]:
        """Every revision, each after its parent."""
        for run in self._parents_first():
            for generation in range(run.first, run.first + len(run.digests)):
                yield Node(run, generation)

    def find(self, rev: Rev) -> Node | None:
        """Where `rev` stands; the first place, in CouchDB's order, when it stands in several."""
        return self._locate(rev[0], rev[1])

    def path(self, node: Node) -> list[Rev]:
        """From `node` back to its root, which need not be of generation 1."""
        digests = self.path_digests(node)
        return list(map(Rev, range(node.generation, node.generation - len(digests), -1), digests))

    def path_digests(self, node: Node) -> list[bytes]:
        """What `path` gives, without the generations: each is one less than the one before."""
        digests: list[bytes] = []
        generation = node.generation
        run: _Run | None = node._run
        while run is not None:
            digests += reversed(run.digests[: generation - run.first + 1])
            generation, run = run.first - 1, run.parent
        return digests

    def descendant_leaves(self, node: Node) -> list[Node]:
        """The leaves that `node` has led to, itself if it is one; in the order of `leaves`."""
        return [leaf for leaf in self.leaves() if _passes(leaf._run, node)]

    def common_ancestor(self, one: Node, other: Node) -> Node | None:
        """The youngest revision that both descend from (or are), None when none is known."""
        reached = {}  # how far up each run the path of `one` goes
        generation, run = one.generation, one._run
        while True:
            reached[id(run)] = generation
            if run.parent is None:
                break
            generation, run = run.first - 1, run.parent
        generation, run = other.generation, other._run
        while id(run) not in reached:
            if run.parent is None:
                return None
            generation, run = run.first - 1, run.parent
        return Node(run, min(generation, reached[id(run)]))

    def missing(self, revs: Sequence[Rev]) -> list[Rev]:
        """Those of `revs` that are not known here, in order. As in CouchDB a revision that is asked for more
        often than it stands in the tree is missing for the rest."""
        asked = sorted(revs)
        if len(set(asked)) == len(asked):
            return [rev for rev in asked if not self._places(rev[0], rev[1])]
        known = Counter({rev: len(self._places(rev[0], rev[1])) for rev in set(asked)})
        return sorted((Counter(asked) - known).elements())

    def possible_ancestors(self, missing: Sequence[Rev], is_deleted: Callable[[Any], bool]) -> list[Rev]:
        """The leaves that the youngest of the `missing` revisions may descend from, the winner first."""
        if not missing:
            return []
        newest = max(missing)[0]
        return [leaf.rev for leaf in self.sorted_leaves(is_deleted) if leaf.generation < newest]

    # What changes it.

    def merge(self, path: Sequence[Rev], info: Any) -> MergeResult:
        """Fit in a path, newest revision first, each a generation older than the one before. It has to reach
        back only as far as a revision that is known here. `info` goes to the newest, unless that has one."""
        digests = [rev[1] for rev in reversed(path)]
        infos = [None] * len(digests)
        infos[-1] = info
        return self._merge(path[-1][0], digests, infos)

    def stem(self, limit: int) -> None:
        """Forget revisions `limit` generations or more (at least 1) above every leaf that descends from them,
        and join trees that turned out to be one. To be called after merging, with the database's limit."""
        runs = self._runs
        if len(runs) == 1:
            run = runs[0]
            excess = len(run.digests) - limit
            if excess > 0:
                del run.digests[:excess]
                del run.infos[:excess]
                run.first += excess
            return
        if not runs:
            return
        if max(run.last for run in runs) - min(run.first for run in runs) < limit:
            if self._has_trees_to_join():
                self._rebuild([(run, 0) for run in runs])
        elif len(set().union(*(run.digests for run in runs))) < sum(len(run.digests) for run in runs):
            # A digest occurs twice: CouchDB does not stem such a tree, but takes it apart, cuts each path by
            # itself and puts all together again, which also joins trees.
            self._rebuild([(run, run.last - limit + 1) for run in runs])
        else:
            starts = _starts_of_kept_paths(runs, limit)
            if starts:
                self._rebuild(starts)

    def remove(self, revs: Sequence[Rev]) -> list[Rev]:
        """Purge: forget those of `revs` that are leaves, with all that led only to them. Returns these."""
        unwanted = Counter(revs)
        kept = []
        removed = []
        for run in self._backwards():
            rev = Rev(*run.leaf_key)
            if unwanted[rev]:
                unwanted[rev] -= 1
                removed.append(rev)
            else:
                kept.append((run, 0))
        if removed:
            self._rebuild(kept)
        return sorted(removed)

    # How it is done.

    def _merge(self, start: int, digests: list[bytes], infos: list[Any]) -> MergeResult:
        """Merge a path given oldest first."""
        if not self._runs:
            self._runs.append(_Run(None, start, digests, infos))
            return "new_leaf"
        known = self._locate(start, digests[0])
        if known is not None:
            return self._descend(known._run, start, digests, infos, 0)
        root = self._root_on(start, digests)
        if root is None:
            self._runs.append(_Run(None, start, digests, infos))
            return "new_branch"
        # The path reaches further back than the tree it belongs to.
        ahead = root.first - start
        result = self._descend(root, root.first, digests, infos, ahead)
        root.digests[:0] = digests[:ahead]
        root.infos[:0] = infos[:ahead]
        root.first = start
        return result

    def _descend(
        self, run: _Run, generation: int, digests: list[bytes], infos: list[Any], at: int
    ) -> MergeResult:
        """Follow `digests[at:]` down the tree from where the first of them stands, and add what is left."""
        children: dict[tuple[int, int, bytes], _Run] | None = None
        offset = generation - run.first
        while True:
            count = _common_prefix_size(run.digests, offset, digests, at)
            _fill_in(run.infos, offset, infos[at : at + count])
            offset += count
            at += count
            generation = run.first + offset
            if at == len(digests):
                return "internal_node"
            if offset == len(run.digests):
                run.digests += digests[at:]
                run.infos += infos[at:]
                # Kept in order of arrival, since of two of the same leaf the earlier prevails (see _rebuild).
                self._runs.remove(run)
                self._runs.append(run)
                return "new_leaf"
            if children is None:
                children = {(id(run.parent), run.first, run.digests[0]): run for run in self._runs}
            child = children.get((id(run), generation, digests[at]))
            if child is None:
                self._runs.append(_Run(run, generation, digests[at:], infos[at:]))
                return "new_branch"
            run, offset = child, 0

    def _places(self, generation: int, digest: bytes) -> list[_Run]:
        """The runs that hold the revision. Hot."""
        places = []
        for run in self._runs:
            offset = generation - run.first
            if 0 <= offset < len(run.digests) and run.digests[offset] == digest:
                places.append(run)
        return places

    def _locate(self, generation: int, digest: bytes) -> Node | None:
        places = self._places(generation, digest)
        if not places:
            return None
        nodes = [Node(run, generation) for run in places]
        return nodes[0] if len(nodes) == 1 else min(nodes, key=self._place_in_order)

    def _place_in_order(self, node: Node) -> tuple[int, list[bytes]]:
        """CouchDB walks the trees by the generation of their roots, each depth first, siblings by digest."""
        digests = self.path_digests(node)
        digests.reverse()
        return node.generation - len(digests), digests

    def _root_on(self, start: int, digests: list[bytes]) -> _Run | None:
        """The first root that stands on the path, which begins before it."""
        roots = [
            run
            for run in self._runs
            if run.parent is None
            and start < run.first < start + len(digests)
            and run.digests[0] == digests[run.first - start]
        ]
        return min(roots, key=attrgetter("first"), default=None)

    def _has_trees_to_join(self) -> bool:
        """Whether the root of a tree may stand in another tree too."""
        for generation in {run.first for run in self._runs if run.parent is None}:
            digests = [
                run.digests[generation - run.first]
                for run in self._runs
                if run.first <= generation < run.first + len(run.digests)
            ]
            if len(set(digests)) < len(digests):
                return True
        return False

    def _backwards(self) -> list[_Run]:
        """The runs as couch_key_tree:get_all_leafs lists their leaves: the last tree first."""
        runs = sorted(self._runs, key=lambda run: self._place_in_order(Node(run, run.last)))
        runs.sort(key=lambda run: (_root(run).first, _root(run).digests[0]), reverse=True)
        return runs

    def _rebuild(self, paths: Sequence[tuple[_Run, int]]) -> None:
        """Make the tree of these paths: runs to whose leaves they lead, and where to begin (0: the root)."""
        # In CouchDB's order: what begins earlier gathers what begins later, which decides what is carried.
        cut = [_path_from(run, start) for run, start in paths]
        cut.sort(key=lambda path: (path[0], path[1][-1]))
        tree = RevTree()
        for start, digests, infos in cut:
            tree._merge(start, digests, infos)
        self._runs = tree._runs

    def _parents_first(self) -> list[_Run]:
        runs = self._runs
        return runs if len(runs) == 1 else sorted(runs, key=lambda run: (run.first, run.digests[0]))


_leaf_key = attrgetter("leaf_key")


def _root(run: _Run) -> _Run:
    while run.parent is not None:
        run = run.parent
    return run


def _passes(run: _Run, node: Node) -> bool:
    """Whether the path to the leaf of `run` goes through `node`."""
    generation = run.last
    while run is not node._run:
        if run.parent is None:
            return False
        generation, run = run.first - 1, run.parent
    return node.generation <= generation


def _path_from(run: _Run, start: int) -> tuple[int, list[bytes], list[Any]]:
    """The path to the leaf of `run`, from generation `start` on or what is known of it, oldest first."""
    parts = []
    end = run.last
    at: _Run | None = run
    while at is not None and start <= end:
        parts.append((at, max(start, at.first), end))
        end, at = at.first - 1, at.parent
    digests: list[bytes] = []
    infos: list[Any] = []
    for part, first, last in reversed(parts):
        digests += part.digests[first - part.first : last - part.first + 1]
        infos += part.infos[first - part.first : last - part.first + 1]
    return parts[-1][1], digests, infos


def _common_prefix_size(known: list[bytes], offset: int, digests: list[bytes], at: int) -> int:
    size = min(len(known) - offset, len(digests) - at)
    if known[offset : offset + size] == digests[at : at + size]:
        return size
    return next(count for count in range(size) if known[offset + count] != digests[at + count])


def _fill_in(known: list[Any], offset: int, infos: list[Any]) -> None:
    """Give revisions known by name only what a path brings for them."""
    if infos.count(None) < len(infos):
        for at, info in enumerate(infos, offset):
            if known[at] is None:
                known[at] = info


def _starts_of_kept_paths(runs: Sequence[_Run], limit: int) -> list[tuple[_Run, int]]:
    """For each run the generation from which on the path to its leaf is kept; empty when nothing is to go.

    A revision is kept when the nearest leaf among its descendants is less than `limit` generations away. So
    going up a run from its leaf, revisions are given up until a branch with a nearer leaf comes in, and the
    path is kept up to the first revision given up. `gaps` has the youngest of each stretch that is given up.
    """
    children: defaultdict[int, list[_Run]] = defaultdict(list)
    for run in runs:
        children[id(run.parent)].append(run)
    nearest: dict[int, int] = {}
    gaps: dict[int, list[int]] = {}
    for run in sorted(runs, key=attrgetter("first"), reverse=True):  # children before their parents
        leaf = top = run.last
        gaps[id(run)] = []
        for child in sorted(children[id(run)], key=attrgetter("first"), reverse=True):
            fork = child.first - 1
            if fork < min(top, leaf - limit):
                gaps[id(run)].append(min(top, leaf - limit))
            top, leaf = fork, min(leaf, nearest[id(child)])
        if run.first <= min(top, leaf - limit):
            gaps[id(run)].append(min(top, leaf - limit))
        nearest[id(run)] = leaf
    if not any(gaps.values()):
        return []
    return [(run, _start_below(run, gaps)) for run in runs]


def _start_below(run: _Run, gaps: dict[int, list[int]]) -> int:
    """The generation after the first gap on the path up from the leaf of `run`."""
    generation = run.last
    while True:
        found = gaps[id(run)]  # descending
        at = bisect_left(found, -generation, key=lambda gap: -gap)
        if at < len(found):
            return found[at] + 1
        if run.parent is None:
            return run.first
        generation, run = run.first - 1, run.parent
