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
    seq, body = state.update_seq, state.last_body
    bodies, seqs, docs, live = [], [], [], []
    for doc_id, edit, rev, codec, data in first_edits:
        seq += 1
        body += 1
        flags = records.DELETED if edit.deleted else 0
        rev_text = rev.text.encode()
        size = len(edit.body)
        frame = records.encode_body(codec, data)
        bodies.append((records.u64(body), frame))
        seqs.append((records.u64(seq), records.encode_seq_row(flags, body, rev_text, doc_id)))
        docs.append((doc_id, records.encode_single(flags, seq, body, size, rev_text)))
        state.external_bytes += size
        state.stored_bytes += len(frame)
        if not flags:
            live.append(doc_id)
        else:
            txn.ranks.add(doc_id, 0)
        if doc_id.startswith(b"_design/"):
            state.design_seq = seq
    txn.kv.put_all(Space.BODIES, bodies, append=True)
    txn.kv.put_all(Space.SEQS, seqs, append=True)
    txn.kv.put_all(Space.DOCS, docs)
    txn.ranks.add_new(live)
    txn.seq_counts.add_range(state.update_seq + 1, seq)
    state.update_seq, state.last_body = seq, body
    state.doc_count += len(live)
    state.deleted_count += len(first_edits) - len(live)
