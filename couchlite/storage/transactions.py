"""LMDB's transactions as the engine's Reader and Batch: keyspaces, seals, scans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from ..engine import Keyspace
from ..errors import InternalError
from ..seal import SEAL_BYTES, is_whole, seal
from .failures import write_error

SCAN_CHUNK_PAIRS_MAX = 256
"""A scan to a given end reads so far ahead at most."""


class OpenSpaces(NamedTuple):
    """The keyspaces of an open environment."""

    path: Path
    handles: list[Any]
    """LMDB's, one for each keyspace."""
    is_sealed: list[bool]


class _Transaction:
    """What can be read in a transaction of either kind."""

    __slots__ = ("_path", "_sealed", "_spaces", "_txn")

    def __init__(self, opened: OpenSpaces, txn: lmdb.Transaction) -> None:
        self._path, self._spaces, self._sealed = opened
        self._txn = txn

    def get(self, space: Keyspace, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=self._spaces[space])  # type: ignore[assignment] # no buffers
        return self._unsealed(key, value) if self._sealed[space] and value is not None else value

    def get_many(self, space: Keyspace, keys: Iterable[bytes]) -> list[bytes | None]:
        if self._sealed[space]:
            return [self.get(space, key) for key in keys]
        get, db = self._txn.get, self._spaces[space]
        return [get(key, None, db) for key in keys]  # type: ignore[misc] # no buffers

    def scan(
        self, space: Keyspace, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        pairs = _scan(self._txn.cursor(db=self._spaces[space]), start, stop, reverse)
        return ((key, self._unsealed(key, value)) for key, value in pairs) if self._sealed[space] else pairs

    def damaged(self, space: Keyspace) -> list[bytes]:
        pairs = _scan(self._txn.cursor(db=self._spaces[space]), b"", None, False)
        return [key for key, value in pairs if not is_whole(value, key)]

    def _unsealed(self, key: bytes, value: bytes) -> bytes:
        if not is_whole(value, key):
            raise InternalError(f"{self._path} is damaged: a record does not fit its checksum")
        return value[:-SEAL_BYTES]


class LmdbReader(_Transaction):
    """A read transaction; also the context manager that ends it, and says so to `leave`."""

    __slots__ = ("_leave",)

    def __init__(self, opened: OpenSpaces, txn: lmdb.Transaction, leave: Callable[[], None]) -> None:
        super().__init__(opened, txn)
        self._leave = leave

    def __enter__(self) -> LmdbReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._txn.abort()
        self._leave()


class LmdbBatch(_Transaction):
    """A write transaction."""

    __slots__ = ("writes",)

    def __init__(self, opened: OpenSpaces, txn: lmdb.Transaction) -> None:
        super().__init__(opened, txn)
        self.writes = 0

    def put(self, space: Keyspace, key: bytes, value: bytes) -> None:
        self.writes += 1
        try:
            self._txn.put(key, self._to_store(space, key, value), db=self._spaces[space])
        except lmdb.Error as error:
            raise write_error(self._path, error) from error

    def append(self, space: Keyspace, key: bytes, value: bytes) -> None:
        self.writes += 1
        try:
            self._txn.put(key, self._to_store(space, key, value), append=True, db=self._spaces[space])
        except lmdb.Error as error:
            raise write_error(self._path, error) from error

    def put_all(self, space: Keyspace, pairs: Sequence[tuple[bytes, bytes]], *, append: bool = False) -> None:
        self.writes += len(pairs)
        if self._sealed[space]:
            pairs = [(key, seal(value, key)) for key, value in pairs]
        try:
            self._txn.cursor(db=self._spaces[space]).putmulti(pairs, append=append)
        except lmdb.Error as error:
            raise write_error(self._path, error) from error

    def _to_store(self, space: Keyspace, key: bytes, value: bytes) -> bytes:
        return seal(value, key) if self._sealed[space] else value

    def delete(self, space: Keyspace, key: bytes) -> bool:
        self.writes += 1
        try:
            return bool(self._txn.delete(key, db=self._spaces[space]))
        except lmdb.Error as error:
            raise write_error(self._path, error) from error


def _scan(
    cursor: lmdb.Cursor, start: bytes, stop: bytes | None, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    pairs: Iterator[tuple[bytes, bytes]]
    if reverse:
        found = cursor.prev() if stop is not None and cursor.set_range(stop) else cursor.last()
        if not found:
            return iter(())
        pairs = cursor.iterprev(keys=True, values=True)  # type: ignore[assignment] # no buffers
        return pairs if not start else _until(pairs, lambda key: key < start)
    if start:
        if not cursor.set_range(start):
            return iter(())
    elif not cursor.first():
        return iter(())
    pairs = cursor.iternext(keys=True, values=True)  # type: ignore[assignment] # no buffers
    return pairs if stop is None else _until(pairs, lambda key: key >= stop)


def _until(
    pairs: Iterator[tuple[bytes, bytes]], ended: Callable[[bytes], bool]
) -> Iterator[tuple[bytes, bytes]]:
    return chain.from_iterable(_chunks_until(pairs, ended))


def _chunks_until(
    pairs: Iterator[tuple[bytes, bytes]], ended: Callable[[bytes], bool]
) -> Iterator[Iterable[tuple[bytes, bytes]]]:
    """Pairs before the end in growing chunks: a long scan makes no Python call for each, and a short one
    reads hardly ahead."""
    size = 1
    while chunk := list(islice(pairs, size)):
        if ended(chunk[-1][0]):
            yield takewhile(lambda pair: not ended(pair[0]), chunk)
            return
        yield chunk
        size = min(2 * size, SCAN_CHUNK_PAIRS_MAX)
