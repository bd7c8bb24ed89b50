"""How many documents come before a given one, and which one comes after so many, without counting them.

A listing tells its `offset` and leaves out `skip` rows. Counting would cost as much as reading them, so RANKS
holds counts of documents by ranges of their keys, in two levels:

    key    b"d" + level as one byte + boundary: where a bucket begins
    value  how many documents from there to the next boundary of that level are not deleted, u64

A boundary is a document's key that its hash chooses: about one in 1,024 begins a bucket of level 0, one in
65,536 also one of level 1; before the first one stands the empty boundary. So buckets come where ids come,
in whatever order these are written, and none is ever rebalanced. A boundary outlives its document: it is a
place. Long ids make none, since their keys may be changed (see keys.py).

What must stay true here: counts and documents change in the same transaction; the boundaries of a level are
boundaries of every level below it, and so are the sums.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from zlib import crc32

from .engine import Batch, Reader, Space
from .keys import PLAIN_KEY_MAX_BYTES
from .records import DELETED, from_u64, u64

BUCKET_BITS = (10, 16)
"""How many bits of its hash must be zero for a key to begin a bucket, by level."""

_PREFIX = b"d"
_KEY_PREFIX_SIZE = 2
_SPREAD = 0x9E3779B1
"""Makes the checksum's bits depend on each other: its own are linear, and ids counted up might miss all
boundaries."""


class RankChanges:
    """What a group of edits changes; gathered, since most documents of a group share buckets."""

    __slots__ = ("_differences",)

    def __init__(self) -> None:
        self._differences: dict[bytes, int] = {}

    def add(self, key: bytes, difference: int) -> None:
        """A document was created or brought back (1) or deleted (-1), or came into being as a deleted one
        (0). `key` is that of its record."""
        self._differences[key] = self._differences.get(key, 0) + difference

    def add_new(self, new_keys: Sequence[bytes]) -> None:
        """Documents were created, all different."""
        if self._differences.keys().isdisjoint(new_keys):
            self._differences.update(dict.fromkeys(new_keys, 1))
        else:
            for key in new_keys:
                self.add(key, 1)

    def write(self, batch: Batch) -> None:
        """Put the new counts into the batch, after the documents themselves."""
        places = sorted(self._differences)
        changes = [(place, self._differences[place]) for place in places]
        for level in range(len(BUCKET_BITS)):
            changes = _write_level(batch, level, changes)
        for level in range(len(BUCKET_BITS)):
            places = _boundaries_of(places, level)
            for place in places:
                _split(batch, level, place)
        self._differences.clear()


def _write_level(batch: Batch, level: int, changes: Sequence[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """Change the counts of the buckets that the places (ascending) lie in; what changed in which bucket."""
    changed = []
    at = 0
    while at < len(changes):
        boundary, count = _bucket_of(batch, level, changes[at][0])
        end = len(changes)
        if end - at > 1:
            after = _boundary_after(batch, level, changes[at][0])
            end = end if after is None else bisect_left(changes, (after,), at + 1)
        difference = sum([change for _place, change in changes[at:end]])
        if difference:
            batch.put(Space.RANKS, _key(level, boundary), u64(count + difference))
            changed.append((boundary, difference))
        at = end
    return changed


def _split(batch: Batch, level: int, place: bytes) -> None:
    """Let a bucket begin at `place`, unless one does."""
    if batch.get(Space.RANKS, _key(level, place)) is not None:
        return
    boundary, count = _bucket_of(batch, level, place)
    behind = _count_finer(batch, level, place, _boundary_after(batch, level, place))
    batch.put(Space.RANKS, _key(level, boundary), u64(count - behind))
    batch.put(Space.RANKS, _key(level, place), u64(behind))


def _count_finer(reader: Reader, level: int, start: bytes, stop: bytes | None) -> int:
    """The documents between two boundaries of a level (or to the end), by what is counted one level below."""
    if level == 0:
        return _count_documents(reader, start, stop)
    last = _key(level, b"") if stop is None else _key(level - 1, stop)
    return sum([from_u64(count) for _key, count in reader.scan(Space.RANKS, _key(level - 1, start), last)])


def _count_documents(reader: Reader, start: bytes, stop: bytes | None) -> int:
    return len([1 for _key, record in reader.scan(Space.DOCS, start, stop) if not record[0] & DELETED])


def _bucket_of(reader: Reader, level: int, place: bytes) -> tuple[bytes, int]:
    """Where the bucket that `place` lies in begins, and its count."""
    found = next(reader.scan(Space.RANKS, _key(level, b""), _key(level, place) + b"\0", reverse=True), None)
    return (b"", 0) if found is None else (found[0][_KEY_PREFIX_SIZE:], from_u64(found[1]))


def _boundary_after(reader: Reader, level: int, place: bytes) -> bytes | None:
    found = next(reader.scan(Space.RANKS, _key(level, place) + b"\0", _key(level + 1, b"")), None)
    return None if found is None else found[0][_KEY_PREFIX_SIZE:]


def _boundaries_of(places: Sequence[bytes], level: int) -> list[bytes]:
    """Those that begin a bucket of a level, by their hash."""
    below = 1 << 32 - BUCKET_BITS[level]
    chosen = [place for place in places if crc32(place) * _SPREAD & 0xFFFFFFFF < below]
    return [place for place in chosen if len(place) <= PLAIN_KEY_MAX_BYTES]


def rank(reader: Reader, place: bytes) -> int:
    """How many documents that are not deleted have a key less than `place`."""
    count = 0
    boundary = b""
    for level in reversed(range(len(BUCKET_BITS))):
        buckets = list(reader.scan(Space.RANKS, _key(level, boundary), _key(level, place) + b"\0"))
        if buckets:
            count += sum([from_u64(value) for _key, value in buckets[:-1]])
            boundary = buckets[-1][0][_KEY_PREFIX_SIZE:]
    return count + _count_documents(reader, boundary, place)


def find(reader: Reader, number: int) -> bytes | None:
    """The key of the document that comes after `number` others, deleted ones left out; None when there are
    not so many."""
    boundary = b""
    for level in reversed(range(len(BUCKET_BITS))):
        for key, value in reader.scan(Space.RANKS, _key(level, boundary), _key(level + 1, b"")):
            boundary = key[_KEY_PREFIX_SIZE:]
            count = from_u64(value)
            if number < count:
                break
            number -= count
        else:
            return None
    live = (key for key, record in reader.scan(Space.DOCS, boundary) if not record[0] & DELETED)
    return next(islice(live, number, None), None)


def _key(level: int, boundary: bytes) -> bytes:
    return _PREFIX + bytes((level,)) + boundary


def problems(reader: Reader) -> Iterator[str]:
    """What is wrong with the counts, by counting all documents."""
    for level in range(len(BUCKET_BITS)):
        buckets = [
            (key[_KEY_PREFIX_SIZE:], from_u64(value))
            for key, value in reader.scan(Space.RANKS, _key(level, b""), _key(level + 1, b""))
        ]
        end: bytes | None = None
        for boundary, count in reversed(buckets):
            counted = _count_documents(reader, boundary, end)
            if counted != count:
                yield f"the bucket at {boundary!r} of level {level} counts {count} documents of {counted}"
            end = boundary
        if end != b"" and _count_documents(reader, b"", end):
            yield f"not all documents are counted on level {level}"
