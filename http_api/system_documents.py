"""The users database and replicator databases behind the document API: who sees and changes what of them. See
couchlite.users and replicator.documents for the rules.

For every other database, and for server administrators reading, these functions do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from couchlite import users, validation
from couchlite.config import Config
from couchlite.database import Database
from couchlite.document import Edit, Revision
from couchlite.errors import Conflict, CouchliteError
from couchlite.jsontext import dumps, loads
from couchlite.revision import Rev, new_rev
from couchlite.security import Principal, SecurityObject, check_admin, is_admin
from couchlite.snapshot import Snapshot
from replicator import documents as replications

from . import replication_service

if TYPE_CHECKING:
    from .app import App
    from .request import Request


def has_rules(database: Database, config: Config) -> bool:
    """Whether a database has rules of its own."""
    return replications.is_replicator(database.name) or database.name == users.database_name(config)


def is_replicator(request: Request) -> bool:
    """Whether the request is about a replicator database."""
    return replications.is_replicator(request.database().name)


def concerns(request: Request) -> bool:
    """Whether the request is about a database with rules of its own."""
    return has_rules(request.database(), request.server.config)


def check_reads_all(request: Request) -> None:
    """Where documents are read without `shown`: only admins of the database may, if it has rules of its own.

    :raises Unauthorized, Forbidden:
    """
    if not request.principal.is_admin and concerns(request):
        check_admin(request.database().security, request.principal)


def only_document(request: Request) -> bytes | None:
    """Where documents are searched: the id of the only one that the principal may read, their own in a users
    database; None where there are no rules of its own, or for an admin.

    :raises Unauthorized, Forbidden: none at all.
    """
    name = request.principal.name
    is_users = request.database().name == users.database_name(request.server.config)
    is_only_a_user = is_users and name is not None and not request.principal.is_admin
    if is_only_a_user and not is_admin(request.database().security, request.principal):
        return f"{users.PREFIX}{name}".encode()
    check_reads_all(request)
    return None


def shown(request: Request, revision: Revision) -> Revision:
    """A revision as the principal may see it.

    :raises NotFound: nothing of it. :raises Forbidden: it is a design document.
    """
    principal = request.principal
    if principal.is_admin or not concerns(request):
        return revision
    security, config = request.database().security, request.server.config
    fields = loads(revision.body)
    if is_replicator(request):
        if not replications.is_ordinary(revision.id):
            return revision
        visible = replications.visible_fields(fields, security, principal)
        return revision if visible is fields else _as_another(revision, dict(visible))
    visible = users.visible_fields(revision.id, fields, security, principal, config)
    return revision if visible is fields else replace(revision, body=dumps(visible))


def _as_another(revision: Revision, fields: dict[str, object]) -> Revision:
    """A revision with another body, and so of another name: nobody can write upon what isn't there."""
    parent = revision.path[1] if len(revision.path) > 1 else None
    digest = new_rev(deleted=revision.deleted, parent=parent, body=fields).digest
    rev = Rev(revision.rev.generation, digest)
    path = (rev, *revision.path[1:]) if revision.path else ()
    return replace(revision, rev=rev, body=dumps(fields), path=path)


def written(request: Request) -> None:
    """Documents were written: those of a replicator database may ask for replications."""
    if is_replicator(request):
        replication_service.of(request).wake()


async def refusals(
    app: App, database: Database, principal: Principal, edits: Sequence[Edit], *, new_edits: bool
) -> list[CouchliteError | None]:
    """Complete edits of a database that has rules as it asks for it (hash passwords, name owners), then for
    each edit what refuses it, if anything does.

    :raises NotFound: one is of another user's document. :raises Forbidden: a password is no text, or
        a document asks for no replication.
    """
    security, config = database.security, app.server.config
    if replications.is_replicator(database.name):
        for edit in edits:
            if replications.is_ordinary(edit.id):
                fields = replications.as_written(edit.fields, edit.deleted, security, principal, config)
                edit.fields = dict(fields)
                edit.body = dumps(edit.fields)
        return [None] * len(edits)
    for edit in edits:
        users.check_writer(edit.id, security, principal)
    for edit in edits:
        if edit.fields.get("password") is not None:
            edit.fields = dict(await app.accounts.hashing.run(users.hash_password, edit.fields, config))
            edit.body = dumps(edit.fields)
    with database.snapshot() as snapshot:
        return [_refusal(snapshot, edit, new_edits, security, principal) for edit in edits]


def _refusal(
    snapshot: Snapshot, edit: Edit, new_edits: bool, security: SecurityObject, principal: Principal
) -> CouchliteError | None:
    try:
        old = validation.replaced(snapshot, edit, new_edits=new_edits)
    except Conflict:
        return None  # which the writer will say; it comes before any validation
    fields = None if old is None else loads(old.body)
    try:
        users.validate(edit.id, edit.fields, edit.deleted, fields, security, principal)
    except CouchliteError as error:
        return error
    return None
