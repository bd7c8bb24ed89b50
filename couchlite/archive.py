"""A backup's file: a tar of plain files, so that any tar can look into it, written and read in one pass.

    couchlite-backup.json              format, what is in it (see backup.py)
    ...                                in the order in which they were added
    .../blobs/<64 hex digits>          whose name is the SHA-256 of what it holds
    checksums.json                     the last: the SHA-256 of every other member that is no blob, and how
                                       many blobs there are

What must stay true here: nothing is held in memory but the checksums; a file without its last member, or with
a byte changed in any of them, is refused.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from . import jsontext
from .errors import BadRequest

MANIFEST = "couchlite-backup.json"
CHECKSUMS = "checksums.json"
CHUNK_BYTES = 256 * 1024
_BLOCK = tarfile.BLOCKSIZE
_BLOBS = "/blobs/"


class DamagedBackup(BadRequest):
    """A file is no backup, or not what was written."""

    error = "damaged_backup"


class ArchiveWriter:
    """Writes to `file`, which can seek."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sums: dict[str, str] = {}
        self._blobs = 0

    def add(self, name: str, chunks: Iterable[bytes]) -> int:
        """Add a member; how many bytes it has. When `chunks` fail, it is as if it had never been begun."""
        start = self._file.tell()
        try:
            self._file.write(bytes(_BLOCK))
            found = hashlib.sha256(usedforsecurity=False)
            size = 0
            for chunk in chunks:
                self._file.write(chunk)
                found.update(chunk)
                size += len(chunk)
            self._file.write(bytes(-size % _BLOCK))
            end = self._file.tell()
            self._file.seek(start)
            self._file.write(_header(name, size))
            self._file.seek(end)
        except BaseException:
            self._file.seek(start)
            self._file.truncate()
            raise
        if _BLOBS in name:
            self._blobs += 1
        else:
            self._sums[name] = found.hexdigest()
        return size

    def add_json(self, name: str, value: Any) -> None:
        self.add(name, [jsontext.dumps(value)])

    def finish(self) -> None:
        """Add what makes the file whole."""
        self.add_json(CHECKSUMS, {"sha256": self._sums, "blobs": self._blobs})
        self._file.write(bytes(2 * _BLOCK))


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o600
    return member.tobuf(tarfile.GNU_FORMAT)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a backup: `size` bytes at `offset`."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.offset + self.size + -self.size % _BLOCK


class ArchiveReader:
    """Reads from `file`, which can seek."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def members(self, start: int = 0, stop: int | None = None) -> Iterator[Member]:
        """Those that begin at offsets from `start` on. :raises DamagedBackup:"""
        while stop is None or start < stop:
            self._file.seek(start)
            block = self._file.read(_BLOCK)
            if block == bytes(_BLOCK):
                return
            try:
                found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise DamagedBackup(f"it is damaged, or no backup: {error} at byte {start}") from error
            if found.size < 0 or not found.isreg():
                raise DamagedBackup(f"it is no backup: what begins at byte {start} is no plain file")
            member = Member(found.name, start + _BLOCK, found.size)
            yield member
            start = member.end

    def chunks(self, member: Member) -> Iterator[bytes]:
        """What a member holds. :raises DamagedBackup: the file ends before."""
        at = member.offset
        while at < member.offset + member.size:
            self._file.seek(at)
            chunk = self._file.read(min(CHUNK_BYTES, member.offset + member.size - at))
            if not chunk:
                raise DamagedBackup(f"it ends in the middle of {member.name}")
            at += len(chunk)
            yield chunk

    def json(self, member: Member) -> Any:
        """:raises DamagedBackup: it is no JSON."""
        try:
            return jsontext.loads(b"".join(self.chunks(member)))
        except BadRequest as error:
            raise DamagedBackup(f"{member.name} is damaged") from error

    def verify(self, advance: Callable[[int], None]) -> list[Member]:
        """Read everything; the members that are no blobs. `advance` is told how many bytes more have been
        read.

        :raises DamagedBackup:
        """
        found: list[Member] = []
        sums: dict[str, str] = {}
        blobs = 0
        for member in self.members():
            if found and found[-1].name == CHECKSUMS:
                raise DamagedBackup("something follows its end")
            digest = hashlib.sha256(usedforsecurity=False)
            for chunk in self.chunks(member):
                digest.update(chunk)
                advance(len(chunk))
            if _BLOBS in member.name:
                blobs += 1
                if digest.hexdigest() != member.name.rpartition("/")[2]:
                    raise DamagedBackup(f"{member.name} is damaged")
            else:
                found.append(member)
                sums[member.name] = digest.hexdigest()
        if not found or found[0].name != MANIFEST or found[-1].name != CHECKSUMS:
            raise DamagedBackup("it is not whole: its end is missing")
        del sums[CHECKSUMS]
        expected = self.json(found[-1])
        if expected != {"sha256": sums, "blobs": blobs}:
            listed = expected.get("sha256") if isinstance(expected, dict) else None
            known = listed if isinstance(listed, dict) else sums
            wrong = [name for name, sum_ in sums.items() if known.get(name) != sum_]
            raise DamagedBackup(f"{', '.join(wrong) or 'its list of contents'} is damaged")
        return found
