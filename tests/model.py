"""The revision tree written naively: nested nodes and recursion. Slow and plain, assumed right.

It says what couchlite.revtree must do for any paths, however forged. (couchlite.revtree, which agrees with
it, was also compared with CouchDB's own couch_key_tree, on 16,500 random histories.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from couchlite.revision import Rev
from couchlite.revtree import RevTree

Shape = tuple[Any, ...]
"""A tree as nested tuples, for comparing: (generation, digest, info, (children ...)) of each root."""


@dataclass
class ModelNode:
    rev: Rev
    info: Any = None
    children: list[ModelNode] = field(default_factory=list)

    def below(self) -> Iterator[ModelNode]:
        """Itself and all that descends from it, depth first, siblings by digest."""
        yield self
        for child in sorted(self.children, key=lambda node: node.rev):
            yield from child.below()

    def leaf_distance(self) -> int:
        """How many generations the nearest leaf is away."""
        return min((child.leaf_distance() + 1 for child in self.children), default=0)

    def shape(self) -> Shape:
        children = sorted(self.children, key=lambda node: node.rev)
        return (self.rev, self.info, tuple(child.shape() for child in children))


class ModelTree:
    def __init__(self) -> None:
        self.roots: list[ModelNode] = []

    def merge(self, path: Sequence[Rev], info: Any) -> str:
        return self._merge([*((rev, None) for rev in reversed(path[1:])), (path[0], info)])

    def stem(self, limit: int) -> None:
        digests = [node.rev.digest for node in self.nodes()]
        if len(set(digests)) < len(digests):
            paths = [path[-limit:] for path in self.leaf_paths()]
            self._assemble(paths)
            return
        self.roots = [root for tree in self._sorted_roots() for root in _stemmed(tree, limit)]

    def remove(self, revs: Sequence[Rev]) -> None:
        unwanted = list(revs)
        kept = []
        for path in self.leaf_paths():
            if path[-1].rev in unwanted:
                unwanted.remove(path[-1].rev)
            else:
                kept.append(path)
        self._assemble(kept)

    def nodes(self) -> list[ModelNode]:
        return [node for root in self._sorted_roots() for node in root.below()]

    def leaf_paths(self) -> list[list[ModelNode]]:
        """Oldest first, the last tree first."""
        return [path for root in reversed(self._sorted_roots()) for path in _leaf_paths(root)]

    def shape(self) -> Shape:
        return tuple(root.shape() for root in self._sorted_roots())

    def _sorted_roots(self) -> list[ModelNode]:
        return sorted(self.roots, key=lambda root: root.rev)

    def _merge(self, path: list[tuple[Rev, Any]]) -> str:
        """`path` is oldest first, each revision with what it brings."""
        if not self.roots:
            self.roots = [_chain(path)]
            return "new_leaf"
        for root in self._sorted_roots():
            for node in root.below():
                if node.rev == path[0][0]:
                    return _extend(node, path)
            revs = [rev for rev, _ in path]
            if root.rev in revs:
                at = revs.index(root.rev)
                result = _extend(root, path[at:])
                self.roots.remove(root)
                self.roots.append(_chain(path[:at], root))
                return result
        self.roots.append(_chain(path))
        return "new_branch"

    def _assemble(self, paths: list[list[ModelNode]]) -> None:
        # Of two that begin and end alike the one that carries the older info comes first.
        paths.sort(key=lambda path: (path[0].rev.generation, path[-1].rev.digest, _age(path[-1].info)))
        self.roots = []
        for path in paths:
            self._merge([(node.rev, node.info) for node in path])


def shape(tree: RevTree) -> Shape:
    """The shape of a real tree."""
    copies: dict[Any, ModelNode] = {}
    model = ModelTree()
    for node in tree.nodes():
        copies[node] = ModelNode(node.rev, node.info)
        siblings = model.roots if node.parent is None else copies[node.parent].children
        siblings.append(copies[node])
    return model.shape()


def _age(info: Any) -> Any:
    return (info is not None, info)


def _chain(path: list[tuple[Rev, Any]], end: ModelNode | None = None) -> ModelNode:
    for rev, info in reversed(path):
        end = ModelNode(rev, info, [] if end is None else [end])
    assert end is not None
    return end


def _extend(node: ModelNode, path: list[tuple[Rev, Any]]) -> str:
    if node.info is None:
        node.info = path[0][1]
    rest = path[1:]
    if not rest:
        return "internal_node"
    for child in node.children:
        if child.rev == rest[0][0]:
            return _extend(child, rest)
    result = "new_branch" if node.children else "new_leaf"
    node.children.append(_chain(rest))
    return result


def _leaf_paths(node: ModelNode) -> Iterator[list[ModelNode]]:
    if not node.children:
        yield [node]
    for child in sorted(node.children, key=lambda node: node.rev):
        for path in _leaf_paths(child):
            yield [node, *path]


def _stemmed(node: ModelNode, limit: int) -> list[ModelNode]:
    """The trees that are left of the one under `node`."""
    is_kept = node.leaf_distance() < limit
    left = [root for child in node.children for root in _stemmed(child, limit)]
    if not is_kept:
        return left
    attached = [root for root in left if any(root.rev == child.rev for child in node.children)]
    node.children = attached
    return [node, *(root for root in left if root not in attached)]
