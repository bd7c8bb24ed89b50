"""From an edit to the database: what every handler that writes documents has in common.

    read_document -> Edit -> store | submit:  may it be made?  ->  stage attachments  ->  the writer

What must stay true here: whether an edit may be made is decided before its attachments are received or
staged, and when an edit fails, nothing that was staged for it is left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from couchlite import document, jsontext, partitions, users, validation
from couchlite.config import Config
from couchlite.database import Database
from couchlite.document import AttachmentEdit, Edit, Revision
from couchlite.edits import Result
from couchlite.errors import BadRequest, Conflict, CouchliteError, IllegalDocumentId, TooLarge
from couchlite.landing import landed
from couchlite.reads import MissingRev
from couchlite.resolution_log import Resolution
from couchlite.resolutions import Plan
from couchlite.revision import Rev
from couchlite.security import Principal
from couchlite.validation import Refusals

from . import local, system_documents
from .request import Request

if TYPE_CHECKING:
    from .app import App

IN_LOOP_MAX_EDITS = 2_000
"""To parse and hash so many takes some 20 ms. With more, a thread does it, so that other requests get their
turn meanwhile."""
PLAN_IN_LOOP_MAX_EDITS = 100
"""The same for the edits of a resolution, which are staged and hashed together."""
IN_LOOP_MAX_BYTES = 1024 * 1024
"""The same for the texts of few, large documents."""
STAGE_IN_LOOP_MAX_BYTES = 64 * 1024
"""Inline attachments up to this are hashed and compressed on the spot; more are left to a thread."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration allows a document; None where there is no limit."""

    document_bytes: int
    attachment_bytes: int | None
    id_bytes: int | None


_latest: tuple[object, Limits] = (None, Limits(0, 0, 0))


def limits_of(config: Config) -> Limits:
    """The limits in force; computed only when the configuration has changed."""
    global _latest
    state = config.as_dict()
    if _latest[0] is not state:
        _latest = (
            state,
            Limits(
                config.integer("couchdb", "max_document_size"),
                config.limit("couchdb", "max_attachment_size"),
                config.limit("couchdb", "max_document_id_length"),
            ),
        )
    return _latest[1]


def read_document(request: Request, value: Any, doc_id: str | None = None) -> Edit:
    """Understand a document that a client sends; `doc_id` is the address it is sent to.

    :raises BadRequest: (and its kinds) it is none, or its id is not allowed. :raises TooLarge:
    """
    limits = limits_of(request.server.config)
    edit = document.parse(value, doc_id, max_size_bytes=limits.document_bytes)
    check_id(request, edit.id)
    _check_attachment_sizes(edit, limits)
    return edit


def read_documents(request: Request, values: Iterable[Any]) -> list[Edit]:
    """`read_document` for each of many, what is common to them being looked up once."""
    limits = limits_of(request.server.config)
    is_any_id_allowed = limits.id_bytes is None and not request.database().is_partitioned
    edits = []
    for value in values:
        edit = document.parse(value, max_size_bytes=limits.document_bytes)
        if not is_any_id_allowed:
            check_id(request, edit.id)
        if edit.attachments:
            _check_attachment_sizes(edit, limits)
        edits.append(edit)
    return edits


def _check_attachment_sizes(edit: Edit, limits: Limits) -> None:
    for attachment in edit.attachments:
        size = attachment.sent_length if attachment.data is None else len(attachment.data)
        check_attachment_size(attachment.name, size, limits)


def check_id(request: Request, doc_id: str) -> None:
    """:raises IllegalDocumentId: the id is too long, or has no partition where one is needed."""
    longest = limits_of(request.server.config).id_bytes
    if longest is not None and len(doc_id.encode()) > longest:
        raise IllegalDocumentId("Document id is too long")
    if request.database().is_partitioned and doc_id:
        partitions.check_id(doc_id)


def check_attachment_size(name: str, size: int | None, limits: Limits) -> None:
    """:raises TooLarge:"""
    if size is not None and limits.attachment_bytes is not None and size > limits.attachment_bytes:
        raise TooLarge(name, error="attachment_too_large")


def edit_of(revision: Revision) -> Edit:
    """An edit on top of a stored revision that changes nothing yet."""
    return Edit(
        revision.id,
        path=(revision.rev,),
        deleted=revision.deleted,
        fields=jsontext.loads(revision.body),
        body=revision.body,
        attachments=[
            AttachmentEdit(info.name, info.content_type, revpos=info.revpos, stored=info)
            for info in revision.attachments
        ],
    )


def named_revision(request: Request, rev: Rev) -> Revision:
    """The revision of the request's document that is to be changed.

    :raises Conflict: it is not here (CouchDB then says "not_found", but with this status).
    """
    with request.database().snapshot() as snapshot:
        [found] = snapshot.open_revs(snapshot.document(request.doc_id), [rev])
    if isinstance(found, MissingRev):
        raise Conflict("missing_rev", error="not_found")
    return found


async def store(
    request: Request,
    edit: Edit,
    *,
    new_edits: bool = True,
    receive: Callable[[], Awaitable[None]] | None = None,
) -> Rev:
    """Make one edit; its revision. `receive` stages the attachments that are still to come; it is called when
    it is clear that the edit may be made as things stand.

    :raises CouchliteError: what refused it: Conflict, Forbidden ...
    """
    database = request.database()
    if local.is_local(edit.id):
        return await local.store(database, edit, new_edits=new_edits)
    [refused] = await _refusals(request, [edit], new_edits=new_edits)
    if refused is not None:
        raise refused
    if receive is not None:
        if new_edits:
            with database.snapshot() as snapshot:
                validation.find_parent(snapshot, edit)
        await receive()
    [result] = await _write(database, [edit], new_edits=new_edits)
    system_documents.written(request)
    if isinstance(result, CouchliteError):
        raise result
    return result


async def submit(request: Request, edits: Sequence[Edit], *, new_edits: bool = True) -> list[Result]:
    """Make many edits; for each its revision, or what refused it.

    :raises CouchliteError: none of them was made (an attachment stub stands for nothing).
    """
    database = request.database()
    results: list[Result | None] = list(await _refusals(request, edits, new_edits=new_edits))
    if not any(results) and not any(local.is_local(edit.id) for edit in edits):
        results_of_all = await _write(database, edits, new_edits=new_edits)
        system_documents.written(request)
        return results_of_all
    for at, edit in enumerate(edits):
        if results[at] is None and local.is_local(edit.id):
            try:
                results[at] = await local.store(database, edit, new_edits=new_edits)
            except BadRequest as error:
                results[at] = error
    places = [at for at, result in enumerate(results) if result is None]
    written = await _write(database, [edits[at] for at in places], new_edits=new_edits)
    system_documents.written(request)
    for at, result in zip(places, written, strict=True):
        results[at] = result
    return [result for result in results if result is not None]


async def carry_out(request: Request, plan: Plan) -> Resolution:
    """Make the edits of a plan, all of them or none; the record of it.

    :raises CouchliteError: what refused one of them: Conflict, Forbidden ...
    """
    database = request.database()
    for refusal in await _refusals(request, plan.edits, new_edits=True):
        if refusal is not None:
            raise refusal
    try:
        await _stage(database, plan.edits)
        is_much = (
            len(plan.edits) > PLAN_IN_LOOP_MAX_EDITS
            or sum(len(edit.body) for edit in plan.edits) > IN_LOOP_MAX_BYTES
        )
        if is_much and not any(edit.attachments for edit in plan.edits):
            done = await asyncio.to_thread(database.submit_plan, plan)
        else:
            done = database.submit_plan(plan)
    except BaseException:
        for edit in plan.edits:
            discard(edit.attachments)
        raise
    entry = await landed(done)
    system_documents.written(request)
    return entry


async def _refusals(request: Request, edits: Sequence[Edit], *, new_edits: bool) -> Refusals:
    return await refusals(request.app, request.database(), request.principal, edits, new_edits=new_edits)


async def refusals(
    app: App, database: Database, principal: Principal, edits: Sequence[Edit], *, new_edits: bool = True
) -> Refusals:
    """For each edit what refuses it before the writer is asked, if anything does: the rules of the users
    database and of replicator databases, which also complete edits, and validation functions.

    :raises CouchliteError: as `system_documents.refusals`.
    """
    ask = partial(validation.refusals, database, edits, principal, app.functions, new_edits=new_edits)
    if not system_documents.has_rules(database, app.server.config):
        refused = await ask()
        _count_refusals(app, refused)
        return refused
    by_rules = await system_documents.refusals(app, database, principal, edits, new_edits=new_edits)
    by_functions = await ask(but_for=users.VALIDATION_FUNCTION)
    _count_refusals(app, by_functions)
    return [first or second for first, second in zip(by_functions, by_rules, strict=True)]


def _count_refusals(app: App, refused: Refusals) -> None:
    if any(refused):
        count = sum(error is not None for error in refused)
        app.metrics.count("couchdb.query_server.vdu_rejects", count)


async def _write(database: Database, edits: Sequence[Edit], *, new_edits: bool) -> list[Result]:
    if not edits:
        return []
    try:
        await _stage(database, edits)
        # In a thread it can't be cancelled, so there must be nothing that would then be discarded meanwhile.
        is_much = len(edits) > IN_LOOP_MAX_EDITS or sum(len(edit.body) for edit in edits) > IN_LOOP_MAX_BYTES
        in_thread = is_much and not any(edit.attachments for edit in edits)
        if new_edits:
            send = database.submit_edits
            edited = await asyncio.to_thread(send, edits) if in_thread else send(edits)
        else:
            graft = database.submit_replicated
            grafted = await asyncio.to_thread(graft, edits) if in_thread else graft(edits)
    except BaseException:
        for edit in edits:
            discard(edit.attachments)
        raise
    # From here on the writer discards what it doesn't adopt.
    if new_edits:
        return await landed(edited)
    await landed(grafted)
    return [edit.path[0] for edit in edits]


async def _stage(database: Database, edits: Sequence[Edit]) -> None:
    for edit in edits:
        for attachment in edit.attachments:
            if attachment.follows and attachment.staged is None:
                raise BadRequest(f"No data follow for attachment {attachment.name} of {edit.id}")
    size = sum(len(attachment.data or b"") for edit in edits for attachment in edit.attachments)
    if size > STAGE_IN_LOOP_MAX_BYTES:
        await asyncio.get_running_loop().run_in_executor(None, database.stage_attachments, edits)


def discard(attachments: Iterable[AttachmentEdit]) -> None:
    """Throw away what was staged for an edit that won't be made."""
    for attachment in attachments:
        if attachment.staged is not None:
            attachment.staged.discard()
