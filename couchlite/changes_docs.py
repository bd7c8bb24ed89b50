"""The documents of a page of changes, as JSON texts. Most are put together from their parts without being
looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import document, jsontext, records
from .doc_texts import PAGE_BYTES
from .document import Meta, Revision
from .errors import InternalError
from .reads import Document
from .records import AttachmentInfo, SeqColumns
from .revision import Rev
from .snapshot import Snapshot

PATH_MAX = 20
"""How much of a document's history filter functions see: CouchDB's default of [query_server_config]
revs_limit."""


@dataclass(frozen=True, slots=True)
class DocOptions:
    """How documents are shown."""

    conflicts: bool = False
    """With `_conflicts`, where there are any."""
    encoding_info: bool = False
    """With the encodings of attachments."""
    deleted_conflicts: bool = False
    """With `_deleted_conflicts`, where there are any."""
    local_seq: bool = False
    """With `_local_seq`."""


def winner_texts(snapshot: Snapshot, columns: SeqColumns, options: DocOptions) -> list[bytes]:
    """The winners of as many changes, from the first one on, as fit into a page."""
    deleted = records.DELETED
    special = _special_flags(options)
    ids, revs = jsontext.escape_all(columns.ids), jsontext.escape_all(columns.revs)
    bodies = snapshot.plain_bodies([records.u64(number) for number in columns.bodies])
    texts: list[bytes] = []
    size = 0
    for flags, rev, doc_id, body in zip(columns.flags, revs, ids, bodies, strict=False):
        if body is None or flags & special or options.local_seq:
            revision, meta = winner(snapshot, columns, len(texts), options)
            text = render(revision, meta, options)
        elif flags & deleted:
            comma = b"," if len(body) > 2 else b""
            text = b'{"_id":"%b","_rev":"%b"%b%b,"_deleted":true}' % (doc_id, rev, comma, body[1:-1])
        elif len(body) > 2:
            text = b'{"_id":"%b","_rev":"%b",%b' % (doc_id, rev, body[1:])
        else:
            text = b'{"_id":"%b","_rev":"%b"}' % (doc_id, rev)
        texts.append(text)
        size += len(text)
        if size >= PAGE_BYTES:
            break
    return texts


def _special_flags(options: DocOptions) -> int:
    """Of documents that are more than their winners' bodies."""
    if options.deleted_conflicts:
        return records.BRANCHED
    return records.CONFLICTED if options.conflicts else 0


def texts_with_paths(snapshot: Snapshot, columns: SeqColumns) -> list[bytes | None]:
    """The documents with `_revisions`, as many as fit into a page; None for those that need a closer look
    (see `leaves`)."""
    texts = snapshot.leaf_texts(columns.ids, columns.revs, with_path=True)
    return [
        text if int(rev.partition(b"-")[0]) <= PATH_MAX else None
        for text, rev in zip(texts, columns.revs, strict=False)
    ]


def winner(snapshot: Snapshot, columns: SeqColumns, at: int, options: DocOptions) -> tuple[Revision, Meta]:
    """A change's winner, and the members that tell of its document's conflicts."""
    body, attachments = snapshot.body(columns.bodies[at])
    rev = Rev.parse(columns.revs[at].decode())
    deleted = bool(columns.flags[at] & records.DELETED)
    revision = Revision(columns.ids[at].decode(), rev, deleted, body, attachments)
    return revision, conflicts(snapshot, columns, at, options)


def conflicts(snapshot: Snapshot, columns: SeqColumns, at: int, options: DocOptions) -> Meta:
    """The members that tell of other leaves of a change's document, and of its sequence: those that are to be
    shown, if there is anything to tell."""
    found: list[tuple[str, Any]] = []
    if columns.flags[at] & _special_flags(options):
        losers = _document(snapshot, columns.ids[at]).leaves()[1:]
        living = [str(leaf.rev) for leaf in losers if not leaf.info.deleted]
        dead = [str(leaf.rev) for leaf in losers if leaf.info.deleted]
        if options.conflicts and living:
            found.append(("_conflicts", living))
        if options.deleted_conflicts and dead:
            found.append(("_deleted_conflicts", dead))
    if options.local_seq:
        found.append(("_local_seq", columns.seqs[at]))
    return found


def leaves(snapshot: Snapshot, doc_id: bytes, *, only_winner: bool) -> Iterator[Revision]:
    """A document's leaves with the ends of their paths, the winner first."""
    found = _document(snapshot, doc_id)
    nodes = found.leaves()
    for node in nodes[:1] if only_winner else nodes:
        revision = snapshot.revision(found, node)
        revision.path = revision.path[:PATH_MAX]
        yield revision


def leaf_texts(snapshot: Snapshot, doc_id: bytes) -> list[bytes]:
    """The revisions of a document's leaves, the winner first."""
    return [str(leaf.rev).encode() for leaf in _document(snapshot, doc_id).leaves()]


def render(revision: Revision, meta: Meta, options: DocOptions, *, revs: bool = False) -> bytes:
    def stub(info: AttachmentInfo) -> dict[str, Any]:
        return document.attachment_stub(info, encoding_info=options.encoding_info)

    return document.render(revision, revs=revs, meta=meta, attachment=stub)


def _document(snapshot: Snapshot, doc_id: bytes) -> Document:
    found = snapshot.document(doc_id.decode())
    if found is None:
        raise InternalError(f"{doc_id.decode()} is in the sequence index but missing from the store")
    return found
