"""The two ways to write a document: `new_edits` check the parent, `replicated_edits` graft a history.

Functions of a WriteTxn. They decide before they write: a Conflict is raised before the first put. What can
be done outside the transaction is in prepared_edits.py, what both ways write in stored_documents.py.
Semantics: couch_db:update_docs and couch_db_updater:merge_rev_tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import first_edits, keys, partitions, reads, records, stored_documents
from .document import Edit
from .engine import Space
from .errors import Conflict, CouchliteError, MissingStub, PartitionOverflow
from .first_edits import FirstEdit
from .prepared_edits import Context, Prepared, revision_of
from .records import DocHead, RevInfo
from .revision import Rev
from .revtree import Node, RevTree
from .writer import WriteTxn

Result = Rev | CouchliteError

# --- interactive edits


def new_edits(
    txn: WriteTxn, context: Context, edits: Sequence[Prepared], *, partition_bytes_max: int = 0
) -> list[Result]:
    """Apply interactive edits; each gives its new revision, or the Conflict or PartitionOverflow that refused
    it, in their order.

    Sequences are given in the order of the ids, as in CouchDB; that is also the order the index likes.

    :param partition_bytes_max: no document may grow that belongs to a partition of this size; 0 for no limit.
    :raises MissingStub: an attachment stub stands for nothing; then none of the edits may be kept.
    """
    results: list[Result] = [_PENDING] * len(edits)
    first: list[FirstEdit] = []
    full: set[bytes] = set()
    if txn.partitions is not None and partition_bytes_max > 0:
        full = txn.partitions.full(txn.kv, [prepared.edit.id for prepared in edits], partition_bytes_max)
    for at, doc_id, is_known in _by_id(txn, [prepared.edit.id for prepared in edits]):
        prepared = edits[at]
        edit, rev = prepared.edit, prepared.rev
        prepared.is_full = bool(full) and partitions.name_of(doc_id) in full
        if (
            not is_known
            and not edit.path
            and rev is not None
            and first_edits.is_plain(edit, doc_id)
            and not prepared.is_full
        ):
            first.append(FirstEdit(doc_id, edit, rev, prepared.codec, prepared.data))
            results[at] = rev
            continue
        first_edits.store(txn, first)
        first.clear()
        try:
            results[at] = new_edit(txn, context, prepared)
        except (Conflict, PartitionOverflow) as error:
            results[at] = error
    first_edits.store(txn, first)
    stored_documents.learn_dictionary(txn, context)
    return results


def _check_room(prepared: Prepared, size_before: int) -> None:
    """:raises PartitionOverflow: the document would take more than before, and its partition is full."""
    if prepared.is_full and _size_of(prepared.edit) > size_before:
        raise PartitionOverflow(prepared.edit.id)


def _size_of(edit: Edit) -> int:
    """What a leaf takes, about: of attachments that are stubs the writer learns only later."""
    sizes = [
        attachment.stored.length
        if attachment.stored
        else attachment.staged.length
        if attachment.staged
        else 0
        for attachment in edit.attachments
    ]
    return len(edit.body) + sum(sizes)


def _by_id(txn: WriteTxn, ids: Sequence[str]) -> Iterator[tuple[int, bytes, bool]]:
    """Documents in the order of their ids: where each stands in `ids`, its id, and whether it is known, or
    will be once those before it are stored."""
    order = sorted(range(len(ids)), key=ids.__getitem__)
    ordered = [ids[at].encode() for at in order]
    before = b""
    for at, doc_id, record in zip(order, ordered, reads.records_of(txn.kv, ordered), strict=True):
        yield at, doc_id, record is not None or doc_id == before
        before = doc_id


_PENDING = Conflict()
"""Holds the place of a result until it is there."""


def new_edit(txn: WriteTxn, context: Context, prepared: Prepared) -> Rev:
    """Add a revision on the leaf that the edit names, or a first revision.

    :raises Conflict: the document has moved on, or the parent is no leaf.
    """
    edit = prepared.edit
    require_stored(txn, edit)
    id_bytes = edit.id.encode()
    key = keys.find(txn.kv, Space.DOCS, id_bytes)
    record = None if key is None else txn.kv.get(Space.DOCS, key)
    if record is None:
        return _first_edit(txn, context, prepared, id_bytes)
    head = records.decode_head(record)
    parent = edit.path[0] if edit.path else None
    if parent is None:
        return _recreate(txn, context, prepared, record, head)
    if not head.flags & (records.BRANCHED | records.DELETED) and len(edit.path) == 1:
        chain = records.decode_chain(record, head)
        if chain is not None:
            if str(parent).encode() != head.rev:
                raise Conflict()
            rev = _resolved_revision(txn, prepared, parent, head.body)
            _check_room(prepared, head.size)
            info, size = stored_documents.store_body(txn, context, prepared, rev)
            tree, stemmed = records.extend_chain(chain, rev.digest, info, txn.state.revs_limit)
            for number in stemmed:
                stored_documents.delete_body(txn, number)
            flags = records.HAS_TREE | (records.DELETED if info.deleted else 0)
            stored_documents.put_document(txn, id_bytes, head, flags, info.body, size, rev, tree)
            return rev
    return _extend_tree(txn, context, prepared, record, head, parent)


def require_stored(txn: WriteTxn, edit: Edit) -> None:
    """An edit may carry attachments over from a revision that was read before; a compaction in between may
    have swept them, if that revision had gone.

    :raises Conflict:
    """
    for attachment in edit.attachments:
        stored = attachment.stored
        if stored is not None and txn.kv.get(Space.ATTACHMENTS, stored.key) is None:
            raise Conflict()


def _first_edit(txn: WriteTxn, context: Context, prepared: Prepared, id_bytes: bytes) -> Rev:
    edit = prepared.edit
    _refuse_stubs(edit)
    if edit.path:
        raise Conflict()
    assert prepared.rev is not None
    _check_room(prepared, 0)
    _store_single(txn, context, prepared, id_bytes, prepared.rev)
    return prepared.rev


def _store_single(txn: WriteTxn, context: Context, prepared: Prepared, id_bytes: bytes, rev: Rev) -> None:
    """Store a document new here with its only revision: no tree is needed."""
    info, size = stored_documents.store_body(txn, context, prepared, rev)
    flags = records.DELETED if info.deleted else 0
    stored_documents.put_document(txn, id_bytes, None, flags, info.body, size, rev, b"")


def _recreate(txn: WriteTxn, context: Context, prepared: Prepared, record: bytes, head: DocHead) -> Rev:
    """An edit without a parent: only a deleted document takes it, on top of its winner, so that a state that
    existed before can't be reached again by the same revision."""
    edit = prepared.edit
    if not head.flags & records.DELETED or edit.deleted:
        raise Conflict()
    _refuse_stubs(edit)
    winner = Rev.parse(head.rev.decode())
    rev = revision_of(edit, winner)
    return _append_to_tree(txn, context, prepared, record, head, (rev, winner))


def _extend_tree(
    txn: WriteTxn, context: Context, prepared: Prepared, record: bytes, head: DocHead, parent: Rev
) -> Rev:
    tree = records.decode_tree(record)
    leaf = next((node for node in tree.leaves() if node.rev == parent), None)
    if leaf is None or head.flags & records.DELETED:
        raise Conflict()
    rev = _resolved_revision(txn, prepared, parent, leaf.info.body)
    return _append_to_tree(txn, context, prepared, record, head, (rev, *prepared.edit.path))


def _append_to_tree(
    txn: WriteTxn,
    context: Context,
    prepared: Prepared,
    record: bytes,
    head: DocHead,
    path: tuple[Rev, ...],
) -> Rev:
    tree = records.decode_tree(record)
    replaced = next((leaf.info.size for leaf in tree.leaves() if leaf.rev == path[1]), 0)
    if tree.merge(path, _Unwritten(prepared)) != "new_leaf":
        raise Conflict()
    _check_room(prepared, replaced)
    stored_documents.stem(txn, tree)
    leaf = next(node for node in tree.leaves() if isinstance(node.info, _Unwritten))
    leaf.info, _size = stored_documents.store_body(txn, context, prepared, path[0])
    stored_documents.put_tree(txn, prepared.edit.id.encode(), head, tree)
    return path[0]


def _resolved_revision(txn: WriteTxn, prepared: Prepared, parent: Rev, parent_body: int) -> Rev:
    """The new revision; when attachment stubs kept it unknown, they are looked up in the parent first."""
    if prepared.rev is not None:
        return prepared.rev
    _resolve_stubs(txn, prepared.edit, parent_body)
    return revision_of(prepared.edit, parent)


def _resolve_stubs(txn: WriteTxn, edit: Edit, body_number: int) -> None:
    frame = txn.kv.get(Space.BODIES, records.u64(body_number)) if body_number else None
    stored = {} if frame is None else {info.name: info for info in records.decode_body(frame)[2]}
    for attachment in edit.attachments:
        if attachment.stub:
            info = stored.get(attachment.name)
            if info is None or attachment.revpos not in (None, info.revpos):
                raise _missing_stub(edit, attachment.name)
            attachment.stored = info


def _refuse_stubs(edit: Edit) -> None:
    """For an edit without a revision whose attachments its stubs could stand for.

    :raises MissingStub:
    """
    for attachment in edit.attachments:
        if attachment.stub:
            raise _missing_stub(edit, attachment.name)


def _missing_stub(edit: Edit, name: str) -> MissingStub:
    return MissingStub(f"Invalid attachment stub in {edit.id} for {name}")


# --- replicated edits


def replicated_edits(txn: WriteTxn, context: Context, edits: Sequence[Prepared]) -> None:
    """Graft histories as they are; what is known already is ignored.

    :raises MissingStub: an attachment stub stands for nothing; then none of the edits may be kept.
    """
    by_id: dict[str, list[Prepared]] = {}
    for prepared in edits:
        by_id.setdefault(prepared.edit.id, []).append(prepared)
    groups = list(by_id.values())
    first: list[FirstEdit] = []
    for at, doc_id, is_known in _by_id(txn, list(by_id)):
        prepared = groups[at][0]
        edit = prepared.edit
        is_single = len(groups[at]) == len(edit.path) == 1
        if not is_known and is_single and first_edits.is_plain(edit, doc_id):
            first.append(FirstEdit(doc_id, edit, edit.path[0], prepared.codec, prepared.data))
            continue
        first_edits.store(txn, first)
        first.clear()
        graft(txn, context, doc_id, groups[at])
    first_edits.store(txn, first)
    stored_documents.learn_dictionary(txn, context)


def graft(txn: WriteTxn, context: Context, id_bytes: bytes, group: list[Prepared]) -> None:
    """Merge the paths of one document's edits, then store every revision that the tree has taken up: inner
    ones too, whose bodies were not known before."""
    key = keys.find(txn.kv, Space.DOCS, id_bytes)
    record = None if key is None else txn.kv.get(Space.DOCS, key)
    if record is None and len(group) == 1 and len(group[0].edit.path) == 1:
        _refuse_stubs(group[0].edit)
        _store_single(txn, context, group[0], id_bytes, group[0].edit.path[0])
        return
    head = None if record is None else records.decode_head(record)
    tree = RevTree.empty() if record is None else records.decode_tree(record)
    for prepared in group:
        tree.merge(prepared.edit.path, _Unwritten(prepared))
    stored_documents.stem(txn, tree)
    unwritten = [node for node in tree.nodes() if isinstance(node.info, _Unwritten)]
    for node in unwritten:
        taken: Prepared = node.info.prepared
        _resolve_stubs_from_path(txn, taken.edit, node)
        info, _size = stored_documents.store_body(txn, context, taken, node.rev)
        node.info = info if node.is_leaf else RevInfo(info.body, info.deleted, 0)
    if unwritten or record is None or tree.to_runs() != records.decode_tree(record).to_runs():
        stored_documents.put_tree(txn, id_bytes, head, tree)


def _resolve_stubs_from_path(txn: WriteTxn, edit: Edit, node: Node) -> None:
    if not any(attachment.stub for attachment in edit.attachments):
        return
    ancestor = node.parent
    while ancestor is not None and not (ancestor.info is not None and ancestor.info.body):
        ancestor = ancestor.parent
    _resolve_stubs(txn, edit, 0 if ancestor is None else ancestor.info.body)


class _Unwritten(NamedTuple):
    """Stands in a tree for a revision whose body is not stored yet."""

    prepared: Prepared

    @property
    def deleted(self) -> bool:
        return self.prepared.edit.deleted

    @property
    def body(self) -> int:
        return 0
