"""`_local` documents, where checkpoints of replications live: no history, no conflicts, just 0-1, 0-2 ..."""

from __future__ import annotations

import contextlib
import hashlib

from aiohttp import web

from couchlite import document
from couchlite.database import Database
from couchlite.document import Edit, Revision
from couchlite.errors import BadRequest, NotFound
from couchlite.landing import landed
from couchlite.local_docs import LocalDoc
from couchlite.revision import Rev
from couchlite.snapshot import Snapshot

from . import response
from .documents import get_open_revs, parse_options
from .request import Request

DIGITS_MAX = 18
"""Of a revision's number; it is stored in 64 bits."""


def is_local(doc_id: str) -> bool:
    return doc_id.startswith("_local/")


async def get(request: Request) -> web.StreamResponse:
    """GET /{db}/_local/{name}. It has one revision, the current one, and that isn't found by name."""
    options = parse_options(request)
    if options.all_leaves or options.open_revs is not None:
        return await get_open_revs(request, options)
    if options.rev is not None and "latest" not in options:
        raise NotFound("missing")
    with request.database().snapshot() as snapshot:
        revision = read(snapshot, request.doc_id)
    tag = etag(revision.rev, revision.body)
    if response.matches(request, tag):
        return response.not_modified(request, tag)
    return response.json(request, 200, document.render(revision, revs="revs" in options), {"ETag": tag})


def read(snapshot: Snapshot, doc_id: str) -> Revision:
    """:raises NotFound:"""
    return as_revision(snapshot.local(doc_id))


def as_revision(found: LocalDoc) -> Revision:
    rev = _rev(found.revision)
    return Revision(found.id, rev, False, found.body, path=(rev,))


async def store(database: Database, edit: Edit, *, new_edits: bool = True) -> Rev:
    """Store the document, or delete it; its new revision. Whatever is stored already is overwritten.

    A replicated edit is stored in the same way, but CouchDB answers with the revision that it came with.
    """
    if edit.deleted:
        with contextlib.suppress(NotFound):
            await landed(database.submit_local_delete(edit.id))
        return _rev(0)
    parent = _number(edit.path[0]) if edit.path else 0
    number = await landed(database.submit_local(edit.id, parent, edit.body))
    return _rev(number) if new_edits else edit.path[0]


def etag(rev: Rev, body: bytes) -> str:
    """Unlike other documents, one may come back to a revision it had with another body."""
    return f'"{hashlib.blake2b(rev.text.encode() + body, digest_size=16).hexdigest()}"'


def _rev(number: int) -> Rev:
    return Rev(0, b"%d" % number)


def _number(rev: Rev) -> int:
    if rev.generation != 0 or not rev.digest.isdigit() or len(rev.digest) > DIGITS_MAX:
        raise BadRequest("Invalid rev format")
    return int(rev.digest)
