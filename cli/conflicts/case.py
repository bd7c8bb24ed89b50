"""A conflict as the commands see it, wherever it is: its tree, its leaves, and what they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from couchlite.errors import NotFound

from ..main import Failure

JsonObject = dict[str, Any]

AVAILABLE, DELETED, MISSING, UNKNOWN = "available", "deleted", "missing", "unknown"
"""Whether a revision's body is here. Of a CouchDB not everything is asked."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A document in conflict, as a list shows it. `since` and `size` are None where nobody knows."""

    database: str
    id: str
    rev: str
    leaves: int
    since: str | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf that is not deleted; its document is without `_id` and `_rev`, with attachment stubs."""

    rev: str
    size: int
    document: JsonObject


class Revision(NamedTuple):
    rev: str
    status: str


@dataclass(frozen=True, slots=True)
class Branch:
    """A leaf with the part of its path that no earlier branch has, newest first."""

    revs: Sequence[Revision]
    deleted: bool
    parent: str | None
    """The revision it branches off."""

    @property
    def leaf(self) -> str:
        return self.revs[0].rev


@dataclass(frozen=True, slots=True)
class Case:
    """All about one document, in conflict or not."""

    database: str
    id: str
    since: str | None
    leaves: Sequence[Leaf]
    """Those not deleted, the winner first, then in the order in which they would win."""
    branches: Sequence[Branch]
    common_ancestor: str | None
    """The youngest revision that all `leaves` descend from."""
    base: JsonObject | None
    """Its document, if it is still here: what a three-way merge starts from."""
    compacted_by: str = "its body never came here, or was compacted"
    """Why bodies are missing here."""
    deleted_leaves: Sequence[str] = field(default=())

    @property
    def revs(self) -> list[str]:
        return [leaf.rev for leaf in self.leaves]

    @property
    def base_rev(self) -> str | None:
        return None if self.base is None else self.common_ancestor

    @property
    def documents(self) -> list[JsonObject]:
        return [leaf.document for leaf in self.leaves]

    def leaf(self, rev: str) -> Leaf:
        """The leaf with this revision, which is none that is deleted."""
        return next(leaf for leaf in self.leaves if leaf.rev == rev)

    @property
    def no_base_reason(self) -> str | None:
        """Why there is no base to merge from; None if there is one, or nothing to merge."""
        if self.base is not None or len(self.leaves) < 2:
            return None
        if self.common_ancestor is not None:
            return f"base not available: {self.compacted_by} ({self.common_ancestor})"
        if self.stemmed_roots:
            return "base not available: the oldest revisions are forgotten (the database's _revs_limit)"
        return "no base: the leaves were created apart"

    @property
    def stemmed_roots(self) -> list[str]:
        """The oldest revisions that are known, where these aren't the first ones."""
        roots = [branch.revs[-1].rev for branch in self.branches if branch.parent is None]
        return [rev for rev in roots if not rev.startswith("1-")]

    def find(self, text: str) -> str:
        """The revision of the tree that `text` names, which may be its beginning.

        :raises NotFound: there is none. :raises Failure: there are several.
        """
        known = [revision.rev for branch in self.branches for revision in branch.revs]
        if text in known:
            return text
        found = [rev for rev in known if rev.startswith(text)]
        if not found:
            raise NotFound(f"{self.id} has no revision {text}")
        if len(found) > 1:
            raise Failure(f"{text} may be any of {', '.join(found[:3])}: say more of it")
        return found[0]

    def find_leaf(self, text: str) -> str:
        """As `find`, among the leaves that are not deleted."""
        found = [rev for rev in self.revs if rev.startswith(text)]
        if len(found) == 1:
            return found[0]
        rev = self.find(text)
        if rev not in self.revs:
            raise Failure(f"{rev} is no leaf of {self.id} that could be picked")
        return rev

    def require_conflict(self) -> None:
        """:raises NotFound: there is nothing to merge."""
        if len(self.leaves) < 2:
            raise NotFound(f"{self.id} is not in conflict")

    def to_json(self) -> JsonObject:
        """The members that `GET /{db}/_conflicts/{docid}` has, as far as they are the same everywhere."""
        return {
            "database": self.database,
            "id": self.id,
            "rev": self.revs[0] if self.leaves else None,
            "since": self.since,
            "leaves": [asdict(leaf) for leaf in self.leaves],
            "common_ancestor": self.common_ancestor,
            "base": None if self.base is None else {"rev": self.base_rev, "document": self.base},
            "no_base": self.no_base_reason,
            "deleted_leaves": list(self.deleted_leaves),
            "branches": [
                {
                    "leaf": branch.leaf,
                    "deleted": branch.deleted,
                    "parent": branch.parent,
                    "revs": [revision._asdict() for revision in branch.revs],
                }
                for branch in self.branches
            ],
        }


def mergeable(document: JsonObject) -> JsonObject:
    """A document as merging takes it."""
    return {name: value for name, value in document.items() if name[:1] != "_" or name == "_attachments"}


SHORT_DIGITS = 8


def short(revs: Sequence[str]) -> dict[str, str]:
    """Beginnings of revisions that tell them apart, and that are good for naming them."""
    digits = SHORT_DIGITS
    while digits < 32:
        shown = {rev: rev[: rev.index("-") + 1 + digits] for rev in revs}
        if len(set(shown.values())) == len(shown):
            return shown
        digits += 4
    return {rev: rev for rev in revs}
