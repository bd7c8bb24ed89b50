"""How many changes come after an update sequence, without reading them.

A sequence index loses rows anywhere (each update moves its document to the end), so the distance of two
sequences tells nothing. Beside it, in RANKS, stand counts of its rows: by thousands of sequences and by
millions.

    key    b"s" + level as one byte + (sequence >> shift of the level) as u64
    value  number of rows, u64; there is no row for zero

A count reads at most 1,023 rows of the index, 1,023 counts of thousands, and a count for each million
sequences. What must stay true here: counts and index change in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .engine import Batch, Reader, Space
from .records import from_u64, u64

SHIFTS = (10, 20)
"""Bits of a sequence within a bucket, by level."""

_PREFIX = b"s"


class SeqCountChanges:
    """What a group of edits changes; gathered, since most rows of a group fall into the same bucket."""

    __slots__ = ("_differences",)

    def __init__(self) -> None:
        self._differences: dict[int, int] = {}

    def add(self, seq: int) -> None:
        """A row was added to the sequence index."""
        bucket = seq >> SHIFTS[0]
        self._differences[bucket] = self._differences.get(bucket, 0) + 1

    def add_range(self, first: int, last: int) -> None:
        """Rows were added, one for each sequence from `first` to `last`."""
        shift = SHIFTS[0]
        for bucket in range(first >> shift, (last >> shift) + 1):
            added = min(last, (bucket + 1 << shift) - 1) - max(first, bucket << shift) + 1
            self._differences[bucket] = self._differences.get(bucket, 0) + added

    def remove(self, seq: int) -> None:
        """A row was removed from the sequence index."""
        bucket = seq >> SHIFTS[0]
        self._differences[bucket] = self._differences.get(bucket, 0) - 1

    def write(self, batch: Batch) -> None:
        """Put the new counts into the batch that changes the index."""
        for level, sums in enumerate(self.by_level()):
            _write_level(batch, level, sums.items())
        self._differences.clear()

    def by_level(self) -> Iterator[dict[int, int]]:
        """For each level, the difference by bucket."""
        for shift in SHIFTS:
            sums: dict[int, int] = {}
            for bucket, difference in self._differences.items():
                coarser = bucket >> shift - SHIFTS[0]
                sums[coarser] = sums.get(coarser, 0) + difference
            yield sums


def _write_level(batch: Batch, level: int, differences: Iterable[tuple[int, int]]) -> None:
    for bucket, difference in differences:
        if not difference:
            continue
        key = _key(level, bucket)
        known = batch.get(Space.RANKS, key)
        count = difference + (from_u64(known) if known is not None else 0)
        if count:
            batch.put(Space.RANKS, key, u64(count))
        else:
            batch.delete(Space.RANKS, key)


def count_after(reader: Reader, since: int) -> int:
    """How many changes have a sequence greater than `since`."""
    start = since + 1 if since > 0 else 0
    bounds = [start]
    for shift in SHIFTS:  # the part of each level ends where the next, coarser one can go on
        bounds.append(-(-bounds[-1] >> shift) << shift)
    count = 0
    if bounds[1] > bounds[0]:
        count = sum(1 for _row in reader.scan(Space.SEQS, u64(bounds[0]), u64(bounds[1])))
    for level, shift in enumerate(SHIFTS):
        first = bounds[level + 1] >> shift
        last = bounds[level + 2] >> shift if level + 2 < len(bounds) else None
        stop = _key(level + 1, 0) if last is None else _key(level, last)
        for _bucket, rows in reader.scan(Space.RANKS, _key(level, first), stop):
            count += from_u64(rows)
    return count


def problems(reader: Reader) -> Iterator[str]:
    """What in the counts does not agree with the index; for a check of the whole database."""
    counted = SeqCountChanges()
    for key, _row in reader.scan(Space.SEQS):
        counted.add(from_u64(key))
    for level, sums in enumerate(counted.by_level()):
        stored = {
            from_u64(key[2:]): from_u64(rows)
            for key, rows in reader.scan(Space.RANKS, _key(level, 0), _key(level + 1, 0))
        }
        for bucket in stored.keys() | sums.keys():
            if stored.get(bucket, 0) != sums.get(bucket, 0):
                yield (
                    f"bucket {bucket} of sequences, level {level}: {sums.get(bucket, 0)} rows, "
                    f"counted as {stored.get(bucket, 0)}"
                )


def _key(level: int, bucket: int) -> bytes:
    return _PREFIX + bytes((level,)) + u64(bucket)
