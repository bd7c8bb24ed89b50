"""Resolvers that are functions of a database's design documents.

"resolvers": {"notes": "function (base, leaves) { ... }"}
"""

from __future__ import annotations

from typing import Any, Protocol

from ..javascript import Design, FunctionPool
from .resolvers import Conflict
from .values import JsonObject


class Source(Protocol):
    """A database, as far as this file needs it."""

    name: str

    def get(self, doc_id: str) -> JsonObject: ...


class DesignFunctions:
    """Runs them in the sandbox of views; a `resolvers.Functions`."""

    def __init__(self, database: Source, pool: FunctionPool) -> None:
        self._database = database
        self._pool = pool
        self._designs: dict[str, tuple[str, Design]] = {}

    async def __call__(self, design: str, name: str, conflict: Conflict) -> Any:
        """:raises NotFound: there is no such design document. :raises CouchliteError: the function failed."""
        found = self._database.get(design)
        known = self._designs.get(design)
        if known is None or known[0] != found["_rev"]:
            known = self._designs[design] = found["_rev"], Design(self._database.name, found)
        base = None if conflict.base is None else {"_id": conflict.id, **conflict.base}
        leaves = [{"_id": conflict.id, "_rev": leaf.rev, **leaf.document} for leaf in conflict.leaves]
        return await self._pool.resolve(known[1], name, base, leaves)
