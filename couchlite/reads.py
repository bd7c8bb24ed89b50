"""Reading documents: functions of a Reader, one short snapshot each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from . import keys, records
from .compression import BodyCodec
from .document import Revision
from .document import render as document_text
from .engine import Reader, Space
from .errors import InternalError, NotFound
from .jsontext import dumps
from .records import DocHead, RevInfo
from .revision import Rev
from .revtree import Node, RevTree


class MissingRev(NamedTuple):
    """A revision that was asked for by name and isn't known here, or whose body is gone."""

    rev: Rev


def record(reader: Reader, doc_id: str) -> bytes | None:
    """The document's record, or None when no revision of it was ever seen."""
    key = keys.find(reader, Space.DOCS, doc_id.encode("utf-8", "surrogateescape"))  # no text is no id
    return reader.get(Space.DOCS, key) if key else None


def records_of(reader: Reader, ids: Sequence[bytes]) -> list[bytes | None]:
    """The records of several documents."""
    if ids and max(map(len, ids)) <= keys.PLAIN_KEY_MAX_BYTES and all(ids):
        return reader.get_many(Space.DOCS, ids)
    found = [keys.find(reader, Space.DOCS, doc_id) for doc_id in ids]
    return [reader.get(Space.DOCS, key) if key else None for key in found]


def winner(reader: Reader, codec: BodyCodec, doc_id: str) -> Revision:
    """The winning revision.

    :raises NotFound: "missing", or "deleted" when the winner is a tombstone.
    """
    found = record(reader, doc_id)
    if found is None:
        raise NotFound("missing")
    head = records.decode_head(found)
    if head.flags & records.DELETED:
        raise NotFound("deleted")
    return load(reader, codec, doc_id, head, Rev.parse(head.rev.decode()), head.body, False)


def winner_text(reader: Reader, codec: BodyCodec, doc_id: str) -> tuple[str, bytes]:
    """The winning revision's id and JSON text: `winner` and document.render in one, in half the time.

    :raises NotFound: as `winner`.
    """
    found = record(reader, doc_id)
    if found is None:
        raise NotFound("missing")
    flags, _seq, number, _size, rev_length = records.unpack_head(found)
    if flags & records.DELETED:
        raise NotFound("deleted")
    frame = reader.get(Space.BODIES, records.u64(number))
    rev = found[records.HEAD_SIZE : records.HEAD_SIZE + rev_length]
    if frame is None or records.has_attachments(frame) or not rev.replace(b"-", b"0").isalnum():
        revision = winner(reader, codec, doc_id)
        return revision.rev.text, document_text(revision)
    body = codec.decode(frame[0], records.plain_data(frame))
    if body == b"{}":
        return rev.decode(), b'{"_id":%b,"_rev":"%b"}' % (dumps(doc_id), rev)
    return rev.decode(), b'{"_id":%b,"_rev":"%b",%b' % (dumps(doc_id), rev, body[1:])


def load(
    reader: Reader,
    codec: BodyCodec,
    doc_id: str,
    head: DocHead,
    rev: Rev,
    body: int,
    deleted: bool,
    path: tuple[Rev, ...] = (),
) -> Revision:
    """The revision whose body is number `body`."""
    frame = reader.get(Space.BODIES, records.u64(body))
    if frame is None:
        raise InternalError(f"the body of {doc_id} {rev} is missing from the store")
    number, data, attachments = records.decode_body(frame)
    return Revision(doc_id, rev, deleted, codec.decode(number, data), attachments, path, head.seq)


@dataclass(slots=True)
class Document:
    """A document with its whole history: what everything but a plain GET starts from."""

    id: str
    head: DocHead
    tree: RevTree

    def leaves(self) -> list[Node]:
        """Winner first."""
        return self.tree.sorted_leaves(_is_deleted)

    def revision(
        self, reader: Reader, codec: BodyCodec, node: Node, *, merge_bases: bool = False
    ) -> Revision | MissingRev:
        """The revision at `node` with its path, or MissingRev when its body is gone; with `merge_bases` one
        that was kept for merging counts as being here."""
        info: RevInfo | None = node.info
        if info is None or not (info.body if merge_bases else info.is_readable):
            return MissingRev(node.rev)
        path = tuple(self.tree.path(node))
        return load(reader, codec, self.id, self.head, node.rev, info.body, info.deleted, path)


def _is_deleted(info: RevInfo) -> bool:
    return info.deleted


def document(reader: Reader, doc_id: str) -> Document | None:
    found = record(reader, doc_id)
    if found is None:
        return None
    return Document(doc_id, records.decode_head(found), records.decode_tree(found))


def open_revs(
    reader: Reader,
    codec: BodyCodec,
    found: Document | None,
    revs: Sequence[Rev] | None,
    *,
    latest: bool = False,
    merge_bases: bool = False,
) -> list[Revision | MissingRev]:
    """The revisions asked for (None: all leaves), in that order; with `latest`, the leaves each one has led
    to; with `merge_bases` also those whose bodies are kept for merging only.

    Source: couch_db:open_doc_revs_int with couch_key_tree:get and get_key_leafs.
    """
    if found is None:
        return [MissingRev(rev) for rev in revs or ()]
    if revs is None:
        nodes: list[Node | MissingRev] = list(found.tree.leaves())
    else:
        nodes = [node for rev in revs for node in _named(found.tree, rev, latest)]
    return [
        node if isinstance(node, MissingRev) else found.revision(reader, codec, node, merge_bases=merge_bases)
        for node in _distinct(nodes)
    ]


def _named(tree: RevTree, rev: Rev, latest: bool) -> Iterator[Node | MissingRev]:
    node = tree.find(rev)
    if node is None:
        yield MissingRev(rev)
    elif latest:
        yield from tree.descendant_leaves(node)
    else:
        yield node


def _distinct(nodes: list[Node | MissingRev]) -> Iterator[Node | MissingRev]:
    """Each leaf once, though several of the revisions asked for may have led to it."""
    return iter(dict.fromkeys(nodes))


class RevStatus(NamedTuple):
    """An entry of `_revs_info`."""

    rev: Rev
    status: str
    """"available", "deleted" or "missing"."""


def revs_info(found: Document, node: Node) -> list[RevStatus]:
    """The path from `node` back, with what is still here of it."""
    statuses = []
    at: Node | None = node
    while at is not None:
        info: RevInfo | None = at.info
        statuses.append(RevStatus(at.rev, _status(info)))
        at = at.parent
    return statuses


def _status(info: RevInfo | None) -> str:
    if info is None or not info.is_readable:
        return "missing"
    return "deleted" if info.deleted else "available"


class RevsDiff(NamedTuple):
    """What `_revs_diff` tells of one document."""

    missing: list[Rev]
    possible_ancestors: list[Rev]


def revs_diff(reader: Reader, doc_id: str, revs: Sequence[Rev]) -> RevsDiff | None:
    """Which of `revs` are unknown here, and which leaves may be their ancestors; None when all are known."""
    found = record(reader, doc_id)
    if found is None:
        return RevsDiff(list(revs), []) if revs else None
    tree = records.decode_tree(found)
    missing = tree.missing(revs)
    return RevsDiff(missing, tree.possible_ancestors(missing, _is_deleted)) if missing else None


_PLAIN_REVS = re.compile(r"(?:[1-9][0-9]{0,9}-[0-9a-f]{32},)*")


def revs_diffs(
    reader: Reader, wanted: Mapping[str, Sequence[str]]
) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    """`revs_diff` of several documents, all in text: what is missing and what may be its ancestors. Documents
    of which nothing is missing are left out.

    :raises BadRequest: a malformed revision.
    """
    if not _PLAIN_REVS.fullmatch("".join([f"{rev}," for revs in wanted.values() for rev in revs])):
        wanted = {doc_id: [Rev.parse(rev).text for rev in revs] for doc_id, revs in wanted.items()}
    found = records_of(reader, [doc_id.encode() for doc_id in wanted])
    diffs: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
    for (doc_id, revs), known in zip(wanted.items(), found, strict=True):
        if known is None:
            if revs:
                diffs[doc_id] = revs, ()
        elif len(revs) == 1 and not known[0] & records.HAS_TREE:
            only = records.rev_of(known).decode()
            if revs[0] != only:
                diffs[doc_id] = revs, (only,) if _generation(revs[0]) > _generation(only) else ()
        elif diff := revs_diff(reader, doc_id, [Rev.parse(rev) for rev in revs]):
            missing, ancestors = diff
            diffs[doc_id] = [rev.text for rev in missing], [rev.text for rev in ancestors]
    return diffs


def _generation(rev: str) -> int:
    return int(rev.partition("-")[0])
