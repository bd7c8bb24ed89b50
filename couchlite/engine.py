"""The ordered key-value protocol that everything above storage is written against.

LMDB (`storage/`) implements it today; a distributed engine is meant to be next. So nothing above this seam
may assume a memory map, a local path, or that many small reads are as cheap as one range scan.

Rules: a reader is a snapshot and is closed before anything is awaited; a batch is applied wholly or not at
all, and when `Engine.write` has returned, what it wrote survives a power cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import Protocol, TypeVar

T = TypeVar("T")


class Keyspace(IntEnum):
    """Base of the keyspaces of each kind of store."""

    @property
    def is_sealed(self) -> bool:
        """Whether the engine puts a checksum of key and value behind each value, and verifies it whenever the
        value is read (seal.py). For what is neither read in bulk, nor sealed by whoever writes it, nor told
        by something else."""
        raise NotImplementedError


class Space(Keyspace):
    """The keyspaces of a database; `records.py` draws what they hold."""

    META = 0
    DOCS = 1
    SEQS = 2
    BODIES = 3
    LOCAL = 4
    ATTACHMENTS = 5
    CONFLICTS = 6
    PURGES = 7
    RANKS = 8
    RESOLUTIONS = 9

    @property
    def is_sealed(self) -> bool:
        return self in (Space.META, Space.LOCAL, Space.CONFLICTS, Space.PURGES, Space.RESOLUTIONS)


class CatalogSpace(Keyspace):
    """The keyspaces of a data directory's catalog."""

    META = 0
    DATABASES = 1
    SETTINGS = 2
    UPDATES = 3

    @property
    def is_sealed(self) -> bool:
        return True


class MustGrow(BaseException):
    """Passes through the function given to `Engine.write`, which then starts again with more room; never
    caught."""


class Reader(Protocol):
    """One consistent snapshot."""

    def get(self, space: Keyspace, key: bytes) -> bytes | None: ...

    def get_many(self, space: Keyspace, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values of keys in their order, None for each that is missing; better than `get` in a loop."""
        ...

    def scan(
        self, space: Keyspace, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with `start <= key < stop` in key order; reversed, from just below `stop` down to `start`."""
        ...

    def damaged(self, space: Keyspace) -> list[bytes]:
        """The keys of a sealed space whose values are not what was written: reading one raises InternalError,
        and so does a scan over it."""
        ...


class Batch(Reader, Protocol):
    """A snapshot that also sees and collects its own writes."""

    writes: int
    """How many writes it has collected."""

    def put(self, space: Keyspace, key: bytes, value: bytes) -> None: ...

    def append(self, space: Keyspace, key: bytes, value: bytes) -> None:
        """Put a key greater than every key of the space: the cheap way to write a log."""
        ...

    def put_all(self, space: Keyspace, pairs: Sequence[tuple[bytes, bytes]], *, append: bool = False) -> None:
        """`put` each pair, or `append` each: they ascend then."""
        ...

    def delete(self, space: Keyspace, key: bytes) -> bool: ...


class Engine(Protocol):
    """One atomic, durable collection of keyspaces."""

    def read(self) -> AbstractContextManager[Reader]: ...

    def write(self, function: Callable[[Batch], T]) -> T:
        """Run `function` in a batch and commit it durably. It may be run again from the start (when the
        store had to grow), so it must have no effect but on the batch. When it raises, nothing is written."""
        ...

    def size_bytes(self) -> int:
        """What the keyspaces take on disk."""
        ...

    def reclaim(self) -> int:
        """Give unused space back to the file system where that is worth the work; how many bytes. Writers of
        all processes wait meanwhile, readers do not."""
        ...

    def close(self) -> None: ...
