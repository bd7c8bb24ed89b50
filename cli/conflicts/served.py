"""The conflicts of a database of a couchlite server, by its /{db}/_conflicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from couchlite.errors import NotFound
from couchlite.jsontext import dumps

from ..remote_store import RemoteStore, path_to
from .case import Branch, Case, JsonObject, Leaf, Listed, Revision, mergeable
from .local import LAST_CHARACTER
from .places import LATEST_OF, Content, Delete, Pick, Told, latest

PAGE_ROWS = 1000
SETTLED_AT_ONCE = 50
"""Documents that one request lets the server settle, so that progress can be shown."""
LOG_PAGE = 1000


class ServedPlace:
    def __init__(self, server: RemoteStore, name: str) -> None:
        self.name = self.shown = name
        self._server = server

    def _ask(self, method: str, *names: str, body: Any = None, **query: Any) -> Any:
        target = path_to(self.name, "_conflicts", *names)
        return self._server.ask(method, f"{target}?{urlencode(query)}" if query else target, body)

    def rows(self, told: Told) -> Iterator[Listed]:
        query: dict[str, Any] = {"limit": PAGE_ROWS}
        while True:
            rows = self._ask("GET", **query)["rows"]
            for row in rows:
                yield Listed(self.name, row["id"], row["rev"], row["leaves"], row["since"], row["size"])
            if len(rows) < PAGE_ROWS:
                return
            query["startkey"] = dumps(rows[-1]["id"] + "\0").decode()

    def counts(self, told: Told) -> JsonObject:
        counts: JsonObject = self._ask("GET", limit=0, statistics="true")["statistics"]
        return counts

    def case(self, doc_id: str) -> Case:
        found = self._ask("GET", doc_id)
        base = None if found["base"] is None else found["bases"][found["base"]]
        return Case(
            self.name,
            found["id"],
            found["since"],
            [Leaf(leaf["rev"], leaf["size"], _body(leaf)) for leaf in found["leaves"]],
            [
                Branch(
                    [Revision(revision["rev"], revision["status"]) for revision in branch["revs"]],
                    branch["deleted"],
                    branch["parent"],
                )
                for branch in found["branches"]
            ],
            found["common_ancestor"],
            None if base is None else mergeable(base),
            deleted_leaves=found["deleted_leaves"],
        )

    def document(self, case: Case, rev: str) -> JsonObject | None:
        for leaf in case.leaves:
            if leaf.rev == rev:
                return leaf.document
        if rev == case.base_rev:
            return case.base
        try:
            return mergeable(self._server.get(self.name, case.id, rev))
        except NotFound:
            return None

    def resolve(self, case: Case, content: Content, using: str) -> JsonObject:
        body: JsonObject = {"leaves": case.revs, "using": using}
        if isinstance(content, Delete):
            body["delete"] = True
        elif isinstance(content, Pick):
            body["pick"] = content.rev
        else:
            body["document"] = content
        done: JsonObject = self._ask("POST", case.id, body=body)
        return done

    def settle(
        self,
        ids: Sequence[str],
        using: str | None,
        options: Mapping[str, Any],
        *,
        dry_run: bool,
        tell: Callable[[JsonObject], None],
    ) -> None:
        asked: JsonObject = {"dry_run": dry_run}
        if using is not None:
            asked |= {"using": using, "options": dict(options)}
        for at in range(0, len(ids), SETTLED_AT_ONCE):
            some = ids[at : at + SETTLED_AT_ONCE]
            for row in self._ask("POST", "_resolve", body={**asked, "ids": some})["rows"]:
                tell(row)

    def undo(self, doc_id: str, number: int | None) -> JsonObject:
        number = latest(self.log(doc_id, LATEST_OF), doc_id) if number is None else number
        done: JsonObject = self._ask("POST", doc_id, "_undo", body={"resolution": number})
        return done

    def log(self, doc_id: str | None, limit: int) -> list[JsonObject]:
        names = ("_resolutions",) if doc_id is None else (doc_id, "_resolutions")
        entries: list[JsonObject] = []
        query: dict[str, Any] = {}
        while len(entries) < limit:
            query["limit"] = min(LOG_PAGE, limit - len(entries))
            rows = self._ask("GET", *names, **query)["rows"]
            entries += rows
            if len(rows) < query["limit"]:
                break
            query["before"] = rows[-1]["resolution"]
        return entries

    def resolvers(self) -> JsonObject:
        settings: JsonObject = self._ask("GET", "_resolvers")
        return settings

    def set_resolvers(self, settings: JsonObject) -> None:
        self._ask("PUT", "_resolvers", body=settings)

    def ids(self, prefix: str, limit: int) -> list[str]:
        query = {
            "startkey": dumps(prefix).decode(),
            "endkey": dumps(prefix + LAST_CHARACTER).decode(),
            "limit": limit,
        }
        return [row["id"] for row in self._ask("GET", **query)["rows"]]


def _body(leaf: JsonObject) -> JsonObject:
    if leaf["doc"] is None:
        raise NotFound(f"the body of {leaf['rev']} is not here any more")
    return mergeable(leaf["doc"])
