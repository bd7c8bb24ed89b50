"""The conflicts of a database of a data directory, opened in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from couchlite import resolution_log, users
from couchlite.catalog import SYSTEM_NAMES
from couchlite.conflicts import ConflictCounts, Inspection
from couchlite.errors import NotFound
from couchlite.proposals import mergeable
from couchlite.resolution_log import time_text
from couchlite.revision import Rev
from couchlite.revtree import Node
from couchlite.server import Server
from couchlite.snapshot import Snapshot

from ..main import Failure
from .case import Branch, Case, JsonObject, Leaf, Listed, Revision
from .places import LATEST_OF, Content, Delete, Pick, Told, latest

LAST_CHARACTER = "\U0010ffff"


class LocalPlace:
    def __init__(self, server: Server, name: str) -> None:
        self.name = self.shown = name
        self._server = server
        self._database = server.open(name)

    def rows(self, told: Told) -> Iterator[Listed]:
        for row in self._database.conflicts():
            yield Listed(self.name, row.id, row.rev.text, row.leaves, time_text(row.since_ms), row.size)

    def counts(self, told: Told) -> JsonObject:
        counts = ConflictCounts()
        counts.add(list(self._database.conflicts()))
        shown = asdict(counts)
        return shown | {name: time_text(shown.pop(f"{name}_ms")) for name in ("oldest", "newest")}

    def case(self, doc_id: str) -> Case:
        with self._database.snapshot() as snapshot:
            found = snapshot.inspect(doc_id)
            leaves = [
                Leaf(node.rev.text, node.info.size, _body(snapshot, found, node)) for node in found.leaves
            ]
            ancestor = found.common_ancestor(found.leaves)
            base = found.merge_base(found.leaves) if len(leaves) > 1 else None
            return Case(
                self.name,
                doc_id,
                time_text(found.since_ms),
                leaves,
                [
                    Branch(
                        [Revision(rev.text, status) for rev, status in branch.revs],
                        branch.deleted,
                        None if branch.parent is None else branch.parent.text,
                    )
                    for branch in found.branches()
                ],
                None if ancestor is None or len(leaves) < 2 else ancestor.rev.text,
                None if base is None else _body(snapshot, found, base),
                deleted_leaves=[node.rev.text for node in found.deleted_leaves],
            )

    def document(self, case: Case, rev: str) -> JsonObject | None:
        with self._database.snapshot() as snapshot:
            found = snapshot.inspect(case.id)
            node = found.document.tree.find(Rev.parse(rev))
            revision = None if node is None else snapshot.kept_revision(found.document, node)
            return None if revision is None else mergeable(revision)

    def resolve(self, case: Case, content: Content, using: str) -> JsonObject:
        self._require_no_rules()
        merged: JsonObject | str | None = None
        if not isinstance(content, Delete):
            merged = content.rev if isinstance(content, Pick) else content
        done = self._database.resolve(case.id, case.revs, merged, using=using)
        return {"id": done.id, "rev": done.into.text, "resolution": done.number}

    def settle(
        self,
        ids: Sequence[str],
        using: str | None,
        options: Mapping[str, Any],
        *,
        dry_run: bool,
        tell: Callable[[JsonObject], None],
    ) -> None:
        if not dry_run and (rules := self._rules()):
            for doc_id in ids:
                tell({"id": doc_id, "leaves": [], "using": using, "resolved": False, "reason": rules})
            return
        # These take a while to import, and most commands don't need them.
        from couchlite.javascript import FunctionPool
        from couchlite.merging.settings import Settings, parse_resolver
        from couchlite.resolving import Resolving, describe_outcome

        by = Settings.parse(self.resolvers()) if using is None else parse_resolver(using, options)

        async def run() -> None:
            functions = FunctionPool()
            try:
                resolving = Resolving(self._database, functions)
                async for outcome in resolving.all(by, ids, dry_run=dry_run):
                    tell(describe_outcome(outcome))
            finally:
                await functions.close()

        asyncio.run(run())

    def _rules(self) -> str | None:
        """Why this process must not write here, if there is a reason."""
        has_rules = self.name in SYSTEM_NAMES or self.name == users.database_name(self._server.config)
        return f"{self.name} has rules that only a server keeps: name it by --url" if has_rules else None

    def _require_no_rules(self) -> None:
        if rules := self._rules():
            raise Failure(rules)

    def undo(self, doc_id: str, number: int | None) -> JsonObject:
        self._require_no_rules()
        number = latest(self.log(doc_id, LATEST_OF), doc_id) if number is None else number
        with self._database.snapshot() as snapshot:
            if snapshot.plan_undo(number).id != doc_id:
                raise NotFound(f"There is no record of a resolution {number} of this document.")
        done = self._database.undo(number)
        return {"id": done.id, "rev": done.into.text, "resolution": done.number}

    def log(self, doc_id: str | None, limit: int) -> list[JsonObject]:
        shown = []
        for entry in islice(self._database.resolutions(doc_id), limit):
            with self._database.snapshot() as snapshot:
                shown.append(resolution_log.describe(entry, snapshot.undo_obstacle(entry)))
        return shown

    def resolvers(self) -> JsonObject:
        return self._server.resolvers(self.name)

    def set_resolvers(self, settings: JsonObject) -> None:
        self._server.set_resolvers(self.name, settings)

    def ids(self, prefix: str, limit: int) -> list[str]:
        return [row.id for row in islice(self._database.conflicts(prefix, prefix + LAST_CHARACTER), limit)]


def _body(snapshot: Snapshot, found: Inspection, node: Node) -> JsonObject:
    revision = snapshot.kept_revision(found.document, node)
    if revision is None:
        raise NotFound(f"the body of {node.rev} is not here any more")
    return mergeable(revision)
