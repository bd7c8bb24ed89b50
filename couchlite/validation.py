"""May this edit be made? What is asked before an edit goes to the writer.

Source: couch_db:prep_and_validate_update and prep_and_validate_replicated_updates.
"""

from __future__ import annotations

from collections.abc import Sequence

from .database import Database
from .document import Edit, Revision
from .errors import Conflict, CouchliteError
from .revtree import Node
from .security import Principal, check_admin
from .snapshot import Snapshot


def find_parent(snapshot: Snapshot, edit: Edit) -> Node | None:
    """The leaf that an interactive edit is made on; None for a first revision, or one after a deletion.

    :raises Conflict: there is no such leaf, or there are revisions and the edit names none.
    """
    found = snapshot.document(edit.id)
    if found is None:
        if edit.path:
            raise Conflict()
        return None
    leaves = found.leaves()
    if edit.path:
        parent = next((leaf for leaf in leaves if leaf.rev == edit.path[0]), None)
        if parent is None:
            raise Conflict()
        return parent
    if not leaves[0].info.deleted:
        raise Conflict()
    return None


def design_refusals(
    database: Database, edits: Sequence[Edit], principal: Principal
) -> list[CouchliteError | None]:
    """For each edit what refuses it, if anything does: only admins change design documents."""
    refusals: list[CouchliteError | None] = [None] * len(edits)
    if principal.is_admin:
        return refusals
    for at, edit in enumerate(edits):
        if edit.id.startswith("_design/"):
            try:
                check_admin(database.security, principal)
            except CouchliteError as error:
                refusals[at] = error
    return refusals


def replaced(snapshot: Snapshot, edit: Edit, *, new_edits: bool) -> Revision | None:
    """The revision that an edit follows, if that isn't a deletion; for a replicated edit the nearest of its
    ancestors that is still here.

    :raises Conflict: as `find_parent`.
    """
    found = snapshot.document(edit.id)
    if found is None:
        node = find_parent(snapshot, edit) if new_edits else None
    elif new_edits:
        node = find_parent(snapshot, edit)
    else:
        ancestors = (found.tree.find(rev) for rev in edit.path[1:])
        node = next((node for node in ancestors if node is not None and node.info and node.info.body), None)
    if found is None or node is None or node.info is None or node.info.deleted:
        return None
    return snapshot.revision(found, node)
