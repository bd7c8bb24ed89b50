"""Document ids as LMDB keys, in order, however long the ids are.

LMDB's keys are at most 511 bytes. An id up to PLAIN_KEY_MAX_BYTES is its own key. A longer one is kept under
its first PLAIN_KEY_MAX_BYTES bytes and a u64 label: ids that share that beginning get labels in the order of
the ids. The whole id stands in META, under "id:" and a digest of the key. A look-up bisects the labels.
"""

from __future__ import annotations

import hashlib

from .engine import Batch, Keyspace, Reader, Space
from .records import from_u64, u64

PLAIN_KEY_MAX_BYTES = 500

_LABEL_END = 1 << 64
_APPEND_STEP = 1 << 32
"""Room left behind the last label: ids that come in ascending order, the usual case, never run out of it."""


def find(reader: Reader, space: Keyspace, doc_id: bytes) -> bytes | None:
    """The key of an id; None when it is a long id without one, or empty, as no document's is. A short id's
    need not exist in the space."""
    if len(doc_id) <= PLAIN_KEY_MAX_BYTES:
        return doc_id or None
    key = _first_at_or_after(reader, space, doc_id)
    return key if key is not None and id_of(reader, space, key) == doc_id else None


def allot(batch: Batch, space: Keyspace, doc_id: bytes) -> bytes:
    """The key of an id that is about to be written."""
    found = find(batch, space, doc_id)
    if found is not None:
        return found
    prefix = doc_id[:PLAIN_KEY_MAX_BYTES]
    after = _first_at_or_after(batch, space, doc_id)
    upper = _LABEL_END if after is None else _label(after)
    before = next(batch.scan(space, prefix + u64(0), after or _end(prefix), reverse=True), None)
    lower = -1 if before is None else _label(before[0])
    if after is None and upper - lower > 2 * _APPEND_STEP:
        label = lower + _APPEND_STEP
    else:
        label = (lower + upper) // 2
    if label == lower:
        _spread(batch, space, prefix)
        return allot(batch, space, doc_id)
    key = prefix + u64(label)
    batch.put(Space.META, _id_key(space, key), doc_id)
    return key


def id_of(reader: Reader, space: Keyspace, key: bytes) -> bytes:
    """The id that a key stands for."""
    if len(key) <= PLAIN_KEY_MAX_BYTES:
        return key
    return reader.get(Space.META, _id_key(space, key)) or key


def forget(batch: Batch, space: Keyspace, key: bytes) -> None:
    """To be called when a key's record is deleted."""
    if len(key) > PLAIN_KEY_MAX_BYTES:
        batch.delete(Space.META, _id_key(space, key))


def bound(reader: Reader, space: Keyspace, doc_id: bytes) -> bytes:
    """The smallest possible key of the ids from `doc_id` on: where a scan that starts at an id begins."""
    if len(doc_id) <= PLAIN_KEY_MAX_BYTES:
        return doc_id
    return _first_at_or_after(reader, space, doc_id) or _end(doc_id[:PLAIN_KEY_MAX_BYTES])


def shown(key: bytes) -> str:
    """An id or a key for a message, also one that is damaged."""
    return repr(key.decode("utf-8", "backslashreplace"))


def _first_at_or_after(reader: Reader, space: Keyspace, doc_id: bytes) -> bytes | None:
    """Among the long ids that share `doc_id`'s beginning, the key of the first that is not less."""
    prefix = doc_id[:PLAIN_KEY_MAX_BYTES]
    low, high, found = 0, _LABEL_END, None
    while low < high:
        middle = (low + high) // 2
        pair = next(reader.scan(space, prefix + u64(middle), _end(prefix)), None)
        if pair is None:
            high = middle
        elif id_of(reader, space, pair[0]) >= doc_id:
            found, high = pair[0], middle
        else:
            low = _label(pair[0]) + 1
    return found


def _spread(batch: Batch, space: Keyspace, prefix: bytes) -> None:
    """Give the ids of a crowded beginning evenly spaced labels again."""
    rows = [
        (key, value, id_of(batch, space, key))
        for key, value in batch.scan(space, prefix + u64(0), _end(prefix))
    ]
    for key, _value, _id in rows:
        batch.delete(space, key)
        forget(batch, space, key)
    step = _LABEL_END // (len(rows) + 2)
    for at, (_key, value, doc_id) in enumerate(rows, 1):
        key = prefix + u64(at * step)
        batch.put(space, key, value)
        batch.put(Space.META, _id_key(space, key), doc_id)


def _end(prefix: bytes) -> bytes:
    """Just after every key of `prefix` and a label."""
    return prefix + b"\xff" * 9


def _label(key: bytes) -> int:
    return from_u64(key[PLAIN_KEY_MAX_BYTES:])


def _id_key(space: Keyspace, key: bytes) -> bytes:
    return b"id:%d:" % space + hashlib.blake2b(key, digest_size=20).digest()
