"""The conflicts of a database of any CouchDB: found, shown and resolved by what every CouchDB answers.

    _changes?style=all_docs         which documents have several leaves, and then
    _bulk_get                       which of these leaves are not deleted; the bodies of other revisions
    open_revs=all&revs=true         the leaves and their histories; the tree is what these have in common
    _bulk_docs                      the merged revision, and then the deletion of each other leaf

What must stay true here: no leaf is deleted before the merged revision is stored. Such a server can't do all
that in one write: if it fails in the middle the document stays in conflict, and nothing is lost. The
revisions are those that couchlite makes of the same resolution.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from couchlite.errors import Conflict, CouchliteError, NotFound
from couchlite.jsontext import dumps
from couchlite.member_order import arranged
from couchlite.resolutions import ORDERED_BY_LEAVES

from ..main import Failure
from ..remote_store import RemoteStore, path_to, path_to_document
from .case import (
    AVAILABLE,
    DELETED,
    MISSING,
    UNKNOWN,
    Branch,
    Case,
    JsonObject,
    Leaf,
    Listed,
    Revision,
    mergeable,
)
from .places import Content, Delete, Pick, Told

PAGE_CHANGES = 1000
BODIES_AT_ONCE = 200
INNER_MAX = 500
"""So many revisions that are no leaves are asked for: those where branches meet, and then the newest."""


Item = TypeVar("Item")


class ForeignPlace:
    def __init__(self, server: RemoteStore, name: str) -> None:
        self.name = name
        self.shown = f"{server.url}/{name}"
        self._server = server

    # --- which there are

    def rows(self, told: Told) -> Iterator[Listed]:
        leaves: dict[str, dict[str, int]] = {}
        for pairs in self._candidates(told):
            for leaf in self._found([{"id": doc_id, "rev": rev} for doc_id, rev in pairs]):
                if not leaf.get("_deleted"):
                    leaves.setdefault(leaf["_id"], {})[leaf["_rev"]] = _size(leaf)
        for doc_id, sizes in sorted(leaves.items()):
            if len(sizes) > 1:
                winner = max(sizes, key=_place)
                yield Listed(self.name, doc_id, winner, len(sizes), None, sum(sizes.values()))

    def _candidates(self, told: Told) -> Iterator[Sequence[tuple[str, str]]]:
        """The leaves of documents that have several, deleted ones too."""
        since: Any = 0
        done = 0
        while True:
            query = f"?style=all_docs&limit={PAGE_CHANGES}&since={since}"
            page = self._ask("GET", "_changes", query=query)
            rows = page["results"]
            done += len(rows)
            told(done, done + page.get("pending", 0))
            pairs = [
                (row["id"], change["rev"])
                for row in rows
                if len(row["changes"]) > 1
                for change in row["changes"]
            ]
            yield from _batches(pairs, BODIES_AT_ONCE)
            if len(rows) < PAGE_CHANGES:
                return
            since = page["last_seq"]

    def _found(self, asked: Sequence[JsonObject]) -> Iterator[JsonObject]:
        """Those of the revisions that are there."""
        # Each is named by its revision: without one, PouchDB answers with the winner only.
        for result in self._ask("POST", "_bulk_get", {"docs": asked})["results"]:
            yield from (answer["ok"] for answer in result["docs"] if "ok" in answer)

    def counts(self, told: Told) -> JsonObject:
        rows = list(self.rows(told))
        return {
            "documents": len(rows),
            "leaves": sum(row.leaves for row in rows),
            "leaves_max": max((row.leaves for row in rows), default=0),
            "bytes": sum(row.size or 0 for row in rows),
            "oldest": None,
            "newest": None,
        }

    def ids(self, prefix: str, limit: int) -> list[str]:
        return []

    # --- one of them

    def case(self, doc_id: str) -> Case:
        answers = self._server.ask("GET", f"{path_to_document(self.name, doc_id)}?open_revs=all&revs=true")
        leaves = sorted((answer["ok"] for answer in answers if "ok" in answer), key=_rank, reverse=True)
        if not leaves:
            raise NotFound("missing")
        tree = _Tree.of([_path(leaf) for leaf in leaves])
        living = _living(leaves)
        ancestor = tree.common_ancestor([leaf["_rev"] for leaf in living]) if len(living) > 1 else None
        inner = self._bodies(doc_id, tree.inner(ancestor))
        statuses = {rev: _status(body) for rev, body in inner.items()}
        statuses |= {leaf["_rev"]: _status(leaf) for leaf in leaves}
        branches = [
            Branch(
                [Revision(rev, statuses.get(rev, UNKNOWN)) for rev in revs],
                bool(leaf.get("_deleted")),
                tree.parents.get(revs[-1]),
            )
            for leaf, revs in zip(leaves, tree.branches, strict=True)
            if revs
        ]
        base = None if ancestor is None else inner.get(ancestor)
        return Case(
            self.name,
            doc_id,
            None,
            [Leaf(leaf["_rev"], _size(leaf), mergeable(leaf)) for leaf in living],
            branches,
            ancestor,
            None if base is None else mergeable(base),
            "the server has compacted it, or never had it",
            [leaf["_rev"] for leaf in leaves if leaf.get("_deleted")],
        )

    def document(self, case: Case, rev: str) -> JsonObject | None:
        found = self._bodies(case.id, [rev])[rev]
        return None if found is None else mergeable(found)

    def _bodies(self, doc_id: str, revs: Sequence[str]) -> dict[str, JsonObject | None]:
        """The documents of revisions, None for those that are gone."""
        found: dict[str, JsonObject | None] = dict.fromkeys(revs)
        for some in _batches(revs, BODIES_AT_ONCE):
            found |= {one["_rev"]: one for one in self._found([{"id": doc_id, "rev": rev} for rev in some])}
        return found

    # --- resolving

    def resolve(self, case: Case, content: Content, using: str) -> JsonObject:
        answers = self._server.ask("GET", f"{path_to_document(self.name, case.id)}?open_revs=all")
        now = [leaf["_rev"] for leaf in _living(answer["ok"] for answer in answers if "ok" in answer)]
        if set(now) != set(case.revs):
            raise Conflict("The document's leaves have changed.")
        winner, *others = case.revs
        head = {"_id": case.id, "_rev": winner}
        if isinstance(content, Delete):
            merged: JsonObject = {**head, "_deleted": True}
        else:
            merged = head | self._merged(
                case, case.leaf(content.rev).document if isinstance(content, Pick) else content
            )
        rev = self._write([merged])[0]
        try:
            self._write([{"_id": case.id, "_rev": other, "_deleted": True} for other in others])
        except CouchliteError as error:
            raise Failure(f"{rev} is stored, but leaves remain: {error.reason}") from error
        return {"ok": True, "id": case.id, "rev": rev}

    def _write(self, docs: list[JsonObject]) -> list[str]:
        """The new revisions. :raises CouchliteError: one was refused."""
        revs = []
        for row in self._ask("POST", "_bulk_docs", {"docs": docs}):
            if "error" in row:
                kind = Conflict if row["error"] == "conflict" else CouchliteError
                raise kind(str(row.get("reason") or row["error"]), error=str(row["error"]))
            revs.append(str(row["rev"]))
        return revs

    def _merged(self, case: Case, document: JsonObject) -> JsonObject:
        """The document as it is sent: members in the order that couchlite gives them, and the data of
        attachments that the winner doesn't have."""
        fields = {name: value for name, value in document.items() if name != "_attachments"}
        ordered: JsonObject = arranged(fields, case.documents[:ORDERED_BY_LEAVES])
        stubs = document.get("_attachments", {})
        if stubs:
            ordered["_attachments"] = {name: self._attachment(case, name, stubs[name]) for name in stubs}
        return ordered

    def _attachment(self, case: Case, name: str, stub: JsonObject) -> JsonObject:
        for leaf in case.leaves:
            for own_name, own in leaf.document.get("_attachments", {}).items():
                is_meant = own["digest"] == stub["digest"] if "digest" in stub else own_name == name
                if not is_meant:
                    continue
                if leaf is case.leaves[0] and own_name == name:
                    return {**own, "stub": True}
                at = f"{path_to_document(self.name, case.id)}{path_to(own_name)}?rev={leaf.rev}"
                data = base64.b64encode(self._server.fetch("GET", at)).decode()
                return {"content_type": stub.get("content_type", own["content_type"]), "data": data}
        raise Failure(f"no leaf has an attachment {name} like the merged document's")

    def settle(
        self,
        ids: Sequence[str],
        using: str | None,
        options: Mapping[str, Any],
        *,
        dry_run: bool,
        tell: Callable[[JsonObject], None],
    ) -> None:
        # These take a while to import, and most commands don't need them.
        from couchlite.javascript import FunctionPool
        from couchlite.merging.functions import DesignFunctions
        from couchlite.merging.resolvers import Conflict as Question
        from couchlite.merging.resolvers import Leaf as Side
        from couchlite.merging.resolvers import LeftAlone
        from couchlite.merging.settings import parse_resolver
        from couchlite.resolving import Outcome, describe_outcome
        from couchlite.revision import Rev

        if using is None:
            raise Failure(f"{self.shown}: this server has no settings of resolvers: name one with --using")
        resolver = parse_resolver(using, options)

        async def run() -> None:
            functions = FunctionPool()
            try:
                ask = DesignFunctions(_Designs(self._server, self.name), functions)
                for doc_id in ids:
                    case = self.case(doc_id)
                    if len(case.leaves) < 2:
                        continue
                    sides = [Side(leaf.rev, leaf.document) for leaf in case.leaves]
                    proposal = await resolver.resolve(Question(doc_id, sides, case.base), ask)
                    revs = tuple(Rev.parse(rev) for rev in case.revs)
                    row = describe_outcome(Outcome(doc_id, revs, resolver.name, proposal))
                    if not dry_run and not isinstance(proposal, LeftAlone):
                        row = self._settled(case, row)
                    tell(row)
            finally:
                await functions.close()

        asyncio.run(run())

    def _settled(self, case: Case, row: JsonObject) -> JsonObject:
        """The row of a proposal that is carried out, or was refused."""
        document = row.pop("document")
        try:
            done = self.resolve(case, Delete() if document is None else document, row["using"])
        except CouchliteError as error:
            return row | {"reason": f"the merged document was refused: {error.reason}", "clashes": []}
        return row | {"resolved": True, "rev": done["rev"]}

    # --- what such a server hasn't

    def undo(self, doc_id: str, number: int | None) -> JsonObject:
        raise self._no_record("undo")

    def log(self, doc_id: str | None, limit: int) -> list[JsonObject]:
        raise self._no_record("log")

    def resolvers(self) -> JsonObject:
        raise Failure(f"{self.shown}: this server has no settings of resolvers")

    def set_resolvers(self, settings: JsonObject) -> None:
        self.resolvers()

    def _no_record(self, what: str) -> Failure:
        return Failure(f"{self.shown}: {what}: this server keeps no record of resolutions")

    def _ask(self, method: str, name: str, body: Any = None, *, query: str = "") -> Any:
        return self._server.ask(method, path_to(self.name, name) + query, body)


@dataclass(slots=True)
class _Designs:
    """Where functions of design documents come from."""

    server: RemoteStore
    name: str

    def get(self, doc_id: str) -> JsonObject:
        return self.server.get(self.name, doc_id, None)


@dataclass(frozen=True, slots=True)
class _Tree:
    """What paths, newest first and the winner's first, have in common."""

    branches: Sequence[Sequence[str]]
    """Of each path the part that no earlier one has."""
    parents: Mapping[str, str]
    paths: Mapping[str, Sequence[str]]
    """By their leaves."""

    @classmethod
    def of(cls, paths: Sequence[Sequence[str]]) -> _Tree:
        parents: dict[str, str] = {}
        seen: set[str] = set()
        branches = []
        for path in paths:
            own = []
            for rev in path:
                if rev in seen:
                    break
                own.append(rev)
            seen.update(own)
            branches.append(own)
            parents.update(pairwise(path))
        return cls(branches, parents, {path[0]: path for path in paths})

    def common_ancestor(self, leaves: Sequence[str]) -> str | None:
        shared = set(self.paths[leaves[0]]).intersection(*(self.paths[leaf] for leaf in leaves[1:]))
        return max(shared, key=_place, default=None)

    def inner(self, ancestor: str | None) -> list[str]:
        """The revisions that are no leaves and may be asked for."""
        wanted = dict.fromkeys([] if ancestor is None else [ancestor])
        wanted |= dict.fromkeys(
            self.parents[revs[-1]] for revs in self.branches if revs and revs[-1] in self.parents
        )
        rest = {rev for revs in self.branches for rev in revs if rev not in self.paths}
        wanted |= dict.fromkeys(sorted(rest, key=_place, reverse=True))
        return list(wanted)[:INNER_MAX]


def _path(leaf: JsonObject) -> list[str]:
    start, ids = leaf["_revisions"]["start"], leaf["_revisions"]["ids"]
    return [f"{start - at}-{digest}" for at, digest in enumerate(ids)]


def _place(rev: str) -> tuple[int, str]:
    generation, _, digest = rev.partition("-")
    return int(generation), digest


def _rank(leaf: JsonObject) -> tuple[bool, tuple[int, str]]:
    """CouchDB's order of winners: not deleted, then the longest, then the highest."""
    return not leaf.get("_deleted"), _place(leaf["_rev"])


def _living(leaves: Any) -> list[JsonObject]:
    """Those not deleted, the winner first."""
    return sorted((leaf for leaf in leaves if not leaf.get("_deleted")), key=_rank, reverse=True)


def _status(body: JsonObject | None) -> str:
    return MISSING if body is None else DELETED if body.get("_deleted") else AVAILABLE


def _size(leaf: JsonObject) -> int:
    """Bytes of JSON text and attachments."""
    fields = {name: value for name, value in leaf.items() if name[:1] != "_"}
    lengths: list[int] = [stub.get("length", 0) for stub in leaf.get("_attachments", {}).values()]
    return len(dumps(fields)) + sum(lengths)


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]
