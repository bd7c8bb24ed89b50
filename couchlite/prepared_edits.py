"""Edits made ready for their transaction: bodies compressed, revisions computed, outside of it, so that they
cost no writer any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .blobs import BlobStore
from .compression import BodyCodec
from .document import AttachmentEdit, Edit
from .errors import BadRequest
from .revision import Rev, new_rev

DIGEST_MAX_BYTES = 128
GENERATION_MAX = 10**100
"""Of a revision that a peer made. Its text is kept in a field of 255 bytes; real ones take 35."""
COMPRESSED_BESIDE_MIN = 100
"""So many edits are worth another thread: the compression of their bodies costs a fifth of what they do."""


@dataclass(slots=True)
class Prepared:
    """An edit with its body compressed and, where no stub keeps it from being known, its new revision."""

    edit: Edit
    codec: int
    data: bytes
    rev: Rev | None
    is_full: bool = False
    """Its document belongs to a partition that must not grow."""


@dataclass(slots=True, frozen=True)
class Context:
    """What the edits of one database need beside the transaction."""

    codec: BodyCodec
    blobs: BlobStore


def prepare_all(edits: Sequence[Edit], codec: BodyCodec, *, new_edits: bool) -> list[Prepared]:
    """Compress the bodies and compute the revisions. Attachments with data must be staged already.

    :raises BadRequest: two attachments of one name, or a revision that is too long.
    """
    if len(edits) < COMPRESSED_BESIDE_MIN:
        return [Prepared(edit, *codec.encode(edit.body), _rev(edit, new_edits=new_edits)) for edit in edits]
    encoding = codec.start_encoding([edit.body for edit in edits])
    revs = [_rev(edit, new_edits=new_edits) for edit in edits]
    return [
        Prepared(edit, number, data, rev)
        for edit, (number, data), rev in zip(edits, encoding.result(), revs, strict=True)
    ]


def _rev(edit: Edit, *, new_edits: bool) -> Rev | None:
    """The revision that an edit makes; None where a stub must be looked up first."""
    parent = edit.path[0] if edit.path else None
    if not new_edits and parent is not None:
        _check_size(parent)
    attachments = edit.attachments
    if not attachments:
        return new_rev(deleted=edit.deleted, parent=parent, body=edit.fields) if new_edits else parent
    if len({attachment.name for attachment in attachments}) < len(attachments):
        raise BadRequest("Duplicate attachments")
    for attachment in attachments:
        if new_edits:
            attachment.revpos = attachment.revpos if attachment.stub else None
        elif attachment.revpos is None:
            attachment.revpos = 0
    if not new_edits:
        return parent
    if any(attachment.stub for attachment in attachments):
        return None
    return revision_of(edit, parent)


def _check_size(rev: Rev) -> None:
    if len(rev.digest) > DIGEST_MAX_BYTES or abs(rev.generation) > GENERATION_MAX:
        raise BadRequest("Invalid rev format")


def revision_of(edit: Edit, parent: Rev | None) -> Rev:
    """The revision that an edit on top of `parent` makes; its attachments are staged or stored."""
    return new_rev(
        deleted=edit.deleted,
        parent=parent,
        body=edit.fields,
        attachments=[_identity(attachment) for attachment in edit.attachments],
    )


def _identity(attachment: AttachmentEdit) -> tuple[str, str, bytes]:
    if attachment.stored is not None:
        return attachment.stored.name, attachment.stored.content_type, attachment.stored.md5
    assert attachment.staged is not None, "attachments are staged before they are hashed"
    return attachment.name, attachment.content_type, attachment.staged.md5
