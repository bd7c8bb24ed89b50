"""Purging: revisions removed for good, with nothing left that would replicate.

Source: fabric_doc_purge and couch_db_updater:purge_docs: only leaves can be purged; a document without
leaves is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import keys, records, stored_documents
from .engine import Reader, Space
from .revision import Rev
from .writer import WriteTxn


def purge(txn: WriteTxn, wanted: Mapping[str, Sequence[Rev]]) -> dict[str, list[Rev]]:
    """Remove the leaves named of each document; what was removed of each."""
    purged = {}
    for doc_id, revs in wanted.items():
        purged[doc_id] = _purge_document(txn, doc_id.encode(), revs)
        _note(txn, doc_id, revs)
    return purged


def _purge_document(txn: WriteTxn, id_bytes: bytes, revs: Sequence[Rev]) -> list[Rev]:
    key = keys.find(txn.kv, Space.DOCS, id_bytes)
    record = None if key is None else txn.kv.get(Space.DOCS, key)
    if key is None or record is None:
        return []
    head = records.decode_head(record)
    tree = records.decode_tree(record)
    before = stored_documents.bodies(tree)
    removed = tree.remove(revs)
    if not removed:
        return []
    for number in before - stored_documents.bodies(tree):
        stored_documents.delete_body(txn, number)
    if tree.leaves():
        stored_documents.put_tree(txn, id_bytes, head, tree)
    else:
        stored_documents.delete_document(txn, id_bytes, key, head)
    return removed


def _note(txn: WriteTxn, doc_id: str, revs: Sequence[Rev]) -> None:
    """Keep the newest `purged_infos_limit` requests, as they were made; indexes and peers learn from them."""
    state = txn.state
    state.purge_seq += 1
    row = records.encode_fields([doc_id, [str(rev) for rev in revs]])
    txn.kv.append(Space.PURGES, records.u64(state.purge_seq), row)
    while state.purge_seq - state.oldest_purge > state.purged_infos_limit:
        state.oldest_purge += 1
        txn.kv.delete(Space.PURGES, records.u64(state.oldest_purge))


def infos(reader: Reader) -> list[tuple[str, list[Rev]]]:
    """What was asked to be purged, in the order of the ids and revisions, as CouchDB lists it."""
    rows = []
    for _key, row in reader.scan(Space.PURGES):
        doc_id, revs = records.decode_fields(row)
        rows.append((doc_id, [Rev.parse(rev) for rev in revs]))
    return sorted(rows, key=lambda row: (row[0].encode(), row[1]))
