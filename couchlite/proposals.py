"""A three-way merge of a document's leaves, as the store has them: what would come of it, before anything is
written.

    with database.snapshot() as snapshot:
        sides = snapshot.sides("shopping")
    merged = sides.merge(Rules())               # may take a while, and needs no snapshot
    plan = snapshot.plan_resolution("shopping", sides.seen, sides.content(merged))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import conflicts, document, jsontext
from .compression import BodyCodec
from .document import Edit, Revision, attachment_stub
from .engine import Reader
from .errors import BadRequest, Conflict, NotFound
from .merging import MISSING, Clash, Merged, Rules, merge
from .revision import Rev
from .revtree import Node

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sides:
    """What is to be merged: documents as merging takes them, with attachment stubs but without id and
    revision."""

    id: str
    seen: tuple[Rev, ...]
    """All leaves that are not deleted, the winner first."""
    revs: tuple[Rev, ...]
    """Those that are to be merged."""
    leaves: tuple[JsonObject, ...]
    base_rev: Rev | None
    base: JsonObject | None
    """None when the leaves were made apart, or when what they come from is gone."""

    def merge(self, rules: Rules | None = None) -> Merged:
        return merge(self.base, self.leaves, rules)

    def content(self, merged: Merged) -> Edit | None:
        """A merged document as what a conflict is resolved with.

        :raises Clashed: there is something to decide yet.
        """
        if merged.clashes:
            raise Clashed(self, merged.clashes)
        if merged.deleted:
            return None
        return document.parse(dict(merged.document), self.id)


class Clashed(Conflict):
    """Leaves could not be merged by the rules alone."""

    def __init__(self, sides: Sides, clashes: Sequence[Clash]) -> None:
        self.clashes = clashes
        named = ", ".join(clash.pointer or "the whole document" for clash in clashes[:CLASHES_NAMED_MAX])
        more = len(clashes) - CLASHES_NAMED_MAX
        super().__init__(f"The leaves clash: {named}{f' and {more} more' if more > 0 else ''}.")
        self.members = {"clashes": [describe_clash(clash, sides.revs) for clash in clashes]}


CLASHES_NAMED_MAX = 10
"""So many clashes are named in the text of an error."""


def describe_clash(clash: Clash, revs: Sequence[Rev]) -> JsonObject:
    """A clash in JSON: `base` and each of `values` have a `value`, or are `missing`."""
    return {
        "pointer": clash.pointer,
        "kind": str(clash.kind),
        "base": _described(clash.base),
        "values": [
            {"rev": rev.text, **_described(value)} for rev, value in zip(revs, clash.values, strict=True)
        ],
    }


def _described(value: Any) -> JsonObject:
    return {"missing": True} if value is MISSING else {"value": value}


def sides(reader: Reader, codec: BodyCodec, doc_id: str, chosen: Sequence[Rev] = ()) -> Sides:
    """The leaves of a document that are not deleted, or those `chosen`, with their base.

    :raises NotFound: there is no such document. :raises BadRequest: there are not two leaves to merge, or one
        that was chosen is none.
    """
    found = conflicts.inspect(reader, doc_id)
    nodes = found.choose(chosen) if chosen else found.leaves
    if len(nodes) < 2:
        raise BadRequest("At least two leaves must be merged.")

    def read(node: Node) -> JsonObject:
        revision = conflicts.revision(reader, codec, found.document, node)
        if revision is None:
            raise NotFound(f"the body of {node.rev} is not here any more")
        return mergeable(revision)

    base = found.merge_base(nodes)
    return Sides(
        doc_id,
        tuple(found.revs),
        tuple(node.rev for node in nodes),
        tuple(read(node) for node in nodes),
        None if base is None else base.rev,
        None if base is None else read(base),
    )


def mergeable(revision: Revision) -> JsonObject:
    """A revision as merging takes it."""
    value: JsonObject = jsontext.loads(revision.body)
    if revision.attachments:
        value["_attachments"] = {info.name: attachment_stub(info) for info in revision.attachments}
    return value
