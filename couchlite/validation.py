"""May this edit be made? What is asked before an edit goes to the writer.

Source: couch_db:prep_and_validate_update and prep_and_validate_replicated_updates.
"""

from __future__ import annotations

from collections.abc import Sequence

from .database import Database
from .document import Edit
from .errors import Conflict, CouchliteError
from .revtree import Node
from .security import Principal
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


async def refusals(
    database: Database, edits: Sequence[Edit], principal: Principal, *, new_edits: bool
) -> list[CouchliteError | None]:
    """For each edit what refuses it, if anything does."""
    return [None] * len(edits)
