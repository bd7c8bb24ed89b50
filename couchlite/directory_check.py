"""A data directory gone through from the bottom: pages, records, counters, attachments, indexes, catalog.

Servers may have it open and write, only not this process: each store is looked at in one snapshot. What was
written since stays on the disk until that is through, so a check gives up on a store that grows too much
meanwhile.

A store is opened only after a walk over its pages, since LMDB may end the process over a damaged one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import check, records
from .blobs import BlobStore
from .catalog import CATALOG_DIRECTORY, Catalog
from .compression import BodyCodec
from .database import BLOBS_DIRECTORY, INDEX_DIRECTORY, STORE_DIRECTORY
from .engine import CatalogSpace, Keyspace, Space
from .errors import CouchliteError, DatabaseNotFound, DataDirectoryError
from .index import store as index_store
from .index.layout import IndexSpace
from .page_check import examine
from .records import State
from .repair import repair, repair_index
from .storage import LmdbEnvironment, data_file, names_of

GROWTH_MAX_BYTES = 256 << 20
GROWTH_MAX_SHARE = 0.5
"""A check gives up on a store that has grown by more than both while it was looked at."""

Progress = Callable[[str, int, int], None]
"""Called with what is gone through, how many records of it have been, and about how many there are."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. `where` is a database's name, followed by " index ..." for one of its indexes, or the
    directory of a store beside them. `is_repaired` if it is wrong no more."""

    where: str
    problem: str
    is_repaired: bool = False


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about it."""

    where: str
    done: str


class TooBusy(Exception):
    """A store grows too much meanwhile."""

    def __init__(self) -> None:
        super().__init__(
            "it is written to so much that it would grow too far during the check: check a backup"
        )


def check_directory(
    path: Path,
    names: Sequence[str] = (),
    *,
    others: Mapping[str, type[Keyspace]] | None = None,
    with_repair: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> Iterator[Finding | Repair]:
    """Check the databases named, or all of them; one finding for each thing that is wrong, and with
    `with_repair` what was made anew. `others` are
    stores beside the databases, by the names of their directories, with their keyspaces, all sealed.

    :raises DataDirectoryError: there is no catalog, or it is too damaged to be read.
    :raises DatabaseNotFound: one of the names.
    """
    catalog = data_file(path / CATALOG_DIRECTORY)
    if catalog is None:
        raise DataDirectoryError(f"{path} is no couchlite data directory")
    _check_catalog(path)
    opened = Catalog(path)
    try:
        listed = opened.names()
        unknown = [name for name in names if name not in listed]
        if unknown:
            raise DatabaseNotFound(f"there is no database {unknown[0]!r}")
        for name in names or listed:
            yield from _DatabaseCheck(opened, name, with_repair, progress).findings()
        for name, spaces in ({} if names else others or {}).items():
            yield from (Finding(name, problem) for problem in _sealed_store_problems(path / name, spaces))
    finally:
        opened.close()


def _damage_of(file: Path, spaces: type[Keyspace]) -> list[str]:
    """What is wrong with the pages of a file that is not open here; nothing of one that is being written to:
    it is walked once it is open."""
    try:
        report = examine(file, names_of(spaces))
    except OSError as error:
        return [f"{file} can't be read: {error.strerror}"]
    return report.problems if report.is_current else []


def _check_catalog(path: Path) -> None:
    """:raises DataDirectoryError:"""
    if found := _sealed_store_problems(path / CATALOG_DIRECTORY, CatalogSpace):
        raise DataDirectoryError(f"the catalog of {path} is damaged: {'; '.join(found)}")


def _sealed_store_problems(path: Path, spaces: type[Keyspace]) -> list[str]:
    file = data_file(path)
    if file is None:
        return []  # never used
    if damage := _damage_of(file, spaces):
        return damage
    engine = LmdbEnvironment(path, spaces)
    try:
        found = engine.page_problems()
        with engine.read() as reader:
            return found + [
                f"a record of {space.name.lower()} is damaged: {key!r}"
                for space in spaces
                for key in reader.damaged(space)
            ]
    finally:
        engine.close()


class _DatabaseCheck:
    def __init__(self, catalog: Catalog, name: str, with_repair: bool, progress: Progress) -> None:
        self._catalog = catalog
        self._name = name
        self._with_repair = with_repair
        self._progress = progress
        entry = catalog.find(name)
        self._is_partitioned = bool(entry.props.get("partitioned"))
        self._path = catalog.folders.path(entry.uuid)

    def findings(self) -> Iterator[Finding | Repair]:
        try:
            yield from self._store()
            for signature in _directories(self._path / INDEX_DIRECTORY):
                yield from self._index(signature)
        except (DatabaseNotFound, FileNotFoundError):
            if self._name in self._catalog.names():
                yield Finding(self._name, "its files are missing")
        except TooBusy as busy:
            yield Finding(self._name, str(busy))

    def _store(self) -> Iterator[Finding | Repair]:
        file = data_file(self._path / STORE_DIRECTORY)
        if file is None:
            yield Finding(self._name, "its store is missing")
            return
        damage = _damage_of(file, Space)
        if damage:
            yield from (Finding(self._name, f"pages are damaged: {problem}") for problem in damage)
            return
        try:
            engine = LmdbEnvironment(self._path / STORE_DIRECTORY, Space)
        except CouchliteError as error:
            yield Finding(self._name, error.reason)
            return
        try:
            found = [f"pages are damaged: {problem}" for problem in engine.page_problems()]
            if not found:
                found = self._records(engine)
                if found and self._with_repair:
                    yield from (
                        Repair(self._name, done)
                        for done in engine.write(partial(repair, partitioned=self._is_partitioned))
                    )
                    left = self._records(engine)
                    yield from (Finding(self._name, problem, problem not in left) for problem in found)
                    found = [problem for problem in left if problem not in found]
            yield from (Finding(self._name, problem) for problem in found)
        finally:
            engine.close()

    def _records(self, engine: LmdbEnvironment) -> list[str]:
        def dictionary(number: int) -> bytes | None:
            return reader.get(Space.META, records.dictionary_key(number))

        with engine.read() as reader:
            total = 0
            if not reader.damaged(Space.META):
                state = State.decode(reader.get(Space.META, records.STATE_KEY))
                total = 3 * (state.doc_count + state.deleted_count)
                total += state.blob_bytes // check.ATTACHMENT_BYTES_A_RECORD
            watch = _Watch(engine, self._name, total, self._progress)
            codec, blobs = BodyCodec(dictionary), BlobStore(self._path / BLOBS_DIRECTORY)
            return check.problems(
                reader,
                codec,
                blobs,
                partitioned=self._is_partitioned,
                deep=True,
                advance=watch.advance,
            )

    def _index(self, signature: str) -> Iterator[Finding | Repair]:
        path = self._path / INDEX_DIRECTORY / signature
        found = self._index_problems(path)
        if found:
            where = f"{self._name} index {signature}"
            if self._with_repair:
                yield Repair(where, repair_index(path))
            yield from (Finding(where, problem, self._with_repair) for problem in found)

    def _index_problems(self, path: Path) -> list[str]:
        file = data_file(path)
        if file is None:
            return []  # being made
        damage = _damage_of(file, IndexSpace)
        if damage:
            return damage
        engine = LmdbEnvironment(path, IndexSpace)
        try:
            found = engine.page_problems()
            with engine.read() as reader:
                rows = 0 if reader.damaged(IndexSpace.META) else index_store.state_of(reader).rows
                watch = _Watch(engine, f"{self._name} index {path.name[:8]}", rows, self._progress)
                return found + list(index_store.problems(reader, watch.advance))
        finally:
            engine.close()


class _Watch:
    """Shows progress, and looks at how the store grows."""

    def __init__(self, engine: LmdbEnvironment, what: str, total: int, progress: Progress) -> None:
        self._engine = engine
        self._size = engine.size_bytes()
        self._what = what
        self._total = total
        self._done = 0
        self._progress = progress

    def advance(self, count: int) -> None:
        """:raises TooBusy:"""
        self._done += count
        self._progress(self._what, min(self._done, self._total), self._total)
        grown = self._engine.size_bytes() - self._size
        if grown > max(GROWTH_MAX_BYTES, self._size * GROWTH_MAX_SHARE):
            raise TooBusy()


def _directories(path: Path) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []
