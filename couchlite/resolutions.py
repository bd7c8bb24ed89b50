"""Resolving a conflict in one atomic write, and undoing that.

    plan(leaves as seen, content)  ->  [may these edits be made?]  ->  apply: one transaction

A resolution adds the merged revision on top of the winner and deletes each of the other leaves. All these
revisions are those that CouchDB makes of the same edits, so peers that merge the same leaves to the same
content make the same revisions, and replicating them is no new conflict. That is also why the order of the
merged document's members does not depend on who wrote it down (member_order.py).

Undoing goes forward, as everything in a revision tree does: each branch of the resolved conflict gets one
more revision with the content that it had before: on top of the merged revision the former winner's, on top
of each deletion what it had deleted. The former winner wins again. It can be done while these leaves are
still leaves and the old bodies are still here; compaction keeps them for a while (Retention.undo_seconds).

What must stay true here: nothing is written unless the leaves are those that were seen; and the record of
what was done (resolution_log.py) is in the same transaction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from . import conflicts, edits, jsontext, resolution_log
from .compression import BodyCodec
from .conflicts import Inspection
from .document import AttachmentEdit, Edit, Revision
from .engine import Reader
from .errors import BadRequest, Conflict, MissingStub, NotFound
from .member_order import arranged
from .prepared_edits import Context, Prepared, prepare_all, revision_of
from .records import AttachmentInfo
from .resolution_log import Resolution
from .revision import Rev
from .revtree import Node
from .writer import WriteTxn

ORDERED_BY_LEAVES = 16
"""So many leaves, the winner first, are asked for the order of members and elements: all of those that most
conflicts have. It must be the same number on every server."""

DELETE = None
"""As a content: delete every leaf."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Edits that resolve a conflict, or undo that, and the leaves they were made for."""

    id: str
    seen: tuple[Rev, ...]
    """The leaves that there must be, the winner first: those not deleted."""
    edits: tuple[Edit, ...]
    """What is written: first the merged revision; each names the leaf it is made on as its path."""
    entry: Resolution
    """The record, its number and `into` still to come."""


# --- resolving


def plan(
    reader: Reader,
    codec: BodyCodec,
    doc_id: str,
    seen: Sequence[Rev],
    content: Edit | Rev | None,
    *,
    chosen: Sequence[Rev] = (),
    using: str = "document",
    by: str | None = None,
) -> Plan:
    """How to resolve a conflict.

    :param seen: the leaves that the caller knows of, in any order: all that are not deleted.
    :param content: what becomes of them: a document, the content of one of them, or DELETE. Attachment stubs
        of the document stand for those of any leaf, by digest, or by name where they have none.
    :param chosen: merge only these of the leaves, two or more; the others stay as they are.
    :param using: by what means, for the record.
    :raises NotFound: there is no such document.
    :raises Conflict: its leaves are others than `seen`; the reason names the difference.
    :raises BadRequest: it is not in conflict, or `chosen` or the leaf to pick are none of its leaves.
    :raises MissingStub: no leaf has an attachment that the document has a stub of.
    """
    found = conflicts.inspect(reader, doc_id)
    check_leaves(found, seen)
    merged = found.choose(chosen) if chosen else found.leaves
    if len(merged) < 2:
        raise BadRequest(
            "At least two leaves must be merged." if chosen else "The document is not in conflict."
        )
    edit = _merged_edit(reader, codec, found, merged, content)
    deletions = [Edit(doc_id, path=(leaf.rev,), deleted=True) for leaf in merged[1:]]
    ancestor = found.common_ancestor(merged)
    entry = Resolution(
        0,
        doc_id,
        tuple(leaf.rev for leaf in merged),
        None if ancestor is None else ancestor.rev,
        merged[0].rev,
        using,
        by,
        int(time.time() * 1000),
    )
    return Plan(doc_id, tuple(found.revs), (edit, *deletions), entry)


def check_leaves(found: Inspection, seen: Sequence[Rev]) -> None:
    """:raises Conflict: the leaves of a document are others than `seen`."""
    known, now = set(seen), set(found.revs)
    if known == now:
        return
    parts = []
    if new := sorted(now - known, reverse=True):
        parts.append(f"new: {_listed(new)}")
    if gone := sorted(known - now, reverse=True):
        parts.append(f"no longer: {_listed(gone)}")
    error = Conflict(f"The document's leaves have changed ({'; '.join(parts)}).")
    error.members = {"leaves": [rev.text for rev in found.revs]}
    raise error


NAMED_MAX = 10
"""So many revisions are named in the text of an error."""


def _listed(revs: Sequence[Rev]) -> str:
    named = ", ".join(rev.text for rev in revs[:NAMED_MAX])
    return named if len(revs) <= NAMED_MAX else f"{named} and {len(revs) - NAMED_MAX} more"


def _merged_edit(
    reader: Reader,
    codec: BodyCodec,
    found: Inspection,
    merged: Sequence[Node],
    content: Edit | Rev | None,
) -> Edit:
    """The edit on top of the winner."""
    path = (merged[0].rev,)
    if content is DELETE:
        return Edit(found.id, path=path, deleted=True)
    models = [_kept(reader, codec, found, leaf) for leaf in merged[:ORDERED_BY_LEAVES]]
    if isinstance(content, Rev):
        picked = next((leaf for leaf in merged if leaf.rev == content), None)
        if picked is None:
            raise BadRequest(f"{content} is none of the leaves that are merged.")
        revision = _kept(reader, codec, found, picked)
        edit = Edit(
            found.id, fields=jsontext.loads(revision.body), attachments=_carried(revision.attachments)
        )
    else:
        edit = replace(content, id=found.id, attachments=list(content.attachments))
        _look_up_stubs(reader, codec, found, merged, edit)
    edit.path = path
    edit.fields = arranged(edit.fields, [jsontext.loads(model.body) for model in models])
    edit.body = jsontext.dumps(edit.fields)
    _settle_attachments(edit, models)
    return edit


def _kept(reader: Reader, codec: BodyCodec, found: Inspection, node: Node) -> Revision:
    """:raises NotFound: its body is gone."""
    revision = conflicts.revision(reader, codec, found.document, node)
    if revision is None:
        raise NotFound(f"the body of {node.rev} is not here any more")
    return revision


def _carried(infos: Sequence[AttachmentInfo]) -> list[AttachmentEdit]:
    return [AttachmentEdit(info.name, info.content_type, stored=info) for info in infos]


def _look_up_stubs(
    reader: Reader, codec: BodyCodec, found: Inspection, merged: Sequence[Node], edit: Edit
) -> None:
    """Let each attachment stub stand for the first leaf's attachment that it fits."""
    wanted = {at: stub for at, stub in enumerate(edit.attachments) if stub.stub}
    for leaf in merged:
        if not wanted:
            return
        infos = _kept(reader, codec, found, leaf).attachments
        for at, stub in list(wanted.items()):
            info = min(
                (info for info in infos if _fits(stub, info)), key=partial(_distance, stub), default=None
            )
            if info is not None:
                edit.attachments[at] = _carried([info._replace(name=stub.name)])[0]
                del wanted[at]
    for stub in wanted.values():
        raise MissingStub(f"Invalid attachment stub in {edit.id} for {stub.name}")


def _fits(stub: AttachmentEdit, info: AttachmentInfo) -> bool:
    return stub.name == info.name if stub.sent_md5 is None else stub.sent_md5 == info.md5


def _distance(stub: AttachmentEdit, info: AttachmentInfo) -> tuple[bool, bool]:
    """Of attachments with the same data the one with the same type, or else name, is meant."""
    return stub.content_type != info.content_type, stub.name != info.name


def _settle_attachments(edit: Edit, models: Sequence[Revision]) -> None:
    """Put attachments in the order that the leaves have them in, and date those that are not the parent's as
    new, so that who has the parent is sent them."""
    order: dict[str, int] = {}
    for model in models:
        for info in model.attachments:
            order.setdefault(info.name, len(order))
    edit.attachments.sort(key=lambda attachment: (order.get(attachment.name, len(order)), attachment.name))
    _date_attachments(edit, models[0].attachments)


def _date_attachments(edit: Edit, of_parent: Sequence[AttachmentInfo]) -> None:
    """Attachments that the parent has too are its own; others count as added by this edit."""
    known = {(info.name, info.content_type, info.md5): info for info in of_parent}
    generation = edit.path[0].generation + 1
    for attachment in edit.attachments:
        info = attachment.stored
        if info is not None:
            same = known.get((info.name, info.content_type, info.md5))
            attachment.stored = info._replace(revpos=generation) if same is None else same


# --- undoing


def obstacle(reader: Reader, entry: Resolution) -> Conflict | NotFound | None:
    """Why a resolution can't be undone; None when it can."""
    if entry.undone_by is not None:
        return Conflict("It was undone already.")
    try:
        _closed_branches(conflicts.inspect(reader, entry.id), entry)
    except (Conflict, NotFound) as error:
        return error
    return None


def _closed_branches(found: Inspection, entry: Resolution) -> list[tuple[Node, Node]]:
    """Each leaf that was merged, and the leaf that was put on top of it.

    :raises Conflict: the document was changed since. :raises NotFound: it is gone, or a body is.
    """
    leaves = {leaf.rev: leaf for leaf in (*found.leaves, *found.deleted_leaves)}
    onto = (entry.into, *entry.closed)
    moved_on = [rev for rev in onto if rev not in leaves]
    if moved_on:
        raise Conflict(f"The document was changed since: {_listed(moved_on)} is no leaf any more.")
    branches = []
    for rev, closing in zip(entry.leaves, onto, strict=True):
        leaf = leaves[closing]
        node = leaf.parent
        if node is None or node.rev != rev or node.info is None or not node.info.body:
            raise NotFound(f"The body of {rev} is gone: it was compacted.")
        branches.append((node, leaf))
    return branches


def plan_undo(reader: Reader, codec: BodyCodec, number: int, *, by: str | None = None) -> Plan:
    """How to undo a resolution by its number in the log.

    :raises NotFound: there is no such record, or what it needs is gone, as the reason tells.
    :raises Conflict: it was undone already, or the document has changed since.
    """
    entry = _undoable(reader, number)
    found = conflicts.inspect(reader, entry.id)
    restored = []
    for node, onto in _closed_branches(found, entry):
        revision = _kept(reader, codec, found, node)
        edit = Edit(
            entry.id,
            path=(onto.rev,),
            fields=jsontext.loads(revision.body),
            body=revision.body,
            attachments=_carried(revision.attachments),
        )
        if edit.attachments:
            _date_attachments(edit, _kept(reader, codec, found, onto).attachments)
        restored.append(edit)
    undoing = entry._replace(using="undo", by=by, time_ms=int(time.time() * 1000), undoes=number)
    return Plan(entry.id, tuple(found.revs), tuple(restored), undoing)


def _undoable(reader: Reader, number: int) -> Resolution:
    entry = resolution_log.get(reader, number)
    if entry is None:
        raise NotFound(f"There is no record of a resolution {number}.")
    refusal = obstacle(reader, entry)
    if refusal is not None:
        raise refusal
    return entry


class UndoNeeds:
    """Which revisions' bodies the undoing of resolutions needs, for a compaction: those of resolutions that
    are young enough and were not undone."""

    def __init__(self, oldest_ms: int) -> None:
        self._oldest_ms = oldest_ms
        self._last_number = 0
        self._revs: dict[str, set[Rev]] = {}

    def update(self, reader: Reader) -> None:
        """Take in what was resolved since the last call."""
        for entry in resolution_log.after(reader, self._last_number):
            self._last_number = entry.number
            if entry.undone_by is None and entry.undoes is None and entry.time_ms >= self._oldest_ms:
                self._revs.setdefault(entry.id, set()).update(entry.leaves)

    def of(self, doc_id: bytes) -> set[Rev]:
        return self._revs.get(doc_id.decode(), set())


# --- writing


def prepare(plan: Plan, codec: BodyCodec) -> list[Prepared]:
    """What can be done outside the transaction: hash and compress. Attachments must be staged."""
    # A database may give every edit an owner; but deletions must be the same on every server.
    bare = [replace(edit, fields={}, body=b"{}") if edit.deleted else edit for edit in plan.edits]
    prepared = prepare_all(bare, codec, new_edits=True)
    histories = [(_rev(one), *one.edit.path) for one in prepared]
    if plan.entry.undoes is not None and histories[0] != max(histories):
        # Of leaves of one generation the greater digest wins. One more revision lets the former winner win.
        first = prepared[0]
        histories[0] = (revision_of(first.edit, histories[0][0]), *histories[0])
    return [
        replace(one, rev=history[0], edit=replace(one.edit, path=history))
        for one, history in zip(prepared, histories, strict=True)
    ]


def _rev(prepared: Prepared) -> Rev:
    assert prepared.rev is not None, "its stubs are looked up"
    return prepared.rev


def apply(txn: WriteTxn, context: Context, plan: Plan, prepared: Sequence[Prepared]) -> Resolution:
    """Write all revisions of a plan and the record; the record.

    :raises Conflict: the document has moved on since the plan was made.
    """
    found = conflicts.inspect(txn.kv, plan.id)
    check_leaves(found, plan.seen)
    undone = None if plan.entry.undoes is None else _undoable(txn.kv, plan.entry.undoes)
    for one in prepared:
        edits.require_stored(txn, one.edit)
    edits.graft(txn, context, plan.id.encode(), list(prepared))
    into = prepared[0].edit.path[0]
    entry = resolution_log.add(txn.kv, plan.entry._replace(into=into))
    if undone is not None:
        resolution_log.put(txn.kv, undone._replace(undone_by=entry.number))
    return entry
