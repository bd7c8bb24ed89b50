"""The bodies of merge bases that a store lacks, and taking them over from a peer that has them.

Replication carries leaves; of the revisions behind them it carries the names only. So who receives both
sides of a conflict can't merge them until it is also given the body of the revision that both come from.
Such a body is put to a revision that the tree has already. It is kept for merging: readers of the document
see no difference, and no feed tells of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from . import conflicts, keys, reads, records, stored_documents
from .document import AttachmentEdit, Edit
from .engine import Reader, Space
from .prepared_edits import Context, Prepared
from .records import AttachmentInfo, RevInfo
from .revision import Rev
from .revtree import Node, RevTree
from .writer import WriteTxn


def lacking(reader: Reader, ids: Sequence[str]) -> dict[str, list[Rev]]:
    """Those of some documents that are in conflict and can't be merged for want of a body; and of which
    revisions."""
    found: dict[str, list[Rev]] = {}
    names = list(dict.fromkeys(ids))
    for doc_id, record in zip(
        names, reads.records_of(reader, [name.encode() for name in names]), strict=True
    ):
        if record is not None and record[0] & records.CONFLICTED:
            revs = [node.rev for node in _without_body(records.decode_tree(record))]
            if revs:
                found[doc_id] = sorted(revs)
    return found


def _without_body(tree: RevTree) -> list[Node]:
    living = [leaf for leaf in tree.leaves() if not leaf.info.deleted]
    return [node for node in conflicts.merge_bases(living) if node.info is None or not node.info.body]


def judged(bases: Sequence[Edit]) -> list[Edit]:
    """Bases as validation functions are to see them, in the place of replicated edits. What a merge starts
    from decides what comes out of it: who may not write a document may not bring its base either."""
    return [
        replace(edit, attachments=[replace(one, stub=False) for one in edit.attachments]) for edit in bases
    ]


def store(txn: WriteTxn, context: Context, prepared: Sequence[Prepared]) -> int:
    """Take over bodies that are lacking; how many it were. What is not lacking any more is passed over, and
    so is a revision with an attachment that none of the document's bodies here has."""
    return sum(_store(txn, context, one) for one in prepared)


def _store(txn: WriteTxn, context: Context, prepared: Prepared) -> bool:
    edit = prepared.edit
    doc_id = edit.id.encode()
    key = keys.find(txn.kv, Space.DOCS, doc_id)
    record = None if key is None else txn.kv.get(Space.DOCS, key)
    if key is None or record is None or not record[0] & records.CONFLICTED:
        return False
    tree = records.decode_tree(record)
    node = next((node for node in _without_body(tree) if node.rev == edit.path[0]), None)
    if node is None or not _find_attachments(txn.kv, tree, edit):
        return False
    info, _size = stored_documents.store_body(txn, context, prepared, node.rev)
    node.info = RevInfo(info.body, info.deleted, 0, is_merge_base=True)
    txn.kv.put(
        Space.DOCS, key, records.encode_doc(doc_id, records.decode_head(record), records.encode_tree(tree))
    )
    return True


def _find_attachments(reader: Reader, tree: RevTree, edit: Edit) -> bool:
    """Let each attachment stand for one with the same data that is here; whether there are such."""
    if not edit.attachments:
        return True
    known = list(_attachments(reader, tree))
    for attachment in edit.attachments:
        info = next((info for info in known if attachment.sent_md5 == info.md5), None)
        if info is None or attachment.staged is not None:
            return False
        attachment.stored = _as_named(attachment, info)
    return True


def _attachments(reader: Reader, tree: RevTree) -> Iterable[AttachmentInfo]:
    for number in sorted(stored_documents.bodies(tree)):
        frame = reader.get(Space.BODIES, records.u64(number))
        if frame is not None and records.has_attachments(frame):
            yield from records.decode_body(frame)[2]


def _as_named(attachment: AttachmentEdit, info: AttachmentInfo) -> AttachmentInfo:
    return info._replace(
        name=attachment.name, content_type=attachment.content_type, revpos=attachment.revpos or 0
    )
