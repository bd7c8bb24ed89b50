"""Conflicts of a database settled by resolvers: one of them, or all.

    read the leaves and their base  ->  the resolver  ->  [may this be written?]  ->  one write, recorded

What must stay true here: no snapshot is open while a resolver thinks, so what it has seen is checked again by
the write, which then writes nothing if the document has moved on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from . import document, jsontext, resolution_log, validation
from .conflicts import Inspection
from .database import Database
from .errors import Conflict as Moved
from .errors import CouchliteError, NotFound
from .javascript import FunctionPool
from .merging.functions import DesignFunctions
from .merging.resolvers import Conflict, Leaf, LeftAlone, Resolution, Resolver
from .merging.settings import Settings
from .merging.values import JsonObject
from .resolutions import DELETE
from .revision import Rev
from .revtree import Node
from .security import SYSTEM, Principal

PAGE_BODIES = 32
"""So many bodies are read in one snapshot."""
SIZE_MAX_BYTES = 64 << 20
"""Leaves that are larger together are left to people: they would have to be in memory several times."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a conflict, or would become of it."""

    id: str
    resolver: str
    """Its name; what chose it was the settings or the caller."""
    proposal: Resolution | LeftAlone
    done: resolution_log.Resolution | None = None
    """The record, if it was resolved."""


def read_conflict(database: Database, doc_id: str, revs: tuple[Rev, ...] = ()) -> Conflict:
    """A document's leaves with their bodies, and the base that they have in common.

    :param revs: only these leaves.
    :raises NotFound: the document isn't known, or has moved on meanwhile.
    :raises BadRequest: one of `revs` is no leaf.
    """
    with database.snapshot() as snapshot:
        found = snapshot.inspect(doc_id)
    leaves = found.choose(revs) if revs else found.leaves
    base = found.merge_base(leaves) if len(leaves) > 1 else None
    nodes = [*leaves, *([] if base is None else [base])]
    documents: list[JsonObject] = []
    for start in range(0, len(nodes), PAGE_BODIES):
        documents += _documents(database, found, nodes[start : start + PAGE_BODIES])
    read = [Leaf(node.rev.text, body) for node, body in zip(leaves, documents, strict=False)]
    return Conflict(doc_id, read, None if base is None else documents[-1])


def _documents(database: Database, found: Inspection, nodes: list[Node]) -> list[JsonObject]:
    texts = []
    with database.snapshot() as snapshot:
        for node in nodes:
            revision = snapshot.kept_revision(found.document, node)
            if revision is None:
                raise NotFound(f"the body of {node.rev} is not here any more")
            texts.append(document.render(revision))
    documents: list[JsonObject] = [jsontext.loads(text) for text in texts]
    for one in documents:
        del one["_id"], one["_rev"]
    return documents


class Resolving:
    """Settles conflicts of one database.

    :param functions: run resolvers and validation functions of design documents.
    :param principal: whose rights it is done with; by default all that validation functions let an
        administrator write.
    """

    def __init__(self, database: Database, functions: FunctionPool, principal: Principal = SYSTEM) -> None:
        self._database = database
        self._pool = functions
        self._functions = DesignFunctions(database, functions)
        self._principal = principal

    async def propose(self, doc_id: str, by: Settings | Resolver, revs: tuple[Rev, ...] = ()) -> Outcome:
        """What a resolver makes of a conflict; nothing is written. :raises NotFound: as `read_conflict`."""
        _conflict, outcome = await self._propose(doc_id, by, revs)
        return outcome

    async def resolve(self, doc_id: str, by: Settings | Resolver) -> Outcome:
        """Settle a conflict, or leave it alone, also if the document changes meanwhile or the merged one is
        refused. :raises NotFound: as `read_conflict`."""
        conflict, outcome = await self._propose(doc_id, by, ())
        if isinstance(outcome.proposal, LeftAlone):
            return outcome
        try:
            done = await self._write(conflict, outcome.resolver, outcome.proposal)
        except Moved:
            return Outcome(doc_id, outcome.resolver, LeftAlone("the document has changed meanwhile"))
        except CouchliteError as refusal:
            return Outcome(
                doc_id,
                outcome.resolver,
                LeftAlone(f"the merged document was refused: {refusal.error}: {refusal.reason}"),
            )
        return Outcome(doc_id, outcome.resolver, outcome.proposal, done)

    async def all(self, by: Settings | Resolver, *, dry_run: bool = False) -> AsyncIterator[Outcome]:
        """The same for each conflict of the database; with `dry_run` nothing is written."""
        at: bytes | None = b""
        while at is not None:
            with self._database.snapshot() as snapshot:
                page = snapshot.conflicts(at)
            for row in page.rows:
                try:
                    yield await (self.propose(row.id, by) if dry_run else self.resolve(row.id, by))
                except NotFound:
                    continue  # it is none any more
            at = page.resume

    async def _propose(
        self, doc_id: str, by: Settings | Resolver, revs: tuple[Rev, ...]
    ) -> tuple[Conflict, Outcome]:
        too_large = self._is_too_large(doc_id)
        conflict = Conflict(doc_id, []) if too_large else read_conflict(self._database, doc_id, revs)
        if too_large:
            resolver, proposal = "manual", LeftAlone("the leaves are too large to be merged by themselves")
            return conflict, Outcome(doc_id, resolver, proposal)
        if len(conflict.leaves) < 2:
            raise NotFound("the document is not in conflict")
        chosen = by if isinstance(by, Resolver) else by.choose(doc_id, conflict.leaves[0])
        return conflict, Outcome(doc_id, chosen.name, await chosen.resolve(conflict, self._functions))

    def _is_too_large(self, doc_id: str) -> bool:
        with self._database.snapshot() as snapshot:
            sizes: list[int] = [leaf.info.size for leaf in snapshot.inspect(doc_id).leaves]
        return sum(sizes) > SIZE_MAX_BYTES

    async def _write(self, conflict: Conflict, using: str, proposal: Resolution) -> resolution_log.Resolution:
        database = self._database
        content = DELETE if proposal.deleted else document.parse(proposal.document, conflict.id)
        with database.snapshot() as snapshot:
            seen = [Rev.parse(leaf.rev) for leaf in conflict.leaves]
            plan = snapshot.plan_resolution(conflict.id, seen, content, using=using, by=self._principal.name)
        for refusal in await validation.refusals(
            database, plan.edits, self._principal, self._pool, new_edits=True
        ):
            if refusal is not None:
                raise refusal
        return await asyncio.wrap_future(await asyncio.to_thread(database.submit_plan, plan))
