"""The two ways to write a document: `new_edit` checks the parent, `replicated_edits` graft a history.

Functions of a WriteTxn. They decide before they write: a Conflict is raised before the first put. What can
be done outside the transaction (parsing, hashing, compressing) is in `prepare`, so that it costs no writer
any time. Semantics: couch_db:update_docs and couch_db_updater:merge_rev_tree.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from . import compression, first_edits, keys, partitions, reads, records
from .blobs import BlobStore
from .compression import BodyCodec
from .document import AttachmentEdit, Edit
from .engine import Space
from .errors import BadRequest, Conflict, CouchliteError, MissingStub, PartitionOverflow
from .first_edits import FirstEdit
from .records import AttachmentInfo, DocHead, RevInfo
from .revision import Rev, new_rev
from .revtree import Node, RevTree
from .writer import WriteTxn

Result = Rev | CouchliteError

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
    _learn_dictionary(txn, context)
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
            info, size = store_body(txn, context, prepared, rev)
            tree, stemmed = records.extend_chain(chain, rev.digest, info, txn.state.revs_limit)
            for number in stemmed:
                delete_body(txn, number)
            flags = records.HAS_TREE | (records.DELETED if info.deleted else 0)
            _put_document(txn, id_bytes, head, flags, info.body, size, rev, tree)
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
    if any(attachment.stub for attachment in edit.attachments):
        raise _missing_stub(edit, next(a.name for a in edit.attachments if a.stub))
    if edit.path:
        raise Conflict()
    assert prepared.rev is not None
    _check_room(prepared, 0)
    info, size = store_body(txn, context, prepared, prepared.rev)
    flags = records.DELETED if edit.deleted else 0
    _put_document(txn, id_bytes, None, flags, info.body, size, prepared.rev, b"")
    return prepared.rev


def _recreate(txn: WriteTxn, context: Context, prepared: Prepared, record: bytes, head: DocHead) -> Rev:
    """An edit without a parent: only a deleted document takes it, on top of its winner, so that a state that
    existed before can't be reached again by the same revision."""
    edit = prepared.edit
    if not head.flags & records.DELETED or edit.deleted:
        raise Conflict()
    if any(attachment.stub for attachment in edit.attachments):
        raise _missing_stub(edit, next(a.name for a in edit.attachments if a.stub))
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
    _stem(txn, tree)
    leaf = next(node for node in tree.leaves() if isinstance(node.info, _Unwritten))
    leaf.info, _size = store_body(txn, context, prepared, path[0])
    put_tree(txn, prepared.edit.id.encode(), head, tree)
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
    _learn_dictionary(txn, context)


def graft(txn: WriteTxn, context: Context, id_bytes: bytes, group: list[Prepared]) -> None:
    """Merge the paths of one document's edits, then store every revision that the tree has taken up: inner
    ones too, whose bodies were not known before."""
    key = keys.find(txn.kv, Space.DOCS, id_bytes)
    record = None if key is None else txn.kv.get(Space.DOCS, key)
    if record is None and len(group) == 1 and len(group[0].edit.path) == 1:
        _graft_single(txn, context, id_bytes, group[0])
        return
    head = None if record is None else records.decode_head(record)
    tree = RevTree.empty() if record is None else records.decode_tree(record)
    for prepared in group:
        tree.merge(prepared.edit.path, _Unwritten(prepared))
    _stem(txn, tree)
    unwritten = [node for node in tree.nodes() if isinstance(node.info, _Unwritten)]
    for node in unwritten:
        taken: Prepared = node.info.prepared
        _resolve_stubs_from_path(txn, taken.edit, node)
        info, _size = store_body(txn, context, taken, node.rev)
        node.info = info if node.is_leaf else RevInfo(info.body, info.deleted, 0)
    if unwritten or record is None or tree.to_runs() != records.decode_tree(record).to_runs():
        put_tree(txn, id_bytes, head, tree)


def _graft_single(txn: WriteTxn, context: Context, id_bytes: bytes, prepared: Prepared) -> None:
    """A document new here whose one known revision comes alone: no tree is needed."""
    edit = prepared.edit
    if any(attachment.stub for attachment in edit.attachments):
        raise _missing_stub(edit, next(a.name for a in edit.attachments if a.stub))
    info, size = store_body(txn, context, prepared, edit.path[0])
    flags = records.DELETED if edit.deleted else 0
    _put_document(txn, id_bytes, None, flags, info.body, size, edit.path[0], b"")


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


# --- what both share


def store_body(txn: WriteTxn, context: Context, prepared: Prepared, rev: Rev) -> tuple[RevInfo, int]:
    """Write a revision's body and attachments; what the tree keeps of it, and its size."""
    edit = prepared.edit
    attachments = _attachment_infos(txn, context, edit, rev) if edit.attachments else ()
    state = txn.state
    state.last_body += 1
    frame = records.encode_body(prepared.codec, prepared.data, attachments)
    txn.kv.append(Space.BODIES, records.u64(state.last_body), frame)
    size = len(edit.body) + sum(info.length for info in attachments)
    state.stored_bytes += len(frame) + sum(info.length for info in attachments)
    return RevInfo(state.last_body, edit.deleted, size), size


def _attachment_infos(txn: WriteTxn, context: Context, edit: Edit, rev: Rev) -> tuple[AttachmentInfo, ...]:
    """Adopt the staged data. In JSON order, which is also how they are shown."""
    infos = []
    for attachment in edit.attachments:
        if attachment.stored is not None:
            infos.append(attachment.stored)
            continue
        staged = attachment.staged
        assert staged is not None
        txn.state.blob_bytes += context.blobs.adopt(txn.kv, staged)
        identity_length = staged.identity_length
        if staged.encoding and attachment.identity_length is not None:
            identity_length = attachment.identity_length
        revpos = rev.generation if attachment.revpos is None else attachment.revpos
        infos.append(
            AttachmentInfo(
                attachment.name,
                attachment.content_type,
                revpos,
                staged.md5,
                staged.length,
                identity_length,
                staged.encoding,
                staged.key,
            )
        )
    return tuple(infos)


def _stem(txn: WriteTxn, tree: RevTree) -> None:
    """Cut every branch to the database's limit, and join trees that turned out to be one; bodies that are no
    longer referred to go."""
    leaves = tree.leaves()
    if len(leaves) == 1 and leaves[0].generation <= txn.state.revs_limit:
        return
    before = bodies(tree)
    tree.stem(txn.state.revs_limit)
    for number in before - bodies(tree):
        delete_body(txn, number)


def bodies(tree: RevTree) -> set[int]:
    """The numbers of all bodies that a tree's revisions have."""
    return {node.info.body for node in tree.nodes() if node.info is not None} - {0}


def put_tree(txn: WriteTxn, id_bytes: bytes, head: DocHead | None, tree: RevTree) -> None:
    """Write a document's record from its whole tree, with all that follows from it."""
    leaves = tree.sorted_leaves(_is_deleted)
    winner = leaves[0]
    live = sum(not leaf.info.deleted for leaf in leaves)
    flags = records.DELETED if winner.info.deleted else 0
    if len(leaves) > 1:
        flags |= records.BRANCHED
    if live > 1:
        flags |= records.CONFLICTED
    encoded = b""
    if len(leaves) > 1 or winner.parent is not None:
        flags |= records.HAS_TREE
        encoded = records.encode_tree(tree)
    size = sum(leaf.info.size for leaf in leaves)
    if flags & records.CONFLICTED:
        _note_conflict(txn, id_bytes, live)
    elif head is not None and head.flags & records.CONFLICTED:
        _end_conflict(txn, id_bytes)
    _put_document(txn, id_bytes, head, flags, winner.info.body, size, winner.rev, encoded)


def _is_deleted(info: RevInfo) -> bool:
    return info.deleted


def _note_conflict(txn: WriteTxn, id_bytes: bytes, leaves: int) -> None:
    key = keys.allot(txn.kv, Space.CONFLICTS, id_bytes)
    known = txn.kv.get(Space.CONFLICTS, key)
    since_ms = int(time.time() * 1000) if known is None else records.decode_fields(known)["since_ms"]
    txn.kv.put(Space.CONFLICTS, key, records.encode_fields({"leaves": leaves, "since_ms": since_ms}))


def _end_conflict(txn: WriteTxn, id_bytes: bytes) -> None:
    key = keys.find(txn.kv, Space.CONFLICTS, id_bytes)
    if key is not None:
        txn.kv.delete(Space.CONFLICTS, key)
        keys.forget(txn.kv, Space.CONFLICTS, key)


def _put_document(
    txn: WriteTxn,
    id_bytes: bytes,
    head: DocHead | None,
    flags: int,
    body: int,
    size: int,
    rev: Rev,
    tree: bytes,
) -> None:
    """The document's record, its place in the sequence index, and the counters: always these together."""
    state, kv = txn.state, txn.kv
    state.update_seq += 1
    if id_bytes.startswith(b"_design/"):
        state.design_seq = state.update_seq
    txn.seq_counts.add(state.update_seq)
    if head is not None:
        kv.delete(Space.SEQS, records.u64(head.seq))
        txn.seq_counts.remove(head.seq)
        _count(state, head.flags, -1)
        state.external_bytes -= head.size
    _count(state, flags, 1)
    state.external_bytes += size
    if txn.partitions is not None:
        if head is not None:
            txn.partitions.remove(id_bytes, head.flags, head.size)
        txn.partitions.add(id_bytes, flags, size)
    rev_text = str(rev).encode()
    kv.append(
        Space.SEQS, records.u64(state.update_seq), records.encode_seq_row(flags, body, rev_text, id_bytes)
    )
    record = records.encode_doc(id_bytes, DocHead(flags, state.update_seq, body, size, rev_text), tree)
    key = keys.allot(kv, Space.DOCS, id_bytes)
    kv.put(Space.DOCS, key, record)
    if head is None:
        txn.ranks.add(key, 0 if flags & records.DELETED else 1)
    elif (head.flags ^ flags) & records.DELETED:
        txn.ranks.add(key, -1 if flags & records.DELETED else 1)


def delete_document(txn: WriteTxn, id_bytes: bytes, key: bytes, head: DocHead) -> None:
    """Remove a document that has no revision left."""
    state, kv = txn.state, txn.kv
    kv.delete(Space.SEQS, records.u64(head.seq))
    txn.seq_counts.remove(head.seq)
    kv.delete(Space.DOCS, key)
    keys.forget(kv, Space.DOCS, key)
    if head.flags & records.CONFLICTED:
        _end_conflict(txn, id_bytes)
    _count(state, head.flags, -1)
    if not head.flags & records.DELETED:
        txn.ranks.add(key, -1)
    state.external_bytes -= head.size
    if txn.partitions is not None:
        txn.partitions.remove(id_bytes, head.flags, head.size)
    state.update_seq += 1
    if id_bytes.startswith(b"_design/"):
        state.design_seq = state.update_seq


def delete_body(txn: WriteTxn, number: int) -> None:
    """Remove a body that no revision refers to any more; its attachments are swept at compaction."""
    frame = txn.kv.get(Space.BODIES, records.u64(number))
    if frame is not None:
        attachments = records.decode_body(frame)[2]
        txn.state.stored_bytes -= len(frame) + sum(info.length for info in attachments)
        txn.kv.delete(Space.BODIES, records.u64(number))


def _count(state: records.State, flags: int, difference: int) -> None:
    if flags & records.DELETED:
        state.deleted_count += difference
    else:
        state.doc_count += difference


def _learn_dictionary(txn: WriteTxn, context: Context) -> None:
    """Train a body dictionary when the database has become large enough for the next one."""
    known = txn.state.newest_codec - compression.PLAIN
    if known >= len(compression.TRAIN_AT_BODIES) or txn.state.last_body < compression.TRAIN_AT_BODIES[known]:
        return
    samples = []
    for _key, frame in txn.kv.scan(Space.BODIES, reverse=True):
        codec, data, _attachments = records.decode_body(frame)
        samples.append(context.codec.decode(codec, data))
        if len(samples) >= compression.TRAIN_SAMPLES:
            break
    number = txn.state.newest_codec + 1
    dictionary = compression.train(samples)
    if dictionary is None:
        dictionary = b"".join(samples)[-compression.DICTIONARY_SIZE_BYTES :] or b"{}"
    txn.kv.put(Space.META, records.dictionary_key(number), dictionary)
    txn.state.newest_codec = number

    def use() -> None:
        context.codec.newest = number

    txn.after_commit.append(use)
