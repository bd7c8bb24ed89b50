"""A number that all processes of a data directory share, and that is another one after every change to what
each request asks about: which databases there are, the configuration, the users. While it stays, what was
read before still holds. Looking at it costs a tenth of a look into the store.

What must stay true here:
- It changes after the commit it tells of, and before whoever asked for that commit learns of its success.
- Who keeps what was read looks at the number first and reads then, so that a change in between is not missed.
- No change is lost to another one at the same moment: the new number is random, not the old one plus one.
- A process may die between a commit and the change: the server's poll makes up for it.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
from pathlib import Path

_NUMBER = struct.Struct("<Q")


class Beacon:
    """The number in the file `path`, which is made when it is missing."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size < _NUMBER.size:
                os.pwrite(descriptor, bytes(_NUMBER.size), 0)  # a hole could not be filled on a full disk
            self._memory = mmap.mmap(descriptor, _NUMBER.size)
        finally:
            os.close(descriptor)

    def number(self) -> int:
        number: int = _NUMBER.unpack_from(self._memory)[0]
        return number

    def change(self) -> None:
        """Tell all processes that what they keep is out of date."""
        _NUMBER.pack_into(self._memory, 0, secrets.randbits(64))

    def close(self) -> None:
        self._memory.close()
