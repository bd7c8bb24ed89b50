"""What every change of a document writes: bodies and attachments, the record with its tree, the place in the
sequence index, the counters, the row of a conflict.

Functions of a WriteTxn. What must stay true here: a document's record, its sequence row, the counters and the
conflict index move together, whoever asks for it.
"""

from __future__ import annotations

import time

from . import compression, keys, records
from .document import Edit
from .engine import Space
from .prepared_edits import Context, Prepared
from .records import AttachmentInfo, DocHead, RevInfo
from .revision import Rev
from .revtree import RevTree
from .writer import WriteTxn


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


def stem(txn: WriteTxn, tree: RevTree) -> None:
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
    put_document(txn, id_bytes, head, flags, winner.info.body, size, winner.rev, encoded)


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


def put_document(
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


def learn_dictionary(txn: WriteTxn, context: Context) -> None:
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
