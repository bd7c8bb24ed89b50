"""Attachment bodies of one database, addressed by the SHA-256 of the bytes stored.

    keyspace ATTACHMENTS   key -> b"\\0" + the bytes        up to INLINE_LIMIT_BYTES
                           key -> b"\\1" + length as u64    the bytes are the file blobs/<aa>/<62 hex digits>
    blobs/tmp/             uploads on their way in, see spool.py

A row says nothing of encoding or type: those belong to the document's attachment, and two documents may hold
the same bytes under different ones. CouchDB's digest, MD5, is never the address: collisions can be made.

What must stay true here:
- A file reaches its final name, synced, before the transaction that refers to it commits; it is removed only
  after the commit that dropped its row, and under the write lock, while nobody can be adopting it.
- Reading gives the right bytes or an error: the length is checked on opening, and the digest when a process
  first reads a file from end to end; the last piece comes only if it is right.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from io import FileIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from .disk import storage_failure, sync_directory
from .engine import Batch, Reader, Space
from .errors import InternalError
from .spool import Spool
from .upload import Encoding, GzipPolicy, StagedBlob, Upload

CHUNK_BYTES = 256 * 1024
"""What a reader is given at a time: long enough for few system calls, short enough for many slow readers."""
SOUND_MAX = 100_000
"""Of so many files a process remembers that they are as they should be: hashing each time would take as long
as reading."""

_INLINE = b"\0"
_FILE = b"\1"


class BlobStore:
    """The attachment bodies of one database, at `directory`. Any number of processes may use it.

    `policy` says what is gzip-encoded, and `check_room` raises when nothing may be added; they are asked for
    each upload.
    """

    def __init__(
        self,
        directory: Path,
        policy: Callable[[], GzipPolicy] = GzipPolicy,
        *,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory = directory
        self._check_room = check_room
        self._policy = policy
        self._spool = Spool(directory / "tmp")
        self._sound: set[bytes] = set()

    def stage(self, content_type: str, encoding: Encoding | None = None) -> Upload:
        """Begin to receive a body; with an `encoding` it already has that one and is kept as it is.

        :raises InsufficientStorage: the disk is nearly full.
        """
        self._check_room()
        policy = self._policy()
        compress = encoding is None and policy.covers(content_type)
        return Upload(self._spool, encoding=encoding, gzip_level=policy.level if compress else None)

    def stage_bytes(self, data: bytes, content_type: str, encoding: Encoding | None = None) -> StagedBlob:
        """Stage a body that is in memory already."""
        with self.stage(content_type, encoding) as upload:
            upload.write(data)
            return upload.finish()

    def adopt(self, batch: Batch, staged: StagedBlob) -> int:
        """Make a staged body part of the database, in the transaction that refers to it; how many bytes of
        new files that takes.

        Call it before the edit's other writes: it may fail. It may be called again when the transaction is
        run again. The file of a body that is there already is replaced all the same: should it have been
        damaged, it is healed.
        """
        is_new = batch.get(Space.ATTACHMENTS, staged.key) is None
        if staged.data is None:
            self._place(staged)
        if not is_new:
            return 0
        if staged.data is not None:
            batch.put(Space.ATTACHMENTS, staged.key, _INLINE + staged.data)
            return 0
        batch.put(Space.ATTACHMENTS, staged.key, _FILE + staged.length.to_bytes(8, "big"))
        return staged.length

    def open(self, reader: Reader, key: bytes) -> BlobSource:
        """A body to read; it stays readable after `reader` is closed, even when it is swept away then.

        :raises InternalError: it is missing, or its file does not have its length.
        """
        row = reader.get(Space.ATTACHMENTS, key)
        if row is None:
            raise InternalError(f"attachment body {key.hex()} is missing")
        if row[:1] == _INLINE:
            return BlobSource(key, len(row) - 1, data=row[1:])
        return self._open_file(key, int.from_bytes(row[1:], "big"))

    def sweep(self, batch: Batch, live_keys: Container[bytes]) -> int:
        """Drop the rows that are not live; how many bytes of files that frees, once `remove_orphans` has run
        after the commit.
        """
        dead = [(key, row) for key, row in batch.scan(Space.ATTACHMENTS) if key not in live_keys]
        for key, _ in dead:
            batch.delete(Space.ATTACHMENTS, key)
        return sum(int.from_bytes(row[1:], "big") for _, row in dead if row[:1] == _FILE)

    def orphans(self, reader: Reader) -> Iterator[bytes]:
        """Keys of the files without a row: those of dropped rows, or of a crash just before a commit."""
        for path in self.directory.glob("[0-9a-f][0-9a-f]/" + "[0-9a-f]" * 62):
            key = bytes.fromhex(path.parent.name + path.name)
            if reader.get(Space.ATTACHMENTS, key) is None:
                yield key

    def remove_orphans(self, batch: Batch, keys: Iterable[bytes]) -> None:
        """Remove files that `orphans` found, unless they were adopted since.

        It is done in a batch only for the write lock, under which nobody else can be adopting.
        """
        for key in keys:
            if batch.get(Space.ATTACHMENTS, key) is None:
                self._path(key).unlink(missing_ok=True)

    def remove_dead_uploads(self) -> None:
        """Remove what killed processes left half uploaded."""
        self._spool.sweep()

    def page_of_files(self, reader: Reader, after: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
        """Addresses of bodies that are files, among the next `limit` addresses; and the last of these, None
        when there are no more."""
        rows = list(islice(reader.scan(Space.ATTACHMENTS, after + b"\0" if after else b""), limit))
        files = [key for key, row in rows if row[:1] == _FILE]
        return files, rows[-1][0] if len(rows) == limit else None

    def _path(self, key: bytes) -> Path:
        return blob_path(self.directory, key)

    def _place(self, staged: StagedBlob) -> None:
        assert staged.path is not None
        target = self._path(staged.key)
        try:
            _make_directory(target.parent)
            if staged.path.exists():
                os.replace(staged.path, target)
            elif not target.exists():
                # Discarded, or swept away between two runs of the transaction.
                raise InternalError("the uploaded attachment is gone")
            sync_directory(target.parent)
        except OSError as error:
            raise storage_failure(error) from error

    def _open_file(self, key: bytes, length: int) -> BlobSource:
        try:
            file = FileIO(self._path(key), "rb")
        except OSError as error:
            raise InternalError(f"attachment body {key.hex()} can't be read: {error.strerror}") from error
        found = os.fstat(file.fileno()).st_size
        if found != length:
            file.close()
            raise InternalError(f"attachment body {key.hex()} is damaged: {found} of {length} bytes")
        if len(self._sound) >= SOUND_MAX:
            self._sound.clear()
        return BlobSource(key, length, file=file, sound=self._sound)


class BlobSource:
    """One stored body, open for reading: `data` in memory, or a file at `fileno()`. A context manager."""

    def __init__(
        self,
        key: bytes,
        length: int,
        *,
        data: bytes | None = None,
        file: FileIO | None = None,
        sound: set[bytes] | None = None,
    ) -> None:
        """:param sound: keys of the files known to hold what they should; a file found sound is added."""
        self._sound = sound
        self.key = key
        self.length = length
        self.data = data
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def file(self) -> FileIO | None:
        """The open file, for sendfile; None when the body is in memory."""
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from `start`, to the end or `length` of them, which must exist."""
        return b"".join(self.chunks(start, length))

    def chunks(
        self, start: int = 0, length: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[bytes]:
        """The same, piece by piece.

        :raises InternalError: the file became shorter or holds something else, or the disk can't be read.
        """
        stop = self.length if length is None else start + length
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"bytes {start} to {stop} of {self.length}")
        is_whole = start == 0 and stop == self.length
        check = self._sound is not None and self.key not in self._sound and is_whole
        found = hashlib.sha256(usedforsecurity=False)
        while start < stop:
            chunk = self._read_at(start, min(chunk_bytes, stop - start))
            start += len(chunk)
            if check:
                found.update(chunk)
                if start == stop:
                    self._judge(found.digest())
            yield chunk

    def gunzipped(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The decoded bytes of a gzip-encoded body, in pieces of at most `chunk_bytes` however well it was
        compressed.

        :raises InternalError: it is no gzip stream, or one that ends too early.
        """
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            for chunk in self.chunks():
                pending = chunk
                while pending and not inflate.eof:
                    decoded = inflate.decompress(pending, chunk_bytes)
                    pending = inflate.unconsumed_tail
                    if decoded:
                        yield decoded
        except zlib.error as error:
            raise InternalError(f"attachment body {self.key.hex()} is not valid gzip") from error
        rest = inflate.flush()
        if rest:
            yield rest
        if not inflate.eof:
            raise InternalError(f"attachment body {self.key.hex()} is not valid gzip")

    def _judge(self, found: bytes) -> None:
        assert self._sound is not None
        if found != self.key:
            raise InternalError(f"attachment body {self.key.hex()} is damaged: it holds something else")
        self._sound.add(self.key)

    def _read_at(self, start: int, length: int) -> bytes:
        if self._file is None:
            assert self.data is not None
            return self.data[start : start + length]
        try:
            self._file.seek(start)
            chunk = self._file.read(length)
        except OSError as error:
            raise InternalError(
                f"attachment body {self.key.hex()} can't be read: {error.strerror}"
            ) from error
        if not chunk:
            raise InternalError(f"attachment body {self.key.hex()} is damaged: it ends at {start}")
        return chunk


def blob_path(directory: Path, key: bytes) -> Path:
    """Where the file of a body lies."""
    name = key.hex()
    return directory / name[:2] / name[2:]


def file_bytes(reader: Reader) -> int:
    """What attachment bodies take in files of their own."""
    rows = reader.scan(Space.ATTACHMENTS)
    return sum(int.from_bytes(row[1:], "big") for _key, row in rows if row[:1] == _FILE)


def _make_directory(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)
