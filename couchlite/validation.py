"""May this edit be made? Asked before an edit goes to the writer, since the answer may take a while: it can
be up to functions of design documents.

    the edit's place in the tree (a conflict is told first)  ->  rights  ->  each validate_doc_update

What must stay true here: an edit that was found in conflict is not written, even if the conflict has gone by
then, for nobody has validated it; a database without validation functions pays for one look at its counters.
Source: couch_db:prep_and_validate_update, prep_and_validate_replicated_updates and validate_doc_update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from . import design_docs, jsontext
from .database import Database
from .document import AttachmentEdit, Edit, Revision, attachment_stub, digest_part, digest_text, render
from .errors import Conflict, CouchliteError, MissingStub
from .javascript import Design, FunctionPool
from .reads import MissingRev
from .records import AttachmentInfo
from .revtree import Node
from .security import Principal, check_admin
from .snapshot import Snapshot

Refusals = list[CouchliteError | None]
"""For each of some edits what refuses it, if anything does."""


async def refusals(
    database: Database,
    edits: Sequence[Edit],
    principal: Principal,
    functions: FunctionPool,
    *,
    new_edits: bool,
    but_for: str | None = None,
) -> Refusals:
    """What the database itself has against each edit: a conflict, a lack of rights, its validation functions.

    :param but_for: the source of a function that needn't be asked.
    :raises MissingStub: an attachment stub stands for nothing.
    """
    found: Refusals = [None] * len(edits)
    with database.snapshot() as snapshot:
        designs = _validators(database, snapshot)
        if not designs and not any(edit.id[:1] == "_" for edit in edits):
            return found
        to_check, to_judge = [], []
        for at, edit in enumerate(edits):
            is_design = edit.id.startswith(design_docs.PREFIX)
            if (is_design or designs) and not edit.id.startswith("_local/"):
                if not new_edits and _is_stored(snapshot, edit):
                    continue  # nothing will be written
                try:
                    old = predecessor(snapshot, edit, new_edits=new_edits)
                except Conflict as conflict:
                    found[at] = conflict
                    continue
                if is_design:
                    to_check.append(at)
                else:
                    to_judge.append((at, _as_proposed(edit, old), _as_stored(old)))
    for at in to_check:
        found[at] = await _design_refusal(database, edits[at], principal, functions)
    if to_judge:
        await _ask(database, designs, to_judge, principal, functions, but_for, found)
    return found


# --- where an edit stands


def find_parent(snapshot: Snapshot, edit: Edit) -> Node | None:
    """The leaf that an interactive edit is made on; None for a first revision, or one after a deletion.

    :raises Conflict: there is no such leaf, or there are revisions and the edit names none.
    """
    found = snapshot.document(edit.id)
    if found is None:
        if edit.path:
            raise Conflict()
        return None
    if edit.path:
        parent = found.tree.find(edit.path[0])
        if parent is None or not parent.is_leaf:
            raise Conflict()
        return parent
    if not found.leaves()[0].info.deleted:
        raise Conflict()
    return None


def predecessor(snapshot: Snapshot, edit: Edit, *, new_edits: bool) -> Revision | None:
    """The revision that an edit follows; for a replicated edit the nearest of its ancestors that is here.

    :raises Conflict: as `find_parent`.
    """
    node = find_parent(snapshot, edit) if new_edits else _nearest_ancestor(snapshot, edit)
    if node is None:
        return None
    [found] = snapshot.open_revs(snapshot.document(edit.id), [node.rev])
    return None if isinstance(found, MissingRev) else found


def _nearest_ancestor(snapshot: Snapshot, edit: Edit) -> Node | None:
    found = snapshot.document(edit.id)
    if found is None:
        return None
    known = (found.tree.find(rev) for rev in edit.path[1:])
    node = next((node for node in known if node is not None), None)
    while node is not None and (node.info is None or not node.info.is_readable):
        node = node.parent
    return node


def _is_stored(snapshot: Snapshot, edit: Edit) -> bool:
    found = snapshot.document(edit.id)
    node = found.tree.find(edit.path[0]) if found is not None and edit.path else None
    return node is not None and node.info is not None and bool(node.info.body)


def replaced(snapshot: Snapshot, edit: Edit, *, new_edits: bool) -> Revision | None:
    """As `predecessor`, but a deleted one is none."""
    found = predecessor(snapshot, edit, new_edits=new_edits)
    return None if found is None or found.deleted else found


# --- design documents


async def _design_refusal(
    database: Database, edit: Edit, principal: Principal, functions: FunctionPool
) -> CouchliteError | None:
    """Only admins change them, and their views must be such that they can be built."""
    try:
        if not principal.is_admin:
            check_admin(database.security, principal)
        design_docs.check(edit.fields, partitioned=database.is_partitioned)
        if edit.fields.get("views") and edit.fields.get("language", "javascript") == "javascript":
            await functions.check_views(Design(database.name, {"_id": edit.id, **edit.fields}))
    except CouchliteError as error:
        return error
    return None


# --- validation functions


@dataclass(slots=True)
class _Validators:
    """The design documents of a database that have a validation function, as of a change to any of them."""

    design_seq: int
    designs: list[Design]


_cache: WeakKeyDictionary[Database, _Validators] = WeakKeyDictionary()


def _validators(database: Database, snapshot: Snapshot) -> list[Design]:
    design_seq = snapshot.state().design_seq
    cached = _cache.get(database)
    if cached is None or cached.design_seq != design_seq:
        cached = _cache[database] = _Validators(design_seq, _read_validators(database, snapshot))
    return cached.designs


def _read_validators(database: Database, snapshot: Snapshot) -> list[Design]:
    designs = []
    start: bytes | None = b"_design/"
    while start is not None:
        page = snapshot.docs(start, b"_design0")
        for doc_id in page.ids:
            document: dict[str, Any] = jsontext.loads(render(snapshot.winner(doc_id.decode())))
            if "validate_doc_update" in document:
                designs.append(Design(database.name, document))
        start = page.resume
    return designs


_Pair = tuple[int, bytes, bytes | None]
"""Which edit; the document as it is to be, and as it was."""


async def _ask(
    database: Database,
    designs: Sequence[Design],
    pairs: Sequence[_Pair],
    principal: Principal,
    functions: FunctionPool,
    but_for: str | None,
    found: Refusals,
) -> None:
    """Let each function judge what those before it have not refused."""
    user = {"db": database.name, "name": principal.name, "roles": list(principal.roles)}
    security = dict(database.security)
    for design in designs:
        if design.find("validate_doc_update") == but_for:
            continue
        standing = [pair for pair in pairs if found[pair[0]] is None]
        if standing:
            judged = await functions.refusals(
                design, [(new, old) for _at, new, old in standing], user, security
            )
            for (at, _new, _old), refusal in zip(standing, judged, strict=True):
                found[at] = refusal


def _as_stored(revision: Revision | None) -> bytes | None:
    return None if revision is None else render(revision, revs=True)


def _as_proposed(edit: Edit, old: Revision | None) -> bytes:
    """An edit as its validation functions see it: with the revision it names, and what is known so far of its
    attachments."""
    members: dict[str, Any] = {"_id": edit.id}
    if edit.path:
        members["_rev"] = edit.path[0].text
    members.update(edit.fields)
    if edit.deleted:
        members["_deleted"] = True
    if edit.path:
        ids = [digest_part(rev) for rev in edit.path]
        members["_revisions"] = {"start": edit.path[0].generation, "ids": ids}
    if edit.attachments:
        stored = {info.name: info for info in old.attachments} if old else {}
        members["_attachments"] = {
            attachment.name: _attachment_members(edit, attachment, stored) for attachment in edit.attachments
        }
    return jsontext.dumps(members)


def _attachment_members(
    edit: Edit, attachment: AttachmentEdit, stored: Mapping[str, AttachmentInfo]
) -> dict[str, Any]:
    info = attachment.stored
    if attachment.stub:
        info = stored.get(attachment.name)
        if info is None or attachment.revpos not in (None, info.revpos):
            raise MissingStub(f"Invalid attachment stub in {edit.id} for {attachment.name}")
    if info is not None:
        return attachment_stub(info)
    members = {"content_type": attachment.content_type, "revpos": attachment.revpos or 0}
    if attachment.sent_md5 is not None:
        members["digest"] = digest_text(attachment.sent_md5)
    return members | {"length": _length(attachment), "stub": True}


def _length(attachment: AttachmentEdit) -> int | None:
    if attachment.data is not None:
        return len(attachment.data)
    if attachment.staged is not None:
        return attachment.staged.identity_length
    return attachment.sent_length if attachment.identity_length is None else attachment.identity_length
