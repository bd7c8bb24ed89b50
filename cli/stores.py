"""What `couchlite db` and `couchlite doc` work on: the databases of a data directory, or those of a server.

A data directory may be in use by a server at the same time; each sees at once what the other does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from couchlite import users
from couchlite.catalog import CATALOG_DIRECTORY
from couchlite.document import parse, render
from couchlite.errors import DataDirectoryError, NotFound
from couchlite.jsontext import loads
from couchlite.reads import MissingRev, revs_info
from couchlite.revision import Rev
from couchlite.security import SYSTEM
from couchlite.server import Server


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    name: str
    documents: int
    deleted_documents: int
    update_seq: str
    file_bytes: int
    active_bytes: int
    external_bytes: int
    compacting: bool


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A revision of a document. `leaf` is "winner", "conflict" or "deleted" for the last of a branch, else
    None; `status` says whether its body is still here."""

    rev: str
    status: str
    leaf: str | None
    parent: str | None


class Store(Protocol):
    """All methods raise NotFound for a database or document that doesn't exist."""

    def names(self) -> list[str]: ...

    def create(self, name: str) -> None:
        """:raises DatabaseExists: :raises IllegalDatabaseName:"""
        ...

    def delete(self, name: str) -> None: ...

    def facts(self, name: str) -> DatabaseFacts: ...

    def compact(self, name: str) -> None:
        """Returns when it is done."""
        ...

    def get(self, name: str, doc_id: str, rev: str | None) -> dict[str, Any]: ...

    def put(self, name: str, document: dict[str, Any]) -> str:
        """The new revision. :raises Conflict:"""
        ...

    def history(self, name: str, doc_id: str) -> list[HistoryEntry]:
        """Branch by branch, the winning one first, each from its leaf back to where it joins an earlier
        one."""
        ...


class LocalStore:
    """The databases of a data directory, opened in this process."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def names(self) -> list[str]:
        return self._server.names()

    def create(self, name: str) -> None:
        self._server.create(name)

    def delete(self, name: str) -> None:
        self._server.delete(name)

    def facts(self, name: str) -> DatabaseFacts:
        info = self._server.open(name).info()
        return DatabaseFacts(
            name=info.name,
            documents=info.doc_count,
            deleted_documents=info.doc_del_count,
            update_seq=info.update_seq,
            file_bytes=info.file_bytes,
            active_bytes=info.active_bytes,
            external_bytes=info.external_bytes,
            compacting=info.compact_running,
        )

    def compact(self, name: str) -> None:
        self._server.open(name).compact().result()

    def get(self, name: str, doc_id: str, rev: str | None) -> dict[str, Any]:
        database = self._server.open(name)
        if rev is None:
            return database.get(doc_id)
        with database.snapshot() as snapshot:
            [found] = snapshot.open_revs(snapshot.document(doc_id), [Rev.parse(rev)])
        if isinstance(found, MissingRev):
            raise NotFound()
        shown: dict[str, Any] = loads(render(found))
        return shown

    def put(self, name: str, document: dict[str, Any]) -> str:
        config = self._server.config
        if name == users.database_name(config):
            deleted = bool(document.get("_deleted"))
            users.validate(document["_id"], document, deleted, None, {}, SYSTEM)
            document = dict(users.hash_password(document, config))
        return str(self._server.open(name).update([parse(document)])[0])

    def history(self, name: str, doc_id: str) -> list[HistoryEntry]:
        with self._server.open(name).snapshot() as snapshot:
            found = snapshot.document(doc_id)
            if found is None:
                raise NotFound()
            branches = [
                (leaf.info.deleted, [(str(entry.rev), entry.status) for entry in revs_info(found, leaf)])
                for leaf in found.leaves()
            ]
        return entries(branches)


def entries(branches: list[tuple[bool, list[tuple[str, str]]]]) -> list[HistoryEntry]:
    """The entries of branches given as (deleted, revisions and their status from the leaf back), the winning
    one first."""
    listed: dict[str, HistoryEntry] = {}
    for number, (deleted, path) in enumerate(branches):
        leaf = "winner" if number == 0 else "deleted" if deleted else "conflict"
        for at, (rev, status) in enumerate(path):
            if rev in listed:
                break
            parent = path[at + 1][0] if at + 1 < len(path) else None
            listed[rev] = HistoryEntry(rev, status, None if at else leaf, parent)
    return list(listed.values())


def require_data_directory(path: Path) -> None:
    """For commands that must not make a directory because its name was mistyped.

    :raises DataDirectoryError: there is none.
    """
    if not (path / CATALOG_DIRECTORY).exists():
        raise DataDirectoryError(f"{path} is no couchlite data directory; `couchlite serve` makes one")


@contextmanager
def local_store(directory: Path) -> Iterator[Store]:
    """The store of an existing data directory.

    :raises DataDirectoryError: there is none.
    """
    require_data_directory(directory)
    with Server(directory) as server:
        yield LocalStore(server)
