"""Counts failed logins by user and address, for all processes of a server at once.

The counts live in a fixed table of shared memory, made before the worker processes are forked; nothing is
locked, since the worst that two writers of one slot can do is to lose a count. A count lives for a fixed time
from its first failure on, whatever happens meanwhile, and the table can't grow: a full neighbourhood gives up
its oldest count.
"""

from __future__ import annotations

import hashlib
import mmap
import secrets
import struct
import time

_SLOT = struct.Struct("<QII")  # who (keyed hash), seconds of the first failure, failures
_NEIGHBOURS = 8
"""Slots that one key may use; 8 of them together are one or two cache lines."""


class Failures:
    """:param slots: how many pairs of user and address are counted at most.
    :param lifetime_s: when a count is forgotten; may be set to something else at any time.
    """

    def __init__(self, slots: int = 10_000, lifetime_s: float = 300) -> None:
        self._slots = slots
        self.lifetime_s = lifetime_s
        self._table = mmap.mmap(-1, (slots + _NEIGHBOURS) * _SLOT.size)
        self._secret = secrets.token_bytes(16)

    def count(self, *who: str) -> int:
        """Failures of `who` so far."""
        found = self._find(self._hash(who), _now())
        return found[2] if found else 0

    def add(self, *who: str) -> None:
        hashed, now = self._hash(who), _now()
        if found := self._find(hashed, now):
            at, started, failures = found
            _SLOT.pack_into(self._table, at, hashed, started, failures + 1)
        else:
            _SLOT.pack_into(self._table, self._oldest(hashed), hashed, now, 1)

    def _find(self, hashed: int, now: int) -> tuple[int, int, int] | None:
        for at in self._places(hashed):
            other, started, failures = _SLOT.unpack_from(self._table, at)
            if other == hashed and now < started + self.lifetime_s:
                return at, started, failures
        return None

    def _oldest(self, hashed: int) -> int:
        return min(self._places(hashed), key=lambda at: _SLOT.unpack_from(self._table, at)[1])

    def _places(self, hashed: int) -> range:
        first = hashed % self._slots
        return range(first * _SLOT.size, (first + _NEIGHBOURS) * _SLOT.size, _SLOT.size)

    def _hash(self, who: tuple[str, ...]) -> int:
        digest = hashlib.blake2b("\0".join(who).encode(), key=self._secret, digest_size=8)
        return int.from_bytes(digest.digest(), "little") | 1


def _now() -> int:
    return int(time.monotonic()) + 1
