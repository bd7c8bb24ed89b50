"""Conflicts of a database settled by resolvers: one of them, or all.

    read the leaves and their base  ->  the resolver  ->  [may this be written?]  ->  one write, recorded

What must stay true here: no snapshot is open while a resolver thinks, so what it has seen is checked again by
the write, which then writes nothing if the document has moved on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import document, resolution_log, validation
from .database import Database
from .document import Edit
from .errors import Conflict as Moved
from .errors import CouchliteError, NotFound
from .javascript import FunctionPool
from .merging.functions import DesignFunctions
from .merging.resolvers import Conflict, Leaf, LeftAlone, Manual, Resolution, Resolver
from .merging.settings import Settings
from .proposals import Sides, describe_clash
from .resolutions import DELETE
from .revision import Rev
from .security import SYSTEM, Principal
from .validation import Refusals

SIZE_MAX_BYTES = 64 << 20
"""Leaves that are larger together are left to people: they would have to be in memory several times."""

TURN_DOCUMENTS = 100
"""After so many, others have their turn, also if none of these is a conflict."""

Refuse = Callable[[Database, Principal, Sequence[Edit]], Awaitable[Refusals]]
"""For each of some interactive edits what refuses it, if anything does. It may complete them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a conflict, or would become of it."""

    id: str
    leaves: tuple[Rev, ...]
    """The winner first."""
    resolver: str
    """Its name; what chose it was the settings or the caller."""
    proposal: Resolution | LeftAlone
    done: resolution_log.Resolution | None = None
    """The record, if it was resolved."""


class Resolving:
    """Settles conflicts of one database.

    :param functions: run resolvers and validation functions of design documents.
    :param principal: whose rights it is done with; by default all that validation functions let an
        administrator write.
    :param refuse: what else there is to ask than validation functions, where a server has databases with
        rules of its own; it asks these too.
    """

    def __init__(
        self,
        database: Database,
        functions: FunctionPool,
        principal: Principal = SYSTEM,
        *,
        refuse: Refuse | None = None,
    ) -> None:
        self._database = database
        self._refuse = refuse or self._ask_functions
        self._pool = functions
        self._functions = DesignFunctions(database, functions)
        self._principal = principal

    async def propose(self, doc_id: str, by: Settings | Resolver) -> Outcome:
        """What a resolver makes of a conflict; nothing is written.

        :raises NotFound: there is no such document, or it is not in conflict.
        """
        sides = self._sides(doc_id)
        if sides is None:
            reason = f"its leaves are larger than {SIZE_MAX_BYTES >> 20} MiB together"
            return Outcome(doc_id, (), Manual.name, LeftAlone(reason))
        leaves = [Leaf(rev.text, leaf) for rev, leaf in zip(sides.revs, sides.leaves, strict=True)]
        resolver = by if isinstance(by, Resolver) else by.choose(doc_id, leaves[0])
        proposal = await resolver.resolve(Conflict(doc_id, leaves, sides.base), self._functions)
        return Outcome(doc_id, sides.revs, resolver.name, proposal)

    async def resolve(self, doc_id: str, by: Settings | Resolver) -> Outcome:
        """Settle a conflict, or leave it alone, also if the document changes meanwhile or the merged one is
        refused. :raises NotFound: as `propose`."""
        outcome = await self.propose(doc_id, by)
        if isinstance(outcome.proposal, LeftAlone):
            return outcome
        try:
            return replace(outcome, done=await self._write(outcome, outcome.proposal))
        except Moved:
            return replace(outcome, proposal=LeftAlone("the document has changed meanwhile"))
        except CouchliteError as refusal:
            reason = f"the merged document was refused: {refusal.error}: {refusal.reason}"
            return replace(outcome, proposal=LeftAlone(reason))

    async def all(
        self, by: Settings | Resolver, ids: Iterable[str] | None = None, *, dry_run: bool = False
    ) -> AsyncIterator[Outcome]:
        """The same for each conflict of the database, or among `ids`; with `dry_run` nothing is written."""
        for at, doc_id in enumerate((row.id for row in self._database.conflicts()) if ids is None else ids):
            if at % TURN_DOCUMENTS == 0:
                await asyncio.sleep(0)
            with contextlib.suppress(NotFound):  # it is no conflict, or not any more
                yield await (self.propose(doc_id, by) if dry_run else self.resolve(doc_id, by))

    def _sides(self, doc_id: str) -> Sides | None:
        """What is to be merged; None if that is too much."""
        with self._database.snapshot() as snapshot:
            leaves = snapshot.inspect(doc_id).leaves
            if len(leaves) < 2:
                raise NotFound("the document is not in conflict")
            size = sum(leaf.info.size for leaf in leaves)
            return None if size > SIZE_MAX_BYTES else snapshot.sides(doc_id)

    async def _write(self, outcome: Outcome, proposal: Resolution) -> resolution_log.Resolution:
        database = self._database
        content = DELETE if proposal.deleted else document.parse(proposal.document, outcome.id)
        with database.snapshot() as snapshot:
            plan = snapshot.plan_resolution(
                outcome.id, outcome.leaves, content, using=outcome.resolver, by=self._principal.name
            )
        for refusal in await self._refuse(database, self._principal, plan.edits):
            if refusal is not None:
                raise refusal
        return await asyncio.wrap_future(await asyncio.to_thread(database.submit_plan, plan))

    async def _ask_functions(
        self, database: Database, principal: Principal, edits: Sequence[Edit]
    ) -> Refusals:
        return await validation.refusals(database, edits, principal, self._pool, new_edits=True)


def describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """An outcome in JSON; docs/conflicts.md explains the members."""
    proposal = outcome.proposal
    shown: dict[str, Any] = {
        "id": outcome.id,
        "leaves": [rev.text for rev in outcome.leaves],
        "using": outcome.resolver,
        "resolved": outcome.done is not None,
    }
    if isinstance(proposal, LeftAlone):
        clashes = [describe_clash(clash, outcome.leaves) for clash in proposal.clashes]
        return shown | {"reason": proposal.reason, "clashes": clashes}
    shown["overruled"] = list(proposal.overruled)
    if outcome.done is None:
        return shown | {"document": None if proposal.deleted else proposal.document}
    return shown | {"rev": outcome.done.into.text, "resolution": outcome.done.number}
