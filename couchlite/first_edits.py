"""Documents that are new here and plain, stored many at once: most of what a bulk load or a first replication
brings. The result is that of edits.py's long way, at a third of its cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from . import records
from .document import Edit
from .engine import Space
from .keys import PLAIN_KEY_MAX_BYTES
from .revision import Rev
from .writer import WriteTxn


class FirstEdit(NamedTuple):
    """The only revision of a document that is not known yet; see `is_plain`."""

    id: bytes
    edit: Edit
    rev: Rev
    codec: int
    data: bytes
    """The compressed body."""


def is_plain(edit: Edit, id_bytes: bytes) -> bool:
    return not edit.attachments and len(id_bytes) <= PLAIN_KEY_MAX_BYTES


def store(txn: WriteTxn, first_edits: Sequence[FirstEdit]) -> None:
    """Store documents, all different and none of them known, in the order of their ids."""
    if not first_edits:
        return
    state = txn.state
    count = len(first_edits)
    first_seq, first_body = state.update_seq + 1, state.last_body + 1
    seqs, bodies = range(first_seq, first_seq + count), range(first_body, first_body + count)
    frames = [records.encode_body(first.codec, first.data) for first in first_edits]
    docs, changes, live = [], [], []
    for (doc_id, edit, rev, _codec, _data), seq, body in zip(first_edits, seqs, bodies, strict=True):
        flags = records.DELETED if edit.deleted else 0
        text = rev.text.encode()
        changes.append(records.encode_seq_row(flags, body, text, doc_id))
        docs.append((doc_id, records.encode_single(doc_id, flags, seq, body, len(edit.body), text)))
        if txn.partitions is not None:
            txn.partitions.add(doc_id, flags, len(edit.body))
        if not flags:
            live.append(doc_id)
        else:
            txn.ranks.add(doc_id, 0)
        if doc_id.startswith(b"_design/"):
            state.design_seq = seq
    txn.kv.put_all(Space.BODIES, list(zip(map(records.u64, bodies), frames, strict=True)), append=True)
    txn.kv.put_all(Space.SEQS, list(zip(map(records.u64, seqs), changes, strict=True)), append=True)
    txn.kv.put_all(Space.DOCS, docs)
    txn.ranks.add_new(live)
    txn.seq_counts.add_range(seqs[0], seqs[-1])
    state.update_seq, state.last_body = seqs[-1], bodies[-1]
    state.doc_count += len(live)
    state.deleted_count += count - len(live)
    state.external_bytes += sum([len(first.edit.body) for first in first_edits])
    state.stored_bytes += sum(map(len, frames))
