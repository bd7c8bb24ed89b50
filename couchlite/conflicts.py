"""Documents in conflict: which there are, and what there is to know about one of them.

A document is in conflict when more than one leaf of its tree is not deleted: those are its conflict leaves,
the winner first, then in the order in which they would win. Deleted leaves are versions that were overruled.

What must stay true here: a listing costs what it lists, however large the database is, since it reads the
index that the writer keeps; and a body that compaction kept for merging is shown here, to whoever may read
the document, though a plain GET of it answers as CouchDB's does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from . import keys, reads, records
from .compression import BodyCodec
from .document import Revision
from .engine import Reader, Space
from .errors import BadRequest, NotFound
from .reads import Document
from .records import RevInfo
from .revision import Rev
from .revtree import ROOT, Node

PAGE_ROWS = 1000
"""So many conflicts are read in one snapshot."""


# --- which there are


class ConflictRow(NamedTuple):
    """A document in conflict, as a listing shows it."""

    id: str
    rev: Rev
    """The winner's."""
    leaves: int
    """How many of them are not deleted."""
    since_ms: int
    """When this store first saw more than one leaf, in milliseconds since 1970."""
    size: int
    """Bytes of all leaves: JSON text and attachments."""
    seq: int


class ConflictPage(NamedTuple):
    """Some conflicts in the order of the documents' ids."""

    rows: list[ConflictRow]
    resume: bytes | None
    """The id that the next page starts at, or when reversed stops before; None when this is the last one."""


def page(
    reader: Reader,
    start: bytes = b"",
    stop: bytes | None = None,
    *,
    reverse: bool = False,
    limit: int = PAGE_ROWS,
) -> ConflictPage:
    """Up to `limit` conflicts of documents with `start <= id < stop`."""
    first = keys.bound(reader, Space.CONFLICTS, start) if start else b""
    last = None if stop is None else keys.bound(reader, Space.CONFLICTS, stop)
    limit = min(limit, PAGE_ROWS)
    pairs = list(islice(reader.scan(Space.CONFLICTS, first, last, reverse=reverse), limit))
    ids = [keys.id_of(reader, Space.CONFLICTS, key) for key, _row in pairs]
    rows = [
        _row(doc_id, record, value)
        for doc_id, record, (_key, value) in zip(ids, reads.records_of(reader, ids), pairs, strict=True)
        if record is not None
    ]
    resume = None
    if len(pairs) == limit and ids:
        resume = ids[-1] + (b"" if reverse else b"\0")
    return ConflictPage(rows, resume)


def _row(doc_id: bytes, record: bytes, value: bytes) -> ConflictRow:
    head = records.decode_head(record)
    counted = records.decode_fields(value)
    rev = Rev.parse(head.rev.decode())
    return ConflictRow(doc_id.decode(), rev, counted["leaves"], counted["since_ms"], head.size, head.seq)


@dataclass(slots=True)
class ConflictCounts:
    """Statistics of the conflicts of a database."""

    documents: int = 0
    leaves: int = 0
    """Of all conflicts together."""
    leaves_max: int = 0
    """Of the document that has most."""
    oldest_ms: int | None = None
    """When the oldest began, in milliseconds since 1970."""
    newest_ms: int | None = None
    bytes: int = 0
    """JSON text and attachments of all their leaves."""

    def add(self, rows: Sequence[ConflictRow]) -> None:
        """Count a page."""
        if not rows:
            return
        since = [row.since_ms for row in rows]
        self.documents += len(rows)
        self.leaves += sum(row.leaves for row in rows)
        self.leaves_max = max(self.leaves_max, *(row.leaves for row in rows))
        self.oldest_ms = min(since) if self.oldest_ms is None else min(self.oldest_ms, *since)
        self.newest_ms = max(since) if self.newest_ms is None else max(self.newest_ms, *since)
        self.bytes += sum(row.size for row in rows)


def since_ms(reader: Reader, doc_id: str) -> int | None:
    """Since when a document has been in conflict; None when it is not."""
    key = keys.find(reader, Space.CONFLICTS, doc_id.encode())
    row = reader.get(Space.CONFLICTS, key) if key else None
    return None if row is None else int(records.decode_fields(row)["since_ms"])


# --- one of them


class TreeRev(NamedTuple):
    """A revision in a branch."""

    rev: Rev
    status: str
    """"available" or "deleted" when its body is here, else "missing"."""


class Branch(NamedTuple):
    """A leaf, with the part of its path that no earlier branch has."""

    leaf: Rev
    deleted: bool
    parent: Rev | None
    """The revision it branches off; None where what is known of the document begins."""
    revs: list[TreeRev]
    """Newest first; the first is the leaf."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A document's tree with the eyes of somebody who wants to merge it. It need not be in conflict."""

    document: Document
    since_ms: int | None
    """Since when it has been in conflict; None when it is not."""
    leaves: list[Node]
    """Those not deleted, the winner first."""
    deleted_leaves: list[Node]

    @property
    def id(self) -> str:
        return self.document.id

    @property
    def revs(self) -> list[Rev]:
        """The conflict leaves' revisions, the winner first."""
        return [leaf.rev for leaf in self.leaves]

    def choose(self, revs: Sequence[Rev]) -> list[Node]:
        """The conflict leaves with these revisions, in the order of `leaves`.

        :raises BadRequest: one of them is none.
        """
        wanted = set(revs)
        chosen = [leaf for leaf in self.leaves if leaf.rev in wanted]
        unknown = wanted.difference(leaf.rev for leaf in chosen)
        if unknown:
            raise BadRequest(f"{min(unknown)} is no leaf of {self.id} that could be merged")
        return chosen

    def common_ancestor(self, nodes: Sequence[Node]) -> Node | None:
        """The youngest known revision that all of `nodes` descend from; None when they were made apart."""
        if not nodes:
            return None
        ancestor: Node | None = nodes[0]
        for node in nodes[1:]:
            if ancestor is None:
                return None
            ancestor = self.document.tree.common_ancestor(ancestor, node)
        return ancestor

    def merge_base(self, nodes: Sequence[Node]) -> Node | None:
        """Their youngest common ancestor if its body is here: where a three-way merge of `nodes` starts from.

        An older ancestor won't do: what one of them set back to what it had been there would look untouched.
        """
        ancestor = self.common_ancestor(nodes)
        return ancestor if ancestor is not None and _has_body(ancestor) else None

    def branches(self) -> list[Branch]:
        """The whole tree, parents before those that branch off them."""
        runs = self.document.tree.to_runs()
        branches = []
        for run in runs:
            parent = None
            if run.parent_run != ROOT:
                owner = runs[run.parent_run]
                parent = Rev(owner.first_generation + run.parent_offset, owner.digests[run.parent_offset])
            revs = [
                TreeRev(Rev(generation, digest), _status(info))
                for generation, (digest, info) in enumerate(
                    zip(run.digests, run.infos, strict=True), run.first_generation
                )
            ]
            revs.reverse()
            branches.append(Branch(revs[0].rev, run.infos[-1].deleted, parent, revs))
        return branches


def merge_bases(nodes: Sequence[Node]) -> set[Node]:
    """The youngest common ancestors of all pairs of `nodes`: where the path of one meets that of another."""
    bases: set[Node] = set()
    seen: set[Node] = set()
    for leaf in nodes:
        node: Node | None = leaf
        while node is not None and node not in seen:
            seen.add(node)
            node = node.parent
        if node is not None:
            bases.add(node)
    return bases


def _has_body(node: Node) -> bool:
    info: RevInfo | None = node.info
    return info is not None and bool(info.body)


def _status(info: RevInfo | None) -> str:
    if info is None or not info.body:
        return "missing"
    return "deleted" if info.deleted else "available"


def inspect(reader: Reader, doc_id: str) -> Inspection:
    """All about a document but the bodies. :raises NotFound: nothing was ever known of it."""
    found = reads.document(reader, doc_id)
    if found is None:
        raise NotFound("missing")
    leaves = found.leaves()
    living = [leaf for leaf in leaves if not leaf.info.deleted]
    deleted = [leaf for leaf in leaves if leaf.info.deleted]
    return Inspection(found, since_ms(reader, doc_id), living, deleted)


def revision(reader: Reader, codec: BodyCodec, found: Document, node: Node) -> Revision | None:
    """The revision at `node`, without its path; None when its body is gone."""
    if not _has_body(node):
        return None
    info: RevInfo = node.info
    return reads.load(reader, codec, found.id, found.head, node.rev, info.body, info.deleted)
