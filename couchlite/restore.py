"""Restoring databases from a backup (backup.py): each appears whole or not at all.

A restored database is not the one that was backed up: changes that came later are not in it. So it has a new
uuid, and with it a new tag on its update sequences: a peer or client that continues from a sequence of the
old one starts over, instead of missing what gets the same numbers again. Local documents are restored, so a
checkpoint that is known to both ends counts as far as its sequences mean anything.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any, BinaryIO

from .archive import CHECKSUMS, MANIFEST, ArchiveReader, DamagedBackup, Member
from .backup import BACKUP_VERSION, Progress
from .blobs import blob_path
from .catalog import Catalog, Entry, validate_name
from .compression import decompressed
from .database import BLOBS_DIRECTORY, STORE_DIRECTORY
from .disk import storage_failure
from .engine import Space
from .errors import BadRequest, DatabaseExists, NotFound
from .page_check import examine
from .records import FORMAT_VERSION
from .server import Server
from .storage import FIRST, names_of

_STORE = "store.mdb.zst"
_BLOB_NAME = re.compile("[0-9a-f]{64}")
_VOLATILE = "config\0volatile\0"
"""Settings that end with the server's run."""


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A database in a backup."""

    name: str
    folder: str
    props: dict[str, Any]
    start: int
    """Where its members begin and end in the file."""
    stop: int


@dataclass(slots=True)
class Restored:
    """What was restored: pairs of the name in the backup and the name it has now."""

    databases: list[tuple[str, str]] = field(default_factory=list)
    has_configuration: bool = False


class BackupFile:
    """A backup at `path`, which has been read and found whole.

    :raises DamagedBackup: it is none, or damaged. :raises BadRequest: another version made it.
    """

    def __init__(self, path: Path, file: BinaryIO, progress: Progress) -> None:
        self._archive = ArchiveReader(file)
        self.size = path.stat().st_size
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress("verifying", done, self.size)

        members = self._archive.verify(advance)
        self.manifest = _understood(self._archive.json(members[0]))
        self._refuse_others()
        by_name = {member.name: member for member in members}
        self._server = by_name.get("server.json")
        self.databases = list(self._databases(by_name))

    def _refuse_others(self) -> None:
        version, data_format = self.manifest["couchlite_backup"], self.manifest["data_format"]
        if version != BACKUP_VERSION or data_format != FORMAT_VERSION:
            raise BadRequest(
                f"this backup has version {version} with data of format {data_format}; "
                f"this couchlite reads version {BACKUP_VERSION} with format {FORMAT_VERSION}"
            )
        if self.manifest["byte_order"] != sys.byteorder:
            raise BadRequest("this backup was made on a machine with another byte order")

    def _databases(self, members: Mapping[str, Member]) -> list[BackedUp]:
        listed = self.manifest["databases"]
        stores = [members.get(f"{one['folder']}/{_STORE}") for one in listed]
        starts = [store.offset - BLOCKSIZE for store in stores if store is not None]
        if len(starts) < len(listed) or starts != sorted(set(starts)):
            raise DamagedBackup(f"{MANIFEST} names other databases than there are")
        return [
            BackedUp(one["name"], one["folder"], one["props"], start, stop)
            for one, start, stop in zip(listed, starts, [*starts, self.size][1:], strict=True)
        ]

    def server_facts(self) -> dict[str, Any] | None:
        """The identity and settings of a whole server; None in a backup of databases."""
        if self._server is None:
            return None
        facts: dict[str, Any] = self._archive.json(self._server)
        if not _has(facts, {"uuid": str, "settings": dict}) or not all(
            isinstance(value, str) for value in facts["settings"].values()
        ):
            raise DamagedBackup(f"{self._server.name} is damaged")
        return facts

    def extract(self, database: BackedUp, path: Path, advance: Callable[[int], None]) -> None:
        """Put a database's files into an empty folder.

        :raises OSError: :raises DamagedBackup: what was packed into it is no database.
        """
        store = path / STORE_DIRECTORY / FIRST / "data.mdb"
        store.parent.mkdir(parents=True)
        (path / BLOBS_DIRECTORY).mkdir()
        for member in self._archive.members(database.start, database.stop):
            folder, _, name = member.name.rpartition("/")
            if (folder, name) == (database.folder, _STORE):
                target = store
                chunks = decompressed(self._archive.chunks(member))
            elif folder == f"{database.folder}/blobs" and _BLOB_NAME.fullmatch(name):
                target = blob_path(path / BLOBS_DIRECTORY, bytes.fromhex(name))
                target.parent.mkdir(exist_ok=True)
                chunks = self._archive.chunks(member)
            elif member.name == CHECKSUMS:
                break
            else:
                raise DamagedBackup(f"{member.name!r} is no part of {database.name}")
            with target.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
            advance(member.size)
        # LMDB may end the process over a damaged file, so no server is to open one.
        if problems := examine(store, names_of(Space)).problems:
            raise DamagedBackup(f"the pages of {database.name} are damaged: {problems[0]}")


_LISTED = {"name": str, "folder": str, "props": dict}
_LISTED_IN_MANIFEST = {
    "couchlite_backup": int,
    "data_format": int,
    "byte_order": str,
    "made_at": str,
    "whole_server": bool,
    "databases": list,
}


def _understood(manifest: Any) -> dict[str, Any]:
    """:raises DamagedBackup: it says not what a manifest says."""
    if not _has(manifest, _LISTED_IN_MANIFEST) or not all(
        _has(one, _LISTED) for one in manifest["databases"]
    ):
        raise DamagedBackup(f"{MANIFEST} is damaged")
    found: dict[str, Any] = manifest
    return found


def _has(value: Any, members: Mapping[str, type]) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) for name, kind in members.items()
    )


def restore(
    backup: BackupFile,
    data_directory: Path,
    names: Sequence[str] | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Restored:
    """Restore the databases named, or all; `rename` gives some of them other names. Into a directory that
    does not exist yet, a whole server's backup also restores identity, configuration and secrets.

    :raises NotFound: the backup has no such database. :raises DatabaseExists: a name is taken; then nothing
        is restored. :raises CouchliteError: the file system refuses; databases that are through stay.
    """
    renamed = rename or {}
    chosen = _chosen(backup, names, renamed)
    done = Restored()
    is_new = not data_directory.exists() or not any(data_directory.iterdir())
    facts = backup.server_facts() if is_new and names is None else None
    if facts is not None:
        _adopt(data_directory, facts)
        done.has_configuration = True
    with Server(data_directory) as server:
        taken = sorted({new for _one, new in chosen} & set(server.names()))
        if taken:
            raise DatabaseExists(f"there is a database {taken[0]!r} already; restore it under another name")
        for one, new in chosen:
            server.restore(new, one.props, fill=partial(_fill, backup, one, progress))
            done.databases.append((one.name, new))
    return done


def _chosen(
    backup: BackupFile, names: Sequence[str] | None, renamed: Mapping[str, str]
) -> list[tuple[BackedUp, str]]:
    known = {one.name: one for one in backup.databases}
    for name in [*(names or ()), *renamed]:
        if name not in known:
            raise NotFound(f"the backup has no database {name!r}")
    chosen = [
        (known[name], renamed.get(name, name)) for name in (known if names is None else dict.fromkeys(names))
    ]
    news = [new for _one, new in chosen]
    for new in news:
        validate_name(new)
        if news.count(new) > 1:
            raise BadRequest(f"two databases would be called {new!r}")
    return chosen


def _adopt(data_directory: Path, facts: Mapping[str, Any]) -> None:
    catalog = Catalog(data_directory)
    settings = {key: value for key, value in facts["settings"].items() if not key.startswith(_VOLATILE)}
    catalog.adopt(facts["uuid"], settings)
    catalog.close()


def _fill(backup: BackupFile, one: BackedUp, progress: Progress | None, entry: Entry, path: Path) -> None:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(entry.name, done, one.stop - one.start)

    try:
        backup.extract(one, path, advance)
    except OSError as error:
        raise storage_failure(error) from error
    except ValueError as error:
        raise DamagedBackup(f"{one.name} can't be unpacked: {error}") from error


__all__ = ["BackupFile", "DamagedBackup", "Restored", "restore"]
