"""An attachment body on its way in: hashed, perhaps compressed, and spooled to disk while it arrives.

    write(chunk) ... -> block of 1 MiB -> two jobs in threads, while the next block gathers:
        md5 of what came  |  gzip (compressible types) -> md5 and sha256 of what is stored -> file

What must stay true here:
- Memory is two blocks an upload, however long the body is; a small body never touches the disk or a thread.
- What is gzip-encoded is so byte for byte as CouchDB does it, since a revision's hash covers its MD5.
- When `finish` has returned, a spooled body is on disk (fsync); when an upload fails, its file is gone.
- The jobs of one block end before those of the next begin, so the hash states need no locks.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from .disk import storage_failure
from .errors import InternalError
from .spool import Spool

Encoding = Literal["gzip"]

INLINE_LIMIT_BYTES = 16 * 1024
"""Bodies up to here live in the database file: copying four pages at commit is far cheaper than creating,
syncing and renaming a file (two more fsyncs); longer ones would bloat the pages that compaction copies."""
BLOCK_BYTES = 1024 * 1024
"""What one job hashes and writes: about 2 ms of work, against which the hand-over to a thread is nothing."""
SYNC_EVERY_BYTES = 64 * 1024 * 1024
"""Written back at this pace, so that the last fsync of a 5 GB body does not hold up others' commits."""
HASHING_THREADS = 4
"""Two jobs an upload; more threads than cores only help while some of them wait for the disk."""

GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
"""No name, no time, made on Unix: what zlib writes there. Pinned, for elsewhere it names another system."""
_GZIP_LEVEL_AT = 8
"""The byte of the header that tells the fastest and the best level from the others."""
GZIP_WINDOW_BITS = 16 + 15
GZIP_MEMORY_LEVEL = 8


@dataclass(frozen=True)
class GzipPolicy:
    """Which attachments are stored gzip-encoded: CouchDB's [attachments] section, with its defaults."""

    level: int = 8
    types: str = "text/*, application/javascript, application/json, application/xml"

    def covers(self, content_type: str) -> bool:
        return 1 <= self.level <= 9 and _type_pattern(self.types).match(content_type) is not None


@lru_cache(maxsize=16)
def _type_pattern(types: str) -> re.Pattern[str]:
    names = [re.escape(name.strip()).replace(r"\*", ".*") for name in types.split(",") if name.strip()]
    return re.compile(rf"\s*(?:{'|'.join(names) or '(?!)'})(?:\s*;.*)?\s*\Z", re.IGNORECASE | re.DOTALL)


@dataclass(eq=False)
class StagedBlob:
    """A complete body that no document refers to yet: either `data`, or a file at `path`.

    `md5` and `key` (SHA-256, the content address) are of the `length` stored bytes, `received_md5` of the
    bytes as they came, before our own gzip. Of a body that came gzip-encoded the identity length is unknown
    and taken to be the stored one, as CouchDB does. Whoever staged it calls `discard` when the edit is over,
    adopted or not.
    """

    key: bytes
    md5: bytes
    received_md5: bytes
    length: int
    identity_length: int
    encoding: Encoding | None
    data: bytes | None = None
    path: Path | None = None
    spool: Spool | None = None
    """Where `path` is; as long as it is referred to, nobody sweeps it."""

    def discard(self) -> None:
        """Remove the file, unless the store has adopted it. May be called again."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Upload:
    """One body being received. A context manager: leaving it before `finish` throws the body away.

    `write` and `finish` block while the disk or the hashing is behind; their `_async` forms wait without
    holding the event loop. Use one family for one upload.

    :raises InsufficientStorage: the disk is full; nothing is left behind.
    """

    def __init__(self, spool: Spool, *, encoding: Encoding | None, gzip_level: int | None) -> None:
        self._spool = spool
        self._compressor = None if gzip_level is None else _GzipStream(gzip_level)
        self._encoding: Encoding | None = encoding if gzip_level is None else "gzip"
        self._received_md5 = hashlib.md5(usedforsecurity=False)
        self._stored_md5 = self._received_md5 if gzip_level is None else hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256(usedforsecurity=False)
        self._gathering: list[bytes] = []
        self._gathered = 0
        self._jobs: list[Future[None]] = []
        self._received = 0
        self._stored = 0
        self._synced = 0
        self._inline: list[bytes] = []
        self._file: FileIO | None = None
        self._path: Path | None = None
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._jobs or self._path is not None:
            await asyncio.shield(asyncio.wrap_future(_threads().submit(self.abort)))
        else:
            self.abort()

    @property
    def received(self) -> int:
        """How many bytes were written so far."""
        return self._received

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        if self._gather(chunk):
            self._wait()
            self._start()

    async def write_async(self, chunk: bytes | bytearray | memoryview) -> None:
        if self._gather(chunk):
            await self._wait_async()
            self._start()

    def finish(self) -> StagedBlob:
        """The body is complete: a spooled one is synced to disk."""
        self._wait()
        try:
            self._absorb_rest()
        except BaseException as error:
            self.abort()
            raise _told(error) from error
        return self._staged()

    async def finish_async(self) -> StagedBlob:
        await self._wait_async()
        if self._received <= INLINE_LIMIT_BYTES:
            return self.finish()
        self._jobs = [_threads().submit(self._absorb_rest)]
        await self._wait_async()
        return self._staged()

    def abort(self) -> None:
        """Throw away what was received. Does nothing after `finish`."""
        if self._over:
            return
        self._over = True
        for job in self._jobs:
            job.exception()
        self._inline.clear()
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    # In the caller's thread: gather chunks, hand over blocks.

    def _gather(self, chunk: bytes | bytearray | memoryview) -> bool:
        """Whether a block is full."""
        if self._over:
            raise InternalError("the upload is over")
        self._gathering.append(chunk if isinstance(chunk, bytes) else bytes(chunk))
        self._gathered += len(self._gathering[-1])
        self._received += len(self._gathering[-1])
        return self._gathered >= BLOCK_BYTES

    def _take_block(self) -> bytes:
        block = self._gathering[0] if len(self._gathering) == 1 else b"".join(self._gathering)
        self._gathering = []
        self._gathered = 0
        return block

    def _start(self) -> None:
        block = self._take_block()
        self._jobs = [
            _threads().submit(self._received_md5.update, block),
            _threads().submit(self._absorb, block),
        ]

    def _wait(self) -> None:
        try:
            for job in self._jobs:
                job.result()
        except BaseException as error:
            self.abort()
            raise _told(error) from error
        self._jobs = []

    async def _wait_async(self) -> None:
        try:
            for job in self._jobs:
                await asyncio.shield(asyncio.wrap_future(job))
        except OSError as error:
            self.abort()
            raise _told(error) from error
        self._jobs = []

    def _staged(self) -> StagedBlob:
        self._over = True
        path, self._path = self._path, None
        return StagedBlob(
            key=self._sha256.digest(),
            md5=self._stored_md5.digest(),
            received_md5=self._received_md5.digest(),
            length=self._stored,
            identity_length=self._received,
            encoding=self._encoding,
            data=b"".join(self._inline) if path is None else None,
            path=path,
            spool=self._spool,
        )

    # In a thread, one at a time: encode, hash, store.

    def _absorb(self, block: bytes) -> None:
        if self._compressor is not None:
            block = self._compressor.encode(block)
        self._store(block)

    def _absorb_rest(self) -> None:
        block = self._take_block()
        self._received_md5.update(block)
        self._absorb(block)
        if self._compressor is not None:
            self._store(self._compressor.finish())
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()

    def _store(self, data: bytes) -> None:
        self._sha256.update(data)
        if self._compressor is not None:
            self._stored_md5.update(data)
        self._stored += len(data)
        if self._file is None and self._stored <= INLINE_LIMIT_BYTES:
            self._inline.append(data)
            return
        if self._file is None:
            self._path, self._file = self._spool.new_file()
            _write_all(self._file, b"".join(self._inline))
            self._inline.clear()
        _write_all(self._file, data)
        if self._stored - self._synced >= SYNC_EVERY_BYTES:
            os.fsync(self._file.fileno())
            self._synced = self._stored


class _GzipStream:
    """gzip at a level, the way couch_stream calls zlib."""

    def __init__(self, level: int) -> None:
        self._deflate = zlib.compressobj(
            level, zlib.DEFLATED, GZIP_WINDOW_BITS, GZIP_MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY
        )
        self._begun = False

    def encode(self, data: bytes) -> bytes:
        return self._with_header(self._deflate.compress(data))

    def finish(self) -> bytes:
        return self._with_header(self._deflate.flush())

    def _with_header(self, encoded: bytes) -> bytes:
        if self._begun or not encoded:
            return encoded
        self._begun = True
        level_mark = encoded[_GZIP_LEVEL_AT : _GZIP_LEVEL_AT + 1]
        return GZIP_HEADER[:_GZIP_LEVEL_AT] + level_mark + GZIP_HEADER[-1:] + encoded[len(GZIP_HEADER) :]


def _told(error: BaseException) -> BaseException:
    return storage_failure(error) if isinstance(error, OSError) else error


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="couchlite-upload")


if hasattr(os, "register_at_fork"):
    # A forked child has none of its parent's threads: it starts its own.
    os.register_at_fork(after_in_child=_threads.cache_clear)
