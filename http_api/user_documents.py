"""The users database behind the document API: who sees and changes what of it. See couchlite.users for the
rules.

For every other database, and for server administrators reading, these functions do nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from couchlite import users, validation
from couchlite.document import Edit, Revision
from couchlite.errors import Conflict, CouchliteError
from couchlite.jsontext import dumps, loads
from couchlite.snapshot import Snapshot

if TYPE_CHECKING:
    from .request import Request


def concerns(request: Request) -> bool:
    """Whether the request is about the users database."""
    return request.database().name == users.database_name(request.server.config)


def shown(request: Request, revision: Revision) -> Revision:
    """A revision as the principal may see it.

    :raises NotFound: nothing of it. :raises Forbidden: it is a design document.
    """
    principal = request.principal
    if principal.is_admin or not concerns(request):
        return revision
    security, config = request.database().security, request.server.config
    fields = loads(revision.body)
    visible = users.visible_fields(revision.id, fields, security, principal, config)
    return revision if visible is fields else replace(revision, body=dumps(visible))


async def refusals(
    request: Request, edits: Sequence[Edit], *, new_edits: bool
) -> list[CouchliteError | None]:
    """Hash the passwords in edits of user documents, then for each edit what refuses it, if anything does.

    :raises NotFound: one is of another user's document. :raises Forbidden: a password is no text.
    """
    if not concerns(request):
        return [None] * len(edits)
    security, principal, config = request.database().security, request.principal, request.server.config
    for edit in edits:
        users.check_writer(edit.id, security, principal)
    for edit in edits:
        if edit.fields.get("password") is not None:
            edit.fields = dict(await asyncio.to_thread(users.hash_password, edit.fields, config))
            edit.body = dumps(edit.fields)
    with request.database().snapshot() as snapshot:
        return [_refusal(request, snapshot, edit, new_edits) for edit in edits]


def _refusal(request: Request, snapshot: Snapshot, edit: Edit, new_edits: bool) -> CouchliteError | None:
    try:
        old = validation.replaced(snapshot, edit, new_edits=new_edits)
    except Conflict:
        return None  # which the writer will say; it comes before any validation
    fields = None if old is None else loads(old.body)
    security = request.database().security
    try:
        users.validate(edit.id, edit.fields, edit.deleted, fields, security, request.principal)
    except CouchliteError as error:
        return error
    return None
